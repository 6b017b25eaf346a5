"""The relying party of the tests: knows the simulated server's root by name, and what it must show."""

import json
from collections.abc import Mapping

from tests.simulators.device import NONCE, NOW, DeviceSimulator, references

from endocarp.verifier.appraise import appraise
from endocarp.verifier.chain import Anchor
from endocarp.verifier.policy import ReferenceValues
from endocarp.verifier.verdict import Outcome, Verdict
from endocarp.wire import pem
from endocarp.wire.evidence import SUITES


def judge(
    octets: bytes,
    *,
    anchors: Mapping[str, Anchor] | None = None,
    expected: ReferenceValues | None = None,
    nonce: bytes | None = NONCE,
    now: float = NOW,
) -> Verdict:
    """Appraise evidence as a relying party does that has challenged an unspoilt simulator."""
    if anchors is None:
        anchor = DeviceSimulator().anchor()
        anchors = {anchor.name: anchor}
    return appraise(octets, anchors, references() if expected is None else expected, nonce, now)


def failed(verdict: Verdict) -> set[str]:
    """Return the rules that failed."""
    return {one.rule for one in verdict.findings if one.outcome is Outcome.FAILED}


def unreached(verdict: Verdict) -> set[str]:
    """Return the rules that nobody could look at."""
    return {one.rule for one in verdict.findings if one.outcome is Outcome.UNREACHED}


def anchor_pem(anchor: Anchor) -> str:
    """Write an anchor file as the builder does."""
    return "".join(pem.encode(pem.CERTIFICATE, anchor.certificates[suite].der) for suite in SUITES)


def references_json(expected: ReferenceValues) -> str:
    """Write reference values as the builder does."""
    digests = {name: digest.hex() for name, digest in expected.digests.items()}
    bundle = {key: digests[name] for key, name in _BUNDLE.items()} | {"svn": expected.svn}
    images = {name: digests[name] for name in ("box", "front", "vault")}
    rest = {"manifest_digest": digests["manifest"], "rom_digest": digests["rom"]}
    return json.dumps({"model": expected.model, "bundle": bundle, "images": images, **rest})


_BUNDLE = {
    "vendor_pk_hash": "vendor_keys",
    "owner_pk_hash": "owner_keys",
    "fmc_digest": "fmc",
    "runtime_digest": "runtime",
}
