"""Partition reports: each under the challenge, and signed by an identity that the RT alias certified for this image.

The RT alias is the same at every boot of one firmware; that a report is of now, the challenge in it says.
"""

from collections.abc import Mapping

from endocarp.crypto.certs import Certificate
from endocarp.errors import DecodeError
from endocarp.verifier.chain import Identities, Place, partition_place, read_certificate, verify_link
from endocarp.verifier.extensions import TCB_INFO, read_tcb_info
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.signatures import read_signed, verify_signatures
from endocarp.verifier.verdict import Ledger
from endocarp.wire.evidence import REPORT_TYPE, SUITES, Evidence, PartitionEvidence, PartitionReport
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Suite


def verify_reports(
    ledger: Ledger, evidence: Evidence, identities: Identities, now: float
) -> tuple[PartitionReport, ...]:
    """Check every partition report of the evidence; return those that could be read."""
    found = (
        _verify_report(ledger, number, one, evidence, identities, now)
        for number, one in enumerate(evidence.partitions)
    )
    return tuple(report for report in found if report is not None)


def _verify_report(
    ledger: Ledger,
    number: int,
    one: PartitionEvidence,
    evidence: Evidence,
    identities: Identities,
    now: float,
) -> PartitionReport | None:
    read = read_signed(
        ledger, "report", one.report, REPORT_TYPE, PartitionReport.decode, subject=f"report {number}"
    )
    if read is None:
        return None
    message, report = read
    place = partition_place(report.partition_id)
    ledger.expect(place.subject)
    certificates = _verify_identity(ledger, one, report, place, identities, now)
    verify_signatures(ledger, "report", message, certificates, subject=place.subject)
    _check_binding(ledger, report, evidence, place.subject)
    return report


def _verify_identity(
    ledger: Ledger,
    one: PartitionEvidence,
    report: PartitionReport,
    place: Place,
    identities: Identities,
    now: float,
) -> Mapping[Suite, Certificate]:
    certificates = {}
    for suite in SUITES:
        octets = one.certificates.get(suite)
        if octets is None:
            rule = f"chain.decode.partition.{SUITE_NAMES[suite]}"
            ledger.fail(rule, "no certificate in this suite; both are needed", subject=place.subject)
            continue
        certificate = read_certificate(ledger, suite, place, octets)
        if certificate is not None:
            certificates[suite] = certificate
            verify_link(ledger, suite, place, certificate, identities.find(suite, "rt_alias"), now)
            _check_identity(ledger, suite, certificate, report)
    return certificates


def _check_identity(ledger: Ledger, suite: Suite, certificate: Certificate, report: PartitionReport) -> None:
    rule, subject = f"report.identity.{SUITE_NAMES[suite]}", f"partition {report.partition_id}"
    extension = certificate.extensions.get(TCB_INFO)
    try:
        if extension is None:
            ledger.fail(rule, "the certificate says nothing of what it certifies", subject=subject)
            return
        info = read_tcb_info(extension.value)
    except DecodeError as error:
        ledger.fail(rule, str(error), subject=subject)
        return
    ledger.check(
        rule,
        good=info.kind == FirmwareId.VAULT.to_bytes(4, "little")
        and info.vendor_info == report.partition_id.to_bytes(4, "big")
        and info.fwids == (report.image_digest,),
        held=f"image {info.fwid.hex()}",
        failed=f"the certificate speaks of partition {info.vendor_info.hex()}, image {info.fwid.hex()}; "
        f"the report of {report.partition_id:08x}, image {report.image_digest.hex()}",
        subject=subject,
    )


def _check_binding(ledger: Ledger, report: PartitionReport, evidence: Evidence, subject: str) -> None:
    ledger.check(
        "report.nonce",
        good=report.nonce == evidence.nonce,
        held=report.nonce.hex(),
        failed=f"the report answers {report.nonce.hex()}, the evidence {evidence.nonce.hex()}",
        subject=subject,
    )
    ledger.check(
        "report.rt_alias",
        good=report.rt_alias_key_id == evidence.rt_alias_key_id,
        held=report.rt_alias_key_id.hex(),
        failed=f"certified under {report.rt_alias_key_id.hex()}, the evidence is of "
        f"{evidence.rt_alias_key_id.hex()}",
        subject=subject,
    )
    stashed = {one.digest for one in evidence.stash_log if one.fw_id == FirmwareId.VAULT}
    ledger.check(
        "report.image",
        good=report.image_digest in stashed,
        held=report.image_digest.hex(),
        failed=f"{report.image_digest.hex()} was not stashed as a vault image",
        subject=subject,
    )
