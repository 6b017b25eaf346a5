"""The rules on measurements: three witnesses must agree before anything is compared with reference values.

They are the registers that the FMC alias quotes, the log that explains them, and the TcbInfo that each layer wrote
into the certificate of the next. FW_INFO is no witness: nobody signs it, so it is box's word.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384
from endocarp.errors import DecodeError
from endocarp.verifier import extensions, pcrs
from endocarp.verifier.chain import Identities
from endocarp.verifier.extensions import MULTI_TCB_INFO, TCB_INFO, TcbInfo
from endocarp.verifier.pcrs import Quote
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.verdict import Ledger
from endocarp.wire.evidence import SUITES, Evidence, StashEntry
from endocarp.wire.mailbox import (
    PL0_CALLER,
    DeviceStatus,
    FwInfo,
    FwInfoReply,
    PcrLogEntry,
    PcrLogId,
    decode_reply,
)
from endocarp.wire.suites import Suite

Quotes = Mapping[Suite, Quote]

_ZERO = bytes(48)


# --- quotes ---------------------------------------------------------------------------------------------------


def verify_quotes(ledger: Ledger, evidence: Evidence, identities: Identities) -> Quotes:
    """Check both quotes, each alone and one against the other; return those that could be read."""
    quotes = {}
    for suite in SUITES:
        name, octets = SUITE_NAMES[suite], evidence.quotes.get(suite)
        ledger.check(
            f"quote.present.{name}",
            good=octets is not None,
            held="there is one",
            failed="the evidence has no quote in this suite; both are needed",
        )
        quote = None if octets is None else _read_quote(ledger, suite, octets)
        if quote is not None:
            quotes[suite] = quote
            _verify_quote(ledger, quote, evidence.nonce, identities.find(suite, "fmc_alias"))
    _compare_quotes(ledger, quotes)
    return quotes


def _read_quote(ledger: Ledger, suite: Suite, octets: bytes) -> Quote | None:
    rule = f"quote.decode.{SUITE_NAMES[suite]}"
    try:
        quote = pcrs.read_quote(suite, octets)
    except DecodeError as error:
        ledger.fail(rule, str(error))
        return None
    ledger.check(rule, good=True, held=f"{len(octets)} octets", failed="")
    return quote


def _verify_quote(ledger: Ledger, quote: Quote, nonce: bytes, signer: Certificate | None) -> None:
    name = SUITE_NAMES[quote.suite]
    ledger.check(
        f"quote.nonce.{name}",
        good=quote.nonce == nonce,
        held=nonce.hex(),
        failed=f"the quote answers {quote.nonce.hex()}, the evidence {nonce.hex()}",
    )
    ledger.check(
        f"quote.digest.{name}",
        good=quote.digest == quote.expected_digest,
        held=quote.digest.hex(),
        failed=f"{quote.digest.hex()} is not the digest of these registers and this nonce",
    )
    if signer is not None:
        ledger.check(
            f"quote.signature.{name}",
            good=signer.public.suite is quote.suite
            and signer.public.verify(quote.scheme, quote.signature, quote.signed),
            held=f"by {signer.common_name}",
            failed=f"not made over these registers and this nonce by the key of {signer.common_name}",
        )


def _compare_quotes(ledger: Ledger, quotes: Quotes) -> None:
    if len(quotes) == len(SUITES):
        differ = [
            index
            for index, values in enumerate(zip(*(one.pcrs for one in quotes.values()), strict=True))
            if len(set(values)) > 1
        ]
        ledger.check("quote.agree", good=not differ, held="all 32", failed=f"PCR {_list(differ)} differ")
    if quotes:
        # Caliptra, "PCRs": 4 to 30 belong to whoever calls EXTEND_PCR, and nobody here does.
        used = [
            index for index in pcrs.UNUSED_PCRS if any(one.pcrs[index] != _ZERO for one in quotes.values())
        ]
        ledger.check(
            "quote.unused",
            good=not used,
            held="PCR 4 to 30",
            failed=f"PCR {_list(used)} were extended by something that no reference speaks of",
        )


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


# --- the log --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """What the log says was measured; nothing where it does not say."""

    status: DeviceStatus | None = None
    digests: Mapping[PcrLogId, bytes] = field(default_factory=dict)

    def digest(self, entry: PcrLogId) -> bytes:
        """Return the digest of this entry, or nothing."""
        return self.digests.get(entry, b"")


def verify_log(ledger: Ledger, evidence: Evidence, quotes: Quotes) -> Log:
    """Replay the log and the list of stashed images into the registers of the quotes."""
    _check_register(
        ledger, quotes, pcrs.STASH_PCR, pcrs.replay_stash(one.digest for one in evidence.stash_log)
    )
    try:
        entries = pcrs.read_log(evidence.pcr_log)
        registers = pcrs.replay(entries)
    except DecodeError as error:
        ledger.fail("log.decode", str(error))
        return Log()
    ledger.check("log.decode", good=True, held=f"{len(entries)} entries", failed="")
    names = ", ".join(entry.id.name.lower() for entry in entries) or "nothing"
    ledger.check("log.sequence", good=pcrs.is_cold_boot(entries), held=names, failed=names)
    for index in range(4):
        _check_register(ledger, quotes, index, registers.get(index, _ZERO))
    return _read_entries(ledger, entries)


def _check_register(ledger: Ledger, quotes: Quotes, index: int, value: bytes) -> None:
    if quotes:
        quoted = {one.pcrs[index] for one in quotes.values()}
        ledger.check(
            f"log.pcr{index}",
            good=quoted == {value},
            held=value.hex(),
            failed=f"the log gives {value.hex()}, the quote has {' and '.join(sorted(one.hex() for one in quoted))}",
        )


def _read_entries(ledger: Ledger, entries: Sequence[PcrLogEntry]) -> Log:
    digests = {entry.id: pcrs.measured(entry) for entry in reversed(entries)}
    octets = digests.pop(PcrLogId.DEVICE_STATUS, None)
    status = None if octets is None else DeviceStatus.decode(octets)
    held = "" if status is None else _describe(status)
    ledger.check("log.device_status", good=status is not None, held=held, failed="the log has none")
    return Log(status, digests)


def _describe(status: DeviceStatus) -> str:
    return (
        f"life cycle {status.vendor.lifecycle}, debug locked {status.vendor.debug_locked}, "
        f"SVN {status.vendor.cold_boot_svn}, least SVN in fuses {status.owner.fw_fuse_svn}"
    )


# --- the same in certificates ---------------------------------------------------------------------------------

# Caliptra ROM and FMC, certificates: the type of each entry, and the offset that keeps the size of an SVN fixed.
_OWNER, _VENDOR, _FMC, _RUNTIME = (
    b"CALIPTRA_2_X_FUSE_OWNER_INFO",
    b"CALIPTRA_2_X_FUSE_VENDOR_INFO",
    b"CALIPTRA_2_X_FMC_FIRMWARE_INFO",
    b"CALIPTRA_2_X_RT_FIRMWARE_INFO",
)
_SVN_BASE = 0x100
_ROOT, _CONFIGURATION = b"RTMR", b"CCIV"


@dataclass(frozen=True)
class Tcb:
    """The entries of one chain: three of the FMC alias, one of the RT alias, one a context of the DPE leaf."""

    fmc_alias: tuple[TcbInfo, ...]
    rt_alias: TcbInfo
    dpe_leaf: tuple[TcbInfo, ...]


def verify_tcb(
    ledger: Ledger, identities: Identities, log: Log, quotes: Quotes, stash: Sequence[StashEntry]
) -> Mapping[str, int]:
    """Check what the certificates measured against log, registers and stashed images.

    Returns the least security version numbers that any chain shows, as `fmc` and `runtime`.
    """
    least: dict[str, int] = {}
    for suite in SUITES:
        tcb = _read_tcb(ledger, suite, identities)
        if tcb is not None:
            _check_fuses(ledger, suite, tcb, log)
            _check_firmware(ledger, suite, tcb, log)
            _check_leaf(ledger, suite, tcb.dpe_leaf, quotes, stash)
            for name, entry in (("fmc", tcb.fmc_alias[2]), ("runtime", tcb.rt_alias)):
                svn = (entry.svn or 0) - _SVN_BASE
                least[name] = min(svn, least.get(name, svn))
    return least


def _read_tcb(ledger: Ledger, suite: Suite, identities: Identities) -> Tcb | None:
    fmc_alias, rt_alias, leaf = (
        identities.find(suite, place) for place in ("fmc_alias", "rt_alias", "dpe_leaf")
    )
    if fmc_alias is None or rt_alias is None or leaf is None:
        return None
    rule = f"tcb.decode.{SUITE_NAMES[suite]}"
    try:
        tcb = Tcb(
            _three(extensions.read_multi_tcb_info(_extension(fmc_alias, MULTI_TCB_INFO))),
            extensions.read_tcb_info(_extension(rt_alias, TCB_INFO)),
            extensions.read_multi_tcb_info(_extension(leaf, MULTI_TCB_INFO)),
        )
    except DecodeError as error:
        ledger.fail(rule, str(error))
        return None
    ledger.check(rule, good=True, held=f"{len(tcb.dpe_leaf)} contexts in the DPE leaf", failed="")
    return tcb


def _three(entries: tuple[TcbInfo, ...]) -> tuple[TcbInfo, ...]:
    if len(entries) != 3:
        raise DecodeError("MultiTcbInfo", f"{len(entries)} entries in the FMC alias, 3 expected")
    return entries


def _extension(certificate: Certificate, oid: str) -> bytes:
    extension = certificate.extensions.get(oid)
    if extension is None:
        raise DecodeError(certificate.common_name, f"no extension {oid}")
    return extension.value


def _check_fuses(ledger: Ledger, suite: Suite, tcb: Tcb, log: Log) -> None:
    owner_hash = log.digest(PcrLogId.OWNER_PUB_KEY_HASH)
    vendor_hash = log.digest(PcrLogId.VENDOR_PUB_KEY_INFO_HASH)
    if log.status is None or not owner_hash or not vendor_hash:
        return
    _check_entry(
        ledger,
        f"tcb.owner_fuses.{SUITE_NAMES[suite]}",
        tcb.fmc_alias[0],
        TcbInfo(kind=_OWNER, fwids=(sha384(owner_hash, log.status.owner.encode()),)),
    )
    _check_entry(
        ledger,
        f"tcb.vendor_fuses.{SUITE_NAMES[suite]}",
        tcb.fmc_alias[1],
        TcbInfo(kind=_VENDOR, fwids=(sha384(vendor_hash, log.status.vendor.encode()),)),
    )


def _check_firmware(ledger: Ledger, suite: Suite, tcb: Tcb, log: Log) -> None:
    for stage, entry, kind, logged in (
        ("fmc", tcb.fmc_alias[2], _FMC, log.digest(PcrLogId.FMC_TCI)),
        ("runtime", tcb.rt_alias, _RUNTIME, log.digest(PcrLogId.RT_TCI)),
    ):
        if logged:
            _check_entry(
                ledger, f"tcb.{stage}.{SUITE_NAMES[suite]}", entry, TcbInfo(kind=kind, fwids=(logged,))
            )


def _check_entry(ledger: Ledger, rule: str, found: TcbInfo, expected: TcbInfo) -> None:
    ledger.check(
        rule,
        good=(found.kind, found.fwids) == (expected.kind, expected.fwids),
        held=f"{_text(found.kind)} {found.fwid.hex()}",
        failed=f"{_text(found.kind)} {found.fwid.hex()}, the log gives {_text(expected.kind)} {expected.fwid.hex()}",
    )


def _check_leaf(
    ledger: Ledger,
    suite: Suite,
    contexts: Sequence[TcbInfo],
    quotes: Quotes,
    stash: Sequence[StashEntry],
) -> None:
    name = SUITE_NAMES[suite]
    if suite in quotes:
        registers = quotes[suite].pcrs
        # Caliptra runtime, "DPE initialization": the root context holds PCR 2 as measured last, PCR 3 as measured in all.
        root = contexts[0] if contexts else TcbInfo()
        ledger.check(
            f"tcb.root.{name}",
            good=root.kind == _ROOT
            and root.fwids == (registers[2],)
            and root.registers.get(0) == registers[3],
            held=_text(root.kind),
            failed=f"{_text(root.kind)} shows {root.fwid.hex()}, PCR 2 and 3 are {registers[2].hex()} and {registers[3].hex()}",
        )
    for one in contexts[1:2]:
        ledger.tell(
            f"tcb.stash.{name}",
            f"{_text(one.kind)} {one.fwid.hex()}: no reference speaks of the configuration",
        )
    found = [(one.kind, one.fwid, one.svn or 0) for one in contexts[2:]]
    stashed = [(one.fw_id.to_bytes(4, "little"), one.digest, one.svn) for one in stash]
    odd = [one for one in contexts[1:] if not _measured_once_by_box(one)]
    ledger.check(
        f"tcb.stash.{name}",
        good=[one.kind for one in contexts[1:2]] == [_CONFIGURATION] and found == stashed and not odd,
        held=_kinds(contexts),
        failed=f"{_kinds(odd)}: measured more than once, or for another caller than box"
        if odd
        else f"the leaf has {_kinds(contexts)}; stashed were {', '.join(one.name for one in stash) or 'none'}",
    )


def _measured_once_by_box(context: TcbInfo) -> bool:
    # DPE, "Certificates": register 0 is over all measurements of a context, vendorInfo is its locality, big-endian.
    once = {0: pcrs.extend(_ZERO, context.fwid)}
    return context.registers == once and context.vendor_info == PL0_CALLER.to_bytes(4, "big")


def _kinds(contexts: Sequence[TcbInfo]) -> str:
    return ", ".join(_text(one.kind) for one in contexts) or "none"


def _text(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


# --- firmware information -------------------------------------------------------------------------------------


def verify_info(ledger: Ledger, evidence: Evidence, log: Log) -> FwInfoReply | None:
    """Read FW_INFO, and check that it says what the log says.

    The root of trust answers it without a signature and box passes it on: what no log confirms is box's word.
    """
    try:
        info = decode_reply(FwInfo, evidence.fw_info)
    except DecodeError as error:
        ledger.fail("info.decode", str(error))
        return None
    ledger.check("info.decode", good=True, held=f"firmware SVN {info.fw_svn}", failed="")
    if log.digests:
        pairs = [*_pairs(log, info)]
        differ = ", ".join(name for name, logged, said in pairs if logged != said)
        ledger.check(
            "info.consistent", good=not differ, held=f"{len(pairs)} values", failed=f"different: {differ}"
        )
    return info


def _pairs(log: Log, info: FwInfoReply) -> Iterator[tuple[str, bytes | int, bytes | int]]:
    """Give what both log and firmware information speak of: its name, and what either says."""
    yield "vendor keys", log.digest(PcrLogId.VENDOR_PUB_KEY_INFO_HASH), info.vendor_pub_key_hash
    yield "owner keys", log.digest(PcrLogId.OWNER_PUB_KEY_HASH), info.owner_pub_key_hash
    yield "FMC", log.digest(PcrLogId.FMC_TCI), info.fmc_sha384_digest
    yield "runtime", log.digest(PcrLogId.RT_TCI), info.runtime_sha384_digest
    if log.status is not None:
        vendor, owner = log.status.vendor, log.status.owner
        # The log is that of one cold boot, so the firmware that runs is the firmware of that boot.
        yield "firmware SVN", vendor.cold_boot_svn, info.fw_svn
        yield "SVN of the cold boot", vendor.cold_boot_svn, info.cold_boot_fw_svn
        yield "least SVN of the SoC manifest", owner.soc_manifest_fuse_svn, info.soc_manifest_min_svn
        yield "post-quantum key type", vendor.pqc_key_type, info.image_manifest_pqc_type
        yield "ECC key index", vendor.vendor_ecc_index, info.vendor_ecc384_pub_key_index
        yield "post-quantum key index", vendor.vendor_pqc_index, info.vendor_pqc_pub_key_index
