"""Where things lie: the state directory of a server, and the configuration directory of its owner.

The state directory is the server's own: its device, its images, its stores, its sockets. The configuration
directory belongs to people: keys that sign images, trust anchors, reference values, outstanding challenges. What
judges the server must not lie where the server could change it, hence two.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from endocarp import xdg
from endocarp.errors import UsageError

_LONGEST_SOCKET = "partition-0000/p11-kit.sock"
_SOCKET_PATH_LIMIT = 107
"""Octets in the address of a Unix socket, without the closing zero (unix(7))."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class State:
    """The state directory."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the box that runs on this directory."""
        return self.root / "lock"

    @property
    def device(self) -> Path:
        """The device: fuses and what silicon would hide; secret."""
        return self.root / "device.json"

    @property
    def model(self) -> Path:
        """The name of the model root that vouches for the device."""
        return self.root / "model"

    def idevid_certificate(self, suite: str) -> Path:
        """The certificate of the device's identity, by the authority that provisioned it, DER."""
        return self.root / f"idevid-{suite}.der"

    @property
    def images(self) -> Path:
        """The images that run, as they were built and signed."""
        return self.root / "images"

    @property
    def bundle(self) -> Path:
        """The firmware bundle: FMC and runtime of the root of trust."""
        return self.images / "firmware.bundle"

    @property
    def manifest(self) -> Path:
        """The SoC manifest: what else may run."""
        return self.images / "soc.manifest"

    def archive(self, name: str) -> Path:
        """The code archive of a process."""
        return self.images / f"{name}.zip"

    @property
    def admin_socket(self) -> Path:
        """The admin socket of the box."""
        return self.root / "admin.sock"

    @property
    def mailbox_socket(self) -> Path:
        """The mailbox of the root of trust, for callers of privilege level 1."""
        return self.root / "mailbox.sock"

    def partition(self, number: int) -> Path:
        """The directory of a partition: its two doors."""
        return self.root / f"partition-{number}"

    def store(self, number: int) -> Path:
        """The directory of a partition's sealed store; nothing else lies in it."""
        return self.partition(number) / "store"

    def native_socket(self, number: int) -> Path:
        """The native door of a partition."""
        return self.partition(number) / "native.sock"

    def p11_kit_socket(self, number: int) -> Path:
        """The p11-kit door of a partition."""
        return self.partition(number) / "p11-kit.sock"


@dataclass(frozen=True)
class Config:
    """The configuration directory."""

    root: Path

    @property
    def keys(self) -> Path:
        """Keys that sign firmware and manifests, and the provisioning authority; secret."""
        return self.root / "keys"

    @property
    def anchors(self) -> Path:
        """Trust anchors by name."""
        return self.root / "anchors"

    @property
    def references(self) -> Path:
        """Reference values by model."""
        return self.root / "references"

    @property
    def challenges(self) -> Path:
        """Challenges that were handed out and not yet answered."""
        return self.root / "challenges"


def state(directory: Path | None, environment: Mapping[str, str] = os.environ) -> State:
    """Return the state directory: the one given, else below XDG_STATE_HOME, else ~/.local/state.

    Raises UsageError where its path is too long for a Unix socket below it.
    """
    root = xdg.state(environment) if directory is None else directory.absolute()
    length = len(os.fsencode(root / _LONGEST_SOCKET))
    if length > _SOCKET_PATH_LIMIT:
        excess = length - _SOCKET_PATH_LIMIT
        raise UsageError(
            f"the path of the state directory is {excess} octets too long for the sockets below it: {root}",
            "choose a shorter one with --state",
        )
    return State(root)


def config(directory: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration directory: the one given, else below XDG_CONFIG_HOME, else ~/.config."""
    return Config(xdg.config(environment) if directory is None else directory.absolute())


def make_private(directory: Path) -> None:
    """Make a directory that only its owner may enter, with those above it that are not there yet.

    Raises UsageError where that is not possible, or where one is there already that holds something and that others
    may enter: it is not ours to shut (`--state /tmp`).
    """
    try:
        for missing in reversed([one for one in (directory, *directory.parents) if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
            missing.chmod(0o700)  # whatever the umask took away
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & _OTHERS and any(directory.iterdir()):
            hint = f"keep them out with: chmod 700 {directory}, or choose another with --state or --config"
            raise UsageError(f"{directory} is open to others (mode {mode:04o})", hint)
        directory.chmod(0o700)
    except OSError as error:
        raise unwritable(directory, error) from None


def unwritable(path: Path, error: OSError) -> UsageError:
    """Return the error to raise where something below the state or configuration directory cannot be written."""
    hint = (
        "free some space"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else "give yourself the right to write there, or choose another with --state or --config"
    )
    return UsageError(f"cannot write {path}: {error.strerror or error}", hint)


def write(path: Path, octets: bytes | memoryview, *, mode: int = 0o600) -> None:
    """Write a file as a whole or not at all: a new one beside it, to disk, then renamed over it. Copies nothing."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        # What a crash left behind may have another mode: it makes way, it is not written into.
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb", buffering=0) as out:
            rest = memoryview(octets)
            while rest:
                rest = rest[out.write(rest) :]
            os.fsync(out.fileno())
        fresh.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise unwritable(path, error) from None


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
