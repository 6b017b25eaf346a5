"""Reading what a root of trust measured: quotes, the measurement log and its replay, TcbInfo.

Written for the verifier alone: what it verifies has its own, so that a mistake on one side shows as a disagreement.
Sources: caliptra-sw, drivers/src/pcr_bank.rs and runtime/src/pcr.rs; TCG DICE Attestation Architecture 1.2, 5.2.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from endocarp.crypto.digest import sha384, sha512
from endocarp.errors import DecodeError
from endocarp.wire import der
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

TCB_INFO = "2.23.133.5.4.1"
UEID = "2.23.133.5.4.4"
PURPOSES = "2.5.29.37"
MULTI_TCB_INFO = "2.23.133.5.4.5"
SHA384 = "2.16.840.1.101.3.4.2.2"

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


# --- TcbInfo --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TcbInfo:
    """What a certificate says of one piece of software; what it leaves out is None or empty.

    `fwids` and `registers` hold SHA-384 digests only, in their order and by their number.
    """

    svn: int | None = None
    fwids: tuple[bytes, ...] = ()
    vendor_info: bytes = b""
    kind: bytes = b""
    registers: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def fwid(self) -> bytes:
        """The one digest, or nothing where there are none or several."""
        return self.fwids[0] if len(self.fwids) == 1 else b""


# The fields of DiceTcbInfo by their tags; all are implicit. Those without a reader are allowed and not looked at.
_SVN, _FWIDS, _VENDOR_INFO, _TYPE, _REGISTERS = 3, 6, 8, 9, 11
_FIELDS = 12
_CONSTRUCTED = (_FWIDS, _REGISTERS)
_REGISTER_NUMBER, _REGISTER_DIGESTS = 1, 2


def read_tcb_info(octets: bytes) -> TcbInfo:
    """Read the extension TcbInfo. Raises DecodeError."""
    reader = der.Reader(octets, "TcbInfo")
    info = _tcb_info(reader.sequence())
    reader.end()
    return info


def read_multi_tcb_info(octets: bytes) -> tuple[TcbInfo, ...]:
    """Read the extension MultiTcbInfo. Raises DecodeError."""
    reader = der.Reader(octets, "MultiTcbInfo")
    entries = reader.sequence()
    reader.end()
    found = []
    while entries:
        found.append(_tcb_info(entries.sequence()))
    return tuple(found)


def read_ueid(octets: bytes) -> bytes:
    """Read the extension UEID. Raises DecodeError."""
    reader = der.Reader(octets, "Ueid")
    inside = reader.sequence()
    reader.end()
    ueid = inside.octet_string()
    inside.end()
    return ueid


def read_purposes(octets: bytes) -> frozenset[str]:
    """Read the extension ExtendedKeyUsage. Raises DecodeError."""
    reader = der.Reader(octets, "ExtendedKeyUsage")
    inside = reader.sequence()
    reader.end()
    purposes = []
    while inside:
        purposes.append(inside.oid())
    return frozenset(purposes)


def _tcb_info(reader: der.Reader) -> TcbInfo:
    fields: dict[int, bytes] = {}
    for number in range(_FIELDS):
        tag = der.context_tag(number, constructed=number in _CONSTRUCTED)
        if reader.peek() == tag:
            fields[number] = reader.content(tag)
    reader.end()
    return TcbInfo(
        svn=_integer(fields[_SVN]) if _SVN in fields else None,
        fwids=_fwids(fields.get(_FWIDS, b"")),
        vendor_info=fields.get(_VENDOR_INFO, b""),
        kind=fields.get(_TYPE, b""),
        registers=_registers_of(fields.get(_REGISTERS, b"")),
    )


def _integer(content: bytes) -> int:
    return der.Reader(der.tlv(der.INTEGER, content), "TcbInfo.svn").integer()


def _fwids(content: bytes) -> tuple[bytes, ...]:
    reader = der.Reader(content, "TcbInfo.fwids")
    found = []
    while reader:
        fwid = reader.sequence()
        algorithm, digest = fwid.oid(), fwid.octet_string()
        fwid.end()
        if algorithm != SHA384 or len(digest) != PCR_SIZE:
            raise DecodeError("TcbInfo.fwids", f"{len(digest)} octets by {algorithm}, not a SHA-384 digest")
        found.append(digest)
    return tuple(found)


def _registers_of(content: bytes) -> dict[int, bytes]:
    reader = der.Reader(content, "TcbInfo.integrityRegisters")
    found: dict[int, bytes] = {}
    while reader:
        register = reader.sequence()
        number = _integer(register.content(der.context_tag(_REGISTER_NUMBER, constructed=False)))
        digests = _fwids(register.content(der.context_tag(_REGISTER_DIGESTS, constructed=True)))
        register.end()
        if len(digests) != 1 or number in found:
            raise DecodeError("TcbInfo.integrityRegisters", "not one digest a register")
        found[number] = digests[0]
    return found
