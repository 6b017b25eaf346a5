"""Signed objects: a COSE message and its payload, read; and both signatures, by the certified keys that must have made them.

Source: RFC 9052, 4.1.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from endocarp.crypto.certs import Certificate, key_id
from endocarp.errors import DecodeError
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.verdict import Ledger
from endocarp.wire.cose import SCHEME, SUITE, SignedMessage
from endocarp.wire.suites import Suite

Payload = TypeVar("Payload")


def read_signed(
    ledger: Ledger,
    section: str,
    octets: bytes,
    content_type: str,
    decode: Callable[[bytes], Payload],
    *,
    subject: str = "",
) -> tuple[SignedMessage, Payload] | None:
    """Read a signed object of this content type and its payload; None where that was not possible.

    Notes `SECTION.decode`, `SECTION.content_type` and `SECTION.payload`. Whether it was signed, `verify_signatures` says.
    """
    rule = "decode"
    try:
        message = SignedMessage.decode(octets)
        ledger.check(f"{section}.{rule}", good=True, held=_size(octets), failed="", subject=subject)
        ledger.check(
            f"{section}.content_type",
            good=message.content_type == content_type,
            held=content_type,
            failed=message.content_type,
            subject=subject,
        )
        rule = "payload"
        payload = decode(message.payload)
    except DecodeError as error:
        ledger.fail(f"{section}.{rule}", str(error), subject=subject)
        return None
    ledger.check(f"{section}.{rule}", good=True, held=_size(message.payload), failed="", subject=subject)
    return message, payload


def _size(octets: bytes) -> str:
    return f"{len(octets)} octets"


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
                SCHEME[algorithm], signature.signature, message.to_be_signed(signature)
            )
            ledger.check(
                f"{section}.signature.{name}",
                good=good,
                held=f"by {certificate.common_name}",
                failed=f"not made over this by the key of {certificate.common_name}",
                subject=subject,
            )
