"""The one loop that drives every core: a blocking socket, a thread, a lock.

A core decides; this loop moves octets, waits, runs jobs while no lock is held, and carries out what a core asks
for. An error of our own ends one conversation and is told on stderr; it never reaches another one.
"""

import errno
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic, sleep
from typing import Protocol, assert_never, cast

from endocarp.core import Ask, Attach, Close, Core, Event, Job, Note
from endocarp.errors import EndocarpError
from endocarp.line import Line

_WORN_OUT = frozenset({errno.ENFILE, errno.EMFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED})
"""No room for another connection just now, or its caller has left: wait and go on."""

MAX_CONNECTIONS = 4096
"""How many conversations one listener holds at once; the next caller waits in the kernel's queue."""


class Working(Core, Protocol):
    """A core that gives jobs away and takes their results back."""

    def finish(self, result: object) -> list[Event]:
        """Take the result of a job, or the EndocarpError that it raised."""


class Asking(Core, Protocol):
    """A core that needs the answer of the process behind it."""

    def resume(self, reply: bytes) -> list[Event]:
        """Take the answer to an Ask."""


class Conversation:
    """One conversation: a core at one end of a line.

    `lock` is what the core's decisions are made under, one of its own where others have no part in them; `ask` carries
    a question to the process behind; `attach` serves the channel that came beside what was received.
    """

    def __init__(
        self,
        line: Line,
        core: Core,
        lock: AbstractContextManager[object] | None = None,
        ask: Callable[[bytes], bytes] | None = None,
        attach: Callable[[bytes], None] | None = None,
    ) -> None:
        self.line = line
        self.core = core
        # The same core: one that asks has `resume` besides, one that gives jobs away `finish`.
        self._asking, self._working = cast("Asking", core), cast("Working", core)
        self.lock = threading.Lock() if lock is None else lock
        self.ask = ask
        self.attach = attach

    def run(self, first: bytes | None = None) -> None:
        """Talk until one side ends it; `first` is what arrived before this line was handed over."""
        core, line, lock = self.core, self.line, self.lock
        going_on = True
        while going_on:
            if first is None:
                due = core.due()
                data = line.receive(None if due is None else max(due - monotonic(), 0.0))
            else:
                data, first = first, None
            now = monotonic()
            with lock:
                events = core.expire(now) if data is None else core.receive(data, now)
            going_on = data != b""
            if events:
                going_on &= self._carry_out(events)
            for message in core.outgoing():
                line.send(message)

    def _carry_out(self, events: list[Event]) -> bool:
        """Carry out events in their order, those included that follow from them; False ends the conversation."""
        for event in events:  # the list grows while it is walked
            match event:
                case Ask():
                    assert self.ask is not None
                    reply = self.ask(event.request)
                    with self.lock:
                        events += self._asking.resume(reply)
                case Job():
                    events += self._work(event)
                case Attach():
                    assert self.attach is not None
                    self.attach(event.message)
                case Note():
                    print(f"{threading.current_thread().name}: {event.text}", file=sys.stderr, flush=True)  # noqa: T201
                case Close():
                    return False
                case _:
                    assert_never(event)
        return True

    def _work(self, job: Job) -> list[Event]:
        delay = job.after - monotonic() if job.after else 0.0
        if delay > 0:
            sleep(delay)
        try:
            result = job.run()
        except EndocarpError as error:
            result = error
        with self.lock:
            return self._working.finish(result)


def in_thread(
    name: str, work: Callable[[], None], done: Callable[[], None] = lambda: None
) -> threading.Thread:
    """Run `work` in a thread of its own that does not keep the process alive; `done` is called at the end of it.

    That the other side is gone (ConnectionError, or TimeoutError where it had a time to answer in) ends it without a
    word; whatever else it raises is told.
    """
    thread = threading.Thread(target=_guarded, args=(name, work, done), name=name, daemon=True)
    thread.start()
    return thread


def _guarded(name: str, work: Callable[[], None], done: Callable[[], None]) -> None:
    try:
        work()
    except (ConnectionError, TimeoutError):
        return
    except Exception:  # noqa: BLE001 - the one place: a fault of ours ends this conversation and no other
        print(f"{name}: {traceback.format_exc(limit=-4)}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        done()


def listen(
    listener: socket.socket, name: str, serve: Callable[[socket.socket], None], limit: int = MAX_CONNECTIONS
) -> None:
    """Accept callers until the listener is shut down, each served in a thread of its own and closed afterwards."""
    places = threading.BoundedSemaphore(limit)
    while True:
        places.acquire()
        try:
            connection, _ = listener.accept()
        except OSError as error:
            places.release()
            if error.errno in _WORN_OUT:
                sleep(0.05)
                continue
            if error.errno == errno.EINVAL:  # accept(2): it does not listen any more
                return
            raise
        attend(connection, name, serve, places.release)


def attend(
    connection: socket.socket,
    name: str,
    serve: Callable[[socket.socket], None],
    done: Callable[[], None] = lambda: None,
) -> None:
    """Serve one connection in a thread of its own and close it afterwards; `done` is called at the very end.

    Where no thread is to be had just now, the connection is closed at once: its owner has to come again.
    """

    def work() -> None:
        with connection:
            serve(connection)

    try:
        in_thread(name, work, done)
    except RuntimeError:
        connection.close()
        done()
