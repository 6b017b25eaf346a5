"""What a server says about itself: the payload of the evidence, and the report of one partition inside it.

Both are maps of deterministic CBOR: the claims that EAT registers (RFC 9711) under their numbers, ours under numbers
of the private range. Both travel as the payload of a `wire.cose.SignedMessage`, each under its own content type:

    evidence            signed by the DPE leaf (P-384 and ML-DSA-87)
      certificates, quotes, logs …             as the root of trust gave them, unchanged
      partitions        each: report, and the two certificates of the identity that signed it
        report          signed by the partition's identity (P-384 and ML-DSA-87)

Nothing here judges: a decoded value has the right types and sizes, and no more is known of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Self

from endocarp.errors import DecodeError, UsageError
from endocarp.wire import cbor
from endocarp.wire.suites import Suite

EVIDENCE_TYPE = "application/vnd.endocarp.evidence+cbor"
"""The COSE content type of evidence."""
REPORT_TYPE = "application/vnd.endocarp.partition-report+cbor"
"""The COSE content type of a partition report."""

EVIDENCE_PROFILE = "urn:endocarp:evidence:1"
REPORT_PROFILE = "urn:endocarp:partition-report:1"

SUITES = (Suite.P384, Suite.ML_DSA_87)
"""Every identity, chain and quote is held once in each of these."""

NONCE_SIZE = 32
KEY_ID_SIZE = 20
DIGEST_SIZE = 48

LABEL_PREFIX = b"endocarp evidence"
"""The label of the DPE leaf that signs evidence is SHA-384 of this and the nonce."""

LIMIT = 1 << 20
"""Octets of a payload at most."""

_CERTIFICATE_LIMIT = 16 << 10
_REPLY_LIMIT = 16 << 10
_REPORT_LIMIT = 16 << 10
_NAME_LIMIT = 256
_DETAIL_LIMIT = 8192
_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1


class ClaimKey(IntEnum):
    """The keys of both maps: 10 and 265 as EAT registers them, the others private."""

    NONCE = 10
    EAT_PROFILE = 265
    RT_ALIAS_KEY_ID = -77001
    CHAINS = -77002
    QUOTES = -77003
    FW_INFO = -77004
    PCR_LOG = -77005
    STASH_LOG = -77006
    PARTITIONS = -77007
    INVENTORY = -77008
    STATEMENTS = -77009
    PARTITION_ID = -77020
    IMAGE_DIGEST = -77021
    MEMORY_MODE = -77022
    SANDBOX = -77023
    GENERATION = -77024
    OBJECT_COUNT = -77025


class Status(IntEnum):
    """How far something that is said of this server holds here."""

    ENFORCED = 1
    """A mechanism of this machine refuses the contrary."""
    MODELLED = 2
    """The protocol is the real one, the protection behind it is not there."""
    REPORTED = 3
    """Somebody's word: nothing here would refuse the contrary."""
    ABSENT = 4
    """Not there at all."""


@dataclass(frozen=True)
class Chain:
    """The certificates of one suite, root side first, as DER. The root itself is not sent: it is an anchor."""

    idevid: bytes
    ldevid: bytes
    fmc_alias: bytes
    rt_alias: bytes
    dpe_leaf: bytes


CHAIN_ORDER = tuple(field.name for field in fields(Chain))
"""The names of the certificates of a chain, root side first."""


@dataclass(frozen=True)
class StashEntry:
    """One image that was measured into PCR 31: firmware id, name for people, SHA-384, security version number.

    A list of these is box's word about what was stashed, in order; PCR 31 and the DPE leaf must agree with it.
    """

    fw_id: int
    name: str
    digest: bytes
    svn: int


@dataclass(frozen=True)
class Component:
    """Something that runs here and was hashed by nobody but the server itself: reported, not enforced."""

    name: str
    digest: bytes


@dataclass(frozen=True)
class Statement:
    """What the server says of one protection: of what, by which mechanism, how far it holds, and the detail."""

    subject: str
    mechanism: str
    status: Status
    detail: str


