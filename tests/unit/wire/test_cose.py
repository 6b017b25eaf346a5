"""COSE_Sign."""

from typing import Any

import cbor2
import pytest

from endocarp.errors import DecodeError
from endocarp.wire import cbor, cose
from endocarp.wire.cose import Algorithm, Signature, SignedMessage

ESP384 = Signature(Algorithm.ESP384, b"key one", bytes(96))
ML_DSA_87 = Signature(Algorithm.ML_DSA_87, b"key two", bytes(4627))
MESSAGE = SignedMessage("application/x", b"payload", (ESP384, ML_DSA_87))


def _body(**changes: Any) -> list[Any]:
    """Return the fields of MESSAGE with one signer, some of them replaced."""
    signer = {"protected": cbor.encode({1: -51, 4: b"key one"}), "unprotected": {}, "signature": bytes(96)}
    signer.update({name[7:]: value for name, value in changes.items() if name.startswith("signer_")})
    body = {
        "protected": cbor.encode({3: "application/x"}),
        "unprotected": {},
        "payload": b"payload",
        "signatures": [list(signer.values())],
    }
    body.update({name: value for name, value in changes.items() if not name.startswith("signer_")})
    return list(body.values())


def test_a_message_survives_the_round_trip() -> None:
    assert SignedMessage.decode(MESSAGE.encode()) == MESSAGE


def test_a_message_stands_as_rfc_9052_says() -> None:
    one = SignedMessage("application/x", b"payload", (ESP384,))
    assert one.encode() == cbor2.dumps(cbor2.CBORTag(98, _body()))


def test_what_is_signed_is_the_sig_structure_of_rfc_9052() -> None:
    signed = cbor2.loads(MESSAGE.to_be_signed(ESP384))
    assert signed == ["Signature", *_body()[:1], cbor.encode({1: -51, 4: b"key one"}), b"", b"payload"]


def test_what_is_signed_depends_on_every_protected_thing() -> None:
    signed = {
        cose.to_be_signed("application/x", b"payload", Algorithm.ESP384, b"key"),
        cose.to_be_signed("application/y", b"payload", Algorithm.ESP384, b"key"),
        cose.to_be_signed("application/x", b"Payload", Algorithm.ESP384, b"key"),
        cose.to_be_signed("application/x", b"payload", Algorithm.ML_DSA_87, b"key"),
        cose.to_be_signed("application/x", b"payload", Algorithm.ESP384, b"Key"),
    }
    assert len(signed) == 5


def test_signing_asks_for_one_signature_an_algorithm() -> None:
    asked = []

    def signer(algorithm: Algorithm, data: bytes) -> bytes:
        asked.append((algorithm, data))
        return bytes(96 if algorithm is Algorithm.ESP384 else 4627)

    message = cose.sign(
        "application/x",
        b"payload",
        {Algorithm.ESP384: b"key one", Algorithm.ML_DSA_87: b"key two"},
        signer,
    )
    assert message == MESSAGE
    assert asked == [(one.algorithm, MESSAGE.to_be_signed(one)) for one in MESSAGE.signatures]


def test_a_signature_is_found_by_its_algorithm() -> None:
    assert MESSAGE.signature(Algorithm.ML_DSA_87) == ML_DSA_87
    assert SignedMessage("application/x", b"payload", (ESP384,)).signature(Algorithm.ML_DSA_87) is None


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"protected": b""}, "SignedMessage.protected"),
        ({"protected": cbor.encode({})}, "SignedMessage.protected"),
        ({"protected": cbor.encode({3: "application/x", 99: 1})}, "SignedMessage.protected"),
        ({"protected": cbor.encode({3: 263})}, "SignedMessage.content_type"),
        ({"protected": cbor.encode({3.0: "application/x"})}, "SignedMessage.protected"),
        ({"unprotected": {4: b"key"}}, "SignedMessage.unprotected"),
        ({"payload": None}, "SignedMessage.payload"),
        ({"payload": b""}, "SignedMessage.payload"),
        ({"signatures": []}, "SignedMessage.signatures"),
        ({"signatures": _body()[3] * 2}, "SignedMessage.signatures"),
        ({"signatures": _body()[3] * 3}, "SignedMessage.signatures"),
        ({"signer_protected": cbor.encode({4: b"key"})}, "Signature.protected"),
        ({"signer_protected": cbor.encode({1: -35, 4: b"key"})}, "Signature.algorithm"),
        ({"signer_protected": cbor.encode({1.0: -51, 4: b"key"})}, "Signature.protected"),
        ({"signer_protected": cbor.encode({1: -51.0, 4: b"key"})}, "Signature.algorithm"),
        ({"signer_protected": cbor.encode({1: [], 4: b"key"})}, "Signature.algorithm"),
        ({"signer_protected": cbor.encode({1: -51, 4: b""})}, "Signature.key_id"),
        ({"signer_protected": cbor.encode({1: -51, 4: bytes(65)})}, "Signature.key_id"),
        ({"signer_unprotected": {1: -51}}, "Signature.unprotected"),
        ({"signer_signature": bytes(95)}, "Signature.signature"),
        ({"signer_signature": bytes(97)}, "Signature.signature"),
    ],
)
def test_another_form_is_refused_by_the_name_of_its_field(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(DecodeError) as refused:
        SignedMessage.decode(cbor.encode(cbor2.CBORTag(98, _body(**changes))))
    assert refused.value.where == where


@pytest.mark.parametrize(
    "octets",
    [
        cbor.encode(_body()),
        cbor.encode(cbor2.CBORTag(18, _body())),
        cbor.encode(cbor2.CBORTag(98, _body()[:3])),
        cbor.encode(cbor2.CBORTag(98, _body())) + b"\0",
        cbor2.dumps(cbor2.CBORTag(98, _body()), indefinite_containers=True),
    ],
)
def test_another_object_is_refused(octets: bytes) -> None:
    with pytest.raises(DecodeError, match="SignedMessage"):
        SignedMessage.decode(octets)
