"""What stays the same while a box runs, whatever dies: the directory, the sealed images, the listening sockets."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TextIO

from endocarp.box.plan import KINDS, PARTITIONS
from endocarp.crypto.digest import sha384
from endocarp.errors import UsageError
from endocarp.shell.archive import load, read_sealed, seal
from endocarp.shell.config import State, make_private, unwritable
from endocarp.shell.sockets import listen_at
from endocarp.wire.mailbox import PopulateIdevEcc384Cert, PopulateIdevMldsa87Cert

DEVICE_MODEL, DEVICE_IDEVID = "device.model", "device.idevid"
"""The rules under which what came with the device is refused."""
RESTORE = "put back a copy of it; it came with the device, and is not made again"
_IDEVID: Mapping[str, type[PopulateIdevEcc384Cert | PopulateIdevMldsa87Cert]] = {
    "ecc384": PopulateIdevEcc384Cert,
    "mldsa87": PopulateIdevMldsa87Cert,
}


@dataclass(frozen=True)
class SealedImage:
    """An image that nobody can change any more: the descriptor of its memory, its size, and its SHA-384."""

    descriptor: int
    size: int
    digest: bytes

    @classmethod
    def of(cls, descriptor: int) -> "SealedImage":
        """Hash what lies behind a descriptor. Raises Refused `image.seal` where that can still change."""
        octets = read_sealed(descriptor)
        return cls(descriptor, len(octets), sha384(octets))


@dataclass(frozen=True)
class Machine:
    """A state directory, taken into possession.

    `images` are those that processes are started from, and the box's own, by name; `idevid` hands in the device's
    certificates, by suite; `doors` are the listening sockets of the front, by the names `native-N` and `p11-kit-N`.
    """

    state: State
    model: str
    images: Mapping[str, SealedImage]
    firmware: bytes
    manifest: bytes
    idevid: Mapping[str, PopulateIdevEcc384Cert | PopulateIdevMldsa87Cert]
    mailbox: socket.socket
    admin: socket.socket
    doors: Mapping[str, socket.socket]


@contextlib.contextmanager
def machine(state: State, own_image: int) -> Iterator[Machine]:
    """Take possession of a state directory and load what lies in it; `own_image` is the image of the box itself.

    Raises UsageError where another box runs on it, where others may enter it or where a socket cannot be made, Refused
    where an image or a file of the device is missing.
    """
    with contextlib.ExitStack() as stack:
        make_private(state.root)
        stack.enter_context(locked(state))
        listeners = _listen(state, stack)
        images = {"box": SealedImage.of(own_image)}
        for name in (kind.image for kind in KINDS.values()):
            descriptor = seal(load(state.archive(name)), name)
            stack.callback(os.close, descriptor)
            images[name] = SealedImage.of(descriptor)
        yield Machine(
            state,
            load(state.model, DEVICE_MODEL, RESTORE).decode(errors="replace").strip(),
            images,
            load(state.bundle),
            load(state.manifest),
            {
                suite: request(load(state.idevid_certificate(suite), DEVICE_IDEVID, RESTORE))
                for suite, request in _IDEVID.items()
            },
            listeners.pop("mailbox"),
            listeners.pop("admin"),
            listeners,
        )


def locked(state: State) -> TextIO:
    """Return the open lock of a state directory, which whoever changes or runs it holds.

    Raises UsageError where somebody else does.
    """
    try:
        lock = state.lock.open("w")
    except OSError as error:
        raise unwritable(state.lock, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        hint = "stop it first, or choose another directory with --state"
        raise UsageError(f"a server already runs on {state.root}", hint) from None
    return lock


def _listen(state: State, stack: contextlib.ExitStack) -> dict[str, socket.socket]:
    """Make the partition directories and listen on every socket of the server; `stack` closes and removes them."""
    wanted = {
        "mailbox": (state.mailbox_socket, socket.SOCK_STREAM),
        "admin": (state.admin_socket, socket.SOCK_STREAM),
    }
    for partition in PARTITIONS:
        make_private(state.store(partition))
        wanted[f"native-{partition}"] = (state.native_socket(partition), socket.SOCK_SEQPACKET)
        wanted[f"p11-kit-{partition}"] = (state.p11_kit_socket(partition), socket.SOCK_STREAM)
    listeners = {}
    for name, (path, kind) in wanted.items():
        listeners[name] = stack.enter_context(listen_at(path, kind))
        stack.callback(path.unlink, missing_ok=True)
    return listeners
