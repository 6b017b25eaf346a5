"""Decides what follows from the death of a process. No I/O: time comes in, actions come out."""

from collections import deque

from endocarp.box.plan import KINDS, Action, GiveUp, Remedy, Reset, Restart, kind_of

WINDOW = 60.0
"""Seconds over which deaths are counted."""
LIMIT = 8
"""Deaths of one process within the window after which the box gives up: something is wrong for good."""
UNPROVEN_LIMIT = 1
"""The same for a process that has never served: it may have been killed once, else what it runs is damaged."""
PAUSES = (0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds to wait before the next start, by the number of earlier deaths within the window."""


class Supervisor:
    """Counts deaths and names the remedy that the plan has for them."""

    def __init__(self) -> None:
        self._deaths: dict[str, deque[float]] = {}

    def died(self, name: str, now: float, *, served: bool) -> Action:
        """Take notice that the process `name` is dead; return what to do.

        `served` says whether it ever came up: one that never did has one more try.
        """
        deaths = self._deaths.setdefault(name, deque())
        while deaths and deaths[0] <= now - WINDOW:
            deaths.popleft()
        if len(deaths) >= (LIMIT if served else UNPROVEN_LIMIT):
            return GiveUp(name)
        after = now + PAUSES[len(deaths)]
        deaths.append(now)
        if KINDS[kind_of(name)].on_death is Remedy.RESET:
            return Reset(after)
        return Restart(name, after)
