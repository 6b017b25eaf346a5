import hashlib
from typing import Any

import pytest

from endocarp.errors import PeerError
from endocarp.hsm.mechanisms import (
    DIGEST_SIZES,
    DIGESTS,
    GENERATED_BY,
    KEY_MECHANISMS,
    KEY_TYPES,
    MECHANISMS,
    PAIR_MECHANISMS,
    cipher_rule,
    generated_suite,
    sign_rule,
)
from endocarp.wire.cryptoki import CKA, CKM, CKP, CKR, MechanismFlags
from endocarp.wire.p11 import Mechanism
from endocarp.wire.p11_forms import GcmParameters, OaepParameters, PssParameters
from endocarp.wire.suites import CIPHERS, SCHEMES, Cipher, Scheme, Suite

P256_OID = bytes.fromhex("06082a8648ce3d030107")
PARAMETERS = {
    **dict.fromkeys(
        (CKM.RSA_PKCS_PSS, CKM.SHA256_RSA_PKCS_PSS), PssParameters(CKM.SHA256, salt_size=32, mgf=2)
    ),
    CKM.SHA384_RSA_PKCS_PSS: PssParameters(CKM.SHA384, salt_size=48, mgf=3),
    CKM.SHA512_RSA_PKCS_PSS: PssParameters(CKM.SHA512, salt_size=64, mgf=4),
    CKM.RSA_PKCS_OAEP: OaepParameters(CKM.SHA_1, mgf=1, source=0, label=b""),
    CKM.AES_GCM: GcmParameters(bytes(12), 96, b"", 128),
}


def mechanism(number: int) -> Mechanism:
    return Mechanism(number, PARAMETERS.get(CKM(number)))


def refusal(function: Any, *arguments: Any) -> CKR:
    with pytest.raises(PeerError) as caught:
        function(*arguments)
    return CKR(caught.value.number)


# --- the tables -------------------------------------------------------------------------------------------------


def announced(flag: MechanismFlags) -> list[int]:
    return [number for number, info in MECHANISMS.items() if info.flags & flag]


@pytest.mark.parametrize("number", announced(MechanismFlags.SIGN), ids=lambda number: CKM(number).name)
def test_every_mechanism_announced_for_signing_has_a_rule_that_the_vault_can_follow(number: int) -> None:
    suites = [suite for suite in Suite if signs_with(number, suite)]
    assert suites
    for suite in suites:
        rule = sign_rule(mechanism(number), suite)
        assert rule.scheme in SCHEMES[suite]


def signs_with(number: int, suite: Suite) -> bool:
    try:
        sign_rule(mechanism(number), suite)
    except PeerError as error:
        assert error.number == CKR.KEY_TYPE_INCONSISTENT  # noqa: PT017
        return False
    return True


@pytest.mark.parametrize(
    ("number", "suite"),
    [(CKM.RSA_PKCS, Suite.RSA2048), (CKM.RSA_PKCS_OAEP, Suite.RSA3072), (CKM.AES_GCM, Suite.AES256)],
)
def test_every_mechanism_announced_for_encrypting_has_a_rule_that_the_vault_can_follow(
    number: int, suite: Suite
) -> None:
    assert number in announced(MechanismFlags.ENCRYPT)
    assert cipher_rule(mechanism(number), suite).cipher in CIPHERS[suite]


def test_no_other_mechanism_is_announced_than_there_are_rules_for() -> None:
    assert set(announced(MechanismFlags.DIGEST)) == set(DIGESTS)
    assert set(announced(MechanismFlags.GENERATE_KEY_PAIR)) == set(PAIR_MECHANISMS)
    assert set(announced(MechanismFlags.GENERATE)) == set(KEY_MECHANISMS)
    assert set(announced(MechanismFlags.ENCRYPT)) == {CKM.RSA_PKCS, CKM.RSA_PKCS_OAEP, CKM.AES_GCM}


def test_every_suite_has_a_key_type_and_a_mechanism_that_makes_it() -> None:
    assert set(KEY_TYPES) == set(GENERATED_BY) == set(Suite)


