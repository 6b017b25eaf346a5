"""Where the two sides of a benchmark run: latency hangs on that more than on anything else.

Two processes that share a core answer each other without waking a sleeping one; two that have a core each do not
compete, but wake each other; unpinned, the kernel decides, and moves them.
"""

import enum
import os
from collections.abc import Iterable
from pathlib import Path


class Placement(enum.Enum):
    """Who runs on which core."""

    ONE_CORE = "one core"
    TWO_CORES = "two cores"
    UNPINNED = "unpinned"


_CORES = sorted(os.sched_getaffinity(0))
_ALL = set(_CORES)


def place(placement: Placement, servers: Iterable[int]) -> None:
    """Put this process, and all threads of the processes `servers`, where `placement` says."""
    ours, theirs = {
        Placement.ONE_CORE: ({_CORES[0]}, {_CORES[0]}),
        Placement.TWO_CORES: ({_CORES[0]}, {_CORES[-1]}),
        Placement.UNPINNED: (_ALL, _ALL),
    }[placement]
    os.sched_setaffinity(0, ours)
    for pid in servers:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), theirs)
