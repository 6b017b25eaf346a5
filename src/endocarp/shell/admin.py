"""The admin socket: answers how the box stands, and collects evidence. Both ends of it."""

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, assert_never, overload

from endocarp.errors import DecodeError, DeviceError, EndocarpError, Refused
from endocarp.shell.serve import in_thread, listen
from endocarp.wire.admin import (
    MAX_FRAME,
    AdminReply,
    AdminRequest,
    Evidence,
    Failure,
    FrameHeader,
    GetEvidence,
    GetStatus,
    Status,
)
from endocarp.wire.text import truncate

_PATIENCE = 30.0
"""Seconds to wait for the next octets of a question, and for its answer to be taken."""
_ANSWER_TIME = 60.0
"""Seconds that a whole boot and then the longest answer, evidence, take at most on a machine that is busy."""
_START = "start the server with: endocarp up; if it runs elsewhere, name its directory with --state"
_ANSWERS = {GetStatus: Status, GetEvidence: Evidence}


class Answerer(Protocol):
    """Who knows the answers."""

    def status(self, now: float) -> Status:
        """Return how the box stands; `now` is the clock of `time.monotonic`."""

    def evidence(self, nonce: bytes) -> bytes:
        """Collect evidence over a nonce of 32 octets."""


def serve_admin(listener: socket.socket, box: Answerer, done: Callable[[], None] = lambda: None) -> None:
    """Answer on the admin socket from now on, in threads of its own; `done` is called once nobody listens any more."""
    in_thread("admin", lambda: listen(listener, "admin", lambda connection: _serve(connection, box)), done)


def _serve(connection: socket.socket, box: Answerer) -> None:
    connection.settimeout(_PATIENCE)
    with contextlib.suppress(DecodeError):  # who breaks the framing is not answered
        while (message := receive_frame(connection)) is not None:
            send_frame(connection, AdminReply(body=_answer(message, box)).encode())


def _answer(message: bytes, box: Answerer) -> Status | Evidence | Failure:
    try:
        match body := AdminRequest.decode(message).body:
            case GetStatus():
                return box.status(time.monotonic())
            case GetEvidence(nonce):
                return Evidence(box.evidence(nonce))
            case _:
                assert_never(body)
    except Refused as refused:
        return Failure(refused.rule, truncate(refused.reason), truncate(refused.advice()))
    except EndocarpError as error:
        return Failure(error.code, truncate(str(error)), truncate(error.advice()))


def receive_frame(connection: socket.socket) -> bytes | None:
    """Return one message, or None where the other side has closed between two of them.

    Raises DecodeError where a frame is too long or cut short.
    """
    header = _receive(connection, FrameHeader.fixed_size())
    if not header:
        return None
    length = FrameHeader.decode(header).length
    if length > MAX_FRAME:
        raise DecodeError("FrameHeader.length", f"{length} octets, at most {MAX_FRAME}")
    message = _receive(connection, length)
    if len(message) != length:
        raise DecodeError("FrameHeader.length", f"{len(message)} of {length} octets")
    return message


def _receive(connection: socket.socket, size: int) -> bytes:
    """Return `size` octets, fewer only where the stream ends before."""
    found = bytearray()
    while len(found) < size and (piece := connection.recv(size - len(found))):
        found += piece
    return bytes(found)


def send_frame(connection: socket.socket, message: bytes) -> None:
    """Send one message."""
    connection.sendall(FrameHeader(len(message)).encode() + message)


@overload
def ask(path: Path, request: GetStatus) -> Status: ...
@overload
def ask(path: Path, request: GetEvidence) -> Evidence: ...
def ask(path: Path, request: GetStatus | GetEvidence) -> Status | Evidence:
    """Ask the box whose admin socket lies at `path`.

    Raises DeviceError where nobody answers, Refused where the box could not, DecodeError where its answer makes no
    sense.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_TIME)
            connection.connect(str(path))
            send_frame(connection, AdminRequest(body=request).encode())
            message = receive_frame(connection)
    except TimeoutError:
        reason = f"nothing comes from {path} for {_ANSWER_TIME:.0f} s: the server is starting or busy"
        raise DeviceError(errno.ETIMEDOUT, reason, "try again in a moment") from None
    except OSError as error:
        raise DeviceError(error.errno or 0, f"nobody answers at {path}: {error.strerror}", _START) from None
    if message is None:
        raise DeviceError(0, f"nobody answers at {path}: the connection was closed", _START)
    body = AdminReply.decode(message).body
    if isinstance(body, Failure):
        raise Refused(body.rule, body.reason, body.hint)
    if not isinstance(body, _ANSWERS[type(request)]):
        raise DecodeError("AdminReply.body", f"{type(body).__name__} for {type(request).__name__}")
    return body
