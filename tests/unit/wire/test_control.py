"""The control channel's messages, octet by octet."""

import pytest

from endocarp.errors import DecodeError, UsageError
from endocarp.wire.control import (
    MAX_MESSAGE,
    NOTE_LIMIT,
    ControlMessage,
    Failed,
    Kind,
    MemoryMode,
    Note,
    Pair,
    Progress,
    Ready,
    SandboxReport,
    Seccomp,
    Stop,
)
from endocarp.wire.text import TEXT_LIMIT

REPORT = SandboxReport(1000, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET, notes=(Note("lacks ä"),))
BODIES: dict[Kind, Progress | Ready | Failed | Pair | Stop] = {
    Kind.PROGRESS: Progress("rom: firmware verified"),
    Kind.READY: Ready(REPORT, "12345678"),
    Kind.FAILED: Failed("image.seal", "not sealed", "seal it"),
    Kind.PAIR: Pair(3),
    Kind.STOP: Stop(),
}


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_every_kind_of_message_survives_the_round_trip(kind: Kind) -> None:
    octets = ControlMessage(body=BODIES[kind]).encode()
    assert octets[0] == kind
    decoded = ControlMessage.decode(octets)
    assert (decoded.kind, decoded.body) == (kind, BODIES[kind])


def test_the_octets_of_each_message_are_as_declared() -> None:
    assert ControlMessage(body=Stop()).encode() == b"\x05"
    assert ControlMessage(body=Pair(3)).encode() == b"\x04\x03\0\0\0"
    assert ControlMessage(body=Progress("ab")).encode() == b"\x01\x02\0ab"
    assert ControlMessage(body=Failed("r", "no")).encode() == b"\x03\x01\0r\x02\0no\0\0"
    bare = SandboxReport(0x01020304, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET)
    assert ControlMessage(body=Ready(bare)).encode() == b"\x02\x04\x03\x02\x01\x01\x01\x07\x02\x02\0\0"


def test_a_message_without_a_body_says_stop() -> None:
    assert ControlMessage().encode() == b"\x05"


@pytest.mark.parametrize("number", [0, 6, 0xFF])
def test_a_kind_that_is_not_declared_is_refused(number: int) -> None:
    with pytest.raises(DecodeError, match=r"ControlMessage\.kind"):
        ControlMessage.decode(bytes([number]))


@pytest.mark.parametrize(
    ("octets", "where"),
    [
        (b"", "ControlMessage.kind"),
        (b"\x05\0", "ControlMessage"),
        (b"\x04\x03\0\0", "Pair.partition"),
        (b"\x01\x02\0a", "Progress.text"),
        (b"\x01\x01\0\xff", "Progress.text"),
        (b"\x01\x01\x04" + bytes(TEXT_LIMIT + 1), "Progress.text"),
        (b"\x02" + bytes(9) + b"\x11" + bytes(17 * 2) + b"\0", "SandboxReport.note"),
        (b"\x02" + bytes(9) + b"\x01\x01\x01" + bytes(NOTE_LIMIT + 1) + b"\0", "Note.text"),
        (b"\x02" + bytes(7) + b"\x01" + bytes(3), "SandboxReport.seccomp"),
        (b"\x02" + bytes(8) + b"\x03" + bytes(2), "SandboxReport.memory"),
        (b"\x02" + bytes(10) + b"\x41" + bytes(65), "Ready.pin"),
    ],
    ids=[
        "empty",
        "left over",
        "short",
        "cut text",
        "not UTF-8",
        "long text",
        "notes",
        "long note",
        "unknown seccomp",
        "unknown memory",
        "long pin",
    ],
)
def test_octets_that_break_a_rule_are_refused_by_the_name_of_the_field(octets: bytes, where: str) -> None:
    with pytest.raises(DecodeError) as raised:
        ControlMessage.decode(octets)
    assert raised.value.where.startswith(where)


def test_a_text_beyond_its_limit_has_no_place_on_the_wire() -> None:
    with pytest.raises(UsageError):
        ControlMessage(body=Progress("x" * (TEXT_LIMIT + 1))).encode()


def test_no_message_is_larger_than_the_largest() -> None:
    notes = tuple(Note("n" * NOTE_LIMIT) for _ in range(16))
    text = "t" * TEXT_LIMIT
    largest: list[Progress | Ready | Failed] = [
        Ready(SandboxReport(0, 0, 0, 0, Seccomp.OFF, MemoryMode.ORDINARY, notes=notes), "p" * 64),
        Failed(text, text, text),
        Progress(text),
    ]
    assert max(len(ControlMessage(body=body).encode()) for body in largest) <= MAX_MESSAGE
