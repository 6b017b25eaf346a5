"""The report of a partition: what it is and where it runs, signed by its identity over the caller's nonce."""

from collections.abc import Mapping
from dataclasses import dataclass

from endocarp.crypto.certs import key_id
from endocarp.hsm.partition import Identity
from endocarp.wire.cose import SCHEME, Algorithm, sign
from endocarp.wire.custody import CertifyIdentityReply
from endocarp.wire.evidence import REPORT_TYPE, PartitionEvidence, PartitionReport
from endocarp.wire.suites import Suite


@dataclass(frozen=True)
class Surroundings:
    """What a vault was told of where it runs: the root of trust's word, and the shell's.

    `memory_mode` names where secrets lie, `sandbox` maps each mechanism to what was got of it.
    """

    certification: CertifyIdentityReply
    memory_mode: str
    sandbox: Mapping[str, str]


def make_report(
    identity: Identity,
    surroundings: Surroundings,
    *,
    partition: int,
    nonce: bytes,
    generation: int,
    objects: int,
) -> bytes:
    """Return the report with its certificates, as `PartitionEvidence`; takes two signatures' time."""
    certified = surroundings.certification
    payload = PartitionReport(
        nonce=nonce,
        rt_alias_key_id=certified.rt_alias_key_id,
        partition_id=partition,
        image_digest=certified.image_digest,
        memory_mode=surroundings.memory_mode,
        sandbox=surroundings.sandbox,
        generation=generation,
        object_count=objects,
    ).encode()
    keys = {Algorithm.ESP384: identity.ecc, Algorithm.ML_DSA_87: identity.mldsa}
    message = sign(
        REPORT_TYPE,
        payload,
        {algorithm: key_id(key.public) for algorithm, key in keys.items()},
        lambda algorithm, octets: keys[algorithm].sign(SCHEME[algorithm], octets),
    )
    certificates = {Suite.P384: certified.ecc_certificate, Suite.ML_DSA_87: certified.mldsa_certificate}
    return PartitionEvidence(message.encode(), certificates).encode()
