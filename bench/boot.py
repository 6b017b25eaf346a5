"""From the command to serving, and the memory of the whole server when idle: figures against fixed bars."""

import statistics
from collections.abc import Iterator

from bench.peers import our_server, scratch
from bench.rows import Row

SECONDS_BAR = 2.0
MEMORY_BAR = 150.0
ROUNDS = 5


def run() -> Iterator[Row]:
    """Measure a warm start: the device and its images are there already."""
    with scratch() as root:
        with our_server(root):
            pass
        seconds, memory = [], []
        for _ in range(ROUNDS):
            with our_server(root, fresh=False) as server:
                seconds.append(server.seconds_to_serve)
                processes = server.status()["processes"]
                assert isinstance(processes, list)
                memory.append(sum(one["resident_kib"] for one in processes) / 1024)
        yield Row(
            "from `endocarp up` to serving",
            "unpinned",
            statistics.median(seconds),
            SECONDS_BAR,
            "the bar itself",
            "s",
            1.0,
        )
        yield Row(
            "resident memory, all processes",
            "idle",
            statistics.median(memory),
            MEMORY_BAR,
            "the bar itself",
            "MiB",
            1.0,
        )
