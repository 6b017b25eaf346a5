"""The relying party's folder: trust anchors, reference values, and challenges that are outstanding.

It lies in the configuration directory, never in the server's state: who judges a server keeps what he judges by.
A challenge is good for one verdict: `take` removes it.
"""

import contextlib
from pathlib import Path

from endocarp.errors import UsageError
from endocarp.shell.config import Config, make_private, write

_NONCE_SIZE = 32


class RelyingParty:
    """The folder of one relying party."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def enrol(self, name: str, anchor: str, references: str) -> None:
        """Keep a trust anchor and its reference values under a name, in place of older ones."""
        for directory in (self.config.anchors, self.config.references):
            make_private(directory)
        write(self.config.anchors / f"{name}.pem", anchor.encode(), mode=0o644)
        write(self.config.references / f"{name}.json", references.encode(), mode=0o644)

    def anchors(self) -> dict[str, str]:
        """Return every anchor by its name, as PEM text."""
        return _texts(self.config.anchors, ".pem")

    def references(self) -> dict[str, str]:
        """Return the reference values by the name of their anchor, as JSON text."""
        return _texts(self.config.references, ".json")

    def challenge(self, nonce: bytes) -> bytes:
        """Note down a challenge of 32 octets as outstanding; return it."""
        make_private(self.config.challenges)
        write(self.config.challenges / nonce.hex(), b"")
        return nonce

    def take(self, nonce: bytes) -> bool:
        """Use up a challenge; False where it is not outstanding: never handed out, or used already."""
        try:
            (self.config.challenges / nonce.hex()).unlink()
        except FileNotFoundError:
            return False
        return True


def _texts(directory: Path, suffix: str) -> dict[str, str]:
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(directory.iterdir()):
            if path.suffix == suffix:
                found[path.stem] = path.read_text()
    return found


def read_nonce(text: str) -> bytes:
    """Read a nonce given in hexadecimal. Raises UsageError unless it has 32 octets."""
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if len(nonce) != _NONCE_SIZE:
        raise UsageError(
            "a nonce has 32 octets, as 64 hexadecimal digits", "make one with: openssl rand -hex 32"
        )
    return nonce
