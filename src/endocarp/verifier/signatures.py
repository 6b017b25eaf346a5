"""Signed objects: both signatures under a COSE message, against the certified keys that must have made them."""

from collections.abc import Mapping

from endocarp.crypto.certs import Certificate, key_id
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.verdict import Ledger
from endocarp.wire.cose import SUITE, Algorithm, SignedMessage
from endocarp.wire.suites import Scheme, Suite

SCHEMES = {Algorithm.ESP384: Scheme.ECDSA_SHA384, Algorithm.ML_DSA_87: Scheme.ML_DSA}


def verify_signatures(
    ledger: Ledger,
    section: str,
    message: SignedMessage,
    certificates: Mapping[Suite, Certificate],
    *,
    subject: str = "",
) -> None:
    """Check that the keys of these certificates have signed `message`, one signature in each suite.

    Notes `SECTION.signature.SUITE` and `SECTION.key.SUITE`; where a certificate could not be read, they stay
    unreached unless there is no signature either.
    """
    for algorithm, suite in SUITE.items():
        name = SUITE_NAMES[suite]
        signature = message.signature(algorithm)
        certificate = certificates.get(suite)
        if signature is None:
            # Both are needed: an object that only one suite vouches for is worth what that suite is worth.
            ledger.fail(f"{section}.signature.{name}", f"no {algorithm.name} signature", subject=subject)
        elif certificate is not None:
            expected = key_id(certificate.public)
            ledger.check(
                f"{section}.key.{name}",
                good=signature.key_id == expected,
                held=expected.hex(),
                failed=f"it names {signature.key_id.hex()}, the key is {expected.hex()}",
                subject=subject,
            )
            good = certificate.public.suite is suite and certificate.public.verify(
                SCHEMES[algorithm], signature.signature, message.to_be_signed(signature)
            )
            ledger.check(
                f"{section}.signature.{name}",
                good=good,
                held=f"by {certificate.common_name}",
                failed=f"not made over this by the key of {certificate.common_name}",
                subject=subject,
            )
