"""The front as a process: listens for applications, parses what strangers send, holds no key.

A native connection is read as far as its Hello and handed on to the vault, descriptor and all. A p11-kit
connection is spoken to by the token core here, which asks the vault over a connection of its own.
"""

import os
import socket
import sys
import threading
from collections.abc import Mapping
from functools import partial

from endocarp.errors import DecodeError
from endocarp.hsm.token import TokenConnection
from endocarp.line import Line, peer_of, timeval
from endocarp.shell.channel import Channel, pair, sandbox_report
from endocarp.shell.process import HELLO_LIMIT, PIECE, run_process, wait_for_stop
from endocarp.shell.sandbox import FRONT, enter
from endocarp.shell.serve import Conversation, in_thread, listen
from endocarp.wire import hsm
from endocarp.wire.control import MemoryMode
from endocarp.wire.hsm import Hello, Status, Welcome
from endocarp.wire.p11 import FRAME_LEAST, choose_dialect, decode_frame_end, split_frame

HELLO_TIME = 5.0
"""Seconds that a client has for its Hello."""
PAIRING_TIME = 10.0
"""Seconds that a client waits for a vault that is just being started again, or takes others first."""
WAKE_LIMIT = 4096
"""The most octets that one sleep waits for: well below what a socket holds."""


class ApplicationLine(Line):
    """The line to an application: it gives whole frames of p11-kit's RPC, where `Line` gives what there is.

    The application's client library writes each frame in three pieces; who wakes for each spends more on that than on
    the frame. So it sleeps until there may be a whole one.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, PIECE)
        self._connection = connection
        self._receive_piece = super().receive
        self._ahead = b""
        self._wakes_at = 1
        self._wake_at(FRAME_LEAST)

    def receive(self, patience: float | None = None) -> bytes | None:
        """Return one frame, empty where the application has closed, None where nothing came in time.

        What can be no frame is given as it came. `patience` is for each piece of a frame.
        """
        data = self._ahead or self._receive_piece(patience)
        self._ahead = b""
        try:
            if not data or decode_frame_end(data) == len(data):
                return data
            return self._put_together(data, patience)
        except DecodeError:
            return data

    def _put_together(self, first: bytes, patience: float | None) -> bytes | None:
        """Wait for the rest of a frame; keep what has come of the next one, or of this where the rest does not come."""
        found = bytearray(first)
        while (lacking := decode_frame_end(found) - len(found)) > 0:
            self._wake_at(min(lacking, WAKE_LIMIT))
            piece = self._receive_piece(patience)
            if not piece:
                self._ahead = b"" if piece == b"" else bytes(found)
                return piece
            found += piece  # a look takes whatever is there
        self._wake_at(FRAME_LEAST)
        frame, self._ahead = split_frame(found)
        return frame

    def _wake_at(self, octets: int) -> None:
        """Sleep until so many octets are there."""
        if octets != self._wakes_at:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, octets)
            self._wakes_at = octets


class Front:
    """The doors of the partitions, and the way from there to their vaults."""

    def __init__(self) -> None:
        self._vaults: dict[int, socket.socket] = {}
        self._paired = threading.Condition()

    def pair(self, partition: int, channel: socket.socket) -> None:
        """Send what comes for a partition through this channel from now on."""
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(PAIRING_TIME))
        with self._paired:
            before = self._vaults.pop(partition, None)
            self._vaults[partition] = channel
            self._paired.notify_all()
        if before is not None:
            before.close()

    def serve_native(self, partition: int, connection: socket.socket) -> None:
        """Read the Hello of a native client and hand its connection on."""
        if not is_own_user(connection):
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(HELLO_TIME))
        try:
            hello = Hello.decode(connection.recv(HELLO_LIMIT))
        except (DecodeError, BlockingIOError):  # the latter is what SO_RCVTIMEO ends by
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(0))
        self._hand_on(partition, hello, connection)

    def serve_token(self, partition: int, connection: socket.socket) -> None:
        """Speak PKCS#11 with one application."""
        if not is_own_user(connection):
            return
        offered = connection.recv(1)
        if not offered:
            return
        dialect = choose_dialect(offered[0])
        ours, theirs = pair()
        with ours:
            with theirs:
                self._hand_on(partition, Hello(hsm.MAGIC, hsm.VERSION), theirs)
            vault = Line(ours, hsm.MESSAGE_LIMIT + 1)
            welcome = vault.receive()
            if not welcome or Welcome.decode(welcome).status is not Status.OK:
                return
            connection.sendall(bytes((dialect,)))
            line, core = ApplicationLine(connection), TokenConnection(partition, dialect)
            Conversation(line, core, ask=partial(_ask, vault)).run()

    def _hand_on(self, partition: int, hello: Hello, connection: socket.socket) -> None:
        """Give a connection to the vault of a partition. Raises ConnectionError where there is none, or it takes none."""
        with self._paired:
            if not self._paired.wait_for(lambda: self._is_paired(partition), PAIRING_TIME):
                raise ConnectionError(f"partition {partition} has no vault")
            # A copy, to be waited for without the lock: who holds that keeps other partitions, and box, waiting.
            channel = self._vaults[partition].dup()
        with channel:
            try:
                socket.send_fds(channel, [hello.encode()], [connection.fileno()])
            except BlockingIOError:  # what SO_SNDTIMEO ends by
                reason = f"the vault of partition {partition} takes no connections"
                print(reason, file=sys.stderr, flush=True)  # noqa: T201
                raise ConnectionError(reason) from None

    def _is_paired(self, partition: int) -> bool:
        """Tell whether the channel to a vault is there and its other end has not gone."""
        channel = self._vaults.get(partition)
        if channel is None:
            return False
        try:
            return channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


def _ask(vault: Line, request: bytes) -> bytes:
    """Ask the vault on this application's own connection; empty where the vault is gone."""
    try:
        vault.send(request)
        return vault.receive() or b""
    except OSError:
        return b""


def is_own_user(connection: socket.socket) -> bool:
    """Tell whether the other side runs as the user of this server, or as root."""
    _, user = peer_of(connection)
    return user in (0, os.getuid())


def main() -> None:
    """Run the front; arguments as `shell.channel.start` gives them: the listening sockets `--native-N`, `--p11-kit-N`."""
    run_process(_serve)


def _serve(arguments: Mapping[str, str], control: Channel) -> None:
    front = Front()
    serve = {"native": front.serve_native, "p11-kit": front.serve_token}
    report = enter(FRONT, required="require-sandbox" in arguments)
    for name, descriptor in arguments.items():
        door, _, number = name.rpartition("-")
        if door in serve:
            listener = socket.socket(fileno=int(descriptor))
            # A front with a door that nobody opens is none: its end is what box hears.
            in_thread(name, partial(listen, listener, name, partial(serve[door], int(number))), control.end)
    control.ready(sandbox_report(report, MemoryMode.ORDINARY))
    wait_for_stop(control, front.pair)