def test_digests_have_the_sizes_that_are_told() -> None:
    assert {number: len(start().digest()) for number, start in DIGESTS.items()} == DIGEST_SIZES


# --- signing ----------------------------------------------------------------------------------------------------


def test_the_callers_digest_goes_as_it_is() -> None:
    rule = sign_rule(Mechanism(CKM.ECDSA), Suite.P256)
    assert (rule.scheme, rule.start, rule.prefix) == (Scheme.ECDSA_DIGEST, None, b"")


def test_rsa_with_a_hash_is_a_digest_info_of_the_hash() -> None:
    rule = sign_rule(Mechanism(CKM.SHA256_RSA_PKCS), Suite.RSA2048)
    assert rule.start is not None
    digest = rule.start(b"")
    digest.update(b"abc")
    # RFC 8017, 9.2, note 1.
    assert rule.prefix.hex() == "3031300d060960864801650304020105000420"
    assert digest.digest() == hashlib.sha256(b"abc").digest()
    assert rule.scheme is Scheme.RSA_PKCS1


def test_ml_dsa_hashes_the_public_key_and_an_empty_context_before_the_data() -> None:
    rule = sign_rule(Mechanism(CKM.ML_DSA), Suite.ML_DSA_65)
    assert rule.start is not None
    mu = rule.start(b"public")
    mu.update(b"me")
    mu.update(b"ssage")
    key_hash = hashlib.shake_256(b"public").digest(64)
    assert mu.digest() == hashlib.shake_256(key_hash + b"\0\0message").digest(64)
    assert rule.scheme is Scheme.ML_DSA_MU


def test_pss_over_a_digest_goes_as_it_is_and_with_a_hash_is_hashed() -> None:
    plain = sign_rule(mechanism(CKM.RSA_PKCS_PSS), Suite.RSA2048)
    hashed = sign_rule(mechanism(CKM.SHA256_RSA_PKCS_PSS), Suite.RSA2048)
    assert plain.scheme is hashed.scheme is Scheme.RSA_PSS_DIGEST_SHA256
    assert (plain.start is None, hashed.start is None) == (True, False)


@pytest.mark.parametrize(
    ("number", "parameter", "expected"),
    [
        (0x8000_0001, None, CKR.MECHANISM_INVALID),
        (CKM.SHA256, None, CKR.MECHANISM_INVALID),
        (CKM.ECDSA, (b"parameter",), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_PSS, None, CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_PSS, (1, 2, 3), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_PSS, PssParameters(CKM.SHA_1, 1, 20), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_PSS, PssParameters(1 << 63, 2, 32), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_PSS, PssParameters(CKM.SHA256, 3, 32), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_PSS, PssParameters(CKM.SHA256, 2, 20), CKR.MECHANISM_PARAM_INVALID),
        (CKM.SHA384_RSA_PKCS_PSS, PssParameters(CKM.SHA256, 2, 32), CKR.MECHANISM_PARAM_INVALID),
        (CKM.ECDSA, None, CKR.KEY_TYPE_INCONSISTENT),
        (CKM.ML_DSA, None, CKR.KEY_TYPE_INCONSISTENT),
    ],
)
def test_a_signature_that_cannot_be_is_refused_with_the_reason(
    number: int, parameter: Any, expected: CKR
) -> None:
    assert refusal(sign_rule, Mechanism(number, parameter), Suite.RSA2048) is expected


# --- ciphers ----------------------------------------------------------------------------------------------------


def test_gcm_brings_its_nonce_and_associated_data() -> None:
    rule = cipher_rule(Mechanism(CKM.AES_GCM, GcmParameters(b"n" * 12, 0, b"aad", 128)), Suite.AES256)
    assert (rule.cipher, rule.nonce, rule.associated) == (Cipher.AES_GCM, b"n" * 12, b"aad")


def test_oaep_is_told_apart_by_its_hash() -> None:
    sha256 = Mechanism(CKM.RSA_PKCS_OAEP, OaepParameters(CKM.SHA256, 2, 1, b""))
    assert cipher_rule(sha256, Suite.RSA2048).cipher is Cipher.RSA_OAEP_SHA256
    assert cipher_rule(mechanism(CKM.RSA_PKCS_OAEP), Suite.RSA2048).cipher is Cipher.RSA_OAEP_SHA1


