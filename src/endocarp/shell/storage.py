"""A store's octets in one file of a directory of its own: durable appends, atomic replacement.

Every method raises OSError where it cannot keep its word, and leaves the file as it was, or as a crash would. Where
nobody can say any more which of two files a crash would leave, nothing is written from then on.
"""

import contextlib
import os
from pathlib import Path

from endocarp.shell.config import sync_directory

_NAME = "records"
_FRESH = "records.new"
_PIECE = 1 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class FileStorage:
    """The file `records` in `directory`, at `path`, for one process at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / _NAME
        self._fd = -1

    def read(self) -> bytes:
        """Return all octets; none where nothing was ever stored."""
        with contextlib.suppress(FileNotFoundError):
            (self.directory / _FRESH).unlink()
        self.close()
        self._fd = os.open(self.path, _FLAGS, 0o600)
        sync_directory(self.directory)
        return _read_all(self._fd)

    def append(self, octets: bytes) -> None:
        """Add octets at the end; they survive a crash once this has returned."""
        _write_all(self._fd, octets)
        os.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        """Keep only the first `size` octets, for good once this has returned."""
        os.ftruncate(self._fd, size)
        os.fsync(self._fd)

    def replace(self, octets: bytes) -> None:
        """Put these octets in place of all others, wholly or not at all."""
        fresh = self.directory / _FRESH
        fd = os.open(fresh, _FLAGS | os.O_TRUNC, 0o600)
        try:
            _write_all(fd, octets)
            os.fsync(fd)
            fresh.replace(self.path)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        self.close()
        try:
            sync_directory(self.directory)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_all(fd: int) -> bytes:
    found = bytearray()
    while piece := os.pread(fd, _PIECE, len(found)):
        found += piece
    return bytes(found)


def _write_all(fd: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(fd, rest) :]
