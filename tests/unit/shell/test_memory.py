"""Memory for secrets, on this kernel and on one that lacks memfd_secret."""

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.simulators.kernel import descriptors_left, in_child, lacking, no_descriptor_leaks

from endocarp.errors import Refused
from endocarp.shell.memory import CHUNK, GRAIN, SecretMemory, map_secret, secret_descriptor
from endocarp.wire.control import MemoryMode

MEMFD_SECRET = 447
NO_MEMFD_SECRET = ("memfd_secret", errno.ENOSYS)
NO_LOCKING = ("mlock", errno.ENOMEM)


def _kernel_has_memfd_secret() -> bool:
    fd = ctypes.CDLL(None).syscall(MEMFD_SECRET, 0)
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


needs_memfd_secret = pytest.mark.skipif(
    not _kernel_has_memfd_secret(), reason="this kernel has no memfd_secret (on by default since Linux 6.5)"
)


def _address(region: mmap.mmap | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(region))


def _flags(address: int) -> list[str]:
    """Return the flags that the kernel keeps of the mapping at `address` (proc(5), smaps)."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            here = low <= address < high
        elif here and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no such mapping")


def _read_past_the_owner(address: int) -> bytes:
    """Read this process's memory as a debugger does, and as root may."""
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        return os.pread(memory.fileno(), 8, address)


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- descriptors and mappings -----------------------------------------------------------------------------------


@needs_memfd_secret
def test_memory_is_secret_where_the_kernel_can_do_that() -> None:
    fd = secret_descriptor(CHUNK)
    region, mode = map_secret(fd, CHUNK)
    os.close(fd)
    assert mode is MemoryMode.SECRET
    assert {"lo", "dd", "dc"} <= set(_flags(_address(region)))


@needs_memfd_secret
def test_secret_memory_is_not_read_past_its_owner() -> None:
    view = SecretMemory().allocate(8)
    view[:] = b"a secret"
    with pytest.raises(OSError, match="Input/output error"):
        _read_past_the_owner(_address(view))


def test_without_memfd_secret_memory_is_locked_and_left_out_of_dumps_and_children() -> None:
    def work() -> tuple[MemoryMode, set[str]]:
        fd = secret_descriptor(CHUNK)
        region, mode = map_secret(fd, CHUNK)
        os.close(fd)
        return mode, set(_flags(_address(region)))

    mode, flags = lacking(NO_MEMFD_SECRET, work=work)
    assert mode is MemoryMode.LOCKED
    assert {"lo", "dd", "dc"} <= flags


def test_where_nothing_can_be_locked_memory_is_ordinary_and_is_said_to_be() -> None:
    memory = lacking(NO_MEMFD_SECRET, NO_LOCKING, work=SecretMemory)
    assert memory.mode is MemoryMode.ORDINARY
    assert memory.allocate(32) == bytes(32)


def _inheritable() -> bool:
    fd = secret_descriptor(CHUNK)
    try:
        return os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_no_program_inherits_secret_memory_unless_it_is_given_to_it() -> None:
    assert not _inheritable()
    assert not lacking(NO_MEMFD_SECRET, work=_inheritable)


def _shared_with_a_child() -> str:
    fd = secret_descriptor(CHUNK)
    region, _ = map_secret(fd, CHUNK)
    region[:5] = b"given"
    script = (
        "import sys; from endocarp.shell.memory import map_secret\n"
        f"region, mode = map_secret({fd}, {CHUNK}); print(mode.name, region[:5].decode())"
    )
    words = [sys.executable, "-c", script]
    told = subprocess.run(words, pass_fds=[fd], capture_output=True, text=True, check=True, timeout=30)
    os.close(fd)
    return told.stdout.strip()


@needs_memfd_secret
def test_a_program_that_is_given_secret_memory_reads_what_stands_there() -> None:
    assert _shared_with_a_child() == "SECRET given"


def test_memory_without_memfd_secret_is_handed_on_as_well() -> None:
    assert lacking(NO_MEMFD_SECRET, work=_shared_with_a_child) == "LOCKED given"


# --- limits -----------------------------------------------------------------------------------------------------


def test_memory_of_no_size_that_exists_is_refused_and_leaves_no_descriptor() -> None:
    with no_descriptor_leaks(), pytest.raises(Refused, match=r"Invalid argument \[memory.secret\]"):
        secret_descriptor(-1)


def test_where_descriptors_have_run_out_the_refusal_says_which_limit_to_raise() -> None:
    with no_descriptor_leaks(), pytest.raises(Refused) as refused, descriptors_left(0):
        secret_descriptor(CHUNK)
    assert refused.value.rule == "memory.secret"
    assert "ulimit -n" in refused.value.advice()


def test_where_the_kernel_maps_no_more_the_refusal_says_which_limit_to_raise() -> None:
    size = 0x123000

    def work() -> None:
        fd = secret_descriptor(size)
        try:
            map_secret(fd, size)
        finally:
            os.close(fd)

    with no_descriptor_leaks(), pytest.raises(Refused) as refused:
        lacking(("mmap", errno.EAGAIN, (1, size)), work=work)
    assert refused.value.rule == "memory.secret"
    assert "ulimit -l" in refused.value.advice()


