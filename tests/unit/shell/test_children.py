"""The processes of a box: small programs, started as a box starts its own."""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.simulators import puppet
from tests.simulators.kernel import descriptors_left, no_descriptor_leaks
from tests.simulators.puppet import SANDBOX, encoded
from tests.simulators.threads import all_threads_end

from endocarp.shell import children as shell
from endocarp.shell.archive import seal
from endocarp.shell.children import Children, Quit, Stopped
from endocarp.shell.machine import SealedImage
from endocarp.wire.control import Note, Progress, Ready, SandboxReport

PATIENCE = 20.0
ESCAPES = "\x1b[2J\r\nvault-0: PIN: 1"
SPELT_OUT = ESCAPES.encode("unicode_escape").decode()
Start = Callable[..., None]


@pytest.fixture
def told() -> list[str]:
    """Return the account."""
    return []


@pytest.fixture
def children(told: list[str]) -> Iterator[Children]:
    """Return the processes of a box; at the end nothing of them is left."""
    with no_descriptor_leaks(), all_threads_end():
        children = Children(told.append)
        yield children
        children.stop()


@pytest.fixture
def start(children: Children, tmp_path: Path) -> Start:
    """Return how to start a front, or another one, that does this first."""

    def start(first: str = "", name: str = "front") -> None:
        fd = seal(puppet.front(tmp_path, first=first).encode(), "front")
        try:
            children.start(name, SealedImage.of(fd), [], {})
        finally:
            os.close(fd)

    return start


def ready(children: Children, name: str = "front") -> None:
    """Wait until a process says that it serves."""
    while not isinstance((event := children.next(PATIENCE)).message and event.message.body, Ready):
        pass
    assert event.child is children.running[name].child


def test_what_a_process_says_comes_into_the_queue_and_its_end_last(children: Children, start: Start) -> None:
    start(f"send({encoded(Progress('one'))}); ready(); os._exit(0)")
    found = [children.next(PATIENCE) for _ in range(3)]
    assert [one.message and type(one.message.body) for one in found] == [Progress, Ready, None]
    assert children.is_death_of("front", found[-1])
    assert not children.is_death_of("front", found[0])
    assert not children.is_death_of("rot", found[-1])


def test_a_process_that_sends_what_is_no_message_is_ended(children: Children, start: Start) -> None:
    start("control.send(b'nonsense'); time.sleep(20)")
    event = children.next(PATIENCE)
    assert event.message is None
    assert event.child.process.returncode == -signal.SIGKILL


def test_what_a_process_writes_on_standard_error_is_told_under_its_name_before_its_end(
    children: Children, start: Start, told: list[str]
) -> None:
    start(f"print('unheard'); sys.stderr.write({ESCAPES!r} + '\\n  indented ' + '\\xff' * 2000); os._exit(0)")
    assert children.next(PATIENCE).message is None
    assert told[0] == f"front: {SPELT_OUT.partition(chr(92) + 'r')[0]}"
    assert told[2].startswith("front:   indented ")
    assert all(line.startswith("front: ") and line.isprintable() for line in told)


def test_what_a_process_lacks_is_kept_in_words_that_no_terminal_obeys(
    children: Children, start: Start
) -> None:
    start()
    ready(children)
    report = SandboxReport(
        0, 1, 1, 0, SANDBOX.seccomp, SANDBOX.memory, notes=(Note(ESCAPES), Note("\x1b" * 256))
    )
    lacks = children.serves("front", report)
    sandbox = children.running["front"].sandbox
    assert sandbox is not None
    assert sandbox.encode()
    assert lacks.startswith(f"{SPELT_OUT}; \\x1b")
    assert lacks == "; ".join(note.text for note in sandbox.notes)


def test_what_others_read_is_replaced_and_never_changed(children: Children, start: Start) -> None:
    seen = [children.running]
    start()
    seen.append(children.running)
    children.serves("front", SANDBOX)
    seen.append(children.running)
    children.take_down("front")
    seen.append(children.running)
    assert [[one.sandbox for one in running.values()] for running in seen] == [[], [None], [SANDBOX], [None]]


def test_a_process_takes_the_place_of_the_one_before(children: Children, start: Start) -> None:
    start()
    before = children.running["front"].child
    children.take_down("front")
    children.take_down("vault-0")  # which there is none of
    assert before.process.returncode == -signal.SIGKILL
    start()
    event = children.next(PATIENCE)
    assert event.child is before
    assert not children.is_current(before)
    assert children.is_current(children.running["front"].child)


def test_what_does_not_happen_is_not_waited_for_and_what_was_put_back_comes_again(
    children: Children, start: Start
) -> None:
    with pytest.raises(queue.Empty):
        children.next(0.01)
    start("os._exit(0)")
    event = children.next()
    children.put_back([event])
    assert children.next(-1.0) is event
    children.events.put(Quit("by the test"))
    with pytest.raises(Stopped, match="by the test"):
        children.next(PATIENCE)


def test_doors_are_stopped_first_and_the_root_of_trust_last_and_who_does_not_end_is_killed(
    children: Children, start: Start, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "STOP_LIMIT", 0.1)
    for name in ("rot", "vault-0", "front"):
        start("ready(); control.recv(9); print('stops', file=sys.stderr); os._exit(0)", name)
        ready(children, name)
    start("ready(); time.sleep(20)", "vault-1")
    ready(children, "vault-1")
    processes = {name: one.child.process for name, one in children.running.items()}
    children.stop()
    assert children.running == {}
    codes = {name: process.returncode for name, process in processes.items()}
    assert codes == {"rot": 0, "vault-0": 0, "front": 0, "vault-1": -signal.SIGKILL}
    for _ in codes:
        children.next(PATIENCE)
    assert told[0] == "front: stops"
    assert told[-1] == "rot: stops"


def test_a_process_that_is_gone_already_is_no_hindrance_to_stop(children: Children, start: Start) -> None:
    start("os._exit(0)")
    children.next(PATIENCE)
    children.stop()
    assert children.running == {}


def test_where_no_descriptor_or_no_thread_is_to_be_had_nothing_is_left(
    children: Children, start: Start
) -> None:
    fd = seal(b"", "image")
    image = SealedImage.of(fd)
    with pytest.raises(OSError, match="Too many open files"), descriptors_left(2):
        children.start("front", image, [], {})
    before = threading.stack_size(1 << 47)  # more than there are addresses
    try:
        with pytest.raises(RuntimeError, match="thread"):
            children.start("front", image, [], {})
    finally:
        threading.stack_size(before)
        os.close(fd)
    assert children.running == {}
    with contextlib.suppress(queue.Empty):
        raise AssertionError(children.next(0.01))


def test_a_text_is_told_under_the_name_that_the_box_has_for_the_process(
    children: Children, told: list[str]
) -> None:
    children.tell("front", f"up: {ESCAPES}")
    assert told == [f"front: up: {SPELT_OUT}"]
