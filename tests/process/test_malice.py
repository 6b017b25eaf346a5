"""Strangers send what no client sends: each is answered or closed as the protocol says, and nobody else notices."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from tests.process.server import Bystander, Server
from tests.simulators.application import READ_WRITE, template
from tests.simulators.strangers import Token, knock, take

from endocarp.hsm.token_general import HANDSHAKE
from endocarp.wire import admin, hsm
from endocarp.wire.cryptoki import CKA, CKR
from endocarp.wire.hsm import Hello, Operation, Status, Welcome
from endocarp.wire.mailbox import (
    FRAME_HEADER_SIZE,
    Command,
    FrameHeader,
    MailboxError,
    Version,
    frame,
    with_checksum,
)
from endocarp.wire.p11 import Attribute, AttributeRoom, encode_frame
from endocarp.wire.p11_calls import Call, encode_request
from endocarp.wire.suites import Scheme, Suite

MOST = 0xFFFFFFFF
WRAP_TEMPLATE = 0x40000211
"""CKA_WRAP_TEMPLATE: an attribute whose value is a template (PKCS#11 3.1, 4.10)."""
HELLO = Hello(hsm.MAGIC, hsm.VERSION)


@pytest.fixture(scope="module")
def bystander(running: Server) -> Iterator[Bystander]:
    """An application that signs all through these tests."""
    with Bystander(running) as bystander:
        yield bystander


@pytest.fixture(autouse=True)
def undisturbed(running: Server, bystander: Bystander) -> Iterator[None]:
    """See after each test that the same processes run, that the bystander signs, and that nothing was complained of."""
    pids, seen = running.pids(), len(running.lines)
    yield
    bystander.check()
    assert running.pids() == pids
    assert running.lines[seen:] == []


def is_closed(connection: socket.socket) -> bool:
    """Tell whether the other side closes without another word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# --- the p11-kit door -------------------------------------------------------------------------------------------


@pytest.fixture
def token(running: Server) -> Iterator[Token]:
    with knock(running.home.state.p11_kit_socket(0)) as connection:
        yield Token(connection)


def lie(body: int, options: int = 0) -> bytes:
    """Return the beginning of a frame whose header tells these sizes."""
    return struct.pack(">III", 1, options, body) + bytes(8)


@pytest.mark.parametrize(
    "header", [lie(MOST), lie(0, MOST), lie(MOST, MOST), lie(1 << 20), lie(1 << 19, 1 << 19)]
)
def test_a_frame_that_is_longer_than_any_may_be_ends_the_connection(token: Token, header: bytes) -> None:
    token.connection.sendall(header)
    assert is_closed(token.connection)


@pytest.mark.parametrize(
    "body",
    [
        struct.pack(">II", 1, MOST) + b"ayyay",
        struct.pack(">II", 1, 4) + b"ayyay",
        struct.pack(">II", 1, 5) + b"yyyyy",
        struct.pack(">II", 1, 5) + b"\0\xff%ns",
        struct.pack(">II", 1, 0),
    ],
)
def test_a_call_with_a_wrong_signature_is_answered_by_an_error_and_the_next_one_carried_out(
    token: Token, body: bytes
) -> None:
    assert token.refusal(body) == CKR.DEVICE_ERROR
    assert token.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\0\0\0\1\0\0\0"])
@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_frame_too_short_for_any_call_ends_its_connection_and_no_other(
    running: Server, token: Token, body: bytes, pause: float
) -> None:
    time.sleep(pause)  # asleep, the front wakes for as much as the shortest frame has
    token.connection.sendall(encode_frame(1, body) + bytes(8))
    assert is_closed(token.connection)
    with knock(running.home.state.p11_kit_socket(0)) as another:
        assert Token(another).call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()


@pytest.mark.parametrize("number", [0, 90, 1 << 31, MOST])
def test_a_call_of_no_known_number_is_answered_by_an_error(token: Token, number: int) -> None:
    assert token.refusal(struct.pack(">II", number, 0)) == CKR.FUNCTION_NOT_SUPPORTED
    assert token.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()


def test_counts_of_four_thousand_million_are_answered_by_an_error(token: Token, running: Server) -> None:
    session = token.start(running.home.pin)
    most = struct.pack(">I", MOST)
    find = encode_request(Call.C_FindObjectsInit, (session, []), 2)
    assert token.refusal(find[:-4] + most) == CKR.DEVICE_ERROR
    digest = encode_request(Call.C_DigestUpdate, (session, b"abcd"), 2)
    assert token.refusal(digest[:-8] + struct.pack(">I", MOST - 1) + b"abcd") == CKR.DEVICE_ERROR
    attributes = encode_request(Call.C_GetAttributeValue, (session, 1, [AttributeRoom(CKA.LABEL, 8)]), 2)
    count = attributes.rindex(struct.pack(">I", 1) + struct.pack(">I", CKA.LABEL))
    assert token.refusal(attributes[:count] + most + attributes[count + 4 :]) == CKR.DEVICE_ERROR
    random = encode_request(Call.C_GenerateRandom, (session, 16), 2)
    assert token.refusal(random[:-4] + struct.pack(">I", MOST - 1)) == CKR.ARGUMENTS_BAD
    assert token.call(Call.C_Logout, session) == ()


def test_templates_within_templates_without_end_are_answered_by_an_error(
    token: Token, running: Server
) -> None:
    session = token.start(running.home.pin)
    nested: Attribute = Attribute(CKA.LABEL, b"deep")
    for _ in range(6):
        nested = Attribute(WRAP_TEMPLATE, (nested,))
    body = encode_request(Call.C_FindObjectsInit, (session, [nested]), 2)
    one = encode_request(Call.C_FindObjectsInit, (session, [Attribute(WRAP_TEMPLATE, (nested,))]), 2)
    layer_size = len(one) - len(body)
    head = encode_request(Call.C_FindObjectsInit, (session, []), 2)[:-4]
    layer = one[len(head) : len(head) + layer_size]
    assert token.refusal(head + layer * 10_000) == CKR.DEVICE_ERROR
    assert token.call(Call.C_Logout, session) == ()


@pytest.mark.parametrize("number", [0, 7, (1 << 63), (1 << 64) - 1])
def test_sessions_objects_and_slots_out_of_range_are_answered_by_their_errors(
    token: Token, running: Server, number: int
) -> None:
    session = token.start(running.home.pin)
    assert number != session
    assert token.call(Call.C_Logout, number) == CKR.SESSION_HANDLE_INVALID
    assert token.call(Call.C_CloseSession, number) == CKR.SESSION_HANDLE_INVALID
    assert (
        token.call(Call.C_DestroyObject, session, number + 50 & ((1 << 64) - 1)) == CKR.OBJECT_HANDLE_INVALID
    )
    if number:
        assert token.call(Call.C_GetSlotInfo, number) == CKR.SLOT_ID_INVALID
        assert token.call(Call.C_OpenSession, number, READ_WRITE) == CKR.SLOT_ID_INVALID
    assert token.call(Call.C_Logout, session) == ()


def test_no_private_key_is_told_to_who_is_logged_in(token: Token, running: Server) -> None:
    session = token.start(running.home.pin)
    assert token.call(Call.C_FindObjectsInit, session, template(CLASS=hsm.ObjectClass.PRIVATE_KEY)) == ()
    found = token.call(Call.C_FindObjects, session, 1)
    assert isinstance(found, tuple)
    [handle] = cast("tuple[list[int]]", found)[0]
    rooms = [AttributeRoom(attribute, 4096) for attribute in (CKA.VALUE, CKA.LABEL)]
    read = token.call(Call.C_GetAttributeValue, session, handle, rooms)
    (value, label), result = cast("tuple[list[Attribute], int]", read)
    assert result == CKR.ATTRIBUTE_SENSITIVE
    assert value.value is None
    assert label.value


def test_a_dialect_that_is_newer_than_ours_is_answered_with_ours(running: Server) -> None:
    with knock(running.home.state.p11_kit_socket(0)) as connection:
        connection.sendall(b"\xff")
        assert take(connection, 1) == b"\x02"


def test_calls_before_initialize_and_after_finalize_are_refused(token: Token) -> None:
    assert token.call(Call.C_GetInfo) == CKR.CRYPTOKI_NOT_INITIALIZED
    assert token.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()
    assert token.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == CKR.CRYPTOKI_ALREADY_INITIALIZED
    assert token.call(Call.C_Finalize) == ()
    assert is_closed(token.connection)


# --- the native door --------------------------------------------------------------------------------------------


@contextmanager
def native(running: Server) -> Iterator[socket.socket]:
    with knock(running.home.state.native_socket(0), socket.SOCK_SEQPACKET) as connection:
        yield connection


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        Hello(hsm.MAGIC, hsm.VERSION).encode()[:-1],
        b"XXXX" + HELLO.encode()[4:],
        HELLO.encode() + b"\0",
        bytes(200_000),
    ],
)
def test_who_greets_wrongly_at_the_native_door_is_closed_without_a_word(
    running: Server, hello: bytes
) -> None:
    with native(running) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        connection.sendall(hello)
        assert is_closed(connection)


def test_another_version_is_told_ours(running: Server) -> None:
    with native(running) as connection:
        connection.sendall(HELLO.encode()[:4] + struct.pack("<H", 77) + HELLO.encode()[6:])
        welcome = Welcome.decode(connection.recv(64))
        assert (welcome.status, welcome.version) == (Status.VERSION_UNSUPPORTED, hsm.VERSION)
        assert is_closed(connection)


@pytest.fixture
def connection(running: Server) -> Iterator[socket.socket]:
    """A connection to the vault, after the greeting, without login."""
    with native(running) as connection:
        connection.sendall(HELLO.encode())
        assert Welcome.decode(connection.recv(64)).status is Status.OK
        yield connection


def status_of(connection: socket.socket, message: bytes) -> Status:
    """Send a message; return the status of the reply, whose tag must be the message's."""
    connection.sendall(message)
    reply = hsm.Reply.decode(connection.recv(1 << 17))
    assert reply.tag == struct.unpack_from("<I", message, 4)[0]
    return reply.status


@pytest.mark.parametrize("number", [0, max(Operation) + 1, 0xFFFF])
def test_an_operation_of_no_known_number_is_answered_by_its_error(
    connection: socket.socket, number: int
) -> None:
    assert status_of(connection, struct.pack("<HHI", number, 0, 9)) is Status.OPERATION_UNKNOWN
    assert status_of(connection, hsm.encode_message(Operation.PING, 10, b"")) is Status.OK


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.PING, b"\0"),
        (Operation.LOGIN, b""),
        (Operation.LOGIN, b"\xff" + b"1" * 8),
        (Operation.FIND, b"\xff" * 300),
        (Operation.RANDOM, b"\xff" * 3),
        (Operation.REPORT, bytes(31)),
        (Operation.GET_OBJECT, b"\xff" * 60_000),
    ],
)
def test_a_body_of_another_form_is_answered_by_its_error(
    connection: socket.socket, operation: Operation, body: bytes
) -> None:
    assert status_of(connection, hsm.encode_message(operation, 5, body)) is Status.MESSAGE_INVALID
    assert status_of(connection, hsm.encode_message(Operation.PING, 6, b"")) is Status.OK


