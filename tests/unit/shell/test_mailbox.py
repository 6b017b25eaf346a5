"""The caller's side of a mailbox, against a simulated mailbox at the other end of a real socket."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from endocarp.errors import DecodeError, DeviceError, UsageError
from endocarp.shell import mailbox as shell
from endocarp.shell.mailbox import Mailbox
from endocarp.wire.mailbox import (
    FIRMWARE_LIMIT,
    FRAME_HEADER_SIZE,
    Capabilities,
    CapabilitiesReply,
    FirmwareLoad,
    FrameHeader,
    Version,
    VersionReply,
    frame,
    with_headers,
)

VERSION = VersionReply(0x46495053, (2, 1, 2), b"Caliptra RTM")
Answer = Callable[[int, bytes], list[bytes]]


class MailboxSimulator:
    """Answers each request with the pieces that `answer` returns for it; keeps what came, and descriptors beside it."""

    def __init__(self, connection: socket.socket, answer: Answer) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.beside: list[bytes] = []
        self._connection = connection
        self._answer = answer
        self._received = bytearray()
        self.thread = threading.Thread(target=self._serve, name="mailbox", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._connection:
            while self._read(FRAME_HEADER_SIZE):
                header = FrameHeader.decode(bytes(self._received[:FRAME_HEADER_SIZE]))
                if not self._read(FRAME_HEADER_SIZE + header.length):
                    return
                body = bytes(self._received[FRAME_HEADER_SIZE : FRAME_HEADER_SIZE + header.length])
                del self._received[: FRAME_HEADER_SIZE + header.length]
                self.requests.append((header.code, body))
                for piece in self._answer(header.code, body):
                    if not piece:
                        return
                    self._connection.sendall(piece)

    def _read(self, size: int) -> bool:
        while len(self._received) < size:
            piece, fds, _, _ = socket.recv_fds(self._connection, 1 << 16, 4)
            for fd in fds:
                self.beside.append(os.pread(fd, 64, 0))
                os.close(fd)
            if not piece:
                return False
            self._received += piece
        return True


def _version(_code: int, _body: bytes) -> list[bytes]:
    return [frame(0, with_headers(VERSION))]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of a stream; the mailbox at the second one ends when the first is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        with ours:
            yield ours, theirs
        for thread in threading.enumerate():
            if thread.name == "mailbox":
                thread.join(10)


Ends = tuple[socket.socket, socket.socket]


def test_a_request_is_carried_out_and_its_reply_has_the_type_that_belongs_to_it(ends: Ends) -> None:
    MailboxSimulator(ends[1], _version)
    mailbox = Mailbox(ends[0])
    for _ in range(3):
        assert mailbox.execute(Version()) == VERSION


def test_a_reply_may_come_in_any_pieces(ends: Ends) -> None:
    whole = frame(0, with_headers(VERSION))
    MailboxSimulator(ends[1], lambda _code, _body: [whole[at : at + 1] for at in range(len(whole))])
    assert Mailbox(ends[0]).execute(Version()) == VERSION


def test_the_octets_of_a_reply_can_be_had_with_their_headers(ends: Ends) -> None:
    MailboxSimulator(ends[1], _version)
    assert Mailbox(ends[0]).call(Version()) == with_headers(VERSION)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_descriptors_go_beside_the_request_and_stay_ours(ends: Ends, count: int) -> None:
    simulator = MailboxSimulator(ends[1], _version)
    fd = os.memfd_create("image")
    os.write(fd, b"image")
    assert Mailbox(ends[0]).execute(Version(), [fd] * count) == VERSION
    assert simulator.beside == [b"image"] * count
    os.close(fd)


@pytest.mark.parametrize("beside", [False, True])
def test_the_largest_request_goes_through_with_and_without_a_descriptor(ends: Ends, beside: bool) -> None:
    simulator = MailboxSimulator(ends[1], lambda _code, _body: [frame(0, bytes(8))])
    bundle = os.urandom(FIRMWARE_LIMIT)
    fd = os.memfd_create("image")
    Mailbox(ends[0]).call(FirmwareLoad(bundle), [fd] if beside else [])
    os.close(fd)
    assert [body for _, body in simulator.requests] == [bundle]
    assert len(simulator.beside) == beside


def test_callers_in_several_threads_take_turns_and_each_gets_his_own_reply(ends: Ends) -> None:
    capable = CapabilitiesReply(bytes(range(16)))

    def answer(code: int, _body: bytes) -> list[bytes]:
        return [frame(0, with_headers(VERSION if code == Version.COMMAND else capable))]

    MailboxSimulator(ends[1], answer)
    mailbox = Mailbox(ends[0])
    with ThreadPoolExecutor(4) as threads:
        versions = [threads.submit(mailbox.execute, Version()) for _ in range(20)]
        capabilities = [threads.submit(mailbox.execute, Capabilities()) for _ in range(20)]
    assert {one.result() for one in versions} == {VERSION}
    assert {one.result() for one in capabilities} == {capable}


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_an_error_of_the_mailbox_is_told_by_its_number_and_the_connection_goes_on(ends: Ends) -> None:
    answers = iter([[frame(0x000B0001, b"")], [frame(0, with_headers(VERSION))]])
    MailboxSimulator(ends[1], lambda _code, _body: next(answers))
    mailbox = Mailbox(ends[0])
    with pytest.raises(DeviceError) as raised:
        mailbox.execute(Version())
    assert raised.value.number == 0x000B0001
    assert mailbox.execute(Version()) == VERSION


def test_a_request_that_has_no_place_on_the_wire_disturbs_nothing(ends: Ends) -> None:
    MailboxSimulator(ends[1], _version)
    mailbox = Mailbox(ends[0])
    with pytest.raises(UsageError):
        mailbox.execute(FirmwareLoad(bytes(FIRMWARE_LIMIT + 1)))
    assert mailbox.execute(Version()) == VERSION


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [frame(0, with_headers(VERSION))[:-1], b""],
        [b"\0\0\0\0\xff\xff\xff\xff"],
        [frame(0, with_headers(VERSION)) + frame(0, with_headers(VERSION))],
    ],
    ids=["gone", "cut short", "lying length", "two replies"],
)
def test_after_a_broken_reply_nothing_more_is_asked_on_this_connection(
    ends: Ends, pieces: list[bytes]
) -> None:
    simulator = MailboxSimulator(ends[1], lambda _code, _body: pieces)
    mailbox = Mailbox(ends[0])
    with pytest.raises(DecodeError):
        mailbox.execute(Version())
    with pytest.raises(OSError, match="Bad file descriptor"):
        mailbox.execute(Version())
    simulator.thread.join(10)
    assert len(simulator.requests) == 1


def test_a_reply_that_came_too_late_is_nobodys_reply(monkeypatch: pytest.MonkeyPatch, ends: Ends) -> None:
    monkeypatch.setattr(shell, "ANSWER_TIME", 0.05)
    ours, theirs = ends
    mailbox = Mailbox(ours)
    with pytest.raises(TimeoutError):
        mailbox.execute(Version())
    with pytest.raises(OSError, match="Broken pipe"):
        theirs.sendall(frame(0, with_headers(VERSION)))
    with pytest.raises(OSError, match="Bad file descriptor"):
        mailbox.execute(Capabilities())


def test_a_reply_with_a_wrong_checksum_is_refused(ends: Ends) -> None:
    spoilt = bytearray(with_headers(VERSION))
    spoilt[-1] ^= 1
    MailboxSimulator(ends[1], lambda _code, _body: [frame(0, bytes(spoilt))])
    with pytest.raises(DecodeError, match="does not match"):
        Mailbox(ends[0]).execute(Version())


def test_a_mailbox_that_is_closed_fails(ends: Ends) -> None:
    mailbox = Mailbox(ends[0])
    mailbox.close()
    mailbox.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        mailbox.execute(Version())
