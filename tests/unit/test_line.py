"""A line waits for messages in the quickest way there is, and never longer than it was told."""

import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from endocarp.line import LOOKS, REST, Line, peer_of, timeval


@contextlib.contextmanager
def line(kind: int = socket.SOCK_SEQPACKET, limit: int = 100) -> Iterator[tuple[Line, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with theirs, contextlib.closing(Line(ours, limit)) as made:
        yield made, theirs


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_a_line_carries_messages_both_ways(kind: int) -> None:
    with line(kind) as (ours, theirs):
        ours.send(b"question")
        assert theirs.recv(100) == b"question"
        theirs.send(b"answer")
        assert ours.receive() == b"answer"
        theirs.close()
        assert ours.receive() == b""


def test_the_other_end_of_a_unix_socket_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == (os.getpid(), os.getuid())


def test_a_line_waits_no_longer_than_it_was_told() -> None:
    with line() as (ours, theirs):
        assert ours.receive(0.001) is None
        theirs.send(b"late")
        assert ours.receive(1.0) == b"late"


def test_a_line_sleeps_until_something_arrives() -> None:
    with line() as (ours, theirs):
        timer = threading.Timer(0.05, theirs.send, [b"late"])
        timer.start()
        assert ours.receive() == b"late"
        timer.join()


def test_a_line_looks_less_often_while_looking_is_in_vain() -> None:
    with line() as (ours, theirs):
        skipped = []
        for _ in range(200):
            skipped.append(ours._skip)
            ours.receive(0)
        assert skipped[:9] == [0, 1, 0, 3, 2, 1, 0, 7, 6]
        assert max(skipped) == REST
        while ours._skip:
            ours.receive(0)
        theirs.send(b"at once")
        assert ours.receive(0) == b"at once"
        ours.receive(0)
        assert [ours._skip] == [1]


@pytest.fixture
def one_processor() -> Iterator[int]:
    everywhere = os.sched_getaffinity(0)
    one = min(everywhere)
    os.sched_setaffinity(0, {one})
    yield one
    os.sched_setaffinity(0, everywhere)


def test_a_line_does_not_look_where_both_sides_are_bound_to_one_processor(one_processor: int) -> None:
    with line() as (ours, _):
        assert ours._looks == 0
        assert ours.receive(0) is None


def test_a_line_looks_where_the_other_side_has_more_processors(one_processor: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("\0endocarp-test-line")
        listener.listen()
        child = os.fork()
        if child == 0:
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
            listener.listen()  # the credentials of a listener are those of the last one to call this
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
            ours.connect(listener.getsockname())
            assert Line(ours, 100)._looks == (LOOKS if (os.cpu_count() or 1) > 1 else 0)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert Line(ours, 100)._looks == LOOKS  # gone: nobody to keep from answering


def test_a_line_looks_where_nobody_knows_the_other_side(one_processor: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        assert Line(ours, 100)._looks == LOOKS


def test_a_time_is_never_rounded_down_to_for_ever() -> None:
    seconds_and_microseconds = struct.Struct("ll")
    told = [seconds_and_microseconds.unpack(timeval(seconds)) for seconds in (0, 1e-9, 0.25, 5.0, 10.000001)]
    assert told == [(0, 0), (0, 1), (0, 250_000), (5, 0), (10, 1)]
