"""What the relying party demands beyond authenticity: reference values, and rules as small objects.

By the time a policy is asked, everything it looks at has been verified or has failed: a rule only judges values.
Each rule answers with one finding for every value it could judge; what it could not judge stays unreached, and an
unreached rule is never an accepted one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from endocarp.errors import DecodeError
from endocarp.verifier.rules import IMAGES
from endocarp.verifier.verdict import Finding, Outcome
from endocarp.wire.mailbox import DeviceStatus, FwInfoReply

_LIMIT = 1 << 16
_LIFECYCLE_PRODUCTION = 3
_SHA256_SIZE, _SHA384_SIZE = 32, 48


@dataclass(frozen=True)
class ReferenceValues:
    """What the builder says a server of this model must show (RFC 9334: reference values): SHA-384, SHA-256 for the ROM.

    `digests` has `vendor_keys`, `owner_keys`, `fmc`, `runtime`, `manifest`, `rom`, `box`, `front` and `vault`; `svn`
    is the least security version number of the firmware.
    """

    model: str
    digests: Mapping[str, bytes]
    svn: int

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text that the builder writes. Raises DecodeError."""
        if len(text) > _LIMIT:
            raise DecodeError("ReferenceValues", f"{len(text)} characters, at most {_LIMIT}")
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError):
            raise DecodeError("ReferenceValues", "no JSON") from None
        bundle, images = _entry(plain, "bundle", dict), _entry(plain, "images", dict)
        digests = {
            "vendor_keys": _digest(bundle, "vendor_pk_hash"),
            "owner_keys": _digest(bundle, "owner_pk_hash"),
            "fmc": _digest(bundle, "fmc_digest"),
            "runtime": _digest(bundle, "runtime_digest"),
            "manifest": _digest(plain, "manifest_digest"),
            "rom": _digest(plain, "rom_digest", _SHA256_SIZE),
        }
        digests |= {image: _digest(images, image) for image in IMAGES}
        return cls(_entry(plain, "model", str), digests, _entry(bundle, "svn", int))

    def name(self, value: str) -> str:
        """Return how a verdict names one of these values."""
        return f"{self.model}: {value}"


def _entry(plain: Any, name: str, kind: type) -> Any:
    found = plain.get(name) if isinstance(plain, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise DecodeError(f"ReferenceValues.{name}", f"no {kind.__name__}")
    return found


def _digest(plain: Any, name: str, size: int = _SHA384_SIZE) -> bytes:
    try:
        found = bytes.fromhex(_entry(plain, name, str))
    except ValueError:
        found = b""
    if len(found) != size:
        raise DecodeError(f"ReferenceValues.{name}", f"not {size} octets in hexadecimal")
    return found


@dataclass(frozen=True)
class Facts:
    """What the evidence came to: only what could be read, whether or not every rule about it has held.

    `digests` has the names of `ReferenceValues`, each with every value that was shown under it; `unknown` names stashed
    images that have no name there. `svns` has `fmc` and `runtime`.
    """

    digests: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    unknown: Sequence[str] = ()
    svns: Mapping[str, int] = field(default_factory=dict)
    status: DeviceStatus | None = None
    info: FwInfoReply | None = None
    partitions: Sequence[int] = ()


class Rule(Protocol):
    """One demand."""

    def judge(self, facts: Facts) -> Iterator[Finding]:
        """Give a finding for every value that the facts have for this rule, and none where they have none."""


@dataclass(frozen=True)
class DigestIs:
    """A digest is the one of the references."""

    name: str
    references: ReferenceValues

    def judge(self, facts: Facts) -> Iterator[Finding]:
        """Compare every digest that was shown under the name."""
        expected, reference = self.references.digests[self.name], self.references.name(self.name)
        for found in facts.digests.get(self.name, ()):
            good = found == expected
            reason = found.hex() if good else f"{found.hex()}, the reference is {expected.hex()}"
            yield _finding(f"image.{self.name}.reference", reason, good=good, reference=reference)


@dataclass(frozen=True)
class NothingElseStashed:
    """No image was stashed that the references do not speak of; what runs unstashed, nobody sees here."""

    def judge(self, facts: Facts) -> Iterator[Finding]:
        """Look for images without a name."""
        if facts.digests:
            names = ", ".join(facts.unknown)
            yield _finding("image.known", names or "none beside them", good=not facts.unknown)


@dataclass(frozen=True)
class AtLeastSvn:
    """FMC and runtime are not older than the references."""

    references: ReferenceValues

    def judge(self, facts: Facts) -> Iterator[Finding]:
        """Compare the security version numbers that the certificates show."""
        least, reference = self.references.svn, self.references.name("svn")
        for stage, svn in facts.svns.items():
            reason = f"{stage} has SVN {svn}, at least {least}"
            yield _finding("policy.svn", reason, good=svn >= least, reference=reference)


@dataclass(frozen=True)
class InProduction:
    """The device is in the production life cycle, with debugging locked and anti-rollback not disabled.

    What anti-rollback refuses is what lies below the SVN in the fuses, which may be older than the references.
    """

    def judge(self, facts: Facts) -> Iterator[Finding]:
        """Look at the device status that ROM measured."""
        if facts.status is None:
            return
        vendor, owner = facts.status.vendor, facts.status.owner
        good = vendor.lifecycle == _LIFECYCLE_PRODUCTION
        yield _finding("policy.lifecycle", f"life cycle {vendor.lifecycle}", good=good)
        # Caliptra, security states: unlocked, every secret is a published constant.
        yield _finding("policy.debug", f"debug locked: {vendor.debug_locked}", good=vendor.debug_locked == 1)
        disabled = owner.anti_rollback_disable
        reason = f"anti-rollback disabled: {disabled}, least SVN in fuses {owner.fw_fuse_svn}"
        yield _finding("policy.anti_rollback", reason, good=disabled == 0)


@dataclass(frozen=True)
class AttestationOn:
    """FW_INFO, which is box's word, does not say that attestation was switched off."""

    def judge(self, facts: Facts) -> Iterator[Finding]:
        """Look at the firmware information."""
        if facts.info is not None:
            disabled = facts.info.attestation_disabled
            yield _finding("policy.attestation", f"disabled: {disabled}", good=disabled == 0)


@dataclass(frozen=True)
class PartitionsReport:
    """At least one partition reports, and none twice."""

    def judge(self, facts: Facts) -> Iterator[Finding]:
        """Count the reports that could be read."""
        numbers = sorted(facts.partitions)
        good = bool(numbers) and len(set(numbers)) == len(numbers)
        reason = ", ".join(f"partition {number}" for number in numbers) or "no report"
        yield _finding("policy.partitions", reason, good=good)


def _finding(rule: str, reason: str, *, good: bool, reference: str = "") -> Finding:
    return Finding(rule, Outcome.HELD if good else Outcome.FAILED, reason, reference=reference)


def policy_of(references: ReferenceValues) -> Sequence[Rule]:
    """Return every demand, against these reference values."""
    return (
        *(DigestIs(name, references) for name in references.digests),
        NothingElseStashed(),
        AtLeastSvn(references),
        InProduction(),
        AttestationOn(),
        PartitionsReport(),
    )
