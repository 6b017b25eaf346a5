"""Octets that must not leak: held in memory of their own, wiped when they are no longer needed.

Where that memory comes from is the shell's business: it calls `keep_in` once with an allocator over locked or
secret pages. Without it, secrets lie in ordinary bytearrays, which are wiped all the same.

What cannot be promised from Python: octets that came in as `bytes` have a copy outside that nobody can wipe, and
what the crypto library makes of a secret while it works (a parsed key, an expanded key) lives in its own heap.
"""

import ctypes
import weakref
from types import TracebackType
from typing import NoReturn, Protocol, Self

from endocarp.crypto.digest import Buffer, equal
from endocarp.errors import UsageError


class Memory(Protocol):
    """Where secrets live."""

    def allocate(self, size: int) -> memoryview:
        """Return a writable, zeroed view of exactly `size` octets."""

    def release(self, view: memoryview) -> None:
        """Take back what `allocate` gave, the same object; it has been wiped already.

        This may come from the garbage collector, in the middle of another call to this object by the same thread:
        a lock in here has to be reentrant.
        """


class _Heap:
    """Ordinary memory, for tests and for programs that hold no keys of others."""

    def allocate(self, size: int) -> memoryview:
        return memoryview(bytearray(size))

    def release(self, view: memoryview) -> None:
        pass  # the garbage collector takes it


_memory: Memory = _Heap()


def keep_in(memory: Memory) -> None:
    """Keep every secret that is made from now on in this memory; once a process, before its first secret.

    Raises UsageError when the place was chosen before.
    """
    global _memory  # noqa: PLW0603  one place for the whole process is the point
    if not isinstance(_memory, _Heap):
        raise UsageError(
            "the memory of secrets was chosen already", "call keep_in once, when the process starts"
        )
    _memory = memory


_CLOSED = memoryview(bytearray())


def _lend(size: int) -> memoryview:
    region = _memory.allocate(size or 1)
    # Every view of this array, and every slice of such a view, keeps the array alive. So the memory cannot be lent
    # to another secret while somebody still looks at it; and a finalizer, unlike __del__, also runs for what is
    # left when the interpreter ends.
    array = (ctypes.c_ubyte * len(region)).from_buffer(region)
    weakref.finalize(array, _give_back, _memory, region)
    return memoryview(array).cast("B")[:size]


def _give_back(memory: Memory, region: memoryview) -> None:
    wipe(region)
    memory.release(region)


def wipe(view: memoryview | bytearray) -> None:
    """Overwrite every octet with zero, in place."""
    view[:] = bytes(len(view))


class Secret:
    """Octets with an end: wiped by `close`, at the end of a `with`, or when forgotten.

    Equality takes constant time. There is no representation of the content, no hash, no copying, no pickling.
    """

    __slots__ = ("_view",)

    def __init__(self, octets: Buffer) -> None:
        self._view = _lend(len(octets))
        self._view[:] = octets

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return a secret of `size` zero octets, to be filled through `view`."""
        self = cls.__new__(cls)
        self._view = _lend(size)
        return self

    @property
    def view(self) -> memoryview:
        """The octets, writable; UsageError after `close`.

        A view keeps its memory: it stays good when the secret is forgotten, and shows zeros when it is closed.
        """
        if self._view is _CLOSED:
            raise UsageError("this secret was closed", "keep it open as long as it is in use")
        return self._view

    def close(self) -> None:
        """Wipe the octets; the memory goes back as soon as nobody looks at it. To close again does no harm."""
        wipe(self._view)
        self._view = _CLOSED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.view)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return equal(self.view, other.view)

    __hash__ = None  # type: ignore[assignment]  # a hash of the content would leak it

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise UsageError("a secret is not copied or pickled", "hand over the secret itself")