LIMITED = """
import json, os, resource, sys
from endocarp.errors import Refused
from endocarp.shell.memory import SecretMemory
resource.setrlimit(resource.RLIMIT_MEMLOCK, (256 << 10, 256 << 10))
if os.getuid() == 0:
    os.setuid(65534)
memory = SecretMemory()
taken, said = 0, ["", ""]
while taken < 1 << 20:
    try:
        memory.allocate(4096)
    except Refused as refused:
        said = [refused.rule, refused.advice()]
        break
    taken += 4096
print(json.dumps([taken, memory.mode.name, *said]))
"""


@needs_memfd_secret
def test_an_ordinary_user_gets_secret_memory_up_to_the_limit_and_then_a_refusal() -> None:
    taken, mode, rule, advice = in_child(LIMITED)
    assert (taken, mode, rule) == (256 << 10, "SECRET", "memory.secret")
    assert "ulimit -l" in advice


def test_without_memfd_secret_an_ordinary_user_goes_on_beyond_the_limit_and_it_is_told() -> None:
    taken, mode, *_ = lacking(NO_MEMFD_SECRET, work=lambda: in_child(LIMITED))
    assert (taken, mode) == (1 << 20, "ORDINARY")


# --- the allocator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, GRAIN - 1, GRAIN, GRAIN + 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_memory_comes_zeroed_writable_and_of_the_size_that_was_asked_for(size: int) -> None:
    view = SecretMemory().allocate(size)
    assert view == bytes(size)
    view[:] = b"\xff" * size
    assert view == b"\xff" * size


def test_memory_that_is_lent_never_overlaps() -> None:
    memory = SecretMemory()
    views = [memory.allocate(size) for size in (1, 64, 65, 100, 4000, 1) * 40]
    for number, view in enumerate(views):
        view[:] = bytes([number]) * len(view)
    assert all(view == bytes([number]) * len(view) for number, view in enumerate(views))


def test_memory_that_came_back_is_lent_again() -> None:
    memory = SecretMemory()
    first = memory.allocate(100)
    at = _address(first)
    memory.release(first)
    assert _address(memory.allocate(90)) == at


def test_memory_grows_by_chunks_and_keeps_no_descriptor_but_that_of_the_mapping() -> None:
    memory = SecretMemory()
    kept = [memory.allocate(GRAIN) for _ in range(CHUNK // GRAIN)]
    before = _open_descriptors()
    kept.append(memory.allocate(GRAIN))
    assert _open_descriptors() == before + 1


def test_the_mode_is_the_worst_that_any_chunk_got() -> None:
    memory = SecretMemory()
    before = memory.mode
    lacking(NO_MEMFD_SECRET, NO_LOCKING, work=lambda: memory.allocate(2 * CHUNK))
    assert before > memory.mode
    assert memory.mode is MemoryMode.ORDINARY


def test_what_was_never_lent_is_not_taken_back() -> None:
    with pytest.raises(KeyError):
        SecretMemory().release(memoryview(bytearray(8)))


def test_threads_take_turns() -> None:
    memory = SecretMemory()
    faults: list[str] = []

    def work(mark: int) -> None:
        for _ in range(300):
            view = memory.allocate(48)
            view[:] = bytes([mark]) * 48
            time.sleep(0)
            if view != bytes([mark]) * 48:
                faults.append("another thread wrote here")
            view[:] = bytes(48)
            memory.release(view)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


class _Forgotten:
    """Something in a cycle that holds memory: only the collector ends it, at a moment of its own choice."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.itself = self
        self.release = release

    def __del__(self) -> None:
        self.release()


def test_memory_may_come_back_in_the_middle_of_a_call() -> None:
    memory = SecretMemory()
    before = gc.get_threshold()
    try:
        for moment in range(2, 40):  # the collector comes at another step of the call each time
            gc.set_threshold(moment)
            for _ in range(50):
                view = memory.allocate(48)
                _Forgotten(lambda view=view: memory.release(view))  # type: ignore[misc]
    finally:
        gc.set_threshold(*before)


def test_a_descriptor_of_a_file_is_not_taken_for_secret_memory(tmp_path: Path) -> None:
    file = tmp_path / "secretmem"
    file.write_bytes(bytes(CHUNK))
    with file.open("r+b") as opened:
        assert fcntl.fcntl(opened, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        _, mode = map_secret(opened.fileno(), CHUNK)
    assert mode is MemoryMode.LOCKED


USES_MUCH = """
import json, resource, sys, threading
from pathlib import Path
from endocarp.crypto.primitives import pin_digest
from endocarp.shell.memory import return_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

if sys.argv[1] == "told":
    return_large_blocks()
pin_digest(b"12345678", bytes(16))
before = resident()
together = threading.Barrier(4)
def compare():
    together.wait()
    pin_digest(b"12345678", bytes(16))
threads = [threading.Thread(target=compare) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(resident() - before))
"""


def test_what_the_comparison_of_pins_has_used_is_given_back() -> None:
    assert in_child(USES_MUCH, "told") < 8 << 20