@dataclass(frozen=True)
class PartitionEvidence:
    """A partition report (COSE octets) and the certificates of the identity that signed it, by suite."""

    report: bytes
    certificates: Mapping[Suite, bytes]

    def encode(self) -> bytes:
        """Return the octets, as a vault answers them."""
        return cbor.encode(_partition_to_cbor(self))

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read what a vault answered. Raises DecodeError."""
        found = _partition_from_cbor(cbor.decode("PartitionEvidence", octets, limit=LIMIT))
        return cls(found.report, found.certificates)


@dataclass(frozen=True)
class PartitionReport:
    """What a partition says of itself, under the caller's nonce.

    `rt_alias_key_id` is the P-384 key id of the RT alias that certified the partition's identity, the same at every
    boot of one firmware; `image_digest` the SHA-384 of the vault's image as the root of trust measured it.
    `memory_mode` and `sandbox` are what the process found when it started; `generation` counts the changes of the
    store.
    """

    nonce: bytes
    rt_alias_key_id: bytes
    partition_id: int
    image_digest: bytes
    memory_mode: str
    sandbox: Mapping[str, str]
    generation: int
    object_count: int

    def encode(self) -> bytes:
        """Return the payload to be signed under REPORT_TYPE. Raises UsageError where nobody could read it."""
        return _readable(
            type(self),
            {
                ClaimKey.NONCE: self.nonce,
                ClaimKey.EAT_PROFILE: REPORT_PROFILE,
                ClaimKey.RT_ALIAS_KEY_ID: self.rt_alias_key_id,
                ClaimKey.PARTITION_ID: self.partition_id,
                ClaimKey.IMAGE_DIGEST: self.image_digest,
                ClaimKey.MEMORY_MODE: self.memory_mode,
                ClaimKey.SANDBOX: {**self.sandbox},
                ClaimKey.GENERATION: self.generation,
                ClaimKey.OBJECT_COUNT: self.object_count,
            },
        )

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read a payload. Raises DecodeError."""
        where = "PartitionReport"
        claims = cbor.claims(where, cbor.decode(where, octets, limit=_REPORT_LIMIT), _REPORT_CLAIMS)
        _read_profile(where, claims, REPORT_PROFILE)
        sandbox = cbor.mapping("PartitionReport.sandbox", claims[ClaimKey.SANDBOX], most=64)
        return cls(
            nonce=_read_nonce(where, claims),
            rt_alias_key_id=_read_key_id(where, claims),
            partition_id=cbor.number(
                "PartitionReport.partition_id", claims[ClaimKey.PARTITION_ID], most=_U32
            ),
            image_digest=_read_digest("PartitionReport.image_digest", claims[ClaimKey.IMAGE_DIGEST]),
            memory_mode=cbor.text(
                "PartitionReport.memory_mode", claims[ClaimKey.MEMORY_MODE], limit=_NAME_LIMIT
            ),
            sandbox={
                _read_name("PartitionReport.sandbox", name): _read_detail("PartitionReport.sandbox", value)
                for name, value in sandbox.items()
            },
            generation=cbor.number("PartitionReport.generation", claims[ClaimKey.GENERATION], most=_U64),
            object_count=cbor.number(
                "PartitionReport.object_count", claims[ClaimKey.OBJECT_COUNT], most=_U32
            ),
        )


