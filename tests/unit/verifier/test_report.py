"""Partition reports."""

from dataclasses import replace

import pytest
from tests.simulators.device import NOW, DeviceSimulator, key, sha384, tcb_info
from tests.simulators.relying import failed, unreached

from endocarp.crypto import certs
from endocarp.crypto.certs import Name
from endocarp.verifier.chain import verify_chains
from endocarp.verifier.extensions import TCB_INFO
from endocarp.verifier.report import verify_reports
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.verdict import Ledger, Outcome, Verdict
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import EVIDENCE_TYPE, SUITES, Evidence, PartitionEvidence, PartitionReport
from endocarp.wire.suites import Suite

NAMES = tuple(SUITE_NAMES.values())


def examine(
    device: DeviceSimulator, *partitions: PartitionEvidence
) -> tuple[tuple[PartitionReport, ...], Verdict]:
    evidence = replace(device.evidence(), partitions=partitions or (device.partition(),))
    return examine_evidence(device, evidence)


def examine_evidence(
    device: DeviceSimulator, evidence: Evidence
) -> tuple[tuple[PartitionReport, ...], Verdict]:
    ledger = Ledger()
    identities = verify_chains(Ledger(), evidence.chains, {device.model: device.anchor()}, NOW)
    reports = verify_reports(ledger, evidence, identities, NOW)
    return reports, ledger.verdict()


def missed(verdict: Verdict) -> set[str]:
    return {rule for rule in unreached(verdict) if rule.startswith("report.") or ".partition." in rule}


def both(*rules: str) -> set[str]:
    return {f"{rule}.{name}" for rule in rules for name in NAMES}


def test_the_report_of_an_honest_partition_holds() -> None:
    device = DeviceSimulator()
    reports, verdict = examine(device)
    assert reports == (device.report(),)
    assert failed(verdict) == missed(verdict) == set()
    assert {one.subject for one in verdict.findings if one.rule == "report.nonce"} == {"partition 0"}


def test_without_a_report_every_rule_on_it_stays_unreached() -> None:
    device = DeviceSimulator()
    _, verdict = examine_evidence(device, replace(device.evidence(), partitions=()))
    assert failed(verdict) == set()
    assert {"report.decode", "report.nonce", "chain.signature.partition.ecc384"} <= missed(verdict)


def test_a_report_that_is_no_signed_object_is_refused() -> None:
    device = DeviceSimulator()
    reports, verdict = examine(device, replace(device.partition(), report=b"no report"))
    assert reports == ()
    assert failed(verdict) == {"report.decode"}
    assert verdict.failures[0].reason.startswith("report 0: ")


def test_a_signed_object_of_another_content_is_refused() -> None:
    device = DeviceSimulator()
    other = replace(SignedMessage.decode(device.partition().report), payload=b"other")
    reports, verdict = examine(device, replace(device.partition(), report=other.encode()))
    assert reports == ()
    assert failed(verdict) == {"report.payload"}


def test_evidence_is_no_report_though_signed_by_the_same_key() -> None:
    device = DeviceSimulator()
    _, verdict = examine(device, device.partition(content_type=EVIDENCE_TYPE))
    assert failed(verdict) == {"report.content_type"}


def test_a_report_with_another_nonce_is_refused() -> None:
    device = DeviceSimulator()
    _, verdict = examine(device, device.partition(replace(device.report(), nonce=bytes(32))))
    assert failed(verdict) == {"report.nonce"}


def test_a_report_from_under_another_rt_alias_is_refused() -> None:
    device = DeviceSimulator()
    _, verdict = examine(device, device.partition(replace(device.report(), rt_alias_key_id=bytes(20))))
    assert failed(verdict) == {"report.rt_alias"}


def test_a_report_of_another_image_is_refused() -> None:
    device = DeviceSimulator()
    _, verdict = examine(device, device.partition(replace(device.report(), image_digest=sha384(b"front"))))
    assert failed(verdict) == {"report.image", *both("report.identity")}


def test_a_report_of_another_partition_is_refused() -> None:
    device = DeviceSimulator()
    _, verdict = examine(device, device.partition(replace(device.report(), partition_id=1)))
    assert failed(verdict) == both("report.identity", "chain.name.partition")


@pytest.mark.parametrize("suite", SUITES)
def test_a_stripped_signature_is_missed(suite: Suite) -> None:
    device = DeviceSimulator()
    message = SignedMessage.decode(device.partition().report)
    rest = tuple(
        one for one in message.signatures if len(one.signature) != (96 if suite is Suite.P384 else 4627)
    )
    stripped = replace(device.partition(), report=replace(message, signatures=rest).encode())
    assert failed(examine(device, stripped)[1]) == {f"report.signature.{SUITE_NAMES[suite]}"}


@pytest.mark.parametrize("suite", SUITES)
def test_both_certificates_are_needed(suite: Suite) -> None:
    device, name = DeviceSimulator(), SUITE_NAMES[suite]
    certificates = {
        one: octets for one, octets in device.partition().certificates.items() if one is not suite
    }
    _, verdict = examine(device, replace(device.partition(), certificates=certificates))
    assert failed(verdict) == {f"chain.decode.partition.{name}"}
    assert {f"report.signature.{name}", f"report.identity.{name}"} <= missed(verdict)


