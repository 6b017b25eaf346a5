"""Kernels and disks that lack something: real ones, confined, for the tests of the shell."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own, which takes to its grave what cannot be undone, and return its result.

    Landlock, seccomp and no_new_privs hold for the thread that asks for them. So the lines that ask can be run, and
    their coverage kept, without harm to what follows.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed on to the caller
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def lacking(*rules: tuple[Any, ...], work: Callable[[], T]) -> T:
    """Run `work` in a thread on a kernel that refuses some calls, as an older one does, or one at its limits.

    Each rule is the name of a call, the error that it fails with, and pairs of the index and the value of an argument.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError):
        pytest.skip("libseccomp is not installed")
    pyseccomp.get_api()  # libseccomp looks once what the kernel can do: before that is hidden from it

    def confined() -> T:
        table = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        for name, number, *conditions in rules:
            arguments = [pyseccomp.Arg(index, pyseccomp.EQ, value) for index, value in conditions]
            table.add_rule(pyseccomp.ERRNO(number), name, *arguments)
        table.load()
        return work()

    return in_thread(confined)


def in_child(script: str, *arguments: object, **options: Any) -> Any:
    """Run a script in a process of its own, and return the JSON that it prints; its arguments are in `sys.argv`."""
    words = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, timeout=30, **options)
    assert done.returncode == 0, f"exit code {done.returncode}"
    return json.loads(done.stdout)


@contextlib.contextmanager
def full_disk(at: Path) -> Iterator[Path]:
    """Make `at` a file system on which 4 KiB are left."""
    with _mounted(at, "size=16k,mode=0700"):
        (at / "ballast").write_bytes(bytes(12 << 10))
        yield at


@contextlib.contextmanager
def frozen_disk(at: Path, name: str = "old") -> Iterator[Path]:
    """Make `at` a file system that can only be read, with a file of this name on it."""
    with _mounted(at, "size=16k,mode=0700"):
        (at / name).write_text("old")
        subprocess.run(["mount", "-o", "remount,ro", str(at)], check=True)
        yield at


@contextlib.contextmanager
def _mounted(at: Path, options: str) -> Iterator[None]:
    at.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no mount: {error.strerror}")
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file get larger than `size` octets: what fits is written, what is beyond fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let only `count` more descriptors be open at once: one more fails with EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        # Descriptors are given out from the lowest free number on: fill the holes, then put the limit behind.
        last, top = -1, max(map(int, _descriptors()))
        while last < top:
            last = os.open("/", os.O_PATH)
            stack.callback(os.close, last)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1 + count, hard))
        yield


@contextlib.contextmanager
def no_descriptor_leaks() -> Iterator[None]:
    """See that nothing is open afterwards that was not open before."""
    before = _descriptors()
    yield
    left = _descriptors().items() - before.items()
    assert not left


def _descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[entry.name] = str(entry.readlink())
    return found
