"""Registers: quotes of them, the measurement log, and what the log gives when it is replayed.

Written for the verifier alone: what it verifies has its own, so that a mistake on one side shows as a disagreement.
Nothing here judges.

Sources: caliptra-sw, drivers/src/pcr_bank.rs and runtime/src/pcr.rs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from endocarp.crypto.digest import sha384, sha512
from endocarp.errors import DecodeError
from endocarp.wire.mailbox import (
    PCR_COUNT,
    PCR_SIZE,
    DeviceStatus,
    GetPcrLog,
    PcrLogEntry,
    PcrLogId,
    QuotePcrsEcc384,
    QuotePcrsMldsa87,
    decode_pcr_log,
    decode_reply,
)
from endocarp.wire.suites import Scheme, Suite

Pcrs = tuple[bytes, ...]
"""The 32 registers of 48 octets."""

STASH_PCR = 31
UNUSED_PCRS = range(4, 31)
"""Registers that only EXTEND_PCR could change."""


# --- quotes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quote:
    """Registers under a nonce, and the signature over them in one suite; `digest` is what the reply says it is."""

    suite: Suite
    pcrs: Pcrs
    nonce: bytes
    digest: bytes
    signature: bytes

    @property
    def expected_digest(self) -> bytes:
        """What `digest` must be: SHA-512 over registers and nonce, of which ECC takes 48 octets."""
        digest = sha512(*self.pcrs, self.nonce)
        return digest[:48] if self.suite is Suite.P384 else digest

    @property
    def scheme(self) -> Scheme:
        """How the signature is verified."""
        return Scheme.ECDSA_DIGEST if self.suite is Suite.P384 else Scheme.ML_DSA

    @property
    def signed(self) -> bytes:
        """What must have been signed; computed from the registers, not taken from the reply."""
        # Caliptra, "PCR quote": ML-DSA signs the digest with its octets in reverse order.
        return self.expected_digest if self.suite is Suite.P384 else self.expected_digest[::-1]


def read_quote(suite: Suite, octets: bytes) -> Quote:
    """Read the reply to QUOTE_PCRS_ECC384 or QUOTE_PCRS_MLDSA87. Raises DecodeError."""
    if suite is Suite.P384:
        ecc = decode_reply(QuotePcrsEcc384, octets)
        return Quote(suite, _registers(ecc.pcr), ecc.nonce, ecc.digest, ecc.signature_r + ecc.signature_s)
    mldsa = decode_reply(QuotePcrsMldsa87, octets)
    if mldsa.signature[-1]:
        raise DecodeError("QuotePcrsMldsa87Reply.signature", "the last octet is not zero")
    return Quote(suite, _registers(mldsa.pcr), mldsa.nonce, mldsa.digest, mldsa.signature[:-1])


def _registers(pcr: Callable[[int], bytes]) -> Pcrs:
    return tuple(pcr(index) for index in range(PCR_COUNT))


# --- the log --------------------------------------------------------------------------------------------------

COLD_BOOT = (
    PcrLogId.DEVICE_STATUS,
    PcrLogId.VENDOR_PUB_KEY_INFO_HASH,
    PcrLogId.OWNER_PUB_KEY_HASH,
    PcrLogId.FMC_TCI,
    PcrLogId.RT_TCI,
)
"""The entries of a cold boot, in order: ROM extends PCR 0 and 1 by the first four, FMC PCR 2 and 3 by the last."""

_ROM_PCRS, _FMC_PCRS = 0b0011, 0b1100
_EXPECTED_MASKS = (_ROM_PCRS, _ROM_PCRS, _ROM_PCRS, _ROM_PCRS, _FMC_PCRS)


def read_log(octets: bytes) -> tuple[PcrLogEntry, ...]:
    """Read the reply to GET_PCR_LOG, oldest entry first. Raises DecodeError."""
    return decode_pcr_log(decode_reply(GetPcrLog, octets).data)


def is_cold_boot(entries: Iterable[PcrLogEntry]) -> bool:
    """Tell whether these are exactly the entries of one cold boot, each for the registers that it belongs to."""
    found = tuple((entry.id, entry.pcr_mask) for entry in entries)
    return found == tuple(zip(COLD_BOOT, _EXPECTED_MASKS, strict=True))


def measured(entry: PcrLogEntry) -> bytes:
    """Return the octets that the registers were extended by. Raises DecodeError where others are not zero."""
    size = DeviceStatus.SIZE if entry.id is PcrLogId.DEVICE_STATUS else PCR_SIZE
    if any(entry.data[size:]):
        raise DecodeError("PcrLogEntry.data", f"octets behind the {size} that were measured are not zero")
    return entry.data[:size]


def extend(old: bytes, data: bytes) -> bytes:
    """Return what a register holds after it was extended."""
    return sha384(old, data)


def replay(entries: Iterable[PcrLogEntry]) -> dict[int, bytes]:
    """Return the registers that these entries give, from zero.

    Raises DecodeError as `measured` does, for every entry, whether or not its mask names a register.
    """
    registers: dict[int, bytes] = {}
    for entry in entries:
        data = measured(entry)
        for index in range(PCR_COUNT):
            if entry.pcr_mask >> index & 1:
                registers[index] = extend(registers.get(index, bytes(PCR_SIZE)), data)
    return registers


def replay_stash(digests: Iterable[bytes]) -> bytes:
    """Return what PCR 31 holds after these digests were stashed, in order."""
    register = bytes(PCR_SIZE)
    for digest in digests:
        register = extend(register, digest)
    return register
