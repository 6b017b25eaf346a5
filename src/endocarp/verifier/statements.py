"""What is enforced, reported, modelled or absent: the server's own words, and what the verifier adds to them.

No signature makes these true. They stand in every verdict, so that nobody takes an accepted one for more than it is.
"""

from collections.abc import Iterator, Sequence

from endocarp.verifier.chain import Identities
from endocarp.verifier.verdict import Claim
from endocarp.wire.evidence import Evidence, PartitionReport, Status

VERIFIER, SERVER = "verifier", "server"

_ALWAYS = (
    Claim(
        "image of a vault",
        "hashed by the root of trust, and certified with the identity of the partition",
        Status.REPORTED,
        "the root of trust hashes what box hands over; that box then runs the same memory is box's word",
        VERIFIER,
    ),
    Claim(
        "images of box and front",
        "PCR 31",
        Status.REPORTED,
        "box may have told their digests: a digest out of a request is stashed like one that was computed",
        VERIFIER,
    ),
    Claim(
        "box and the command line",
        "none",
        Status.REPORTED,
        "they run before the root of trust does",
        VERIFIER,
    ),
    Claim(
        "list of stashed images",
        "PCR 31 and the contexts of the DPE leaf",
        Status.REPORTED,
        "the list is box's word; its digests and order are confirmed by both, its names by neither",
        VERIFIER,
    ),
    Claim(
        "ROM digest, SoC manifest digest, attestation state",
        "FW_INFO",
        Status.REPORTED,
        "box's word: FW_INFO is passed on unsigned, and no register holds them",
        VERIFIER,
    ),
    Claim("reset counters of the registers", "none", Status.REPORTED, "not under any signature", VERIFIER),
    Claim(
        "going back to an older copy of the whole state directory",
        "none",
        Status.ABSENT,
        "an old store with its old device opens like a new one",
        VERIFIER,
    ),
)


def statements(
    evidence: Evidence, identities: Identities, reports: Sequence[PartitionReport]
) -> Iterator[Claim]:
    """Give every statement of this evidence, the verifier's first."""
    for model in sorted({one.model for one in identities.anchors.values() if one.model}):
        yield Claim(
            "root of trust",
            model,
            Status.MODELLED,
            "software with its secrets in a file: who reads that file can be this server",
            VERIFIER,
        )
    yield from _ALWAYS
    yield Claim(
        "interpreter, libraries and other components",
        f"inventory of {len(evidence.inventory)}",
        Status.REPORTED,
        "hashed by the server itself and compared with nothing",
        VERIFIER,
    )
    for one in evidence.statements:
        yield Claim(one.subject, one.mechanism, one.status, one.detail, SERVER)
    for report in reports:
        yield from _of_partition(report)


def _of_partition(report: PartitionReport) -> Iterator[Claim]:
    name = f"partition {report.partition_id}"
    yield Claim(f"{name}, memory of keys", report.memory_mode, Status.REPORTED, "found at its start", name)
    for mechanism, got in sorted(report.sandbox.items()):
        yield Claim(f"{name}, sandbox", mechanism, Status.REPORTED, got, name)