@pytest.mark.parametrize("suite", SUITES)
def test_a_certificate_that_cannot_be_read_is_refused(suite: Suite) -> None:
    device, name = DeviceSimulator(), SUITE_NAMES[suite]
    spoilt = replace(device.partition(), certificates={**device.partition().certificates, suite: b"x"})
    assert failed(examine(device, spoilt)[1]) == {f"chain.decode.partition.{name}"}


@pytest.mark.parametrize("suite", SUITES)
def test_the_identity_is_certified_by_the_rt_alias_of_this_evidence(suite: Suite) -> None:
    device = DeviceSimulator()
    device.edits["partition", suite] = lambda plan: replace(plan, signer=key("stranger", suite))
    assert failed(examine(device)[1]) == {f"chain.signature.partition.{SUITE_NAMES[suite]}"}


@pytest.mark.parametrize("suite", SUITES)
def test_a_report_by_another_key_than_the_certified_one_is_refused(suite: Suite) -> None:
    device, name = DeviceSimulator(), SUITE_NAMES[suite]
    device.edits["partition", suite] = lambda plan: replace(plan, public=key("stranger", suite).public)
    # The subject's serial number is a digest of the key, so the name shows it too.
    assert failed(examine(device)[1]) == {
        f"report.key.{name}",
        f"report.signature.{name}",
        f"chain.name.partition.{name}",
    }


def test_the_leaf_that_signs_evidence_is_no_partition() -> None:
    device = DeviceSimulator()
    leaf = {suite: device.certificate("dpe_leaf", suite) for suite in SUITES}
    _, verdict = examine(device, replace(device.partition(), certificates=leaf))
    assert failed(verdict) == both(
        "chain.name.partition", "report.identity", "report.key", "report.signature"
    )


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        certs.extension(TCB_INFO, b"damaged"),
        certs.extension(TCB_INFO, tcb_info(kind=b"EFRT", fwid=sha384(b"vault"), vendor_info=bytes(4))),
        certs.extension(TCB_INFO, tcb_info(kind=b"EVLT", fwid=sha384(b"front"), vendor_info=bytes(4))),
        certs.extension(TCB_INFO, tcb_info(kind=b"EVLT", fwid=sha384(b"vault"), vendor_info=b"\0\0\0\1")),
        certs.extension(TCB_INFO, tcb_info(kind=b"EVLT", fwid=sha384(b"vault"))),
    ],
    ids=["nothing", "damaged", "another kind", "another image", "another partition", "no partition"],
)
def test_the_certificate_speaks_of_this_partition_and_this_image(octets: bytes) -> None:
    device = DeviceSimulator()
    device.edits["partition", Suite.P384] = lambda plan: plan.with_extension("tcb", octets)
    assert failed(examine(device)[1]) == {"report.identity.ecc384"}


def test_without_the_rt_alias_the_link_to_it_stays_unreached() -> None:
    device = DeviceSimulator()
    chains = dict(device.evidence().chains)
    chains[Suite.P384] = replace(chains[Suite.P384], rt_alias=b"x")
    _, verdict = examine_evidence(device, replace(device.evidence(), chains=chains))
    assert failed(verdict) == set()
    assert "chain.signature.partition.ecc384" in missed(verdict)


def test_what_holds_for_one_partition_is_not_reached_for_another() -> None:
    device = DeviceSimulator()
    other = device.partition(replace(device.report(), partition_id=1))
    bare = replace(other, certificates={**other.certificates, Suite.P384: b"x"})
    _, verdict = examine(device, device.partition(), bare)
    missing = {one.rule for one in verdict.findings if one.outcome is Outcome.UNREACHED and one.subject}
    assert {
        one.subject for one in verdict.findings if one.rule in missing if one.outcome is Outcome.UNREACHED
    } == {"partition 1"}
    assert {
        "report.identity.ecc384",
        "report.signature.ecc384",
        "chain.signature.partition.ecc384",
    } <= missing
    assert "report.identity.ml_dsa_87" not in missing


def test_each_of_several_partitions_is_looked_at() -> None:
    device = DeviceSimulator()
    late = device.partition(replace(device.report(), nonce=bytes(32)))
    reports, verdict = examine(device, replace(device.partition(), report=b"x"), device.partition(), late)
    assert len(reports) == 2
    assert failed(verdict) == {"report.decode", "report.nonce"}


@pytest.mark.parametrize("suite", SUITES)
def test_names_and_dates_of_the_identity_are_looked_at_as_in_the_chain(suite: Suite) -> None:
    device = DeviceSimulator()
    device.edits["partition", suite] = lambda plan: replace(
        plan, subject=Name("Endocarp Partition 00"), not_before="21000101000000Z"
    )
    name = SUITE_NAMES[suite]
    assert failed(examine(device)[1]) == {f"chain.name.partition.{name}", f"chain.validity.partition.{name}"}
