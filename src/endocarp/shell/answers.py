"""What the box answers on its admin socket: how it stands, and evidence, made from what runs right now."""

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
from endocarp.errors import DecodeError, Refused
from endocarp.shell.children import Running
from endocarp.shell.machine import Machine
from endocarp.shell.mailbox import Mailbox
from endocarp.version import VERSION
from endocarp.wire.admin import Measurement, PartitionStatus, ProcessState, ProcessStatus, Status
from endocarp.wire.control import ROT_GONE, MemoryMode, SandboxReport, Seccomp
from endocarp.wire.evidence import Component, StashEntry
from endocarp.wire.text import truncate

REPORT_TIME = 20.0
"""Seconds that the report of a partition may take: the front, which may have been taken over, passes it on."""
_NOTHING_YET = SandboxReport(0, 0, 0, 0, Seccomp.OFF, MemoryMode.ORDINARY)
_AGAIN = "try again in a moment"
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


class BoxView(Protocol):
    """What is read of the box. Its thread may replace any of it at any moment, never change it in place."""

    machine: Machine
    mailbox: Mailbox | None
    boots: int
    complete: bool
    """Whether every process serves, as far as the box knows."""

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
    """Answers about a box; `own` is what the box itself got of its sandbox, `components` what it found beneath itself."""

    def __init__(self, box: BoxView, own: SandboxReport, components: Sequence[Component]) -> None:
        self.box = box
        self.own = own
        self.components = components
        self.started = time.monotonic()

    def status(self, now: float) -> Status:
        """Return how the box stands; `now` is the clock of `time.monotonic`."""
        box = self.box
        return Status(
            VERSION,
            box.machine.model,
            truncate(str(box.machine.state.root)),
            box.boots,
            processes=(self._own(now), *[self._process(one, now) for one in box.running.values()]),
            partitions=tuple(self._partition(number) for number in PARTITIONS),
            measurements=tuple(Measurement(one.fw_id, one.name, one.digest) for one in box.stash_log),
        )

    def _own(self, now: float) -> ProcessStatus:
        machine = self.box.machine
        uptime, pid = int((now - self.started) * 1000), os.getpid()
        image = machine.images["box"].digest
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
            one.image.digest,
            one.sandbox or _NOTHING_YET,
        )

    def _partition(self, number: int) -> PartitionStatus:
        state = self.box.machine.state
        doors = (state.native_socket(number), state.p11_kit_socket(number))
        return PartitionStatus(number, *(truncate(str(door)) for door in doors))

    def evidence(self, nonce: bytes) -> bytes:
        """Collect evidence over a nonce of 32 octets.

        Raises Refused `process.starting` where a process is being started, `process.rot` where the root of trust goes
        away meanwhile, DeviceError where a vault does not answer.
        """
        box = self.box
        # The same processes answer to the end: what one life of them said never meets the log of another.
        running, mailbox = box.running, box.mailbox
        serving = {one.name: one.sandbox for one in running.values() if one.sandbox is not None}
        if mailbox is None or not box.complete or len(serving) < len(running):
            raise _starting()
        collector = EvidenceCollector(
            nonce,
            stash_log=box.stash_log,
            partitions=PARTITIONS,
            inventory=self.components,
            statements=statements({"box": self.own, **serving}),
        )
        asking = collector.requests()
        call = next(asking)
        while True:
            try:
                call = asking.send(self._answer(call, mailbox, running))
            except StopIteration as done:
                if box.running is not running:
                    raise _starting() from None
                return bytes(done.value)

    def _answer(self, call: Call | ReportCall, mailbox: Mailbox, running: Mapping[str, Running]) -> bytes:
        if isinstance(call, ReportCall):
            door = self.box.machine.state.native_socket(call.partition)
            with connect(f"unix:{door}", timeout=REPORT_TIME) as partition:
                return partition.report(call.nonce).encode()
        try:
            return mailbox.call(call.request)
        except (OSError, DecodeError):
            # It is gone, or it hangs: its mailbox is closed now, so for the box, too, it has to be gone.
            if "rot" in running:
                running["rot"].child.channel.end()
            raise Refused(ROT_GONE, "the root of trust is being reset", _AGAIN) from None


def _starting() -> Refused:
    return Refused("process.starting", "a process of the server is being started", _AGAIN)


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB, 0 where it is gone."""
    try:
        found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0
