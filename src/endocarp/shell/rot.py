"""The runtime of the root of trust as a process: the mailbox of box, the mailbox socket, the custody channels."""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Mapping

from endocarp.errors import Refused
from endocarp.line import Line
from endocarp.rot.mailbox import MailboxConnection
from endocarp.rot.runtime import Runtime
from endocarp.shell.archive import read_sealed
from endocarp.shell.channel import Channel, sandbox_report
from endocarp.shell.process import PIECE, run_process, wait_for_stop
from endocarp.shell.sandbox import ROT, enter
from endocarp.shell.serve import Conversation, attend, in_thread, listen
from endocarp.shell.stage import StageMemory, read_table
from endocarp.wire.custody import MESSAGE_LIMIT
from endocarp.wire.mailbox import PL0_CALLER, PL1_CALLER


class BoxLine(Line):
    """The line to box: with a piece of the stream may come a descriptor, of sealed memory or of a channel.

    Sealed memory is given to `core` at once, memory that can still change is dropped: the command that it came with
    then finds none. A channel waits in `channel` for the command that it belongs to.
    """

    def __init__(self, connection: socket.socket, core: MailboxConnection) -> None:
        super().__init__(connection, PIECE)
        self._connection = connection
        self._core = core
        self.channel: socket.socket | None = None

    def receive(self, patience: float | None = None) -> bytes | None:
        """Return a piece of the stream, as `Line` does."""
        if patience is not None and not self._arrives(patience):
            return None
        data, descriptors, _, _ = socket.recv_fds(self._connection, PIECE, 1)
        for descriptor in descriptors:
            self._take(descriptor)
        return data

    def _take(self, descriptor: int) -> None:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            if self.channel is not None:
                self.channel.close()
            self.channel = socket.socket(fileno=descriptor)
            self._core.attach_channel()
            return
        with contextlib.suppress(Refused):
            self._core.attach(memoryview(read_sealed(descriptor)))
        os.close(descriptor)


class RootOfTrust:
    """The runtime and everybody who talks to it; one lock covers every decision."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.lock = threading.Lock()

    def serve_box(self, connection: socket.socket) -> None:
        """Answer box, which has privilege level 0, until it is gone or breaks the framing."""
        core = MailboxConnection(self.runtime, PL0_CALLER)
        line = BoxLine(connection, core)
        with connection:
            Conversation(line, core, self.lock, attach=lambda message: self._attach(line, message)).run()

    def serve_caller(self, connection: socket.socket) -> None:
        """Answer a caller of the mailbox socket, who has privilege level 1."""
        Conversation(Line(connection, PIECE), MailboxConnection(self.runtime, PL1_CALLER), self.lock).run()

    def _attach(self, line: BoxLine, message: bytes) -> None:
        """Make the channel that came beside the command the custody channel that the runtime has granted."""
        channel, line.channel = line.channel, None
        assert channel is not None  # without one the runtime grants nothing
        core = self.runtime.custody(message)
        attend(
            channel,
            "custody",
            lambda channel: Conversation(Line(channel, MESSAGE_LIMIT + 1), core, self.lock).run(),
        )


def main() -> None:
    """Run the last stage; arguments as `shell.stage.jump` gives them."""
    run_process(_serve)


def _serve(arguments: Mapping[str, str], control: Channel) -> None:
    memory = StageMemory(int(arguments["vault"]))
    service = RootOfTrust(Runtime(read_table(arguments), memory.vault))
    box = socket.socket(fileno=int(arguments["pl0"]))
    mailbox = socket.socket(fileno=int(arguments["mailbox"]))
    os.close(memory.descriptor)
    report = enter(ROT, required="require-sandbox" in arguments)
    # Without one of these two, this is no root of trust any more: its end is what box hears.
    in_thread("box", lambda: service.serve_box(box), control.end)
    in_thread("mailbox", lambda: listen(mailbox, "mailbox", service.serve_caller), control.end)
    control.ready(sandbox_report(report, memory.mode))
    wait_for_stop(control)
    with service.lock:
        service.runtime.shut_down()
