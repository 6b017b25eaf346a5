"""Connections to the doors of a real server, for tests that send what they like."""

import socket
import struct
from pathlib import Path

from tests.simulators.application import READ_WRITE

from endocarp.hsm.token_general import HANDSHAKE
from endocarp.wire.cryptoki import CKU
from endocarp.wire.p11 import encode_frame
from endocarp.wire.p11_calls import Call, decode_reply, encode_request


def knock(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Connect to a door."""
    connection = socket.socket(socket.AF_UNIX, kind)
    connection.settimeout(30.0)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def take(connection: socket.socket, size: int) -> bytes:
    """Take that many octets."""
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        assert piece, f"closed after {len(found)} octets"
        found += piece
    return found


class Token:
    """One application at the p11-kit door, of the newest dialect, that sends calls as it likes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.dialect = 2
        connection.sendall(bytes((self.dialect,)))
        assert take(connection, 1) == bytes((self.dialect,))

    def send(self, body: bytes) -> bytes:
        """Send the body of a call; return that of its reply."""
        self.connection.sendall(encode_frame(1, body))
        code, options, size = struct.unpack(">III", take(self.connection, 12))
        assert (code, options) == (1, 0)
        return take(self.connection, size)

    def call(self, call: Call, *values: object) -> "tuple[object, ...] | int":
        """Make a call as it should be; return the values of its reply, or the CK_RV."""
        return decode_reply(call, self.send(encode_request(call, values, self.dialect)), self.dialect)

    def refusal(self, body: bytes) -> int:
        """Send the body of a call that is to be refused; return the CK_RV."""
        found = decode_reply(Call.C_Initialize, self.send(body), self.dialect)
        assert isinstance(found, int)
        return found

    def start(self, pin: str) -> int:
        """Initialize, open a session, log in; return the session."""
        assert self.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()
        found = self.call(Call.C_OpenSession, 0, READ_WRITE)
        assert isinstance(found, tuple)
        (session,) = found
        assert isinstance(session, int)
        assert self.call(Call.C_Login, session, CKU.USER, pin.encode()) == ()
        return session
