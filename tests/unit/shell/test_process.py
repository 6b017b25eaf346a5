"""What the programs of a server have in common, run in threads of this process."""

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.simulators.kernel import descriptors_left, no_descriptor_leaks
from tests.simulators.program import program

from endocarp.errors import Refused
from endocarp.shell.channel import Channel, pair
from endocarp.shell.process import heard, parse_arguments, run_process, wait_for_stop
from endocarp.wire.control import Failed, Pair, Progress, Stop


def test_what_a_process_was_told_stands_in_pairs() -> None:
    assert parse_arguments(["--control", "3", "--state", "/s", "--native-0", "5"]) == {
        "control": "3",
        "state": "/s",
        "native-0": "5",
    }
    assert parse_arguments([]) == {}
    with pytest.raises(ValueError, match="zip"):
        parse_arguments(["--control"])


def test_a_process_gets_its_arguments_and_the_control_channel_that_was_named() -> None:
    def serve(arguments: dict[str, str], control: Channel) -> None:
        control.progress(arguments["state"])

    with program(lambda: run_process(serve), {}, "--state", "/s") as running:
        assert running.progress() == "/s"
        assert running.wait() == 0


def test_a_process_that_gives_up_tells_why_and_ends() -> None:
    def serve(arguments: dict[str, str], control: Channel) -> None:
        raise Refused("rule", "no", "do it otherwise")

    with program(lambda: run_process(serve), {}) as running:
        assert running.failed() == Failed("rule", "no", "do it otherwise")


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Return both ends of a control channel, the parent's first."""
    ours, theirs = pair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


def test_a_process_waits_for_no_other_message_than_stop(ends: tuple[Channel, Channel]) -> None:
    waiting = threading.Thread(target=wait_for_stop, args=(ends[1],))
    waiting.start()
    for body in (Progress("go on"), Failed("rule", "go on")):
        ends[0].send(body)
    ends[0].send(Pair(0), [ends[0].socket.fileno()])
    waiting.join(0.05)
    assert waiting.is_alive()
    ends[0].send(Stop())
    waiting.join(10)
    assert not waiting.is_alive()


def test_the_end_of_the_parent_is_the_end(ends: tuple[Channel, Channel]) -> None:
    ends[0].socket.close()
    wait_for_stop(ends[1])


def test_channels_that_come_are_given_on_with_their_partition_and_no_other_descriptors(
    ends: tuple[Channel, Channel],
) -> None:
    taken: list[int] = []

    def take(partition: int, channel: socket.socket) -> None:
        taken.append(partition)
        channel.close()

    with no_descriptor_leaks():
        one, other = pair()
        for body in (Pair(3), Progress("with a gift"), Pair(5)):
            ends[0].send(body, [one.fileno()])
        ends[0].send(Stop())
        for end in (one, other):
            end.close()
        wait_for_stop(ends[1], take)
    assert taken == [3, 5]


def test_a_channel_for_which_descriptors_are_wanting_is_the_end(ends: tuple[Channel, Channel]) -> None:
    one, other = pair()
    with one, other:
        ends[0].send(Pair(3), [one.fileno()])
        with descriptors_left(0), pytest.raises(Refused, match=r"process\.descriptors") as raised:
            wait_for_stop(ends[1], lambda partition, channel: None)
    assert "ulimit -n" in raised.value.advice()


def test_who_takes_no_channels_keeps_none_open(ends: tuple[Channel, Channel]) -> None:
    with no_descriptor_leaks():
        one, other = pair()
        ends[0].send(Pair(3), [one.fileno()])
        ends[0].send(Stop())
        one.close()
        wait_for_stop(ends[1])
        assert other.recv(1) == b""
        other.close()


# --- signals --------------------------------------------------------------------------------------------------------


def test_every_signal_is_heard_while_the_main_thread_sleeps_in_a_call_and_none_afterwards() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    come = threading.Semaphore(0)
    try:
        with no_descriptor_leaks():
            with heard([signal.SIGUSR1], come.release):
                for _ in range(3):
                    os.kill(os.getpid(), signal.SIGUSR1)
                    assert come.acquire(timeout=10)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert not come.acquire(blocking=False)
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)
