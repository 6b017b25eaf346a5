"""The report of a partition, as a relying party reads it."""

from endocarp.crypto.certs import key_id
from endocarp.crypto.keys import generate
from endocarp.hsm.partition import Identity
from endocarp.hsm.report import Surroundings, make_report
from endocarp.wire.cose import Algorithm, SignedMessage
from endocarp.wire.custody import CertifyIdentityReply
from endocarp.wire.evidence import REPORT_TYPE, PartitionEvidence, PartitionReport
from endocarp.wire.suites import Scheme, Suite

SURROUNDINGS = Surroundings(
    CertifyIdentityReply(b"k" * 20, b"d" * 48, b"ecc", b"mldsa"), "secret", {"seccomp": "filter"}
)


def test_a_report_says_where_a_partition_runs_under_both_signatures_of_its_identity() -> None:
    identity = Identity(generate(Suite.P384), generate(Suite.ML_DSA_87))
    nonce = bytes(range(32))
    octets = make_report(identity, SURROUNDINGS, partition=7, nonce=nonce, generation=5, objects=2)
    evidence = PartitionEvidence.decode(octets)
    assert evidence.certificates == {Suite.P384: b"ecc", Suite.ML_DSA_87: b"mldsa"}
    message = SignedMessage.decode(evidence.report)
    assert message.content_type == REPORT_TYPE
    assert PartitionReport.decode(message.payload) == PartitionReport(
        nonce, b"k" * 20, 7, b"d" * 48, "secret", {"seccomp": "filter"}, 5, 2
    )
    for algorithm, key, scheme in (
        (Algorithm.ESP384, identity.ecc, Scheme.ECDSA_SHA384),
        (Algorithm.ML_DSA_87, identity.mldsa, Scheme.ML_DSA),
    ):
        signature = message.signature(algorithm)
        assert signature is not None
        assert signature.key_id == key_id(key.public)
        assert key.public.verify(scheme, signature.signature, message.to_be_signed(signature))
