"""Memory for secrets: out of reach of other processes where the kernel can do that, locked where it cannot.

memfd_secret(2) pages are not in the kernel's direct map: not even a root process reads them through
/proc/PID/mem, ptrace or process_vm_readv. The system call is on by default only since Linux 6.5. Without it
pages are locked against swapping and left out of core dumps; without that either, they are ordinary, and the
process says so. A key that the cryptographic library has parsed lives in the library's own heap: what stands
here is what the process itself keeps at rest and between uses.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import threading
from pathlib import Path

from endocarp.errors import Refused
from endocarp.wire.control import MemoryMode

CHUNK = 64 << 10
GRAIN = 64
_MEMFD_SECRET = 447
_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20
_HINTS = {
    errno.EAGAIN: "raise the limit of locked memory (ulimit -l)",
    errno.EPERM: "raise the limit of locked memory (ulimit -l)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_libc = ctypes.CDLL(None, use_errno=True)


def secret_descriptor(size: int) -> int:
    """Return a descriptor of `size` octets of the best memory there is; it may be inherited by a child.

    memfd_secret where the kernel has it, else an ordinary memfd, which the caller locks after mapping. Raises
    Refused `memory.secret` where not even that is to be had.
    """
    fd = int(_libc.syscall(_MEMFD_SECRET, os.O_CLOEXEC))
    try:
        if fd < 0:
            fd = os.memfd_create("secret", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise _out_of_memory(error) from None
    return fd


def map_secret(fd: int, size: int) -> tuple[mmap.mmap, MemoryMode]:
    """Map a descriptor of `secret_descriptor`, lock it, keep it out of core dumps and of children.

    Raises Refused `memory.secret` where the limit of locked memory is reached.
    """
    mode = MemoryMode.SECRET if _is_secret(fd) else MemoryMode.ORDINARY
    try:
        region = mmap.mmap(fd, size)
    except OSError as error:
        raise _out_of_memory(error) from None
    if mode is MemoryMode.ORDINARY and _lock(region, size):
        mode = MemoryMode.LOCKED
    region.madvise(mmap.MADV_DONTDUMP)
    region.madvise(mmap.MADV_DONTFORK)
    return region, mode


def _is_secret(fd: int) -> bool:
    return str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("/secretmem")


def _lock(region: mmap.mmap, size: int) -> bool:
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    return bool(_libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)) == 0)


def _out_of_memory(error: OSError) -> Refused:
    hint = _HINTS.get(error.errno or 0, "free some memory of this machine")
    return Refused("memory.secret", f"no more memory for secrets: {error.strerror}", hint)


def return_large_blocks() -> None:
    """Have the C library give memory of 1 MiB and more back as soon as it is freed.

    Otherwise it keeps what a comparison of a PIN has used, 16 MiB, once for each of its arenas. Does nothing where the
    C library cannot be told (musl).
    """
    with contextlib.suppress(AttributeError):
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)


class SecretMemory:
    """An allocator of secret memory for `endocarp.crypto.secret`; it grows by chunks of 64 KiB.

    `mode` is the worst that any chunk got.
    """

    def __init__(self) -> None:
        self.mode = MemoryMode.SECRET
        self._free: dict[int, list[memoryview]] = {}
        self._lent: dict[int, memoryview] = {}
        self._rest = memoryview(b"")
        # The collector may end a forgotten secret in the middle of any step below, and its memory then comes back in
        # the same thread. `release` touches nothing that `allocate` has half changed.
        self._lock = threading.RLock()
        self._grow(CHUNK)

    def allocate(self, size: int) -> memoryview:
        """Return `size` zeroed octets; raises Refused `memory.secret` where there is no more."""
        whole = -(-max(size, 1) // GRAIN) * GRAIN
        with self._lock:
            free = self._free.get(whole)
            block = free.pop() if free else self._carve(whole)
            view = block[:size]
            self._lent[id(view)] = block
        return view

    def release(self, view: memoryview) -> None:
        """Take back what `allocate` gave; the caller has wiped it."""
        with self._lock:
            block = self._lent.pop(id(view))
            self._free.setdefault(len(block), []).append(block)

    def _carve(self, whole: int) -> memoryview:
        if len(self._rest) < whole:
            self._grow(max(CHUNK, whole))
        block, self._rest = self._rest[:whole], self._rest[whole:]
        return block

    def _grow(self, size: int) -> None:
        fd = secret_descriptor(size)
        try:
            region, mode = map_secret(fd, size)
        finally:
            os.close(fd)
        self.mode = min(self.mode, mode)
        self._rest = memoryview(region)
