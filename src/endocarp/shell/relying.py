"""The relying party's folder: trust anchors, reference values, and challenges that are outstanding.

It lies in the configuration directory, never in the server's state: who judges a server keeps what he judges by.
A challenge is good for one verdict, within a day: `take` removes it.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from endocarp.errors import DecodeError, UsageError
from endocarp.shell.config import Config, make_private, sync_directory, unwritable, write
from endocarp.verifier.appraise import appraise
from endocarp.verifier.chain import Anchor
from endocarp.verifier.policy import ReferenceValues
from endocarp.verifier.verdict import Verdict
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import Evidence

T = TypeVar("T")

CHALLENGE_LIFE = 24 * 3600
"""Seconds that a challenge may be answered: evidence that somebody kept back says nothing of today."""
_NONCE_SIZE = 32
_LIMIT = 1 << 21
"""The most octets of a file that are looked at: above all evidence that there is."""


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

    def names(self) -> list[str]:
        """Return the names of the anchors that have reference values."""
        return sorted(_stems(self.config.anchors, ".pem") & _stems(self.config.references, ".json"))

    def anchor(self, name: str) -> Anchor:
        """Return an anchor by its name. Raises DecodeError, with the path, where its file is damaged."""
        return _read(self.config.anchors / f"{name}.pem", partial(Anchor.from_pem, name))

    def references(self, name: str) -> ReferenceValues:
        """Return the reference values of an anchor. Raises DecodeError, with the path, where their file is damaged."""
        return _read(self.config.references / f"{name}.json", ReferenceValues.from_json)

    def judge(self, evidence: bytes, nonce: bytes | None, now: float) -> Verdict:
        """Appraise evidence against every anchor here; return the best verdict, the first that accepts.

        `nonce` is the challenge where somebody else keeps it; without it, the one that the evidence answers is used
        up here, and none is outstanding where it is not found. `now` is Unix time in seconds. Raises UsageError where
        there is no anchor at all.
        """
        names = self.names()
        if not names:
            hint = "start a server once with: endocarp up; or copy an anchor and its references there"
            raise UsageError(f"there is no trust anchor in {self.config.anchors}", hint)
        known = [(self.anchor(name), self.references(name)) for name in names]
        outstanding = self._take_answered(evidence, now) if nonce is None else nonce
        verdicts = [
            appraise(evidence, {anchor.name: anchor}, expected, outstanding, now)
            for anchor, expected in known
        ]
        return min(verdicts, key=lambda verdict: (not verdict.accepted, len(verdict.failures)))

    def _take_answered(self, evidence: bytes, now: float) -> bytes | None:
        """Use up the challenge that evidence claims to answer; whether it does, the verdict says."""
        try:
            nonce = Evidence.decode(SignedMessage.decode(evidence).payload).nonce
        except DecodeError:
            return None
        return nonce if self.take(nonce, now) else None

    def challenge(self, nonce: bytes, now: float) -> None:
        """Note down a challenge of 32 octets as outstanding since `now`, Unix time in seconds; forget those too old."""
        make_private(self.config.challenges)
        for path in self.config.challenges.iterdir():
            with contextlib.suppress(OSError):  # gone meanwhile, or none of ours
                if _is_too_old(path.read_bytes(), now):
                    path.unlink()
        write(self.config.challenges / nonce.hex(), str(int(now)).encode())

    def take(self, nonce: bytes, now: float) -> bool:
        """Use up a challenge for good; False where it is not outstanding: never handed out, used already, or too old.

        Raises UsageError where it cannot be used up: it would be good for a second verdict.
        """
        path = self.config.challenges / nonce.hex()
        try:
            since = path.read_bytes()
            path.unlink()
            sync_directory(path.parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unwritable(path, error) from None
        return since.isdigit() and not _is_too_old(since, now)


def _is_too_old(since: bytes, now: float) -> bool:
    return since.isdigit() and now - int(since) > CHALLENGE_LIFE


def _stems(directory: Path, suffix: str) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return {path.stem for path in directory.iterdir() if path.suffix == suffix}
    return set()


def _read(path: Path, decode: Callable[[str], T]) -> T:
    try:
        return decode(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise DecodeError(str(path), "not UTF-8") from None
    except DecodeError as error:
        raise DecodeError(str(path), str(error)) from None


def read_evidence(path: Path) -> bytes:
    """Read a file of evidence, or as much of it as evidence may have. Raises UsageError where it cannot be read."""
    try:
        with path.open("rb") as source:
            return source.read(_LIMIT)
    except OSError as error:
        hint = "get evidence with: endocarp evidence > evidence.cbor"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint) from None


def write_evidence(path: Path, octets: bytes) -> None:
    """Write evidence into a file, as a whole or not at all. Raises UsageError where it cannot be written.

    What is there and no file, like a pipe, is written into as it is.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(octets)
        else:
            write(path.resolve(), octets, mode=0o666)
    except (OSError, UsageError) as error:
        reason = error.reason if isinstance(error, UsageError) else unwritable(path, error).reason
        raise UsageError(reason, "choose another file with --out") from None


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