@dataclass(frozen=True)
class Evidence:
    """Everything that one server says of itself, under the caller's nonce of 32 octets.

    `rt_alias_key_id` is the key id (SHA-256(public key)[:20]) of the RT alias in P-384. `chains` and `quotes` are
    keyed by suite; a quote, `fw_info` and `pcr_log` are the data of the mailbox replies QUOTE_PCRS_*, FW_INFO and
    GET_PCR_LOG, unchanged. `stash_log`, `inventory` and `statements` are box's word.
    """

    nonce: bytes
    rt_alias_key_id: bytes
    chains: Mapping[Suite, Chain]
    quotes: Mapping[Suite, bytes]
    fw_info: bytes
    pcr_log: bytes
    stash_log: tuple[StashEntry, ...]
    partitions: tuple[PartitionEvidence, ...]
    inventory: tuple[Component, ...]
    statements: tuple[Statement, ...]

    def encode(self) -> bytes:
        """Return the payload to be signed under EVIDENCE_TYPE. Raises UsageError where nobody could read it."""
        return _readable(
            type(self),
            {
                ClaimKey.NONCE: self.nonce,
                ClaimKey.EAT_PROFILE: EVIDENCE_PROFILE,
                ClaimKey.RT_ALIAS_KEY_ID: self.rt_alias_key_id,
                ClaimKey.CHAINS: {suite: _chain_to_cbor(chain) for suite, chain in self.chains.items()},
                ClaimKey.QUOTES: dict(self.quotes),
                ClaimKey.FW_INFO: self.fw_info,
                ClaimKey.PCR_LOG: self.pcr_log,
                ClaimKey.STASH_LOG: [[one.fw_id, one.name, one.digest, one.svn] for one in self.stash_log],
                ClaimKey.PARTITIONS: [_partition_to_cbor(one) for one in self.partitions],
                ClaimKey.INVENTORY: [[one.name, one.digest] for one in self.inventory],
                ClaimKey.STATEMENTS: [
                    [one.subject, one.mechanism, one.status, one.detail] for one in self.statements
                ],
            },
        )

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read a payload. Raises DecodeError."""
        where = "Evidence"
        claims = cbor.claims(where, cbor.decode(where, octets, limit=LIMIT), _EVIDENCE_CLAIMS)
        _read_profile(where, claims, EVIDENCE_PROFILE)
        return cls(
            nonce=_read_nonce(where, claims),
            rt_alias_key_id=_read_key_id(where, claims),
            chains={
                suite: _chain_from_cbor(chain)
                for suite, chain in _by_suite("Evidence.chains", claims[ClaimKey.CHAINS]).items()
            },
            quotes=_octets_by_suite("Evidence.quotes", claims[ClaimKey.QUOTES], _REPLY_LIMIT),
            fw_info=cbor.octets("Evidence.fw_info", claims[ClaimKey.FW_INFO], least=0, most=_REPLY_LIMIT),
            pcr_log=cbor.octets("Evidence.pcr_log", claims[ClaimKey.PCR_LOG], least=0, most=_REPLY_LIMIT),
            stash_log=_each(_stash_entry, "Evidence.stash_log", claims[ClaimKey.STASH_LOG], 64),
            partitions=_each(_partition_from_cbor, "Evidence.partitions", claims[ClaimKey.PARTITIONS], 16),
            inventory=_each(_component, "Evidence.inventory", claims[ClaimKey.INVENTORY], 4096),
            statements=_each(_statement, "Evidence.statements", claims[ClaimKey.STATEMENTS], 256),
        )


_EVIDENCE_CLAIMS = (
    ClaimKey.NONCE,
    ClaimKey.EAT_PROFILE,
    ClaimKey.RT_ALIAS_KEY_ID,
    ClaimKey.CHAINS,
    ClaimKey.QUOTES,
    ClaimKey.FW_INFO,
    ClaimKey.PCR_LOG,
    ClaimKey.STASH_LOG,
    ClaimKey.PARTITIONS,
    ClaimKey.INVENTORY,
    ClaimKey.STATEMENTS,
)
_REPORT_CLAIMS = (
    ClaimKey.NONCE,
    ClaimKey.EAT_PROFILE,
    ClaimKey.RT_ALIAS_KEY_ID,
    ClaimKey.PARTITION_ID,
    ClaimKey.IMAGE_DIGEST,
    ClaimKey.MEMORY_MODE,
    ClaimKey.SANDBOX,
    ClaimKey.GENERATION,
    ClaimKey.OBJECT_COUNT,
)


def _readable(kind: type[Evidence] | type[PartitionReport], claims: Mapping[ClaimKey, Any]) -> bytes:
    """Encode claims; what is too long or too much is refused here, before it is signed, and not at the other end."""
    octets = cbor.encode(claims)
    try:
        kind.decode(octets)
    except DecodeError as error:
        raise UsageError(
            f"this could not be read: {error}", "say it shorter, or leave some of it out"
        ) from None
    return octets


# --- one value at a time --------------------------------------------------------------------------------------


def _read_profile(where: str, claims: Mapping[int, Any], expected: str) -> None:
    if claims[ClaimKey.EAT_PROFILE] != expected:
        raise DecodeError(f"{where}.eat_profile", f"{claims[ClaimKey.EAT_PROFILE]!r}, {expected!r} expected")


def _read_nonce(where: str, claims: Mapping[int, Any]) -> bytes:
    return cbor.octets(f"{where}.nonce", claims[ClaimKey.NONCE], least=NONCE_SIZE, most=NONCE_SIZE)


def _read_key_id(where: str, claims: Mapping[int, Any]) -> bytes:
    return cbor.octets(
        f"{where}.rt_alias_key_id", claims[ClaimKey.RT_ALIAS_KEY_ID], least=KEY_ID_SIZE, most=KEY_ID_SIZE
    )


def _read_digest(where: str, value: object) -> bytes:
    return cbor.octets(where, value, least=DIGEST_SIZE, most=DIGEST_SIZE)


def _read_name(where: str, value: object) -> str:
    return cbor.text(where, value, limit=_NAME_LIMIT)


def _read_detail(where: str, value: object) -> str:
    return cbor.text(where, value, limit=_DETAIL_LIMIT)


def _each(read: Any, where: str, value: object, most: int) -> tuple[Any, ...]:
    return tuple(read(one) for one in cbor.items(where, value, most=most))


def _by_suite(where: str, value: object) -> Mapping[Suite, Any]:
    found = cbor.mapping(where, value, most=len(SUITES))
    if not set(found) <= set(SUITES):
        raise DecodeError(where, "a suite that evidence is not held in")
    return {Suite(number): entry for number, entry in found.items()}


def _octets_by_suite(where: str, value: object, limit: int) -> Mapping[Suite, bytes]:
    return {
        suite: cbor.octets(where, entry, least=1, most=limit)
        for suite, entry in _by_suite(where, value).items()
    }


def _chain_to_cbor(chain: Chain) -> list[bytes]:
    return [chain.idevid, chain.ldevid, chain.fmc_alias, chain.rt_alias, chain.dpe_leaf]


def _chain_from_cbor(value: object) -> Chain:
    certificates = cbor.record("Chain", value, len(CHAIN_ORDER))
    return Chain(
        *[
            cbor.octets(f"Chain.{name}", certificate, least=1, most=_CERTIFICATE_LIMIT)
            for name, certificate in zip(CHAIN_ORDER, certificates, strict=True)
        ]
    )


def _partition_to_cbor(partition: PartitionEvidence) -> list[object]:
    return [partition.report, dict(partition.certificates)]


def _partition_from_cbor(value: object) -> PartitionEvidence:
    report, certificates = cbor.record("PartitionEvidence", value, 2)
    return PartitionEvidence(
        cbor.octets("PartitionEvidence.report", report, least=1, most=_REPORT_LIMIT),
        _octets_by_suite("PartitionEvidence.certificates", certificates, _CERTIFICATE_LIMIT),
    )


def _stash_entry(value: object) -> StashEntry:
    fw_id, name, digest, svn = cbor.record("StashEntry", value, 4)
    return StashEntry(
        cbor.number("StashEntry.fw_id", fw_id, most=_U32),
        _read_name("StashEntry.name", name),
        _read_digest("StashEntry.digest", digest),
        cbor.number("StashEntry.svn", svn, most=_U32),
    )


def _component(value: object) -> Component:
    name, digest = cbor.record("Component", value, 2)
    return Component(_read_name("Component.name", name), _read_digest("Component.digest", digest))


def _statement(value: object) -> Statement:
    subject, mechanism, status, detail = cbor.record("Statement", value, 4)
    return Statement(
        _read_name("Statement.subject", subject),
        _read_name("Statement.mechanism", mechanism),
        Status(cbor.number("Statement.status", status, most=max(Status), least=1)),
        _read_detail("Statement.detail", detail),
    )
