"""The admin socket, both ends of it, over real sockets."""

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.simulators.box import STATUS, BoxSimulator, serving
from tests.simulators.kernel import no_descriptor_leaks

from endocarp.errors import DecodeError, DeviceError, EndocarpError, Refused
from endocarp.shell import admin
from endocarp.shell.admin import ask, receive_frame, send_frame
from endocarp.shell.sockets import listen_at
from endocarp.wire.admin import (
    MAX_FRAME,
    AdminReply,
    AdminRequest,
    Evidence,
    Failure,
    FrameHeader,
    GetEvidence,
    GetStatus,
)
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import Evidence as Attestation
from endocarp.wire.text import TEXT_LIMIT

NONCE = bytes(range(32))


@pytest.fixture
def box() -> BoxSimulator:
    return BoxSimulator()


@pytest.fixture
def door(box: BoxSimulator, place: Path) -> Iterator[Path]:
    """Return the path of an admin socket that is served."""
    with no_descriptor_leaks(), serving(place / "admin.sock", box):
        yield place / "admin.sock"


@contextlib.contextmanager
def connected(door: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(door))
        yield connection


def test_the_box_is_asked_how_it_stands(door: Path) -> None:
    assert ask(door, GetStatus()) == STATUS


def test_the_box_is_asked_for_evidence(door: Path) -> None:
    evidence = ask(door, GetEvidence(NONCE)).octets
    assert Attestation.decode(SignedMessage.decode(evidence).payload).nonce == NONCE


def test_one_connection_takes_one_question_after_another(door: Path) -> None:
    with connected(door) as connection:
        for _ in range(3):
            send_frame(connection, AdminRequest(body=GetEvidence(NONCE)).encode())
            found = receive_frame(connection)
            assert found is not None
            assert isinstance(AdminReply.decode(found).body, Evidence)


@pytest.mark.parametrize(
    ("fault", "rule", "hint"),
    [
        (Refused("process.rot", "is being reset", "try again"), "process.rot", "try again"),
        (DeviceError(0x6F, "no vault", "look"), "0x6f", "look"),
    ],
    ids=["refused", "another"],
)
def test_what_the_box_refuses_comes_out_by_its_rule(
    door: Path, box: BoxSimulator, fault: EndocarpError, rule: str, hint: str
) -> None:
    box.fault = fault
    with pytest.raises(Refused) as raised:
        ask(door, GetEvidence(NONCE))
    assert (raised.value.rule, raised.value.advice()) == (rule, hint)
    assert ask(door, GetStatus()) == STATUS


def test_a_reason_of_any_length_gets_through(door: Path, box: BoxSimulator) -> None:
    box.fault = Refused("rule", "r" * (1 << 17), "h" * (1 << 17))
    with pytest.raises(Refused) as raised:
        ask(door, GetEvidence(NONCE))
    assert (raised.value.reason, raised.value.hint) == ("r" * TEXT_LIMIT, "h" * TEXT_LIMIT)


@pytest.mark.parametrize(
    "octets", [b"", b"\x09", b"\x01more", b"\x02" + bytes(31)], ids=["none", "kind", "long", "short"]
)
def test_a_question_that_is_none_is_answered_by_a_failure_and_the_next_one_as_usual(
    door: Path, octets: bytes
) -> None:
    with connected(door) as connection:
        send_frame(connection, octets)
        found = receive_frame(connection)
        assert found is not None
        body = AdminReply.decode(found).body
        assert isinstance(body, Failure)
        assert body.rule == "decode"
        send_frame(connection, AdminRequest(body=GetStatus()).encode())
        assert receive_frame(connection)


@pytest.mark.parametrize(
    "octets",
    [FrameHeader(MAX_FRAME + 1).encode(), FrameHeader(9).encode() + b"cut", b"\x01"],
    ids=["too long", "cut short", "half a header"],
)
def test_who_breaks_the_framing_is_not_answered_and_no_fault_of_ours(
    door: Path, octets: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with connected(door) as connection:
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert ask(door, GetStatus()) == STATUS
    assert capfd.readouterr().err == ""


def test_who_says_nothing_for_long_loses_the_connection(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_PATIENCE", 0.05)
    with connected(door) as connection:
        connection.sendall(b"\0\0")
        assert connection.recv(1) == b""


# --- the side that asks ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(place: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Listen as a box that answers one question like this."""
    with listen_at(place / "other.sock", socket.SOCK_STREAM) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                receive_frame(connection)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield place / "other.sock"
        thread.join(10)


def test_where_nobody_listens_the_advice_is_to_start_the_server(place: Path) -> None:
    path = place / "nothing.sock"
    with (
        no_descriptor_leaks(),
        pytest.raises(DeviceError, match=f"nobody answers at {path}: No such file") as raised,
    ):
        ask(path, GetStatus())
    assert "start the server with: endocarp up" in raised.value.advice()
    assert raised.value.number == errno.ENOENT


def test_a_box_that_says_nothing_is_told_with_advice(place: Path) -> None:
    with (
        answering(place, lambda connection: None) as door,
        pytest.raises(DeviceError, match="the connection was closed") as raised,
    ):
        ask(door, GetStatus())
    assert raised.value.advice()


def test_a_box_that_dies_in_the_middle_of_its_answer_is_told(place: Path) -> None:
    with (
        answering(place, lambda connection: connection.sendall(FrameHeader(100).encode() + b"half")) as door,
        pytest.raises(DecodeError, match="4 of 100 octets"),
    ):
        ask(door, GetStatus())


def test_a_box_that_is_busy_is_not_waited_for_for_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_ANSWER_TIME", 0.05)
    with (
        listen_at(place / "other.sock", socket.SOCK_STREAM),  # as in a boot, nobody accepts
        no_descriptor_leaks(),
        pytest.raises(DeviceError, match="the server is starting or busy") as raised,
    ):
        ask(place / "other.sock", GetStatus())
    assert (raised.value.number, raised.value.advice()) == (errno.ETIMEDOUT, "try again in a moment")


def test_the_end_of_the_admin_socket_is_told(place: Path, box: BoxSimulator) -> None:
    told = threading.Event()
    with listen_at(place / "admin.sock", socket.SOCK_STREAM) as listener:
        admin.serve_admin(listener, box, told.set)
        assert not told.is_set()
        listener.shutdown(socket.SHUT_RDWR)
        assert told.wait(10)


def test_an_answer_to_another_question_is_none(place: Path) -> None:
    evidence = AdminReply(body=Evidence(b"evidence")).encode()
    with (
        answering(place, lambda connection: send_frame(connection, evidence)) as door,
        pytest.raises(DecodeError, match="Evidence for GetStatus"),
    ):
        ask(door, GetStatus())
