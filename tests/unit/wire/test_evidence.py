"""Evidence and partition reports: the payloads."""

from dataclasses import replace
from typing import Any

import cbor2
import pytest

from endocarp.errors import DecodeError, UsageError
from endocarp.wire import cbor
from endocarp.wire.evidence import (
    CHAIN_ORDER,
    LIMIT,
    Chain,
    ClaimKey,
    Component,
    Evidence,
    PartitionEvidence,
    PartitionReport,
    StashEntry,
    Statement,
    Status,
)
from endocarp.wire.suites import Suite

CHAIN = Chain(b"1", b"2", b"3", b"4", b"5")
PARTITION = PartitionEvidence(b"cose", {Suite.P384: b"cert", Suite.ML_DSA_87: b"other cert"})
REPORT = PartitionReport(
    nonce=bytes(32),
    rt_alias_key_id=bytes(20),
    partition_id=3,
    image_digest=bytes(48),
    memory_mode="memfd_secret",
    sandbox={"seccomp": "on", "landlock": "7"},
    generation=2**40,
    object_count=12,
)
EVIDENCE = Evidence(
    nonce=bytes(range(32)),
    rt_alias_key_id=bytes(20),
    chains={Suite.P384: CHAIN, Suite.ML_DSA_87: replace(CHAIN, dpe_leaf=b"6")},
    quotes={Suite.P384: b"quote", Suite.ML_DSA_87: b"other quote"},
    fw_info=b"info",
    pcr_log=b"log",
    stash_log=(StashEntry(0x584F4245, "box", bytes(48), 1),),
    partitions=(PARTITION,),
    inventory=(Component("cbor2", bytes(48)),),
    statements=(Statement("keys", "memfd_secret", Status.ENFORCED, "at rest and between uses"),),
)


def test_evidence_survives_the_round_trip() -> None:
    assert Evidence.decode(EVIDENCE.encode()) == EVIDENCE


def test_evidence_of_nothing_but_the_root_of_trust_survives_too() -> None:
    bare = replace(EVIDENCE, chains={}, quotes={}, stash_log=(), partitions=(), inventory=(), statements=())
    assert Evidence.decode(bare.encode()) == bare


def test_a_report_survives_the_round_trip() -> None:
    assert PartitionReport.decode(REPORT.encode()) == REPORT


def test_the_evidence_of_a_partition_survives_the_round_trip() -> None:
    assert PartitionEvidence.decode(PARTITION.encode()) == PARTITION


def test_the_certificates_of_a_chain_are_named_from_the_root_side() -> None:
    assert CHAIN_ORDER == ("idevid", "ldevid", "fmc_alias", "rt_alias", "dpe_leaf")


def _changed(payload: bytes, claim: ClaimKey, value: Any) -> bytes:
    claims = cbor2.loads(payload)
    claims[int(claim)] = value
    return cbor.encode(claims)


