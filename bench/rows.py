"""Results: a ratio against a named peer, measured in the same run, and the bar that it is held to."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `theirs` are in `unit`; `bar` is the greatest ratio that is good, None for none."""

    name: str
    placement: str
    ours: float
    theirs: float
    peer: str
    unit: str = "us"
    bar: float | None = None

    @property
    def ratio(self) -> float:
        """Ours by theirs: less is better."""
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        """Whether the bar was reached."""
        if self.bar is None:
            return ""
        return "reached" if self.ratio <= self.bar else "MISSED"


def median_time(work: Callable[[], object], count: int) -> float:
    """Return the median time of one call, in microseconds."""
    clock = time.perf_counter_ns
    times = []
    for _ in range(count):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times) / 1000


def interleaved(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int = 21
) -> tuple[float, float]:
    """Measure both sides in turn, so that both meet the same moods of the machine; return the median of rounds."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return statistics.median(one for one, _ in pairs), statistics.median(two for _, two in pairs)
