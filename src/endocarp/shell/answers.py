"""What the box answers on its admin socket: how it stands, and evidence, made from what runs right now."""

import importlib.metadata
import socket
import threading
from pathlib import Path
from typing import Protocol

from endocarp.box.evidence import Call, EvidenceCollector, ReportCall
from endocarp.box.plan import PARTITIONS
from endocarp.box.statements import statements
from endocarp.errors import Refused
from endocarp.shell.inventory import inventory
from endocarp.wire.admin import Measurement, PartitionStatus, ProcessState, ProcessStatus, Status
from endocarp.wire.control import SandboxReport
