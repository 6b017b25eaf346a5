"""The one shape of every core that holds a conversation: octets in, events out, no I/O.

A shell gives a core what arrived, carries out the events that come back, in their order, and then sends what is
outgoing. Between two calls a core does nothing: it has no thread, no clock, no descriptor. `endocarp.shell.serve` drives
them all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Job:
    """Work to be done while no lock is held, since it is heavy or has to wait: call `run()`, then hand its result to
    `finish()`.

    What `run` returns, or the `EndocarpError` that it raises, is the result. Where it has to change what cores share,
    it takes a lock of theirs itself, for no longer than the change takes. `after` is the earliest moment, on the clock
    of `now`, at which `run` may be called.
    """

    run: Callable[[], object]
    after: float = 0.0


@dataclass(frozen=True)
class Ask:
    """A question to the process behind this one: send `request`, hand the answer to `resume()`.

    What is outgoing by then is sent after that.
    """

    request: bytes


@dataclass(frozen=True)
class Attach:
    """Serve the channel that came beside what was received last; `message` says for whom."""

    message: bytes


@dataclass(frozen=True)
class Note:
    """Something that whoever runs this process should read; the conversation goes on."""

    text: str


@dataclass(frozen=True)
class Close:
    """The conversation is over: send what is outgoing, then close. `reason` is for who tests a core: nobody is told."""

    reason: str


Event = Job | Ask | Attach | Note | Close


class Core(Protocol):
    """One side of one conversation."""

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take what arrived: a whole message where the transport or the line keeps messages, else any piece of a stream.

        `now` is a monotonic clock in seconds. Empty `data` means that the other side has closed.
        """

    def outgoing(self) -> list[bytes]:
        """Return the messages to send, oldest first, and forget them."""

    def due(self) -> float | None:
        """Return when `expire` wants to be called if nothing arrives before, or None."""

    def expire(self, now: float) -> list[Event]:
        """Take notice that the moment of `due` has passed."""
