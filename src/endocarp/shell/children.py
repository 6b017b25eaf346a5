"""The processes of a box while they run: what each says, writes on standard error, and that it is gone."""

import contextlib
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from endocarp.box.plan import KINDS, kind_of
from endocarp.errors import EndocarpError
from endocarp.shell.channel import Child, start
from endocarp.shell.machine import SealedImage
from endocarp.wire.control import NOTE_LIMIT, ControlMessage, Note, SandboxReport, Stop
from endocarp.wire.text import TEXT_LIMIT, printable, truncate

STOP_LIMIT = 3.0
"""Seconds that a process has to end after it was told to stop."""
LAST_WORDS = 1.0
"""Seconds that are waited for the rest of what a dead process wrote on standard error."""


@dataclass(frozen=True)
class Running:
    """One life of a process: what it runs, and what it got of its sandbox, None until it serves."""

    name: str
    image: SealedImage
    child: Child
    started: float
    sandbox: SandboxReport | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a child: it said something, or it has ended (`message` is None)."""

    child: Child
    message: ControlMessage | None


@dataclass(frozen=True)
class Quit:
    """The box is to stop, and why."""

    reason: str


class Stopped(Exception):
    """The box was told to stop."""


class Children:
    """The processes of a box by name, and one queue of everything that happens to them.

    Every text of theirs goes to `account` under the name that the box has for them, and so that no terminal obeys it.
    `running` is replaced at each change, never changed in place: other threads may read it.
    """

    def __init__(self, account: Callable[[str], None]) -> None:
        self.events: queue.SimpleQueue[Event | Quit] = queue.SimpleQueue()
        self.running: Mapping[str, Running] = {}
        self._account = account

    def start(
        self, name: str, image: SealedImage, arguments: Sequence[str], descriptors: Mapping[str, int]
    ) -> None:
        """Start a process, in the place of the one that had this name before.

        Raises OSError or RuntimeError where this machine lacks what it takes.
        """
        child = start(name, image.descriptor, arguments, descriptors, errors=subprocess.PIPE)
        relay = threading.Thread(target=self._relay, args=(child,), daemon=True)
        try:
            relay.start()
            threading.Thread(target=self._watch, args=(child, relay), daemon=True).start()
        except RuntimeError:  # no thread is to be had
            child.kill()
            child.channel.socket.close()
            if relay.ident is None and child.process.stderr is not None:
                child.process.stderr.close()
            raise
        self._set(Running(name, image, child, time.monotonic()))

    def _set(self, one: Running) -> None:
        self.running = {**self.running, one.name: one}

    def _watch(self, child: Child, relay: threading.Thread) -> None:
        """Carry what a child says into the queue, and its end. Runs in a thread of its own."""
        with contextlib.suppress(OSError, EndocarpError):
            while (received := child.channel.receive()) is not None:
                self.events.put(Event(child, received[0]))
        child.kill()
        relay.join(LAST_WORDS)
        child.channel.socket.close()
        self.events.put(Event(child, None))

    def _relay(self, child: Child) -> None:
        """Tell what a child writes on standard error, line by line. Runs in a thread of its own."""
        assert child.process.stderr is not None
        with child.process.stderr as errors:
            for line in iter(partial(errors.readline, TEXT_LIMIT), b""):
                self.tell(child.name, line.rstrip().decode(errors="backslashreplace"))

    def tell(self, name: str, text: str) -> None:
        """Tell what a process says."""
        self._account(f"{name}: {printable(text)}")

    def serves(self, name: str, report: SandboxReport) -> str:
        """Take notice that a process serves; return what its sandbox lacks, in words."""
        notes = tuple(Note(truncate(printable(note.text), NOTE_LIMIT)) for note in report.notes)
        self._set(replace(self.running[name], sandbox=replace(report, notes=notes)))
        return "; ".join(note.text for note in notes)

    # --- events -----------------------------------------------------------------------------------------------

    def next(self, patience: float | None = None) -> Event:
        """Return what happens next, of what happens within `patience` seconds where that is given.

        Raises queue.Empty where nothing does, Stopped where the box is to stop.
        """
        event = self.events.get(timeout=None if patience is None else max(patience, 0.001))
        if isinstance(event, Quit):
            raise Stopped(event.reason)
        return event

    def put_back(self, events: Iterable[Event]) -> None:
        """Keep events for later."""
        for event in events:
            self.events.put(event)

    def is_current(self, child: Child) -> bool:
        """Tell whether this is still the process of its name."""
        running = self.running.get(child.name)
        return running is not None and running.child is child

    def is_death_of(self, name: str, event: Event) -> bool:
        """Tell whether the process of this name has ended by this event."""
        return event.message is None and event.child.name == name and self.is_current(event.child)

    # --- the end ----------------------------------------------------------------------------------------------

    def take_down(self, name: str) -> None:
        """End what may be left of a process; it counts as starting from now on."""
        if (one := self.running.get(name)) is not None:
            one.child.kill()
            self._set(replace(one, sandbox=None))

    def stop(self) -> None:
        """Stop every process, doors first, the root of trust last; kill what does not end in time."""
        for kind in reversed(tuple(KINDS)):
            processes = [one.child for one in self.running.values() if kind_of(one.name) == kind]
            for child in processes:
                with contextlib.suppress(OSError):
                    child.channel.send(Stop())
            for child in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(STOP_LIMIT)
                child.kill()
        self.running = {}
