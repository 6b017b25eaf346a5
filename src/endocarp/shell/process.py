"""What the programs of a server have in common: what they were told, whom they tell, and when they end."""

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from endocarp.errors import EndocarpError, Refused
from endocarp.shell.channel import Channel
from endocarp.wire.control import Pair, Stop

HELLO_LIMIT = 64
"""Octets that a client may send before it is known; a Hello has fewer."""
PIECE = 1 << 16
"""The most octets of a stream that are taken at once."""


def run_process(serve: Callable[[dict[str, str], Channel], None]) -> None:
    """Be a process that `shell.channel.start` has started: `serve` gets its arguments and its control channel.

    Where it gives up, its parent is told why, and it ends with exit code 1.
    """
    arguments = parse_arguments(sys.argv[1:])
    control = Channel(socket.socket(fileno=int(arguments["control"])))
    try:
        serve(arguments, control)
    except EndocarpError as error:
        control.failed(error)
        sys.exit(1)


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """Return what a process was told on its command line by the one that started it: `--NAME VALUE` pairs."""
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


@contextlib.contextmanager
def heard(numbers: Iterable[int], act: Callable[[], None]) -> Iterator[None]:
    """Call `act`, in a thread of its own, for each of these signals that comes in this block.

    Not in a handler: Python runs those between two steps of the main thread, so a signal that comes just as that thread
    goes to sleep in a call would wait until it wakes by itself. To be used in the main thread.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def listen() -> None:
        while ours.recv(1):
            act()

    with ours, theirs:
        for number in numbers:
            signal.signal(number, lambda *_: None)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        listening = threading.Thread(target=listen, name="signals", daemon=True)
        listening.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            theirs.shutdown(socket.SHUT_RDWR)
            listening.join()


def wait_for_stop(control: Channel, pair: Callable[[int, socket.socket], None] | None = None) -> None:
    """Return once this process shall end: it was told to, or whoever started it is gone.

    Meanwhile `pair` gets the channels that come, each with the number of its partition. Raises Refused
    `process.descriptors` where there is no room for one.
    """
    while (received := control.receive()) is not None:
        message, descriptors = received
        if isinstance(message.body, Stop):
            return
        if isinstance(message.body, Pair) and not descriptors:
            # The kernel drops what there is no room for. It comes only once: who goes on without it serves nobody.
            hint = "raise the limit of open files (ulimit -n)"
            raise Refused("process.descriptors", "too many open files to take one more channel", hint)
        for descriptor in descriptors:
            end = socket.socket(fileno=descriptor)
            if pair is not None and isinstance(message.body, Pair):
                pair(message.body.partition, end)
            else:
                end.close()