def test_more_random_octets_than_fit_are_refused(connection: socket.socket) -> None:
    message = hsm.encode_message(Operation.RANDOM, 1, hsm.Random(MOST).encode())
    assert status_of(connection, message) is Status.DATA_INVALID


@pytest.mark.parametrize("message", [b"\0", b"\x01\0\0\0\0\0\0"])
def test_a_message_that_is_no_message_ends_the_connection(connection: socket.socket, message: bytes) -> None:
    connection.sendall(message)
    assert is_closed(connection)


@pytest.mark.parametrize("size", [hsm.MESSAGE_LIMIT + 1, 150_000])
def test_a_message_that_is_longer_than_any_may_be_is_not_carried_out(
    connection: socket.socket, size: int
) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    message = hsm.encode_message(Operation.RANDOM, 3, hsm.Random(16).encode())
    assert status_of(connection, message.ljust(size, b"\0")) is Status.MESSAGE_INVALID
    assert status_of(connection, message) is Status.OK


def test_nothing_of_keys_is_done_or_told_without_login(connection: socket.socket) -> None:
    key = hsm.Template(hsm.Policy.PRIVATE | hsm.Policy.SIGN, "stranger")
    refused: dict[hsm.Request[Any], Status] = {
        hsm.Generate(Suite.P256, key, hsm.Template(hsm.Policy.VERIFY)): Status.NOT_LOGGED_IN,
        hsm.Destroy(1): Status.NOT_LOGGED_IN,
        hsm.Sign(1, Scheme.ECDSA_SHA256, b"data"): Status.NOT_LOGGED_IN,
        hsm.GetObject(1): Status.NO_SUCH_OBJECT,
    }
    for request, status in refused.items():
        assert status_of(connection, hsm.encode_message(request.OPERATION, 1, request.encode())) is status


