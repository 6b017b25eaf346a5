"""Partition reports: each signed by an identity that the RT alias certified in this boot, for this image."""

from collections.abc import Mapping

from endocarp.crypto.certs import Certificate
from endocarp.errors import DecodeError
from endocarp.verifier.chain import Identities, read_certificate, verify_link
from endocarp.verifier.formats import TCB_INFO, read_tcb_info
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.signatures import verify_signatures
from endocarp.verifier.verdict import Ledger
from endocarp.wire.cose import SignedMessage
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
    message = _read_message(ledger, one.report, f"report {number}")
    report = None if message is None else _read_payload(ledger, message.payload, f"report {number}")
    if message is None or report is None:
        return None
    subject = f"partition {report.partition_id}"
    certificates = _verify_identity(ledger, one, report, identities, now)
    verify_signatures(ledger, "report", message, certificates, subject=subject)
    ledger.check(
        "report.content_type",
        good=message.content_type == REPORT_TYPE,
        held=REPORT_TYPE,
        failed=message.content_type,
        subject=subject,
    )
    _check_binding(ledger, report, evidence, subject)
    return report


def _read_message(ledger: Ledger, octets: bytes, subject: str) -> SignedMessage | None:
    try:
        message = SignedMessage.decode(octets)
    except DecodeError as error:
        ledger.fail("report.decode", str(error), subject=subject)
        return None
    ledger.check("report.decode", good=True, held=f"{len(octets)} octets", failed="", subject=subject)
    return message


def _read_payload(ledger: Ledger, octets: bytes, subject: str) -> PartitionReport | None:
    try:
        report = PartitionReport.decode(octets)
    except DecodeError as error:
        ledger.fail("report.payload", str(error), subject=subject)
        return None
    held = f"partition {report.partition_id}, {report.object_count} objects, generation {report.generation}"
    ledger.check("report.payload", good=True, held=held, failed="", subject=subject)
    return report


def _verify_identity(
    ledger: Ledger, one: PartitionEvidence, report: PartitionReport, identities: Identities, now: float
) -> Mapping[Suite, Certificate]:
    certificates = {}
    subject = f"partition {report.partition_id}"
    for suite in SUITES:
        octets = one.certificates.get(suite)
        if octets is None:
            rule = f"chain.decode.partition.{SUITE_NAMES[suite]}"
            ledger.fail(rule, "no certificate in this suite; both are needed", subject=subject)
            continue
        certificate = read_certificate(ledger, suite, "partition", octets, subject=subject)
        if certificate is not None:
            certificates[suite] = certificate
            verify_link(
                ledger,
                suite,
                "partition",
                certificate,
                identities.find(suite, "rt_alias"),
                now,
                name=f"Endocarp Partition {report.partition_id}",
                subject=subject,
            )
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
