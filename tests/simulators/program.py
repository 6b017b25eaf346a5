"""The `main()` of a process in a thread of this process: its sockets and descriptors are real, so is its sandbox.

What is behind a filter cannot save what its coverage was; but Landlock and seccomp hold for the thread that asks for
them and for those that it starts. What they do to the whole process is undone at the end, and what a real process
would leave to the kernel is closed.
"""

import contextlib
import ctypes
import gc
import os
import resource
import socket
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.threads import PATIENCE, all_threads_end

from endocarp.crypto import secret
from endocarp.shell.channel import Channel, pair
from endocarp.wire.control import Failed, Progress, Ready, Stop

_PR_SET_DUMPABLE = 4


class Program:
    """A running `main()`, and the end of its control channel that whoever started it would have."""

    def __init__(self, main: Callable[[], None], end: socket.socket) -> None:
        self.channel = Channel(end)
        self.code: int | None = None
        """The exit code, once it has ended."""
        self.fault: BaseException | None = None
        """What it ended by, where neither it returned nor called `sys.exit`."""
        self._main = main
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._main()
            self.code = 0
        except SystemExit as end:
            self.code = end.code if isinstance(end.code, int) else 1
        except BaseException as fault:  # noqa: BLE001 - kept for the test that looks at it
            self.fault = fault
            self.code = 1

    def said(self) -> Any:
        """Wait for the next message of its control channel and return its body; None where it has ended."""
        received = self.channel.receive()
        return received[0].body if received is not None else None

    def progress(self) -> str:
        """Return the step that it tells next."""
        said = self.said()
        assert isinstance(said, Progress), said
        return said.text

    def ready(self) -> Ready:
        """Wait until it serves."""
        said = self.said()
        assert isinstance(said, Ready), said
        return said

    def failed(self) -> Failed:
        """Return why it gives up, once it has ended, with exit code 1."""
        said = self.said()
        assert isinstance(said, Failed), said
        assert self.wait() == 1
        assert self.fault is None
        return said

    def stop(self) -> int:
        """Tell it to stop; return its exit code."""
        self.channel.send(Stop())
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        self._thread.join(PATIENCE)
        assert self.code is not None, "it does not end"
        return self.code

    def forget(self) -> None:
        """Let go of what the frames hold that it ended in."""
        fault = self.fault
        while fault is not None:
            fault.__traceback__, fault = None, fault.__context__


@contextlib.contextmanager
def program(main: Callable[[], None], descriptors: Mapping[str, int], *words: str) -> Iterator[Program]:
    """Run `main` as `shell.channel.start` would: with copies of `descriptors`, and these words behind.

    At the end its sockets are shut, as at the death of a process; every thread that it started must end by that.
    """
    ours, theirs = pair()
    given = {"control": theirs.detach()} | {name: os.dup(fd) for name, fd in descriptors.items()}
    told = [word for name, fd in given.items() for word in (f"--{name}", str(fd))]
    with ours, _undone(set(given.values())), pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["main", *told, *words])
        patched.setattr(secret, "_memory", secret._Heap())
        with all_threads_end():
            running = Program(main, ours)
            try:
                yield running
            finally:
                for fd in (*descriptors.values(), ours.fileno()):
                    _shut(fd)
                running.wait()
                running.forget()


@contextlib.contextmanager
def _undone(given: set[int]) -> Iterator[None]:
    """Undo what a process does to itself alone: close what it had open, `given` included, and lift its limits."""
    before = set(_open()) - given
    limits = {limit: resource.getrlimit(limit) for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # what it leaves open, the kernel would close
        try:
            yield
        finally:
            gc.collect()
            for fd in set(_open()) - before:
                os.close(fd)
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
            for limit, values in limits.items():
                with contextlib.suppress(ValueError):  # a hard limit rises for root alone
                    resource.setrlimit(limit, values)


def _shut(fd: int) -> None:
    """End a socket for everybody who has a copy of it."""
    with contextlib.suppress(OSError):  # it is closed, or was never connected
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            with socket.socket(fileno=os.dup(fd)) as end:
                end.shutdown(socket.SHUT_RDWR)


def left(name: str) -> list[int]:
    """Return the descriptors of memory of this name that this process has open."""
    return sorted(fd for fd, target in _open().items() if target.startswith(f"/memfd:{name} "))


def _open() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[int(entry.name)] = str(entry.readlink())
    return found
