"""A connected socket that is waited for in the quickest way there is: both ends of every conversation have one."""

import math
import os
import select
import socket
import struct
from collections.abc import Callable

LOOKS = 120
"""How often a line looks for a message before it goes to sleep: 1 us each, so longer than it takes to wake a core."""
REST = 64
"""After looking in vain again and again, the most messages in a row that are waited for asleep at once."""

_TIMEVAL = struct.Struct("ll")
_PEER = struct.Struct("iII")
"""struct ucred (unix(7)): process, user, group."""


class Line:
    """A connected socket: of one that keeps messages apart, whole messages; of a stream, what there is.

    `receive` looks many times before it sleeps, since to wake a sleeper takes longer than many an answer,
    most of all on a core that has gone to sleep too. Between two looks it yields the processor: the other side may
    wait for this very one. Looking in vain makes it rest, longer each time in a row, so it costs little where messages
    are rare. `limit` is the most octets that one call returns.
    """

    def __init__(self, connection: socket.socket, limit: int) -> None:
        self._socket = connection
        self._limit = limit
        self._looks = 0 if _shares_its_processor(connection) else LOOKS
        self._rest = 0
        self._skip = 0
        self.send: Callable[[bytes], None] = connection.sendall
        """Send all of a message; raises OSError where the other side is gone."""

    def receive(self, patience: float | None = None) -> bytes | None:
        """Return what arrived, nothing where the other side has closed, None where nothing came in time.

        `patience` is how many seconds to wait, None for ever.
        """
        if self._skip:
            self._skip -= 1
        elif self._looks:
            for _ in range(self._looks):
                try:
                    data = self._socket.recv(self._limit, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    os.sched_yield()
                    continue
                self._rest = 0
                return data
            self._rest = self._skip = min(2 * self._rest + 1, REST)
        if patience is not None and not self._arrives(patience):
            return None
        return self._socket.recv(self._limit)

    def _arrives(self, patience: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(patience * 1000))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def timeval(seconds: float) -> bytes:
    """Return the struct timeval that SO_RCVTIMEO and SO_SNDTIMEO take: rounded up, since 0 is for ever (socket(7))."""
    return _TIMEVAL.pack(*divmod(math.ceil(seconds * 1_000_000), 1_000_000))


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the process and the user at the other end of a Unix socket, as they were when it was connected."""
    process, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return process, user


def _shares_its_processor(connection: socket.socket) -> bool:
    """Tell whether both sides are bound to one and the same processor: then looking keeps the other from answering."""
    own = os.sched_getaffinity(0)
    if len(own) > 1:
        return False
    try:
        peer, _ = peer_of(connection)
        return peer != 0 and os.sched_getaffinity(peer) == own
    except OSError:
        return False
