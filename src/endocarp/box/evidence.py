"""Collecting evidence: what to ask the root of trust and the vaults, in which order, and what to make of it.

No I/O: `requests` is a generator that yields what to ask and is sent the answer; its return value is the evidence.

    asking = EvidenceCollector(nonce, …).requests()
    call = next(asking)
    while True:
        try:
            call = asking.send(answer_to(call))
        except StopIteration as done:
            return done.value
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from endocarp.crypto.digest import sha256, sha384, shake256
from endocarp.errors import DecodeError, DeviceError, UsageError
from endocarp.wire import der, dpe
from endocarp.wire.cose import Algorithm, Signature, SignedMessage, to_be_signed
from endocarp.wire.dpe import DEFAULT_HANDLE, Format, Profile
from endocarp.wire.evidence import (
    EVIDENCE_TYPE,
    KEY_ID_SIZE,
    LABEL_PREFIX,
    NONCE_SIZE,
    Chain,
    Component,
    Evidence,
    PartitionEvidence,
    StashEntry,
    Statement,
)
from endocarp.wire.mailbox import (
    FwInfo,
    GetPcrLog,
    InvokeDpeEcc384,
    InvokeDpeMldsa87,
    QuotePcrsEcc384,
    QuotePcrsMldsa87,
    Request,
    decode_reply,
)
from endocarp.wire.suites import Suite


@dataclass(frozen=True)
class Call:
    """Ask the mailbox, as PL0; to be sent the octets of its reply, headers included."""

    request: Request[Any]


@dataclass(frozen=True)
class ReportCall:
    """Ask the vault of this partition for its report; to be sent the `PartitionEvidence` as octets."""

    partition: int
    nonce: bytes


Calls = Generator[Call | ReportCall, bytes, bytes]

_CHAIN_LIMIT = 64 << 10
_ABOVE_LEAF = 4

_PROFILES: Mapping[Suite, Profile] = {
    Suite.P384: Profile.P384_SHA384,
    Suite.ML_DSA_87: Profile.MLDSA87,
}


@dataclass(frozen=True)
class Leaf:
    """The key of the DPE that signs evidence, in one suite."""

    public_key: bytes
    certificate: bytes

    @property
    def key_id(self) -> bytes:
        """How signatures name the key: SHA-256 of it, cut to 20 octets."""
        return sha256(self.public_key)[:KEY_ID_SIZE]


class EvidenceCollector:
    """Collects the evidence of one server over one nonce of 32 octets.

    `stash_log` are the images that were stashed in this boot, in order; `partitions` those that are to report. Raises
    UsageError for a nonce of another size.
    """

    def __init__(
        self,
        nonce: bytes,
        *,
        stash_log: Sequence[StashEntry],
        partitions: Sequence[int],
        inventory: Sequence[Component],
        statements: Sequence[Statement],
    ) -> None:
        if len(nonce) != NONCE_SIZE:
            raise UsageError(f"a nonce of {len(nonce)} octets", f"give {NONCE_SIZE} octets")
        self._nonce = nonce
        self._label = sha384(LABEL_PREFIX, nonce)
        self._stash_log = tuple(stash_log)
        self._partitions = tuple(partitions)
        self._inventory = tuple(inventory)
        self._statements = tuple(statements)

    def requests(self) -> Calls:
        """Yield what to ask; return the evidence, signed.

        Raises DecodeError where an answer is not what was asked for, DeviceError where the DPE refuses.
        """
        leaves, chains = {}, {}
        for suite in _PROFILES:
            leaves[suite] = yield from self._certify_key(suite)
            chains[suite] = yield from self._read_chain(suite, leaves[suite])
        evidence = Evidence(
            nonce=self._nonce,
            rt_alias_key_id=_key_id_of(chains[Suite.P384].rt_alias),
            chains=chains,
            quotes={
                Suite.P384: (yield Call(QuotePcrsEcc384(self._nonce))),
                Suite.ML_DSA_87: (yield Call(QuotePcrsMldsa87(self._nonce))),
            },
            fw_info=(yield Call(FwInfo())),
            pcr_log=(yield Call(GetPcrLog())),
            stash_log=self._stash_log,
            partitions=(yield from self._ask_partitions()),
            inventory=self._inventory,
            statements=self._statements,
        )
        return (yield from self._sign(evidence.encode(), leaves)).encode()

    # --- the root of trust -------------------------------------------------------------------------------------

    def _certify_key(self, suite: Suite) -> Generator[Call, bytes, Leaf]:
        if suite is Suite.P384:
            ecc = dpe.CertifyKeyP384(DEFAULT_HANDLE, 0, Format.X509, self._label)
            by_ecc = yield from _invoke(suite, ecc)
            return Leaf(by_ecc.public_key, by_ecc.cert)
        mldsa = dpe.CertifyKeyMldsa87(DEFAULT_HANDLE, 0, Format.X509, self._label)
        by_mldsa = yield from _invoke(suite, mldsa)
        return Leaf(by_mldsa.public_key, by_mldsa.cert)

    def _read_chain(self, suite: Suite, leaf: Leaf) -> Generator[Call, bytes, Chain]:
        octets = b""
        while piece := (yield from self._read_piece(suite, len(octets))):
            octets += piece
            if len(octets) > _CHAIN_LIMIT:
                raise DecodeError("certificate chain", f"more than {_CHAIN_LIMIT} octets")
        idevid, ldevid, fmc_alias, rt_alias = _split(octets)
        return Chain(idevid, ldevid, fmc_alias, rt_alias, leaf.certificate)

    def _read_piece(self, suite: Suite, offset: int) -> Generator[Call, bytes, bytes]:
        """Return the next piece of the chain, or nothing at its end."""
        try:
            reply = yield from _invoke(suite, dpe.GetCertificateChain(offset, dpe.MAX_CHUNK_SIZE))
        except DeviceError as error:
            # Caliptra DPE, "GetCertificateChain": an offset at the end of the chain is refused.
            if offset and error.number == dpe.Status.PLATFORM_INVALID_OFFSET:
                return b""
            raise
        return reply.piece

    def _ask_partitions(self) -> Generator[ReportCall, bytes, tuple[PartitionEvidence, ...]]:
        found: tuple[PartitionEvidence, ...] = ()
        for partition in self._partitions:
            found += (PartitionEvidence.decode((yield ReportCall(partition, self._nonce))),)
        return found

    # --- signatures --------------------------------------------------------------------------------------------

    def _sign(self, payload: bytes, leaves: Mapping[Suite, Leaf]) -> Generator[Call, bytes, SignedMessage]:
        ecc, mldsa = leaves[Suite.P384], leaves[Suite.ML_DSA_87]
        signed = to_be_signed(EVIDENCE_TYPE, payload, Algorithm.ESP384, ecc.key_id)
        by_ecc = yield from _invoke(Suite.P384, dpe.SignP384(DEFAULT_HANDLE, self._label, 0, sha384(signed)))
        signed = to_be_signed(EVIDENCE_TYPE, payload, Algorithm.ML_DSA_87, mldsa.key_id)
        by_mldsa = yield from _invoke(
            Suite.ML_DSA_87,
            dpe.SignMldsa87(DEFAULT_HANDLE, self._label, 0, _mu(mldsa.public_key, signed)),
        )
        return SignedMessage(
            EVIDENCE_TYPE,
            payload,
            (
                Signature(Algorithm.ESP384, ecc.key_id, by_ecc.signature),
                Signature(Algorithm.ML_DSA_87, mldsa.key_id, by_mldsa.signature),
            ),
        )


def _invoke(suite: Suite, request: dpe.Request[dpe.Reply]) -> Generator[Call, bytes, dpe.Reply]:
    """Carry a DPE command through the mailbox and read its response."""
    command = dpe.encode_command(_PROFILES[suite], request)
    if suite is Suite.P384:
        octets = decode_reply(InvokeDpeEcc384, (yield Call(InvokeDpeEcc384(command)))).data
    else:
        carrier = InvokeDpeMldsa87(flags=0, axi_response=bytes(12), data=command)
        octets = decode_reply(InvokeDpeMldsa87, (yield Call(carrier))).data
    return dpe.decode_response(request, octets)


def _mu(public_key: bytes, message: bytes) -> bytes:
    """Return the message representative that ML-DSA signs (FIPS 204, algorithm 7, line 6; empty context)."""
    return shake256(shake256(public_key, size=64), b"\0\0", message, size=64)


def _split(octets: bytes) -> Sequence[bytes]:
    """Split a chain, root's child first, into its certificates."""
    reader = der.Reader(octets, "certificate chain")
    found = []
    while reader:
        found.append(reader.element(der.SEQUENCE))
    if len(found) != _ABOVE_LEAF:
        raise DecodeError(
            "certificate chain", f"{len(found)} certificates above the leaf, {_ABOVE_LEAF} expected"
        )
    return found


def _key_id_of(certificate: bytes) -> bytes:
    """Return the key id of the key that a certificate is about: SHA-256 of the raw key, cut."""
    tbs = der.Reader(certificate, "RT alias").sequence().sequence()
    for tag in (der.context_tag(0, constructed=True), der.INTEGER, *[der.SEQUENCE] * 4):
        tbs.element(tag)
    info = tbs.sequence()
    info.element(der.SEQUENCE)
    return sha256(info.bit_string())[:KEY_ID_SIZE]