# --- the mailbox ------------------------------------------------------------------------------------------------


@pytest.fixture
def mailbox(running: Server) -> Iterator[socket.socket]:
    with knock(running.home.state.mailbox_socket) as connection:
        yield connection


def answer(mailbox: socket.socket, message: bytes) -> int:
    """Send a frame; return the status of the reply."""
    mailbox.sendall(message)
    header = FrameHeader.decode(take(mailbox, FRAME_HEADER_SIZE))
    assert bool(header.length) == (header.code == 0)
    take(mailbox, header.length)
    return header.code


def is_answered(mailbox: socket.socket) -> bool:
    return answer(mailbox, frame(Version.COMMAND, with_checksum(Version()))) == 0


@pytest.mark.parametrize("command", [0, 0x12345678, MOST])
def test_an_unknown_command_is_answered_by_its_number(mailbox: socket.socket, command: int) -> None:
    unchecked = answer(mailbox, frame(command, b"\1\0\0\0"))
    assert unchecked == MailboxError.RUNTIME_INVALID_CHECKSUM
    checked = struct.pack("<I", -sum(struct.pack("<I", command)) & MOST)
    assert answer(mailbox, frame(command, checked)) == MailboxError.RUNTIME_UNIMPLEMENTED_COMMAND
    assert is_answered(mailbox)


