"""Typed keys: made, exported, loaded, used; what is no key is refused."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from endocarp.crypto.keys import (
    AesKey,
    PrivateKey,
    PublicKey,
    generate,
    load,
    mldsa87_from_seed,
    p384_from_scalar,
)
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, Refused, UsageError
from endocarp.wire import der
from endocarp.wire.suites import CIPHERS, SCHEMES, SIGNATURE_SIZE, Cipher, Scheme, Suite

PAIRS = [suite for suite in Suite if suite is not Suite.AES256]
MESSAGE = bytes(64)
_KEYS: dict[Suite, PrivateKey] = {}


def key_of(suite: Suite) -> PrivateKey:
    """Return a key that is made once: RSA takes its time."""
    if suite not in _KEYS:
        _KEYS[suite] = generate(suite)
    return _KEYS[suite]


def some_scheme(suite: Suite) -> Scheme:
    return {Suite.P256: Scheme.ECDSA_SHA256, Suite.P384: Scheme.ECDSA_SHA384}.get(suite, max(SCHEMES[suite]))


@pytest.mark.parametrize("suite", PAIRS)
def test_a_key_signs_what_its_public_half_verifies(suite: Suite) -> None:
    key, scheme = key_of(suite), some_scheme(suite)
    signature = key.sign(scheme, MESSAGE)
    assert key.suite is key.public.suite is suite
    assert len(signature) == SIGNATURE_SIZE[suite]
    assert key.public.verify(scheme, signature, MESSAGE)
    assert not key.public.verify(scheme, signature, MESSAGE[:-1] + b"\x01")


@pytest.mark.parametrize("suite", PAIRS)
def test_a_key_goes_out_as_a_secret_and_comes_back(suite: Suite) -> None:
    with key_of(suite).export() as octets:
        back = load(suite, octets)
    assert back.public == key_of(suite).public
    signature = back.sign(some_scheme(suite), MESSAGE)
    assert key_of(suite).public.verify(some_scheme(suite), signature, MESSAGE)


@pytest.mark.parametrize("suite", PAIRS)
def test_a_public_key_goes_there_and_back(suite: Suite) -> None:
    public = key_of(suite).public
    assert PublicKey.from_raw(suite, public.raw) == public
    assert PublicKey.from_spki(public.spki()) == public
    assert hash(PublicKey.from_spki(public.spki())) == hash(public)
    parsed = serialization.load_der_public_key(public.spki())
    assert (
        parsed.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        == public.spki()
    )


def test_keys_show_no_more_than_their_kind() -> None:
    key = key_of(Suite.P256)
    assert repr(key) == "<PrivateKey P256>"
    assert repr(key.public).startswith("<PublicKey P256 04")
    assert key.public != key.public.raw
    assert repr(AesKey(Secret(bytes(32)))) == "<AesKey AES256>"


@pytest.mark.parametrize("suite", PAIRS)
def test_schemes_and_ciphers_of_other_suites_are_refused(suite: Suite) -> None:
    key = key_of(suite)
    for scheme in set(Scheme) - SCHEMES[suite]:
        with pytest.raises(UsageError, match=f"{scheme.name} is not for {suite.name}"):
            key.sign(scheme, MESSAGE)
        with pytest.raises(UsageError, match=f"{scheme.name} is not for {suite.name}"):
            key.public.verify(scheme, bytes(SIGNATURE_SIZE[suite]), MESSAGE)
    for cipher in set(Cipher) - CIPHERS[suite]:
        with pytest.raises(UsageError, match=f"{cipher.name} is not for {suite.name}"):
            key.public.encrypt(cipher, MESSAGE)
        with pytest.raises(UsageError, match=f"{cipher.name} is not for {suite.name}"):
            key.decrypt(cipher, MESSAGE)


def test_deterministic_signatures_are_the_same_each_time() -> None:
    key = p384_from_scalar(Secret(bytes(47) + b"\x01"))
    signature = key.sign_deterministic(b"tbs")
    assert signature == key.sign_deterministic(b"tbs")
    assert signature != key.sign(Scheme.ECDSA_SHA384, b"tbs")
    assert key.public.verify(Scheme.ECDSA_SHA384, signature, b"tbs")


@pytest.mark.parametrize("suite", [Suite.RSA2048, Suite.ML_DSA_87])
def test_only_ecdsa_is_deterministic(suite: Suite) -> None:
    with pytest.raises(UsageError, match="no deterministic signatures"):
        key_of(suite).sign_deterministic(b"tbs")


# --- encryption ---


@pytest.mark.parametrize(
    ("cipher", "limit"), [(Cipher.RSA_OAEP_SHA1, 214), (Cipher.RSA_OAEP_SHA256, 190), (Cipher.RSA_PKCS1, 245)]
)
def test_rsa_encrypts_up_to_the_limit_of_its_padding(cipher: Cipher, limit: int) -> None:
    key = key_of(Suite.RSA2048)
    for data in (b"", bytearray(b"short"), bytes(limit)):
        sealed = key.public.encrypt(cipher, data)
        assert len(sealed) == 256
        assert key.decrypt(cipher, sealed) == data
    with pytest.raises(UsageError, match=f"{limit + 1} octets to encrypt"):
        key.public.encrypt(cipher, bytes(limit + 1))


def test_what_was_not_encrypted_for_this_key_is_refused() -> None:
    key = key_of(Suite.RSA2048)
    sealed = key.public.encrypt(Cipher.RSA_OAEP_SHA256, b"content")
    for cipher, octets in (
        (Cipher.RSA_OAEP_SHA1, sealed),
        (Cipher.RSA_OAEP_SHA256, sealed[:-1] + bytes((sealed[-1] ^ 1,))),
        (Cipher.RSA_PKCS1, sealed[1:]),
    ):
        with pytest.raises(Refused) as caught:
            key.decrypt(cipher, octets)
        assert caught.value.rule == "decrypt"


def test_a_wrong_pkcs1_padding_gives_other_octets_and_no_oracle() -> None:
    key = key_of(Suite.RSA2048)
    sealed = key.public.encrypt(Cipher.RSA_PKCS1, b"content")
    assert key.decrypt(Cipher.RSA_PKCS1, sealed[:-1] + bytes((sealed[-1] ^ 1,))) != b"content"


def test_an_aes_key_seals_and_opens() -> None:
    with Secret(bytes(range(32))) as octets:
        key = AesKey(octets)
    sealed = key.seal(bytes(12), b"content", b"aad")
    assert key.suite is Suite.AES256
    assert key.open(bytes(12), sealed, b"aad") == b"content"
    with key.export() as octets:
        assert bytes(octets.view) == bytes(range(32))
        assert AesKey(octets).seal(bytes(12), b"content", b"aad") == sealed
    with pytest.raises(Refused, match="aead"):
        key.open(bytes(12), sealed)


def test_aes_has_no_pairs() -> None:
    for attempt in (
        lambda: generate(Suite.AES256),
        lambda: load(Suite.AES256, Secret(bytes(32))),
        lambda: PublicKey.from_raw(Suite.AES256, bytes(32)),
    ):
        with pytest.raises(UsageError, match="no key pairs"):
            attempt()


# --- from seeds and scalars ---


def test_a_scalar_becomes_a_p384_key() -> None:
    # SP 800-186: with the scalar 1 the public key is the base point.
    key = p384_from_scalar(Secret(bytes(47) + b"\x01"))
    assert key.public.raw.hex() == (
        "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7"
        "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f"
    )


@pytest.mark.parametrize("octets", [bytes(48), b"\xff" * 48, bytes(32) + b"\x01"])
def test_a_scalar_is_in_range_and_of_48_octets(octets: bytes) -> None:
    with pytest.raises(DecodeError):
        p384_from_scalar(Secret(octets))


def test_a_seed_becomes_an_ml_dsa_87_key() -> None:
    key = mldsa87_from_seed(Secret(bytes(32)))
    with key.export() as seed:
        assert bytes(seed.view) == bytes(32)
    with pytest.raises(DecodeError, match="no private key for ML_DSA_87"):
        mldsa87_from_seed(Secret(bytes(31)))


# --- what is no key ---


@pytest.mark.parametrize(
    ("suite", "raw"),
    [
        (Suite.P256, b"\x04" + bytes(64)),
        (Suite.P256, key_of(Suite.P256).public.raw[:-1]),
        (Suite.P384, key_of(Suite.P256).public.raw),
        (Suite.P384, b"\x05" + key_of(Suite.P384).public.raw[1:]),
        (Suite.P384, b"\x02" + key_of(Suite.P384).public.raw[1:49]),
        (Suite.ML_DSA_65, bytes(1951)),
        (Suite.ML_DSA_87, bytes(1952)),
    ],
    ids=[
        "not on it",
        "cut short",
        "of another curve",
        "of no form",
        "compressed",
        "too short",
        "of another set",
    ],
)
def test_a_public_key_lies_on_its_curve_and_has_its_size(suite: Suite, raw: bytes) -> None:
    with pytest.raises(DecodeError, match=f"no public key for {suite.name}"):
        PublicKey.from_raw(suite, raw)


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [
        ((1 << 2047) - 1, 65537),
        (1 - (1 << 2048), 65537),
        ((1 << 2048) - 1, 3),
        ((1 << 2048) - 1, 65538),
        ((1 << 2048) - 1, (1 << 256) + 1),
    ],
    ids=["short modulus", "negative modulus", "small exponent", "even exponent", "large exponent"],
)
def test_an_rsa_key_keeps_to_fips_186_5(modulus: int, exponent: int) -> None:
    raw = der.sequence(der.integer(modulus), der.integer(exponent))
    with pytest.raises(DecodeError, match="no public key for RSA2048"):
        PublicKey.from_raw(Suite.RSA2048, raw)


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        der.sequence(),
        der.sequence(der.sequence(der.oid("1.3.101.112")), der.bit_string(bytes(32))),
        key_of(Suite.P256).public.spki() + b"\x00",
        der.sequence(
            der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null()),
            der.bit_string(der.sequence(der.integer(1 << 1023), der.integer(65537))),
        ),
    ],
    ids=["nothing", "empty", "Ed25519", "more behind", "RSA-1024"],
)
def test_a_public_key_info_is_of_a_known_suite(spki: bytes) -> None:
    with pytest.raises(DecodeError):
        PublicKey.from_spki(spki)


def pkcs8(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> Secret:
    return Secret(
        key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.mark.parametrize("suite", PAIRS)
def test_a_private_key_of_another_kind_is_refused(suite: Suite) -> None:
    others = [
        Secret(b""),
        Secret(b"\x30\x00"),
        pkcs8(ed25519.Ed25519PrivateKey.generate()),
        pkcs8(ec.generate_private_key(ec.SECP521R1())),
        pkcs8(rsa.generate_private_key(65537, 1024)),
    ]
    for octets in others:
        with pytest.raises(DecodeError, match=f"no private key for {suite.name}"):
            load(suite, octets)


def test_an_rsa_key_whose_halves_do_not_fit_is_refused() -> None:
    # Its first signature might give its primes away.
    with key_of(Suite.RSA2048).export() as octets:
        whole = bytes(octets.view)
    exponent, other = der.integer(65537), der.integer(65539)
    with pytest.raises(DecodeError, match="no private key for RSA2048"):
        load(Suite.RSA2048, Secret(whole.replace(exponent, other, 1)))


def test_an_encrypted_private_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    octets = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    with pytest.raises(DecodeError, match="no private key for P256"):
        load(Suite.P256, Secret(octets))
