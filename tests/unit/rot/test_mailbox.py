"""The framing core: pieces, limits, clocks, and what travels beside a frame."""

from dataclasses import dataclass, field

import pytest

from endocarp.core import Attach, Close, Event, Note
from endocarp.errors import EndocarpError, PeerError, Refused, UsageError
from endocarp.rot.dispatch import Call
from endocarp.rot.mailbox import FRAME_TIME, MailboxConnection, number_of
from endocarp.rot.refusals import ImageRefused, ManifestRefused
from endocarp.wire.checks import Check, ManifestCheck
from endocarp.wire.mailbox import PL0_CALLER, PL1_CALLER, Command, MailboxError, frame

LIMIT = 100


@dataclass
class Echo:
    """Answers a command by its own octets; refuses command 13; hands over on command 7."""

    calls: list[Call] = field(default_factory=list)

    def limit(self, command: int) -> int:
        return LIMIT

    def execute(self, call: Call) -> bytes:
        self.calls.append(call)
        if call.command == 13:
            raise PeerError(0x1300, "unlucky")
        if call.command == 7:
            call.events.append(Attach(b"custody"))
        return call.octets[::-1]


@dataclass
class Refusing:
    """Refuses every command."""

    error: EndocarpError

    def limit(self, command: int) -> int:
        return LIMIT

    def execute(self, call: Call) -> bytes:
        raise self.error


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def connection(echo: Echo) -> MailboxConnection:
    return MailboxConnection(echo, 5)


def test_a_command_is_answered_and_knows_its_caller(connection: MailboxConnection, echo: Echo) -> None:
    assert connection.receive(frame(1, b"abc"), 0.0) == []
    assert connection.outgoing() == [frame(0, b"cba")]
    assert connection.outgoing() == []
    (call,) = echo.calls
    assert (call.caller, call.command, call.octets, call.attached) == (5, 1, b"abc", None)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_frames_arrive_in_pieces_of_any_size(connection: MailboxConnection, size: int) -> None:
    stream = frame(1, b"abc") + frame(2, b"") + frame(3, b"x" * LIMIT)
    for at in range(0, len(stream), size):
        assert connection.receive(stream[at : at + size], 0.0) == []
    assert connection.outgoing() == [frame(0, b"cba"), frame(0, b""), frame(0, b"x" * LIMIT)]


def test_a_refused_command_is_answered_by_its_number_and_the_next_one_works(
    connection: MailboxConnection,
) -> None:
    connection.receive(frame(13, b"") + frame(1, b"ab"), 0.0)
    assert connection.outgoing() == [frame(0x1300, b""), frame(0, b"ba")]


def test_the_reason_of_a_refusal_is_told_where_box_has_asked(echo: Echo) -> None:
    (note,) = MailboxConnection(echo, PL0_CALLER).receive(frame(13, b""), 0.0)
    assert note == Note("0xd was refused: unlucky (0x1300)")
    refusing = Refusing(ManifestRefused(ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_MISMATCH, 1, 2))
    (note,) = MailboxConnection(refusing, PL0_CALLER).receive(frame(Command.SET_AUTH_MANIFEST, b""), 0.0)
    assert isinstance(note, Note)
    assert note.text.startswith(
        "SET_AUTH_MANIFEST was refused: SoC manifest: preamble size mismatch: found 1, expected 2 [RUNTIME_"
    )
    assert note.text.endswith("build it again with --rebuild")
    assert MailboxConnection(echo, PL1_CALLER).receive(frame(13, b""), 0.0) == []


def test_a_frame_beyond_its_limit_closes_the_connection(connection: MailboxConnection, echo: Echo) -> None:
    stream = frame(1, b"abc") + (2).to_bytes(4, "little") + (LIMIT + 1).to_bytes(4, "little")
    (event,) = connection.receive(stream, 0.0)
    assert isinstance(event, Close)
    assert "101 octets, at most 100" in event.reason
    assert connection.outgoing() == [frame(0, b"cba")]
    assert len(echo.calls) == 1


def test_the_largest_length_there_is_closes_the_connection(connection: MailboxConnection) -> None:
    (event,) = connection.receive(b"\1\0\0\0\xff\xff\xff\xff", 0.0)
    assert isinstance(event, Close)


def test_the_end_of_the_stream_closes_the_connection(connection: MailboxConnection) -> None:
    connection.receive(frame(1, b"abc")[:5], 0.0)
    (event,) = connection.receive(b"", 1.0)
    assert isinstance(event, Close)


def test_what_a_command_asks_of_the_shell_comes_out_as_events(connection: MailboxConnection) -> None:
    events: list[Event] = connection.receive(frame(7, b""), 0.0)
    assert events == [Attach(b"custody")]


def test_attached_memory_belongs_to_the_next_frame_alone(connection: MailboxConnection, echo: Echo) -> None:
    image = memoryview(b"image")
    connection.attach(image)
    connection.receive(frame(1, b"") + frame(2, b""), 0.0)
    assert [call.attached for call in echo.calls] == [image, None]


def test_a_channel_belongs_to_the_next_frame_alone(connection: MailboxConnection, echo: Echo) -> None:
    connection.attach_channel()
    connection.receive(frame(1, b"") + frame(2, b""), 0.0)
    assert [call.channel for call in echo.calls] == [True, False]


def test_attached_memory_waits_for_the_rest_of_its_frame(connection: MailboxConnection, echo: Echo) -> None:
    whole = frame(1, b"abc")
    image = memoryview(b"image")
    connection.attach(image)
    connection.receive(whole[:4], 0.0)
    connection.receive(whole[4:], 1.0)
    assert echo.calls[0].attached is image


def test_an_idle_connection_may_stay_for_ever(connection: MailboxConnection) -> None:
    assert connection.due() is None
    assert connection.expire(1e9) == []


def test_a_frame_must_be_complete_in_time(connection: MailboxConnection) -> None:
    whole = frame(1, b"abc")
    connection.receive(whole[:1], 10.0)
    connection.receive(whole[1:4], 20.0)
    assert connection.due() == 10.0 + FRAME_TIME
    assert connection.expire(10.0 + FRAME_TIME - 0.1) == []
    (event,) = connection.expire(10.0 + FRAME_TIME)
    assert isinstance(event, Close)


def test_each_frame_has_its_own_clock(connection: MailboxConnection) -> None:
    whole = frame(1, b"abc")
    connection.receive(whole[:4], 10.0)
    connection.receive(whole[4:] + whole[:1], 30.0)
    assert connection.due() == 30.0 + FRAME_TIME
    connection.receive(whole[1:], 31.0)
    assert connection.due() is None


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (PeerError(5, "x"), 5),
        (ImageRefused(Check.TOC_DIGEST_MISMATCH), Check.TOC_DIGEST_MISMATCH),
        (
            ManifestRefused(ManifestCheck.RUNTIME_INVALID_AUTH_MANIFEST_MARKER),
            ManifestCheck.RUNTIME_INVALID_AUTH_MANIFEST_MARKER,
        ),
        (Refused("kv.empty", "x"), MailboxError.RUNTIME_INTERNAL),
        (UsageError("x"), MailboxError.RUNTIME_INTERNAL),
    ],
)
def test_every_error_has_a_number_to_answer(error: PeerError, number: int) -> None:
    assert number_of(error) == number
