"""The loop that drives every core: over real sockets, with cores that do one thing each."""

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.kernel import descriptors_left, no_descriptor_leaks

from endocarp.core import Ask, Attach, Close, Event, Job, Note
from endocarp.errors import Refused
from endocarp.line import Line
from endocarp.shell import serve
from endocarp.shell.serve import Conversation, attend, in_thread, listen
from endocarp.shell.sockets import listen_at


@dataclass
class Scripted:
    """A core that answers a message with the events named for it, and says what it was given."""

    script: dict[bytes, list[Event]] = field(default_factory=dict)
    said: list[bytes] = field(default_factory=list)
    deadline: float | None = None
    heard: list[object] = field(default_factory=list)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Echo, and do what the script says."""
        self.heard.append(data)
        if data:
            self.said.append(b"echo " + data)
        return list(self.script.get(data, []))

    def outgoing(self) -> list[bytes]:
        """Return what is to be said."""
        said, self.said = self.said, []
        return said

    def due(self) -> float | None:
        """Return the deadline."""
        return self.deadline

    def expire(self, now: float) -> list[Event]:
        """Give up."""
        assert self.deadline is not None
        assert now >= self.deadline
        self.said.append(b"too late")
        return [Close("too late")]

    def finish(self, result: object) -> list[Event]:
        """Say what came of a job."""
        self.said.append(f"done {result}".encode())
        return []

    def resume(self, reply: bytes) -> list[Event]:
        """Say what was answered."""
        self.said.append(b"answered " + reply)
        return []


Ends = tuple[socket.socket, Line]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return a caller's end of a connection that keeps messages, and the line at the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    with ours, theirs:
        yield ours, Line(theirs, 1 << 16)


@contextlib.contextmanager
def running(conversation: Conversation, first: bytes | None = None) -> Iterator[threading.Thread]:
    """Run a conversation in a thread, which has to end by itself."""
    thread = threading.Thread(target=conversation.run, args=(first,))
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


# --- conversations --------------------------------------------------------------------------------------------------


def test_a_conversation_goes_on_until_the_other_side_has_closed(ends: Ends) -> None:
    core = Scripted()
    with running(Conversation(ends[1], core)):
        for message in (b"one", b"two"):
            ends[0].send(message)
            assert ends[0].recv(100) == b"echo " + message
        ends[0].shutdown(socket.SHUT_WR)
    assert core.heard == [b"one", b"two", b""]


def test_what_came_before_the_line_was_handed_over_is_heard_first(ends: Ends) -> None:
    with running(Conversation(ends[1], Scripted()), b"hello"):
        assert ends[0].recv(100) == b"echo hello"
        ends[0].close()


def test_a_core_that_closes_has_its_last_word(ends: Ends) -> None:
    core = Scripted({b"bye": [Close("said so"), Close("never reached")]})
    with running(Conversation(ends[1], core)):
        ends[0].send(b"bye")
        assert ends[0].recv(100) == b"echo bye"


def test_a_core_whose_time_is_up_is_told_so(ends: Ends) -> None:
    with running(Conversation(ends[1], Scripted(deadline=time.monotonic() + 0.02))):
        assert ends[0].recv(100) == b"too late"


def test_a_deadline_that_has_passed_already_is_no_time_to_wait(ends: Ends) -> None:
    with running(Conversation(ends[1], Scripted(deadline=time.monotonic() - 1))):
        assert ends[0].recv(100) == b"too late"


def test_a_job_runs_while_no_lock_is_held_and_its_result_comes_back_under_the_lock(ends: Ends) -> None:
    lock = threading.Lock()
    held: list[bool] = []

    class Watching(Scripted):
        def receive(self, data: bytes, now: float) -> list[Event]:
            held.append(lock.locked())
            return super().receive(data, now)

        def finish(self, result: object) -> list[Event]:
            held.append(lock.locked())
            return super().finish(result)

    def work() -> str:
        held.append(lock.locked())
        return "work"

    with running(Conversation(ends[1], Watching({b"work": [Job(work)]}), lock)):
        ends[0].send(b"work")
        assert [ends[0].recv(100) for _ in range(2)] == [b"echo work", b"done work"]
        ends[0].close()
    assert held[:3] == [True, False, True]


def test_an_error_of_ours_that_a_job_raises_is_its_result(ends: Ends) -> None:
    def work() -> str:
        raise Refused("rule", "no")

    with running(Conversation(ends[1], Scripted({b"work": [Job(work)]}))):
        ends[0].send(b"work")
        assert [ends[0].recv(100) for _ in range(2)] == [b"echo work", b"done no [rule]"]
        ends[0].close()


def test_a_job_starts_at_its_time_and_not_before(ends: Ends) -> None:
    after = time.monotonic() + 0.05
    started: list[float] = []
    script: dict[bytes, list[Event]] = {
        b"later": [Job(lambda: started.append(time.monotonic()), after)],
        b"now": [Job(lambda: "now", time.monotonic() - 1)],
    }
    with running(Conversation(ends[1], Scripted(script))):
        for message in script:
            ends[0].send(message)
            assert ends[0].recv(100) == b"echo " + message
            assert ends[0].recv(100).startswith(b"done")
        ends[0].close()
    assert started[0] >= after


def test_a_question_goes_to_the_process_behind_and_what_is_said_of_it_comes_in_order(ends: Ends) -> None:
    with running(Conversation(ends[1], Scripted({b"ask": [Ask(b"why")]}), ask=bytes.upper)):
        ends[0].send(b"ask")
        assert [ends[0].recv(100) for _ in range(2)] == [b"echo ask", b"answered WHY"]
        ends[0].close()


def test_events_that_follow_from_events_are_carried_out_in_turn(ends: Ends) -> None:
    order: list[str] = []

    class Chained(Scripted):
        def finish(self, result: object) -> list[Event]:
            return [Attach(b"after " + str(result).encode()), Close("done")]

    core = Chained({b"go": [Job(lambda: "the job"), Attach(b"the order")]})
    with running(Conversation(ends[1], core, attach=lambda message: order.append(message.decode()))):
        ends[0].send(b"go")
        assert ends[0].recv(100) == b"echo go"
    assert order == ["the order", "after the job"]


# --- threads --------------------------------------------------------------------------------------------------------


def test_work_is_done_in_a_thread_of_its_name_that_keeps_no_process_alive() -> None:
    found: list[tuple[str, bool]] = []
    in_thread(
        "worker", lambda: found.append((threading.current_thread().name, threading.current_thread().daemon))
    ).join(10)
    assert found == [("worker", True)]


def test_that_the_other_side_is_gone_is_no_news_but_a_fault_of_ours_is_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def ending_by(fault: Exception) -> Callable[[], None]:
        def work() -> None:
            raise fault

        return work

    for gone in (BrokenPipeError(), ConnectionResetError(), TimeoutError()):
        in_thread("gone", ending_by(gone)).join(10)
        assert capfd.readouterr().err == ""
    for fault in (ZeroDivisionError("a fault of ours"), OSError(errno.EMFILE, "Too many open files")):
        in_thread("faulty", ending_by(fault)).join(10)
        told = capfd.readouterr().err
        assert told.startswith("faulty: Traceback")
        assert f"{type(fault).__name__}: {fault}" in told


@pytest.mark.parametrize("fault", [None, BrokenPipeError(), ZeroDivisionError()], ids=repr)
def test_the_end_of_work_is_told_however_it_ends(
    fault: Exception | None, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def work() -> None:
        if fault is not None:
            raise fault

    in_thread("worker", work, lambda: told.append("done")).join(10)
    assert told == ["done"]
    capfd.readouterr()


def test_a_note_is_told_and_the_conversation_goes_on(ends: Ends, capfd: pytest.CaptureFixture[str]) -> None:
    core = Scripted({b"odd": [Note("odd, and here is why")], b"end": [Close("done")]})
    with running(Conversation(ends[1], core)):
        ends[0].send(b"odd")
        assert ends[0].recv(100) == b"echo odd"
        ends[0].send(b"end")
    assert capfd.readouterr().err.endswith(": odd, and here is why\n")


# --- listening ------------------------------------------------------------------------------------------------------


class Listener(socket.socket):
    """A listening socket that tells when the process has had no descriptor left to accept with."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(fileno=listener.detach())
        self.worn_out = threading.Event()

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno == errno.EMFILE:
                self.worn_out.set()
            raise


