"""A box as its admin socket shows it: stands as it is told to, and answers with a simulated device's evidence."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.simulators.device import DeviceSimulator
from tests.simulators.threads import all_threads_end

from endocarp.errors import EndocarpError
from endocarp.shell.admin import serve_admin
from endocarp.shell.config import Config, State
from endocarp.shell.sockets import listen_at
from endocarp.wire.admin import (
    Measurement,
    PartitionStatus,
    ProcessState,
    ProcessStatus,
    Status,
)
from endocarp.wire.control import MemoryMode, Note, SandboxReport, Seccomp

STATUS = Status(
    "0.1.0",
    "MODEL-test",
    "/srv/[x]/endocarp",
    boots=2,
    processes=(
        ProcessStatus(
            "box",
            ProcessState.SERVING,
            41,
            0,
            3_725_000,
            20_480,
            bytes(48),
            SandboxReport(0, 1, 1, 0, Seccomp.OFF, MemoryMode.ORDINARY),
        ),
        ProcessStatus(
            "vault-0",
            ProcessState.SERVING,
            42,
            3,
            1500,
            30_720,
            b"\x0f" * 48,
            SandboxReport(0, 0, 0, 7, Seccomp.FILTER, MemoryMode.SECRET, notes=(Note("no [bold] step"),)),
        ),
    ),
    partitions=(PartitionStatus(0, "/srv/[x]/native.sock", "/srv/[x]/p11-kit.sock"),),
    measurements=(Measurement(1, "vault", b"\xab" * 48),),
)


@dataclass
class BoxSimulator:
    """Answers questions; with `fault` where evidence is asked for, if there is one."""

    standing: Status = STATUS
    fault: EndocarpError | None = None

    def status(self, now: float) -> Status:
        """Return how it stands."""
        assert now > 0
        return self.standing

    def evidence(self, nonce: bytes) -> bytes:
        """Return evidence that a relying party believes who knows the simulated device."""
        if self.fault is not None:
            raise self.fault
        return DeviceSimulator(nonce=nonce).issue()


@contextlib.contextmanager
def serving(path: Path, box: BoxSimulator) -> Iterator[None]:
    """Serve the admin socket of a box at `path`; see that all of it ends."""
    with all_threads_end(), listen_at(path, socket.SOCK_STREAM) as listener:
        serve_admin(listener, box)
        yield
        listener.shutdown(socket.SHUT_RDWR)


@dataclass
class Served:
    """A server's directory with an admin socket that answers, and the folder of who relies on it."""

    state: State
    config: Config
    box: BoxSimulator

    @property
    def options(self) -> list[str]:
        """The options by which commands find both."""
        return ["--state", str(self.state.root), "--config", str(self.config.root)]
