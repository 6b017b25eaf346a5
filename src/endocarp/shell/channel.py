"""The control channel between a process and the one that started it (`wire.control`), with descriptors.

Also how a process is started: by exec of the interpreter on a sealed archive, with nothing inherited but the
descriptors that are named, standard error, and an environment that names the language alone.
"""

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from endocarp.errors import DecodeError, EndocarpError, Refused
from endocarp.line import timeval
from endocarp.shell.sandbox import Report
from endocarp.wire.control import (
    MAX_MESSAGE,
    NOTE_LIMIT,
    ControlMessage,
    Failed,
    MemoryMode,
    Note,
    Pair,
    Progress,
    Ready,
    SandboxReport,
    Stop,
)
from endocarp.wire.text import truncate

_FD_SIZE = struct.calcsize("i")
_LANGUAGE = {"LANG": "C.UTF-8"}


class Channel:
    """One end of a control channel. `receive` returns None where the other end is gone.

    `descriptors` says how many may come with one message; others are dropped by the kernel.
    """

    def __init__(self, end: socket.socket, *, descriptors: int = 1) -> None:
        self.socket = end
        self.descriptors = descriptors

    def send(self, body: Progress | Ready | Failed | Pair | Stop, fds: Sequence[int] = ()) -> None:
        """Send one message and copies of `fds`; raises OSError where the other end is gone."""
        message = ControlMessage(body=body).encode()
        socket.send_fds(self.socket, [message], list(fds))

    def receive(self) -> tuple[ControlMessage, list[int]] | None:
        """Wait for one message and the descriptors that came with it, which the caller owns.

        Raises DecodeError where it is no control message.
        """
        try:
            # Not socket.recv_fds: that of Python 3.11 forgets the flags, and programs that are started would inherit.
            room = socket.CMSG_LEN(_FD_SIZE * self.descriptors) if self.descriptors else 0
            data, beside, _, _ = self.socket.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return None
        if not data:
            return None
        fds = [fd for _, _, octets in beside for (fd,) in struct.iter_unpack("i", octets)]
        try:
            return ControlMessage.decode(data), fds
        except DecodeError:
            for fd in fds:
                os.close(fd)
            raise

    def hurry(self, seconds: float) -> None:
        """Wait no longer than this for room to send: where there is still none, `send` raises OSError."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(seconds))

    def end(self) -> None:
        """Let both ends hear that this is the end, whoever waits in `receive` now included."""
        with contextlib.suppress(OSError):  # it is so already
            self.socket.shutdown(socket.SHUT_RDWR)

    def progress(self, text: str) -> None:
        """Tell a step that was taken; that nobody listens is no reason to stop here."""
        try:
            self.send(Progress(truncate(text)))
        except OSError:
            return

    def ready(self, sandbox: SandboxReport, pin: str = "") -> None:
        """Tell that this process serves; that nobody listens any more is what the next `receive` tells."""
        try:
            self.send(Ready(sandbox, pin))
        except OSError:
            return

    def failed(self, error: EndocarpError) -> None:
        """Tell why this process gives up."""
        rule = error.rule if isinstance(error, Refused) else error.code
        try:
            self.send(Failed(rule, truncate(getattr(error, "reason", str(error))), truncate(error.advice())))
        except OSError:
            return


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a channel that keeps messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@dataclass
class Child:
    """A process that was started, and the parent's end of its control channel."""

    name: str
    process: "subprocess.Popen[bytes]"
    channel: Channel

    def kill(self) -> None:
        """End the process as nothing in it can prevent, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


def start(
    name: str,
    image: int,
    arguments: Sequence[str] = (),
    descriptors: Mapping[str, int] | None = None,
    *,
    errors: int | None = None,
) -> Child:
    """Start the archive in the sealed descriptor `image` as a process of its own.

    `descriptors` are inherited, each told to the process as `--NAME NUMBER`; the control channel comes as `--control`.
    What it writes on standard output nobody gets; `errors` is for standard error what it is for `subprocess.Popen`.
    """
    ours, theirs = pair()
    # A child has no descriptors to give.
    channel = Channel(ours, descriptors=0)
    given = {"control": theirs.fileno(), "image": image, **(descriptors or {})}
    with theirs:
        try:
            process = subprocess.Popen(
                [*interpreter(image), *_named(given), *arguments],
                pass_fds=list(given.values()),
                env=_LANGUAGE,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    return Child(name, process, channel)


def run(module: str, arguments: Sequence[str]) -> int:
    """Run an installed module of ours as a program, to its end; return its exit code."""
    return subprocess.run([sys.executable, "-I", "-m", module, *arguments], check=False).returncode


def replace(image: int, arguments: Sequence[str], descriptors: Mapping[str, int]) -> None:
    """Become the archive in the sealed descriptor `image`: same process, new program. Does not return."""
    for fd in (image, *descriptors.values()):
        os.set_inheritable(fd, True)
    words = [*interpreter(image), *_named({"image": image, **descriptors}), *arguments]
    os.execve(sys.executable, words, _LANGUAGE)  # noqa: S606


def _named(descriptors: Mapping[str, int]) -> list[str]:
    return [word for name, fd in descriptors.items() for word in (f"--{name}", str(fd))]


def interpreter(image: int) -> list[str]:
    """Return the words that run an archive: isolated, and without what an environment runs at each start by itself.

    The first word behind the archive is where packages are imported from: see `shell.archive`.
    """
    packages = [path for path in sys.path if path.endswith(("/site-packages", "/dist-packages"))]
    return [sys.executable, "-I", "-S", f"/proc/self/fd/{image}", ":".join(packages)]


def sandbox_report(report: Report, memory: MemoryMode) -> SandboxReport:
    """Put what a process got of its sandbox into its wire form."""
    return SandboxReport(
        os.getuid(),
        int(report.no_new_privileges),
        int(report.not_dumpable),
        report.landlock_abi,
        report.seccomp,
        memory,
        notes=tuple(Note(truncate(text, NOTE_LIMIT)) for text in report.notes),
    )
