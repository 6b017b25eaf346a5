"""What the box answers on its admin socket: how it stands, and evidence, made from what runs right now."""

import functools
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from endocarp.box.evidence import Call, EvidenceCollector, ReportCall
from endocarp.box.plan import PARTITIONS
from endocarp.box.statements import statements
from endocarp.client import connect
from endocarp.crypto.digest import sha384
from endocarp.errors import DecodeError, Refused
from endocarp.shell.archive import read_sealed
from endocarp.shell.channel import Child, cut
from endocarp.shell.inventory import inventory
from endocarp.shell.machine import Machine
from endocarp.shell.mailbox import Mailbox
from endocarp.version import VERSION
from endocarp.wire.admin import Measurement, PartitionStatus, ProcessState, ProcessStatus, Status
from endocarp.wire.control import ROT_GONE, SandboxReport
from endocarp.wire.evidence import StashEntry

REPORT_TIME = 20.0
"""Seconds that the report of a partition may take: the front, which may have been taken over, passes it on."""
_NOTHING_YET = SandboxReport(0, 0, 0, 0, 0, 0)
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
_components = functools.cache(inventory)


class Running(Protocol):
    """One process of the box, as `shell.box` knows it."""

    name: str
    image: bytes
    child: Child
    started: float
    sandbox: SandboxReport | None


class Box(Protocol):
    """What is read of the box. Its thread may replace any of it at any moment, never change it in place."""

    machine: Machine
    mailbox: Mailbox | None
    boots: int
    booted: bool
    """Whether the boot under way, or the last one, has come to its end."""

    @property
    def running(self) -> Mapping[str, Running]:
        """The processes by their names."""

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each was started again."""

    @property
    def stash_log(self) -> Sequence[StashEntry]:
        """What was measured in this boot, in order."""


class Answers:
    """Answers about a box; `own` is what the box itself got of its sandbox."""

    def __init__(self, box: Box, own: SandboxReport) -> None:
        self.box = box
        self.own = own
        self.started = time.monotonic()

    def status(self, now: float) -> Status:
        """Return how the box stands; `now` is the clock of `time.monotonic`."""
        box = self.box
        return Status(
            VERSION,
            box.machine.model,
            cut(str(box.machine.state.root)),
            box.boots,
            processes=(self._own(now), *[self._process(one, now) for one in list(box.running.values())]),
            partitions=tuple(self._partition(number) for number in PARTITIONS),
            measurements=tuple(Measurement(one.fw_id, one.name, one.digest) for one in list(box.stash_log)),
        )

    def _own(self, now: float) -> ProcessStatus:
        machine = self.box.machine
        uptime, pid = int((now - self.started) * 1000), os.getpid()
        image = sha384(read_sealed(machine.images["box"]))
        return ProcessStatus("box", ProcessState.SERVING, pid, 0, uptime, resident(pid), image, self.own)

    def _process(self, one: Running, now: float) -> ProcessStatus:
        pid = one.child.process.pid
        return ProcessStatus(
            one.name,
            ProcessState.SERVING if one.sandbox else ProcessState.STARTING,
            pid,
            self.box.restarts.get(one.name, 0),
            int((now - one.started) * 1000),
            resident(pid),
            one.image,
            one.sandbox or _NOTHING_YET,
        )

    def _partition(self, number: int) -> PartitionStatus:
        state = self.box.machine.state
        doors = (state.native_socket(number), state.p11_kit_socket(number))
        return PartitionStatus(number, *(cut(str(door)) for door in doors))

    def evidence(self, nonce: bytes) -> bytes:
        """Collect evidence over a nonce of 32 octets.

        Raises Refused `process.rot` while the server is being reset, DeviceError where a vault does not answer.
        """
        box = self.box
        # One root of trust answers to the end: what one boot said never meets the log of another.
        mailbox = box.mailbox
        if mailbox is None or not box.booted:
            raise _being_reset()
        sandboxes = {"box": self.own} | {
            one.name: one.sandbox for one in list(box.running.values()) if one.sandbox is not None
        }
        collector = EvidenceCollector(
            nonce,
            stash_log=box.stash_log,
            partitions=PARTITIONS,
            inventory=_components(),
            statements=statements(sandboxes),
        )
        asking = collector.requests()
        call = next(asking)
        while True:
            try:
                call = asking.send(self._answer(call, mailbox))
            except StopIteration as done:
                return bytes(done.value)

    def _answer(self, call: Call | ReportCall, mailbox: Mailbox) -> bytes:
        if isinstance(call, ReportCall):
            door = self.box.machine.state.native_socket(call.partition)
            with connect(f"unix:{door}", timeout=REPORT_TIME) as partition:
                return partition.report(call.nonce).encode()
        try:
            return mailbox.call(call.request)
        except (OSError, DecodeError):  # it is gone, which the box hears just now
            raise _being_reset() from None


def _being_reset() -> Refused:
    return Refused(ROT_GONE, "the root of trust is being reset", "try again in a moment")


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB, 0 where it is gone."""
    try:
        found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0
