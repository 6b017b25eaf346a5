"""The caller's side of a mailbox, over a blocking stream socket: one request at a time."""

import socket
import threading
from collections.abc import Sequence
from typing import Any

from endocarp.errors import DeviceError
from endocarp.wire.mailbox import MailboxClient, Reply, Request, decode_reply

ANSWER_TIME = 30.0
"""Seconds that the other side may be silent in the middle of a request: ROM verifies four signatures in less than one."""


class Mailbox:
    """A mailbox at the other end of `connection`; callers in several threads take turns.

    Raises DeviceError where the mailbox answers an error, DecodeError where it speaks nonsense or is gone,
    OSError where the socket fails or nothing comes for ANSWER_TIME seconds. After one of the last two the connection is
    closed: what might still arrive belongs to no later request.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(ANSWER_TIME)
        self._socket = connection
        self._turn = threading.Lock()

    def execute(self, request: Request[Reply], fds: Sequence[int] = ()) -> Reply:
        """Carry out `request`, with copies of `fds` beside it, and return its reply."""
        return decode_reply(request, self.call(request, fds))

    def call(self, request: Request[Any], fds: Sequence[int] = ()) -> bytes:
        """Like `execute`, but return the octets of the reply with its headers."""
        client = MailboxClient()
        message = client.request(request)
        with self._turn:
            try:
                sent = socket.send_fds(self._socket, [message], list(fds)) if fds else 0
                self._socket.sendall(message[sent:])
                while (octets := client.receive(self._socket.recv(1 << 16))) is None:
                    pass
            except DeviceError:
                raise
            except BaseException:
                self.close()
                raise
            return octets

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
