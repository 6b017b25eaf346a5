"""A store's octets in one file of a directory of its own: durable appends, atomic replacement.

Every method raises OSError where it cannot keep its word, and leaves the file as it was, or as a crash would.
"""

import contextlib
import os
from pathlib import Path

from endocarp.shell.config import sync_directory

_NAME = "records"
_FRESH = "records.new"


class FileStorage:
    """The file `records` in `directory`, for one process at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._fd = -1

    def read(self) -> bytes:
        """Return all octets; none where nothing was ever stored."""
        with contextlib.suppress(FileNotFoundError):
            (self.directory / _FRESH).unlink()
        self._open(os.O_CREAT)
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

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
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, octets)
            os.fsync(fd)
        except OSError:
            fresh.unlink()
            raise
        finally:
            os.close(fd)
        fresh.replace(self.directory / _NAME)
        sync_directory(self.directory)
        self._open(0)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, flags: int) -> None:
        fd = os.open(self.directory / _NAME, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        self.close()
        self._fd = fd


def _write_all(fd: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(fd, rest) :]
