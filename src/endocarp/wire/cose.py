"""COSE_Sign (RFC 9052, 4.1): one payload under the signatures of several keys. No cryptography here.

    message = [ {3: content type} as bytes, {}, payload, [ [ {1: algorithm, 4: key id} as bytes, {}, signature ], … ] ]

Everything that a verifier acts on stands in protected headers; unprotected ones must be empty. The content type tells
one kind of signed object from another, so that a signature made for one is never taken for the other.

Source: RFC 9052, RFC 9864, draft-ietf-cose-dilithium.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

import cbor2

from endocarp.errors import DecodeError
from endocarp.wire import cbor
from endocarp.wire.suites import SIGNATURE_SIZE, Scheme, Suite

TAG = 98
"""The CBOR tag of COSE_Sign."""

LIMIT = 2 << 20
"""Octets of a whole message at most."""

KEY_ID_LIMIT = 64
CONTENT_TYPE_LIMIT = 64


class Algorithm(IntEnum):
    """The two algorithms, by their COSE numbers: each fixes the curve or parameter set, and the digest."""

    ESP384 = -51
    """ECDSA over P-384 with SHA-384 (RFC 9864); the signature is r and s of 48 octets each, big-endian."""
    ML_DSA_87 = -50
    """Pure ML-DSA-87 with an empty context (IANA COSE Algorithms, from draft-ietf-cose-dilithium)."""


SUITE: Mapping[Algorithm, Suite] = {Algorithm.ESP384: Suite.P384, Algorithm.ML_DSA_87: Suite.ML_DSA_87}
"""The kind of key that each algorithm signs with."""
SCHEME: Mapping[Algorithm, Scheme] = {
    Algorithm.ESP384: Scheme.ECDSA_SHA384,
    Algorithm.ML_DSA_87: Scheme.ML_DSA,
}
"""How it signs with it."""


@dataclass(frozen=True)
class Signature:
    """One signature: by which algorithm, by which key (an identifier of 1 to 64 octets), and its octets."""

    algorithm: Algorithm
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class SignedMessage:
    """A payload and the signatures that stand under it, at most one an algorithm."""

    content_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """Return the tagged message."""
        signatures = [
            [_signer_header(one.algorithm, one.key_id), {}, one.signature] for one in self.signatures
        ]
        body = [_body_header(self.content_type), {}, self.payload, signatures]
        return cbor.encode(cbor2.CBORTag(TAG, body))

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read one message. Raises DecodeError for any form but the one that `encode` gives."""
        tagged = cbor.decode("SignedMessage", octets, limit=LIMIT, tag=TAG)
        if not isinstance(tagged, cbor2.CBORTag):
            raise DecodeError("SignedMessage", "not tagged as COSE_Sign")
        header, unprotected, payload, signatures = cbor.record("SignedMessage", tagged.value, 4)
        _refuse_unprotected("SignedMessage.unprotected", unprotected)
        found = cbor.items("SignedMessage.signatures", signatures, least=1, most=len(Algorithm))
        message = cls(
            content_type=_read_body_header(header),
            payload=cbor.octets("SignedMessage.payload", payload, least=1, most=LIMIT),
            signatures=tuple(_read_signature(one) for one in found),
        )
        if len({one.algorithm for one in message.signatures}) != len(found):
            raise DecodeError("SignedMessage.signatures", "two signatures by one algorithm")
        return message

    def signature(self, algorithm: Algorithm) -> Signature | None:
        """Return the signature by this algorithm, or None where there is none."""
        return next((one for one in self.signatures if one.algorithm == algorithm), None)

    def to_be_signed(self, signature: Signature) -> bytes:
        """Return what this signature must have been made over."""
        return to_be_signed(self.content_type, self.payload, signature.algorithm, signature.key_id)


def to_be_signed(content_type: str, payload: bytes, algorithm: Algorithm, key_id: bytes) -> bytes:
    """Return the Sig_structure (RFC 9052, 4.4) of one signer: the octets that are signed, not their digest."""
    return cbor.encode(
        ["Signature", _body_header(content_type), _signer_header(algorithm, key_id), b"", payload]
    )


def sign(
    content_type: str,
    payload: bytes,
    key_ids: Mapping[Algorithm, bytes],
    signer: Callable[[Algorithm, bytes], bytes],
) -> SignedMessage:
    """Sign `payload` by every algorithm of `key_ids`: `signer` gets the algorithm and the octets to be signed."""
    return SignedMessage(
        content_type,
        payload,
        tuple(
            Signature(
                algorithm, key_id, signer(algorithm, to_be_signed(content_type, payload, algorithm, key_id))
            )
            for algorithm, key_id in key_ids.items()
        ),
    )


_ALGORITHM, _CONTENT_TYPE, _KEY_ID = 1, 3, 4  # the registered header parameters


def _body_header(content_type: str) -> bytes:
    return cbor.encode({_CONTENT_TYPE: content_type})


def _signer_header(algorithm: Algorithm, key_id: bytes) -> bytes:
    return cbor.encode({_ALGORITHM: int(algorithm), _KEY_ID: key_id})


def _read_header(where: str, value: object, keys: tuple[int, ...]) -> Mapping[int, Any]:
    octets = cbor.octets(where, value, least=1, most=256)
    return cbor.claims(where, cbor.decode(where, octets, limit=256), keys)


def _read_body_header(value: object) -> str:
    header = _read_header("SignedMessage.protected", value, (_CONTENT_TYPE,))
    return cbor.text("SignedMessage.content_type", header[_CONTENT_TYPE], limit=CONTENT_TYPE_LIMIT)


def _refuse_unprotected(where: str, value: object) -> None:
    # RFC 9052, 3: parameters outside the protected bucket are under no signature, so we know none.
    cbor.claims(where, value, ())


def _read_algorithm(value: object) -> Algorithm:
    for algorithm in Algorithm:
        if isinstance(value, int) and value == algorithm:
            return algorithm
    raise DecodeError("Signature.algorithm", f"{value!r} is not one of ours")


def _read_signature(value: object) -> Signature:
    protected, unprotected, signature = cbor.record("Signature", value, 3)
    _refuse_unprotected("Signature.unprotected", unprotected)
    header = _read_header("Signature.protected", protected, (_ALGORITHM, _KEY_ID))
    algorithm = _read_algorithm(header[_ALGORITHM])
    size = SIGNATURE_SIZE[SUITE[algorithm]]
    return Signature(
        algorithm,
        cbor.octets("Signature.key_id", header[_KEY_ID], least=1, most=KEY_ID_LIMIT),
        cbor.octets("Signature.signature", signature, least=size, most=size),
    )