class Door:
    """A listening socket, and those who are served at it, each until `leave` is set."""

    def __init__(self, path: Path, limit: int = serve.MAX_CONNECTIONS) -> None:
        self.path, self.limit = path, limit
        self.leave = threading.Event()
        self.ended: list[BaseException] = []
        self.listener = Listener(listen_at(path, socket.SOCK_SEQPACKET))
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        try:
            listen(self.listener, "caller", self._serve, self.limit)
        except OSError as error:
            self.ended.append(error)

    def _serve(self, connection: socket.socket) -> None:
        connection.send(b"served")
        if connection.recv(100) == b"fault":
            raise ZeroDivisionError
        self.leave.wait(10)

    def call(self) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        caller.settimeout(10)
        caller.connect(str(self.path))
        return caller

    def let_go(self) -> None:
        """Wait until nobody is served any more."""
        self.leave.set()
        for thread in threading.enumerate():
            if thread.name == "caller":
                thread.join(10)

    def shut(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.let_go()
        self.listener.close()
        assert self.ended == []


@pytest.fixture
def door(place: Path) -> Iterator[Door]:
    with no_descriptor_leaks():
        door = Door(place / "door.sock")
        yield door
        door.shut()


def test_callers_are_served_side_by_side_and_closed_afterwards(door: Door) -> None:
    with door.call() as first, door.call() as second:
        assert first.recv(100) == second.recv(100) == b"served"
        for caller in (first, second):
            caller.send(b"go on")
        door.leave.set()
        assert first.recv(100) == second.recv(100) == b""


def test_a_fault_in_one_conversation_reaches_no_other(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    with door.call() as first, door.call() as second:
        first.recv(100)
        first.send(b"fault")
        assert first.recv(100) == b""
        assert second.recv(100) == b"served"
    door.let_go()
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_beyond_its_limit_callers_wait_until_another_leaves(place: Path) -> None:
    door = Door(place / "door.sock", limit=1)
    with door.call() as first, door.call() as second:
        assert first.recv(100) == b"served"
        second.settimeout(0.05)
        with pytest.raises(TimeoutError):
            second.recv(100)
        first.close()
        second.settimeout(10)
        door.leave.set()
        assert second.recv(100) == b"served"
    door.shut()


def test_a_listener_that_is_none_any_more_ends_by_its_error(tmp_path: Path) -> None:
    with (
        listen_at(tmp_path / "door.sock", socket.SOCK_SEQPACKET) as listener,
        socket.socket(fileno=os.dup(listener.fileno())) as door,
        (tmp_path / "file").open("w") as file,
    ):
        os.dup2(file.fileno(), door.fileno())
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            listen(door, "caller", lambda connection: None)


def test_where_no_descriptor_is_left_callers_wait_until_there_is(door: Door) -> None:
    with contextlib.ExitStack() as stack:
        callers = [
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(2)
        ]
        with descriptors_left(0):
            for caller in callers:  # the first gets the descriptor that `accept` has taken before it waits
                caller.settimeout(10)
                caller.connect(str(door.path))
            assert door.listener.worn_out.wait(10)
        for caller in callers:
            assert caller.recv(100) == b"served"


def test_where_no_thread_is_to_be_had_a_caller_is_closed_and_his_place_is_free() -> None:
    done: list[str] = []
    ours, theirs = socket.socketpair()
    before = threading.stack_size(1 << 47)  # more than there are addresses
    try:
        attend(theirs, "caller", lambda connection: done.append("served"), lambda: done.append("free"))
    finally:
        threading.stack_size(before)
    with ours:
        assert ours.recv(1) == b""
    assert done == ["free"]
