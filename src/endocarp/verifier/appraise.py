"""The appraisal of evidence, from octets to verdict.

    verdict = appraise(octets, {"MODEL endocarp": anchor}, references, nonce, now)
    verdict.accepted, verdict.failures, verdict.sections

Nothing stops at the first fault: whatever can still be looked at is, so that the verdict names everything that is
wrong. What cannot be looked at stays unreached, and then nothing is accepted.
"""

from collections.abc import Mapping, Sequence

from endocarp.crypto.certs import key_id
from endocarp.crypto.digest import equal, sha384
from endocarp.verifier.chain import Anchor, Identities, ueid_of, verify_chains
from endocarp.verifier.measurement import Log, verify_info, verify_log, verify_quotes, verify_tcb
from endocarp.verifier.policy import Facts, ReferenceValues, policy_of
from endocarp.verifier.report import verify_reports
from endocarp.verifier.rules import IMAGES, SUITE_NAMES
from endocarp.verifier.signatures import read_signed, verify_signatures
from endocarp.verifier.statements import statements
from endocarp.verifier.verdict import Ledger, Verdict
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import EVIDENCE_TYPE, LABEL_PREFIX, SUITES, Evidence, PartitionReport
from endocarp.wire.mailbox import FwInfoReply, PcrLogId
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Suite


def appraise(
    evidence: bytes,
    anchors: Mapping[str, Anchor],
    references: ReferenceValues,
    nonce: bytes | None,
    now: float,
) -> Verdict:
    """Judge the evidence of one server.

    `anchors` are roots by the name that the relying party gave them, `nonce` is the challenge that is outstanding
    (None where there is none: then nothing is accepted), `now` is Unix time in seconds.
    """
    ledger = Ledger()
    ledger.context |= {"references": references.model, "anchors given": ", ".join(sorted(anchors))}
    read = read_signed(ledger, "envelope", evidence, EVIDENCE_TYPE, Evidence.decode)
    if read is not None:
        facts = _appraise(ledger, *read, anchors, nonce, now)
        for rule in policy_of(references):
            for finding in rule.judge(facts):
                ledger.note(finding)
    return ledger.verdict()


def _appraise(
    ledger: Ledger,
    message: SignedMessage,
    evidence: Evidence,
    anchors: Mapping[str, Anchor],
    nonce: bytes | None,
    now: float,
) -> Facts:
    _check_challenge(ledger, evidence, nonce)
    identities = verify_chains(ledger, evidence.chains, anchors, now)
    _check_envelope(ledger, message, evidence, identities)
    quotes = verify_quotes(ledger, evidence, identities)
    log = verify_log(ledger, evidence, quotes)
    svns = verify_tcb(ledger, identities, log, quotes, evidence.stash_log)
    info = verify_info(ledger, evidence, log)
    reports = verify_reports(ledger, evidence, identities, now)
    ledger.context["anchor"] = ", ".join(sorted({one.name for one in identities.anchors.values()}))
    ledger.claim(statements(evidence, identities, reports))
    return _facts(evidence, log, info, svns, reports)


def _check_challenge(ledger: Ledger, evidence: Evidence, nonce: bytes | None) -> None:
    ledger.context["nonce"] = evidence.nonce.hex()
    ledger.check(
        "nonce.challenge",
        good=nonce is not None and equal(nonce, evidence.nonce),
        held=evidence.nonce.hex(),
        failed="no challenge is outstanding, so this may be old"
        if nonce is None
        else f"the evidence answers {evidence.nonce.hex()}, the challenge was {nonce.hex()}",
        reference="the challenge of this relying party",
    )


def _check_envelope(
    ledger: Ledger, message: SignedMessage, evidence: Evidence, identities: Identities
) -> None:
    leaves = {suite: leaf for suite in SUITES if (leaf := identities.find(suite, "dpe_leaf")) is not None}
    verify_signatures(ledger, "envelope", message, leaves)
    # DPE, "Certificates": the UEID of a leaf is the label that its key was derived for.
    label = sha384(LABEL_PREFIX, evidence.nonce)
    for suite, leaf in leaves.items():
        found = ueid_of(leaf)
        ledger.check(
            f"envelope.label.{SUITE_NAMES[suite]}",
            good=found == label,
            held=label.hex(),
            failed=f"the leaf has the label {found.hex() or 'of no key'}, {label.hex()} expected",
        )
    rt_alias = identities.find(Suite.P384, "rt_alias")
    if rt_alias is not None:
        expected = key_id(rt_alias.public)
        ledger.check(
            "envelope.rt_alias",
            good=evidence.rt_alias_key_id == expected,
            held=expected.hex(),
            failed=f"it names {evidence.rt_alias_key_id.hex()}, its chain has {expected.hex()}",
        )


_LOGGED = {
    "vendor_keys": PcrLogId.VENDOR_PUB_KEY_INFO_HASH,
    "owner_keys": PcrLogId.OWNER_PUB_KEY_HASH,
    "fmc": PcrLogId.FMC_TCI,
    "runtime": PcrLogId.RT_TCI,
}
_STASHED = {FirmwareId[image.upper()]: image for image in IMAGES}


def _facts(
    evidence: Evidence,
    log: Log,
    info: FwInfoReply | None,
    svns: Mapping[str, int],
    reports: Sequence[PartitionReport],
) -> Facts:
    digests: dict[str, list[bytes]] = {
        name: [log.digests[entry]] for name, entry in _LOGGED.items() if entry in log.digests
    }
    if info is not None:
        digests |= {"rom": [info.rom_sha256_digest], "manifest": [info.authman_sha384_digest]}
    for one in evidence.stash_log:
        if one.fw_id in _STASHED:
            digests.setdefault(_STASHED[FirmwareId(one.fw_id)], []).append(one.digest)
    return Facts(
        digests=digests,
        unknown=[one.name for one in evidence.stash_log if one.fw_id not in _STASHED],
        svns=svns,
        status=log.status,
        info=info,
        partitions=[report.partition_id for report in reports],
    )