@pytest.mark.parametrize(
    ("number", "parameter", "expected"),
    [
        (CKM.ECDSA, None, CKR.MECHANISM_INVALID),
        (CKM.RSA_PKCS, (b"x",), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS, None, CKR.KEY_TYPE_INCONSISTENT),
        (CKM.RSA_PKCS_OAEP, None, CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_OAEP, OaepParameters(CKM.SHA256, 2, 1, b"label"), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_OAEP, OaepParameters(CKM.SHA512, 4, 1, b""), CKR.MECHANISM_PARAM_INVALID),
        (CKM.RSA_PKCS_OAEP, OaepParameters(CKM.SHA256, 1, 1, b""), CKR.MECHANISM_PARAM_INVALID),
        (CKM.AES_GCM, None, CKR.MECHANISM_PARAM_INVALID),
        (CKM.AES_GCM, GcmParameters(bytes(12), 96, b"", 96), CKR.MECHANISM_PARAM_INVALID),
        (CKM.AES_GCM, GcmParameters(bytes(16), 128, b"", 128), CKR.MECHANISM_PARAM_INVALID),
        (CKM.AES_GCM, GcmParameters(bytes(12), 96, bytes(2049), 128), CKR.MECHANISM_PARAM_INVALID),
    ],
)
def test_an_encryption_that_cannot_be_is_refused_with_the_reason(
    number: int, parameter: Any, expected: CKR
) -> None:
    assert refusal(cipher_rule, Mechanism(number, parameter), Suite.AES256) is expected


# --- making keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "attributes", "suite"),
    [
        (CKM.EC_KEY_PAIR_GEN, {CKA.EC_PARAMS: P256_OID}, Suite.P256),
        (CKM.RSA_PKCS_KEY_PAIR_GEN, {CKA.MODULUS_BITS: 3072}, Suite.RSA3072),
        (CKM.ML_DSA_KEY_PAIR_GEN, {CKA.PARAMETER_SET: CKP.ML_DSA_87}, Suite.ML_DSA_87),
    ],
)
def test_a_template_says_what_kind_of_pair_is_made(
    number: int, attributes: dict[int, Any], suite: Suite
) -> None:
    assert generated_suite(PAIR_MECHANISMS, Mechanism(number), attributes) is suite
    assert GENERATED_BY[suite] == number


def test_a_template_says_how_long_a_secret_key_is() -> None:
    assert generated_suite(KEY_MECHANISMS, Mechanism(CKM.AES_KEY_GEN), {CKA.VALUE_LEN: 32}) is Suite.AES256


@pytest.mark.parametrize(
    ("number", "attributes", "expected"),
    [
        (CKM.AES_KEY_GEN, {CKA.VALUE_LEN: 32}, CKR.MECHANISM_INVALID),
        (CKM.EC_KEY_PAIR_GEN, {}, CKR.TEMPLATE_INCOMPLETE),
        (CKM.EC_KEY_PAIR_GEN, {CKA.EC_PARAMS: b"\x06\x03\x2b\x65\x70"}, CKR.CURVE_NOT_SUPPORTED),
        (CKM.RSA_PKCS_KEY_PAIR_GEN, {CKA.MODULUS_BITS: 1024}, CKR.ATTRIBUTE_VALUE_INVALID),
        (CKM.ML_DSA_KEY_PAIR_GEN, {CKA.PARAMETER_SET: 1}, CKR.ATTRIBUTE_VALUE_INVALID),
    ],
)
def test_a_pair_that_cannot_be_is_refused_with_the_reason(
    number: int, attributes: dict[int, Any], expected: CKR
) -> None:
    assert refusal(generated_suite, PAIR_MECHANISMS, Mechanism(number), attributes) is expected


def test_making_keys_takes_no_parameter() -> None:
    wanted = Mechanism(CKM.EC_KEY_PAIR_GEN, (b"x",))
    assert refusal(generated_suite, PAIR_MECHANISMS, wanted, {}) is CKR.MECHANISM_PARAM_INVALID
