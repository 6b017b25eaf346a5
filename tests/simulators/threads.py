"""Threads that a test has started, by itself or by what it tests: all of them end with it."""

import contextlib
import threading
import time
from collections.abc import Iterator

PATIENCE = 20.0


@contextlib.contextmanager
def all_threads_end() -> Iterator[None]:
    """See that every thread that was started inside has ended, or ends soon."""
    before = set(threading.enumerate())
    try:
        yield
    finally:
        end = time.monotonic() + PATIENCE
        while left := set(threading.enumerate()) - before:
            assert time.monotonic() < end, left
            for thread in left:
                with contextlib.suppress(RuntimeError):  # it is only just being started
                    thread.join(0.1)
