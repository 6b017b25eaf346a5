"""Listening sockets in the state directory: for their owner alone (mode 0600)."""

import os
import socket
import stat
from pathlib import Path

from endocarp.errors import UsageError
from endocarp.shell.config import unwritable

BACKLOG = 1024


def listen_at(path: Path, kind: socket.SocketKind) -> socket.socket:
    """Listen on a Unix socket at `path`; one that an earlier run left behind gives way.

    Only the holder of the state directory's lock may call this. Raises UsageError where something else lies
    there, or where the directory cannot be written.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        _clear(path)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise unwritable(path, error) from None
        raise
    finally:
        os.umask(before)
    return listener


def _clear(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(
            f"{path} is in the way: it is not a socket", "move it away, or choose another --state"
        )
    path.unlink()
