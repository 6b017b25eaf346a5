"""Quotes, log, certificates and firmware information: what was measured, as four witnesses tell it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.simulators.device import NOW, DeviceSimulator, Plan, context, sha384, tcb_info
from tests.simulators.relying import failed, unreached

from endocarp.crypto import certs
from endocarp.verifier import measurement
from endocarp.verifier.chain import Identities, verify_chains
from endocarp.verifier.extensions import MULTI_TCB_INFO, TCB_INFO
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.verdict import Ledger, Verdict
from endocarp.wire import der
from endocarp.wire.evidence import SUITES, Evidence, StashEntry
from endocarp.wire.mailbox import DataReply, PcrLogEntry, PcrLogId, checksum, with_headers
from endocarp.wire.suites import Suite

PARTS = ("quote.", "log.", "tcb.", "info.")
NAMES = tuple(SUITE_NAMES.values())


def trust(device: DeviceSimulator, evidence: Evidence | None = None) -> Identities:
    """Return the certificates of a device, without a word on whether they hold."""
    chains = (evidence or device.evidence()).chains
    return verify_chains(Ledger(), chains, {device.model: device.anchor()}, NOW)


def examine(device: DeviceSimulator, evidence: Evidence | None = None) -> Verdict:
    """Check everything that was measured, as the appraisal does."""
    evidence = evidence or device.evidence()
    ledger, identities = Ledger(), trust(device, evidence)
    quotes = measurement.verify_quotes(ledger, evidence, identities)
    log = measurement.verify_log(ledger, evidence, quotes)
    measurement.verify_tcb(ledger, identities, log, quotes, evidence.stash_log)
    measurement.verify_info(ledger, evidence, log)
    return ledger.verdict()


def missed(verdict: Verdict) -> set[str]:
    return {rule for rule in unreached(verdict) if rule.startswith(PARTS)}


def both(*rules: str) -> set[str]:
    """Return rules that are there once a suite."""
    return {f"{rule}.{name}" for rule in rules for name in NAMES}


def test_what_an_honest_server_measured_holds() -> None:
    verdict = examine(DeviceSimulator())
    assert failed(verdict) == missed(verdict) == set()


# --- quotes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_both_suites_must_quote(suite: Suite) -> None:
    device = DeviceSimulator()
    verdict = examine(device, replace(device.evidence(), quotes={suite: device.quote(suite)}))
    other = next(SUITE_NAMES[one] for one in SUITES if one is not suite)
    assert failed(verdict) == {f"quote.present.{other}"}
    assert {f"quote.signature.{other}", "quote.agree", f"tcb.root.{other}"} <= missed(verdict)


def test_without_any_quote_no_register_is_known() -> None:
    verdict = examine(DeviceSimulator(), replace(DeviceSimulator().evidence(), quotes={}))
    assert failed(verdict) == both("quote.present")
    assert {"log.pcr0", "log.pcr31", "quote.unused"} <= missed(verdict)


@pytest.mark.parametrize("suite", SUITES)
def test_a_quote_over_another_nonce_is_told_apart(suite: Suite) -> None:
    device = DeviceSimulator()
    quotes = {**device.evidence().quotes, suite: device.quote(suite, nonce=bytes(32))}
    verdict = examine(device, replace(device.evidence(), quotes=quotes))
    assert failed(verdict) == {f"quote.nonce.{SUITE_NAMES[suite]}"}


@pytest.mark.parametrize("suite", SUITES)
def test_a_quote_by_another_key_is_told_apart(suite: Suite) -> None:
    device = DeviceSimulator()
    quotes = {**device.evidence().quotes, suite: device.quote(suite, signer=device.key("rt_alias", suite))}
    verdict = examine(device, replace(device.evidence(), quotes=quotes))
    assert failed(verdict) == {f"quote.signature.{SUITE_NAMES[suite]}"}


@pytest.mark.parametrize("suite", SUITES)
def test_a_quote_that_cannot_be_read_is_no_quote(suite: Suite) -> None:
    device, name = DeviceSimulator(), SUITE_NAMES[suite]
    verdict = examine(
        device, replace(device.evidence(), quotes={**device.evidence().quotes, suite: b"quote"})
    )
    assert failed(verdict) == {f"quote.decode.{name}"}
    assert f"quote.signature.{name}" in missed(verdict)


def spoil(reply: bytes, at: int) -> bytes:
    """Return a mailbox reply with one octet changed, and its checksum mended."""
    fields = bytearray(reply[4:])
    fields[at - 4] ^= 1
    return checksum(0, bytes(fields)).to_bytes(4, "little") + fields


@pytest.mark.parametrize("suite", SUITES)
def test_registers_that_were_changed_after_the_quote_are_told_apart(suite: Suite) -> None:
    device, name = DeviceSimulator(), SUITE_NAMES[suite]
    quotes = {**device.evidence().quotes, suite: spoil(device.quote(suite), 8)}
    verdict = examine(device, replace(device.evidence(), quotes=quotes))
    assert failed(verdict) == {f"quote.digest.{name}", f"quote.signature.{name}", "quote.agree", "log.pcr0"}


@pytest.mark.parametrize("suite", SUITES)
def test_a_digest_that_is_not_that_of_the_registers_is_told_apart(suite: Suite) -> None:
    device = DeviceSimulator()
    quotes = {**device.evidence().quotes, suite: spoil(device.quote(suite), 1704)}
    verdict = examine(device, replace(device.evidence(), quotes=quotes))
    assert failed(verdict) == {f"quote.digest.{SUITE_NAMES[suite]}"}


def test_the_two_quotes_show_the_same_registers() -> None:
    device = DeviceSimulator()
    other = DeviceSimulator(other_registers={5: sha384(b"x")})
    quotes = {Suite.P384: device.quote(Suite.P384), Suite.ML_DSA_87: other.quote(Suite.ML_DSA_87)}
    verdict = examine(device, replace(device.evidence(), quotes=quotes))
    assert failed(verdict) == {"quote.agree", "quote.unused"}
    assert verdict.failures[0].reason == "PCR 5 differ"


@pytest.mark.parametrize("index", [4, 17, 30])
def test_a_register_that_no_reference_speaks_of_must_be_zero(index: int) -> None:
    verdict = examine(DeviceSimulator(other_registers={index: sha384(b"x")}))
    assert failed(verdict) == {"quote.unused"}


# --- the log --------------------------------------------------------------------------------------------------


def with_log(device: DeviceSimulator, entries: list[PcrLogEntry]) -> Evidence:
    log = with_headers(DataReply(b"".join(entry.encode() for entry in entries)))
    return replace(device.evidence(), pcr_log=log)


@pytest.mark.parametrize("index", range(4))
def test_a_log_that_does_not_give_a_register_is_told_apart(index: int) -> None:
    device = DeviceSimulator(other_registers={index: sha384(b"x")})
    assert failed(examine(device)) == {f"log.pcr{index}"}


def test_a_list_of_images_that_does_not_give_pcr_31_is_told_apart() -> None:
    device = DeviceSimulator(other_registers={31: sha384(b"x")})
    assert failed(examine(device)) == {"log.pcr31"}


@pytest.mark.parametrize("octets", [b"", b"log", with_headers(DataReply(b"x"))])
def test_a_log_that_cannot_be_read_says_nothing(octets: bytes) -> None:
    device = DeviceSimulator()
    verdict = examine(device, replace(device.evidence(), pcr_log=octets))
    assert failed(verdict) == {"log.decode"}
    assert {
        "info.consistent",
        "log.pcr0",
        "log.sequence",
        "tcb.owner_fuses.ecc384",
        "tcb.fmc.ecc384",
    } <= missed(verdict)
    assert "log.pcr31" not in missed(verdict)


def test_an_empty_log_explains_no_register() -> None:
    device = DeviceSimulator()
    verdict = examine(device, with_log(device, []))
    assert {"log.sequence", *(f"log.pcr{index}" for index in range(4))} <= failed(verdict)
    assert "log.device_status" in failed(verdict)


def test_the_log_of_something_else_than_a_cold_boot_is_refused() -> None:
    device = DeviceSimulator()
    entries = device.log_entries()
    again = [*entries, entries[-1]]
    assert failed(examine(device, with_log(device, again))) == {"log.sequence", "log.pcr2", "log.pcr3"}
    assert "log.sequence" in failed(examine(device, with_log(device, entries[::-1])))


def test_a_device_status_of_another_form_is_refused() -> None:
    device = DeviceSimulator()
    status, *rest = device.log_entries()
    longer = replace(status, data=b"\1" * 18 + bytes(30))
    assert "log.decode" in failed(examine(device, with_log(device, [longer, *rest])))


def test_a_device_status_that_extends_no_register_is_read_all_the_same() -> None:
    device = DeviceSimulator()
    status, *rest = device.log_entries()
    unmasked = replace(status, pcr_mask=0, data=b"\1" * 18 + bytes(30))
    assert failed(examine(device, with_log(device, [unmasked, *rest]))) == {"log.decode"}


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"lifecycle": 1}, both("tcb.vendor_fuses")),
        ({"debug_locked": 0}, both("tcb.vendor_fuses")),
        ({"anti_rollback_disable": 1}, both("tcb.owner_fuses")),
        ({"vendor_hash": sha384(b"x")}, {"info.consistent", *both("tcb.vendor_fuses")}),
        ({"owner_hash": sha384(b"x")}, {"info.consistent", *both("tcb.owner_fuses")}),
        ({"fmc_digest": sha384(b"x")}, {"info.consistent", *both("tcb.fmc")}),
    ],
)
def test_log_and_quote_of_another_boot_disagree_with_the_certificates(
    change: dict[str, object], rules: set[str]
) -> None:
    device, other = DeviceSimulator(), DeviceSimulator(**change)  # type: ignore[arg-type]
    spliced = replace(device.evidence(), quotes=other.evidence().quotes, pcr_log=other.evidence().pcr_log)
    assert failed(examine(device, spliced)) == rules


def test_a_runtime_of_another_boot_disagrees_with_the_root_of_the_leaf_too() -> None:
    device, other = DeviceSimulator(), DeviceSimulator(runtime_digest=sha384(b"x"))
    spliced = replace(device.evidence(), quotes=other.evidence().quotes, pcr_log=other.evidence().pcr_log)
    assert failed(examine(device, spliced)) == {"info.consistent", *both("tcb.runtime", "tcb.root")}


# --- certificates ---------------------------------------------------------------------------------------------

Edit = Callable[[Plan], Plan]


def tcb(oid: str, octets: bytes) -> Edit:
    return lambda plan: plan.with_extension("tcb", certs.extension(oid, octets))


@pytest.mark.parametrize(
    ("place", "edit"),
    [
        ("fmc_alias", lambda plan: plan.without("tcb")),
        ("rt_alias", lambda plan: plan.without("tcb")),
        ("dpe_leaf", lambda plan: plan.without("tcb")),
        ("fmc_alias", tcb(MULTI_TCB_INFO, der.sequence(tcb_info(kind=b"x", fwid=sha384())))),
        ("rt_alias", tcb(TCB_INFO, b"")),
        ("rt_alias", tcb(MULTI_TCB_INFO, der.sequence())),
    ],
)
def test_a_certificate_that_does_not_say_what_was_measured_is_refused(place: str, edit: Edit) -> None:
    device = DeviceSimulator(edits={(place, Suite.P384): edit})
    verdict = examine(device)
    assert failed(verdict) == {"tcb.decode.ecc384"}
    assert "tcb.stash.ecc384" in missed(verdict)


def test_a_certificate_that_could_not_be_read_says_nothing() -> None:
    device = DeviceSimulator()
    chains = dict(device.evidence().chains)
    chains[Suite.P384] = replace(chains[Suite.P384], rt_alias=b"x")
    verdict = examine(device, replace(device.evidence(), chains=chains))
    assert failed(verdict) == set()
    assert "tcb.decode.ecc384" in missed(verdict)


def test_a_quote_whose_signer_could_not_be_read_stays_unverified() -> None:
    device = DeviceSimulator()
    chains = dict(device.evidence().chains)
    chains[Suite.P384] = replace(chains[Suite.P384], fmc_alias=b"x")
    verdict = examine(device, replace(device.evidence(), chains=chains))
    assert failed(verdict) == set()
    assert {"quote.signature.ecc384", "tcb.decode.ecc384"} <= missed(verdict)


def test_entries_are_known_by_their_type() -> None:
    entry = tcb_info(kind=b"SOMETHING_ELSE", fwid=sha384(b"runtime"), svn=0x105)
    device = DeviceSimulator(edits={("rt_alias", Suite.ML_DSA_87): tcb(TCB_INFO, entry)})
    assert failed(examine(device)) == {"tcb.runtime.ml_dsa_87"}


def leaf(*entries: bytes) -> Edit:
    return tcb(MULTI_TCB_INFO, der.sequence(*entries))


def test_the_leaf_has_the_contexts_that_were_stashed_in_their_order() -> None:
    pcrs = DeviceSimulator().pcrs()
    root = tcb_info(kind=b"RTMR", fwid=pcrs[2], register=pcrs[3])
    configuration = context(b"CCIV", sha384(b"configuration"))
    box, front, vault = (
        context(kind, sha384(name))
        for kind, name in ((b"EBOX", b"box"), (b"EFRT", b"front"), (b"EVLT", b"vault"))
    )
    other = context(b"EVLT", sha384(b"other"))
    newer = context(b"EVLT", sha384(b"vault"), 1)
    good = leaf(root, configuration, box, front, vault)
    assert failed(examine(DeviceSimulator(edits={("dpe_leaf", Suite.P384): good}))) == set()
    for entries in (
        (root, configuration, box, front),
        (root, configuration, box, vault, front),
        (root, configuration, box, front, other),
        (root, configuration, box, front, newer),
        (root, configuration, box, front, vault, vault),
        (root, box, front, vault),
    ):
        device = DeviceSimulator(edits={("dpe_leaf", Suite.P384): leaf(*entries)})
        assert failed(examine(device)) == {"tcb.stash.ecc384"}
    for entries in (
        (configuration, configuration, box, front, vault),
        (tcb_info(kind=b"RTMR", fwid=pcrs[0], register=pcrs[3]), configuration, box, front, vault),
        (tcb_info(kind=b"RTMR", fwid=pcrs[2], register=pcrs[0]), configuration, box, front, vault),
        (tcb_info(kind=b"RTMR", fwid=pcrs[2]), configuration, box, front, vault),
    ):
        device = DeviceSimulator(edits={("dpe_leaf", Suite.P384): leaf(*entries)})
        assert failed(examine(device)) == {"tcb.root.ecc384"}


@pytest.mark.parametrize(
    "vault",
    [
        context(b"EVLT", sha384(b"vault"), before=sha384(b"guest")),
        context(b"EVLT", sha384(b"vault"), locality=2),
        tcb_info(kind=b"EVLT", fwid=sha384(b"vault"), svn=0, vendor_info=b"\0\0\0\1"),
        tcb_info(kind=b"EVLT", fwid=sha384(b"vault"), svn=0, register=sha384(bytes(48), sha384(b"vault"))),
    ],
    ids=["measured twice", "for another caller", "without its register", "without its caller"],
)
@pytest.mark.parametrize("suite", SUITES)
def test_each_context_of_the_leaf_was_measured_once_and_for_box(vault: bytes, suite: Suite) -> None:
    device = DeviceSimulator()
    pcrs = device.pcrs()
    root = tcb_info(kind=b"RTMR", fwid=pcrs[2], register=pcrs[3])
    others = (
        context(b"CCIV", bytes(48)),
        context(b"EBOX", sha384(b"box")),
        context(b"EFRT", sha384(b"front")),
    )
    device.edits["dpe_leaf", suite] = leaf(root, *others, vault)
    verdict = examine(device)
    assert failed(verdict) == {f"tcb.stash.{SUITE_NAMES[suite]}"}
    assert verdict.failures[0].reason.startswith("EVLT: measured more than once")


def test_a_leaf_without_contexts_shows_nothing() -> None:
    device = DeviceSimulator(edits={("dpe_leaf", Suite.P384): leaf()})
    assert failed(examine(device)) == {"tcb.root.ecc384", "tcb.stash.ecc384"}


def test_a_list_of_images_that_was_replaced_fits_neither_pcr_31_nor_the_leaf() -> None:
    device = DeviceSimulator()
    stash = (*device.stash, StashEntry(7, "guest", sha384(b"guest"), 0))
    assert failed(examine(device, replace(device.evidence(), stash_log=stash))) == {
        "log.pcr31",
        *both("tcb.stash"),
    }


def test_security_versions_are_the_least_that_any_chain_shows() -> None:
    old = tcb_info(kind=b"CALIPTRA_2_X_RT_FIRMWARE_INFO", fwid=sha384(b"runtime"), svn=0x102)
    none = tcb_info(kind=b"CALIPTRA_2_X_RT_FIRMWARE_INFO", fwid=sha384(b"runtime"))
    for entry, expected in ((old, {"fmc": 5, "runtime": 2}), (none, {"fmc": 5, "runtime": -0x100})):
        device = DeviceSimulator(edits={("rt_alias", Suite.ML_DSA_87): tcb(TCB_INFO, entry)})
        least = measurement.verify_tcb(Ledger(), trust(device), measurement.Log(), {}, device.stash)
        assert least == expected


# --- firmware information -------------------------------------------------------------------------------------


def test_firmware_information_that_cannot_be_read_says_nothing() -> None:
    device = DeviceSimulator()
    verdict = examine(device, replace(device.evidence(), fw_info=b"info"))
    assert failed(verdict) == {"info.decode"}
    assert "info.consistent" in missed(verdict)


@pytest.mark.parametrize(
    "name",
    ["vendor_pub_key_hash", "owner_pub_key_hash", "fmc_sha384_digest", "runtime_sha384_digest"],
)
def test_firmware_information_may_not_contradict_the_log(name: str) -> None:
    device = DeviceSimulator()
    reply = replace(device.fw_info_reply(), **{name: bytes(48)})  # type: ignore[arg-type]
    verdict = examine(device, replace(device.evidence(), fw_info=with_headers(reply)))
    assert failed(verdict) == {"info.consistent"}


@pytest.mark.parametrize(
    "name",
    [
        "fw_svn",
        "cold_boot_fw_svn",
        "soc_manifest_min_svn",
        "image_manifest_pqc_type",
        "vendor_ecc384_pub_key_index",
        "vendor_pqc_pub_key_index",
    ],
)
def test_firmware_information_may_not_contradict_the_device_status(name: str) -> None:
    device = DeviceSimulator()
    reply = replace(device.fw_info_reply(), **{name: 77})  # type: ignore[arg-type]
    verdict = examine(device, replace(device.evidence(), fw_info=with_headers(reply)))
    assert failed(verdict) == {"info.consistent"}


def test_what_the_log_says_is_kept() -> None:
    device = DeviceSimulator()
    log = measurement.verify_log(Ledger(), device.evidence(), {})
    assert log.status is not None
    assert (log.status.vendor.lifecycle, log.status.vendor.debug_locked) == (3, 1)
    assert log.digest(PcrLogId.FMC_TCI) == device.fmc_digest
    assert log.digest(PcrLogId.STASH) == b""