def test_a_bad_checksum_is_answered_by_its_number(mailbox: socket.socket) -> None:
    octets = bytearray(with_checksum(Version()))
    octets[0] ^= 1
    assert answer(mailbox, frame(Version.COMMAND, bytes(octets))) == MailboxError.RUNTIME_INVALID_CHECKSUM
    assert is_answered(mailbox)


@pytest.mark.parametrize("octets", [b"", b"\0\0\0"])
def test_a_frame_without_room_for_a_checksum_is_answered_by_its_number(
    mailbox: socket.socket, octets: bytes
) -> None:
    assert answer(mailbox, frame(Version.COMMAND, octets)) == MailboxError.RUNTIME_INVALID_CHECKSUM
    assert is_answered(mailbox)


@pytest.mark.parametrize("length", [1 << 20, MOST])
@pytest.mark.parametrize("command", [Version.COMMAND, Command.FIRMWARE_LOAD, 0x12345678])
def test_a_frame_that_is_longer_than_its_command_allows_ends_the_connection(
    mailbox: socket.socket, command: int, length: int
) -> None:
    mailbox.sendall(struct.pack("<II", command, length))
    assert is_closed(mailbox)


def test_what_is_for_the_box_alone_is_refused_to_others_by_its_number(mailbox: socket.socket) -> None:
    """Level 1 callers may not set the manifest, hand in certificates or attach custody channels."""
    for code in (Command.SET_AUTH_MANIFEST, Command.ATTACH_CUSTODY, Command.POPULATE_IDEV_ECC384_CERT):
        octets = bytes(8)
        total = sum(struct.pack("<I", code)) + sum(octets)
        found = answer(mailbox, frame(code, struct.pack("<I", -total & MOST) + octets))
        assert found == MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL
    assert is_answered(mailbox)


# --- the admin socket -------------------------------------------------------------------------------------------


@pytest.fixture
def office(running: Server) -> Iterator[socket.socket]:
    with knock(running.home.state.admin_socket) as connection:
        yield connection


@pytest.mark.parametrize(
    "octets", [struct.pack("<I", MOST), struct.pack("<I", (1 << 20) + 1), b"GET / HTTP/1.1\r\n"]
)
def test_a_frame_that_is_too_long_ends_the_connection_to_the_admin_socket(
    office: socket.socket, octets: bytes
) -> None:
    office.sendall(octets)
    assert is_closed(office)


@pytest.mark.parametrize(
    "message", [b"", b"\0", b"\x07", b"\x81", b"\x02" + bytes(31), b"\x02" + bytes(33), bytes(60_000)]
)
def test_nonsense_on_the_admin_socket_is_answered_by_a_failure(office: socket.socket, message: bytes) -> None:
    office.sendall(struct.pack("<I", len(message)) + message)
    (length,) = struct.unpack("<I", take(office, 4))
    found = admin.AdminReply.decode(take(office, length)).body
    assert isinstance(found, admin.Failure)
    assert found.rule == "decode"
    office.sendall(b"\x01\0\0\0\x01")
    (length,) = struct.unpack("<I", take(office, 4))
    assert isinstance(admin.AdminReply.decode(take(office, length)).body, admin.Status)
