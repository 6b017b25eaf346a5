"""Both signatures under a signed object."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.simulators.device import DeviceSimulator
from tests.simulators.relying import failed, unreached

from endocarp.crypto.certs import Certificate
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.signatures import verify_signatures
from endocarp.verifier.verdict import Ledger, Verdict
from endocarp.wire.cose import SUITE, Algorithm, Signature, SignedMessage
from endocarp.wire.evidence import SUITES
from endocarp.wire.suites import Suite

DEVICE = DeviceSimulator()
MESSAGE = DEVICE.sign(DEVICE.evidence())
LEAVES = {suite: Certificate.parse(DEVICE.chain(suite).dpe_leaf) for suite in SUITES}
ALGORITHMS = tuple(Algorithm)


def check(message: SignedMessage, leaves: dict[Suite, Certificate] | None = None) -> Verdict:
    ledger = Ledger()
    verify_signatures(ledger, "envelope", message, LEAVES if leaves is None else leaves, subject="it")
    return ledger.verdict()


def with_signature(algorithm: Algorithm, change: Callable[[Signature], Signature]) -> SignedMessage:
    """Return the message with one of its signatures changed."""
    return replace(
        MESSAGE,
        signatures=tuple(change(one) if one.algorithm is algorithm else one for one in MESSAGE.signatures),
    )


def test_two_good_signatures_hold() -> None:
    verdict = check(MESSAGE)
    assert failed(verdict) == set()
    assert not unreached(verdict) & {
        f"envelope.{rule}.{name}" for rule in ("key", "signature") for name in SUITE_NAMES.values()
    }
    assert {one.subject for one in verdict.findings if one.rule.startswith("envelope.key")} == {"it"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_that_was_stripped_is_missed(algorithm: Algorithm) -> None:
    rest = tuple(one for one in MESSAGE.signatures if one.algorithm is not algorithm)
    verdict = check(replace(MESSAGE, signatures=rest))
    assert failed(verdict) == {f"envelope.signature.{SUITE_NAMES[SUITE[algorithm]]}"}
    assert verdict.failures[0].reason == f"it: no {algorithm.name} signature"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("value", [0, 255])
def test_a_signature_of_nothing_is_none(algorithm: Algorithm, value: int) -> None:
    spoilt = with_signature(
        algorithm, lambda one: replace(one, signature=bytes([value]) * len(one.signature))
    )
    assert failed(check(spoilt)) == {f"envelope.signature.{SUITE_NAMES[SUITE[algorithm]]}"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_name_of_the_key_is_signed_too(algorithm: Algorithm) -> None:
    name = SUITE_NAMES[SUITE[algorithm]]
    spoilt = with_signature(algorithm, lambda one: replace(one, key_id=bytes(20)))
    assert failed(check(spoilt)) == {f"envelope.key.{name}", f"envelope.signature.{name}"}


@pytest.mark.parametrize(
    "changed", [replace(MESSAGE, payload=b"other"), replace(MESSAGE, content_type="application/x")]
)
def test_payload_and_content_type_are_signed(changed: SignedMessage) -> None:
    assert failed(check(changed)) == {
        "envelope.signature.ecc384",
        "envelope.signature.ml_dsa_87",
    }


def test_without_a_certificate_only_what_is_missing_can_be_told() -> None:
    verdict = check(replace(MESSAGE, signatures=MESSAGE.signatures[:1]), {})
    assert failed(verdict) == {"envelope.signature.ml_dsa_87"}
    assert "envelope.signature.ecc384" in unreached(verdict)


def test_a_certificate_of_the_other_suite_verifies_nothing() -> None:
    swapped = {Suite.P384: LEAVES[Suite.ML_DSA_87], Suite.ML_DSA_87: LEAVES[Suite.P384]}
    assert failed(check(MESSAGE, swapped)) == {
        f"envelope.{rule}.{name}" for rule in ("key", "signature") for name in SUITE_NAMES.values()
    }