@pytest.mark.parametrize(
    ("claim", "value", "where"),
    [
        (ClaimKey.NONCE, bytes(31), "Evidence.nonce"),
        (ClaimKey.NONCE, "text", "Evidence.nonce"),
        (ClaimKey.EAT_PROFILE, "urn:other", "Evidence.eat_profile"),
        (ClaimKey.RT_ALIAS_KEY_ID, bytes(32), "Evidence.rt_alias_key_id"),
        (ClaimKey.CHAINS, [], "Evidence.chains"),
        (ClaimKey.CHAINS, {1: []}, "Evidence.chains"),
        (ClaimKey.CHAINS, {2: [], 7: [], 1: []}, "Evidence.chains"),
        (ClaimKey.CHAINS, {2: [b"1", b"2", b"3", b"4"]}, "Chain"),
        (ClaimKey.CHAINS, {2: [b"1", b"2", b"", b"4", b"5"]}, "Chain.fmc_alias"),
        (ClaimKey.CHAINS, {2: [b"1", b"2", b"3", b"4", bytes((16 << 10) + 1)]}, "Chain.dpe_leaf"),
        (ClaimKey.QUOTES, {2: bytes((16 << 10) + 1)}, "Evidence.quotes"),
        (ClaimKey.QUOTES, {2.0: b"quote"}, "Evidence.quotes"),
        (ClaimKey.FW_INFO, None, "Evidence.fw_info"),
        (ClaimKey.PCR_LOG, bytes((16 << 10) + 1), "Evidence.pcr_log"),
        (ClaimKey.STASH_LOG, [[1, "box", bytes(48)]], "StashEntry"),
        (ClaimKey.STASH_LOG, [[2**32, "box", bytes(48), 1]], "StashEntry.fw_id"),
        (ClaimKey.STASH_LOG, [[1, "box\n", bytes(48), 1]], "StashEntry.name"),
        (ClaimKey.STASH_LOG, [[1, "box", bytes(47), 1]], "StashEntry.digest"),
        (ClaimKey.STASH_LOG, [[1, "box", bytes(48), -1]], "StashEntry.svn"),
        (ClaimKey.STASH_LOG, [[1, "box", bytes(48), 1]] * 65, "Evidence.stash_log"),
        (ClaimKey.PARTITIONS, [[b"cose"]], "PartitionEvidence"),
        (ClaimKey.PARTITIONS, [[b"", {}]], "PartitionEvidence.report"),
        (ClaimKey.PARTITIONS, [[b"cose", {2: 3}]], "PartitionEvidence.certificates"),
        (ClaimKey.INVENTORY, [["cbor2", b""]], "Component.digest"),
        (ClaimKey.INVENTORY, [[1, bytes(48)]], "Component.name"),
        (ClaimKey.STATEMENTS, [["keys", "none", 5, ""]], "Statement.status"),
        (ClaimKey.STATEMENTS, [["keys", "none", 0, ""]], "Statement.status"),
        (ClaimKey.STATEMENTS, [["keys", "none", 1, "x" * 8193]], "Statement.detail"),
        (ClaimKey.STATEMENTS, [[b"keys", "none", 1, ""]], "Statement.subject"),
        (ClaimKey.STATEMENTS, [["keys", None, 1, ""]], "Statement.mechanism"),
        (ClaimKey.PARTITION_ID, 0, "Evidence"),
    ],
)
def test_a_wrong_claim_is_refused_by_its_name(claim: ClaimKey, value: Any, where: str) -> None:
    with pytest.raises(DecodeError) as refused:
        Evidence.decode(_changed(EVIDENCE.encode(), claim, value))
    assert refused.value.where == where


@pytest.mark.parametrize(
    ("claim", "value", "where"),
    [
        (ClaimKey.NONCE, bytes(33), "PartitionReport.nonce"),
        (ClaimKey.EAT_PROFILE, "urn:endocarp:evidence:1", "PartitionReport.eat_profile"),
        (ClaimKey.RT_ALIAS_KEY_ID, bytes(19), "PartitionReport.rt_alias_key_id"),
        (ClaimKey.PARTITION_ID, -1, "PartitionReport.partition_id"),
        (ClaimKey.IMAGE_DIGEST, bytes(32), "PartitionReport.image_digest"),
        (ClaimKey.MEMORY_MODE, 1, "PartitionReport.memory_mode"),
        (ClaimKey.SANDBOX, {1: "x"}, "PartitionReport.sandbox"),
        (ClaimKey.SANDBOX, {"x": 1}, "PartitionReport.sandbox"),
        (ClaimKey.SANDBOX, {str(n): "" for n in range(65)}, "PartitionReport.sandbox"),
        (ClaimKey.GENERATION, 2**64, "PartitionReport"),
        (ClaimKey.GENERATION, -1, "PartitionReport.generation"),
        (ClaimKey.OBJECT_COUNT, "many", "PartitionReport.object_count"),
        (ClaimKey.CHAINS, {}, "PartitionReport"),
    ],
)
def test_a_wrong_claim_of_a_report_is_refused_by_its_name(claim: ClaimKey, value: Any, where: str) -> None:
    with pytest.raises(DecodeError) as refused:
        PartitionReport.decode(_changed(REPORT.encode(), claim, value))
    assert refused.value.where == where


def test_what_nobody_could_read_is_never_encoded() -> None:
    for spoilt in (
        replace(EVIDENCE, nonce=bytes(31)),
        replace(EVIDENCE, statements=(Statement("x" * 257, "", Status.ABSENT, ""),)),
        replace(EVIDENCE, inventory=(Component("two\nlines", bytes(48)),)),
        replace(REPORT, sandbox={str(number): "" for number in range(65)}),
    ):
        with pytest.raises(UsageError, match="could not be read"):
            spoilt.encode()


def test_a_claim_may_not_be_missing() -> None:
    claims = cbor2.loads(EVIDENCE.encode())
    del claims[int(ClaimKey.STATEMENTS)]
    with pytest.raises(DecodeError, match="Evidence: a claim is missing"):
        Evidence.decode(cbor.encode(claims))


def test_a_payload_is_bounded() -> None:
    with pytest.raises(DecodeError, match="at most"):
        Evidence.decode(bytes(LIMIT + 1))
