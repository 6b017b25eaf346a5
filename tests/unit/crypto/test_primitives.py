"""Keyed primitives against published answers, or against the standard library where none are published."""

import hashlib
import hmac
from collections.abc import Callable

import pytest

from endocarp.crypto.primitives import (
    P384_ORDER,
    Gcm,
    doe_decrypt,
    drbg_scalar,
    hkdf_sha384,
    hmac_sha512,
    kdf_sha384,
    kdf_sha512,
    mldsa_seed,
    p384_scalar,
    pin_digest,
)
from endocarp.crypto.secret import Secret
from endocarp.errors import Refused, UsageError

KEY = bytes(range(64))
NONCE = bytes(12)


class Cdi(Secret):
    """A kind of secret, as the root of trust makes them."""


def octets(secret: Secret) -> bytes:
    with secret:
        return bytes(secret.view)


# RFC 4231, test cases 2 and 4.
@pytest.mark.parametrize(
    ("key", "message", "sha512"),
    [
        (
            b"Jefe",
            b"what do ya want for nothing?",
            (
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
                "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
            ),
        ),
        (
            bytes(range(1, 26)),
            b"\xcd" * 50,
            (
                "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db"
                "a91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd"
            ),
        ),
    ],
)
def test_hmac_gives_the_published_answers(key: bytes, message: bytes, sha512: str) -> None:
    assert octets(hmac_sha512(key, message)).hex() == sha512
    assert octets(hmac_sha512(Secret(key), message[:3], Secret(message[3:]))).hex() == sha512


@pytest.mark.parametrize(("kdf", "name"), [(kdf_sha384, "sha384"), (kdf_sha512, "sha512")])
def test_the_kdf_is_one_block_with_the_counter_in_front(kdf: Callable[..., Secret], name: str) -> None:
    # Caliptra drivers, "hmac_kdf": the zero octet stands only where a context is given, an empty one included.
    for context, fixed in ((None, b"label"), (b"", b"label\x00"), (b"ctx", b"label\x00ctx")):
        expected = hmac.new(KEY, b"\x00\x00\x00\x01" + fixed, name).digest()
        assert octets(kdf(Secret(KEY), b"label", context)) == expected


def test_the_kdf_gives_the_kind_of_secret_that_is_asked_for() -> None:
    assert type(kdf_sha512(Secret(KEY), b"label")) is Secret
    assert type(kdf_sha512(Secret(KEY), b"label", kind=Cdi)) is Cdi
    assert type(kdf_sha384(Secret(KEY), b"label", kind=Cdi)) is Cdi


def test_hkdf_extracts_and_expands_as_rfc_5869_says() -> None:
    key, salt, info = b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA))
    extracted = hmac.new(salt, key, "sha384").digest()
    first = hmac.new(extracted, info + b"\x01", "sha384").digest()
    second = hmac.new(extracted, first + info + b"\x02", "sha384").digest()
    assert octets(hkdf_sha384(Secret(key), salt, info, 80)) == (first + second)[:80]


def test_the_generator_gives_the_nonce_of_rfc_6979() -> None:
    # RFC 6979, A.2.6, SHA-384, "sample": entropy is the private key, the nonce is the digest.
    scalar = (
        "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5"
    )
    k = "94ed910d1a099dad3254e9242ae85abde4ba15168eaf0ca87a555fd56d10fbca2907e3e83ba95368623b8c4686915cf9"
    digest = hashlib.sha384(b"sample").digest()
    assert octets(drbg_scalar(Secret(bytes.fromhex(scalar)), digest, P384_ORDER)).hex() == k


def reference_scalar(seed: bytes, nonce: bytes, order: int) -> tuple[int, bytes]:
    """SP 800-90A, 10.1.2, written once more: how many outputs were turned down, and the first that was not."""

    def mac(key: bytes, *parts: bytes) -> bytes:
        return hmac.new(key, b"".join(parts), "sha384").digest()

    key, value = bytes(48), b"\x01" * 48
    for mark in (b"\x00", b"\x01"):
        key = mac(key, value, mark, seed, nonce)
        value = mac(key, value)
    turned_down = 0
    while True:
        value = mac(key, value)
        if 0 < int.from_bytes(value, "big") < order:
            return turned_down, value
        key = mac(key, value, b"\x00")
        value = mac(key, value)
        turned_down += 1


def test_the_generator_turns_down_what_is_out_of_range_and_goes_on() -> None:
    seen = set()
    for number in range(20):
        seed = bytes((number,)) * 48
        turned_down, expected = reference_scalar(seed, bytes(48), 1 << 383)
        assert octets(drbg_scalar(Secret(seed), bytes(48), 1 << 383)) == expected
        seen.add(turned_down)
    assert {0, 1, 2} <= seen


def test_a_p384_scalar_comes_of_48_octets_and_a_nonce_of_zeros() -> None:
    assert octets(p384_scalar(Secret(bytes(48)))) == reference_scalar(bytes(48), bytes(48), P384_ORDER)[1]
    with pytest.raises(UsageError, match="a seed of 47 octets"):
        p384_scalar(Secret(bytes(47)))


def test_an_ml_dsa_seed_is_the_first_half_reversed_as_a_whole() -> None:
    assert octets(mldsa_seed(Secret(KEY))) == KEY[:32][::-1]


def test_deobfuscation_is_aes_256_cbc() -> None:
    # SP 800-38A, F.2.6.
    key = Secret(bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"))
    ciphertext = bytes.fromhex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d")
    plaintext = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    assert octets(doe_decrypt(key, bytes(range(16)), ciphertext)).hex() == plaintext
    assert type(doe_decrypt(key, bytes(range(16)), ciphertext, kind=Cdi)) is Cdi


@pytest.mark.parametrize(("key", "iv", "data"), [(16, 16, 16), (32, 12, 16), (32, 16, 17)])
def test_deobfuscation_checks_sizes(key: int, iv: int, data: int) -> None:
    with pytest.raises(UsageError, match="wrong sizes"):
        doe_decrypt(Secret(bytes(key)), bytes(iv), bytes(data))


def test_gcm_gives_the_published_answer() -> None:
    # The GCM submission, test case 16.
    key = Secret(bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2))
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    sealed = (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )
    gcm = Gcm(key)
    key.close()  # keyed once: the secret is not needed any more
    assert gcm.seal(nonce, plaintext, aad).hex() == sealed
    assert gcm.seal(nonce, Secret(plaintext), aad).hex() == sealed
    assert gcm.open(nonce, bytes.fromhex(sealed), aad) == plaintext
    assert octets(gcm.open_secret(nonce, bytes.fromhex(sealed), aad)) == plaintext


def test_gcm_refuses_what_was_changed() -> None:
    gcm = Gcm(Secret(bytes(32)))
    sealed = gcm.seal(NONCE, b"content", b"aad")
    for changed, aad in ((sealed[:-1] + b"\x00", b"aad"), (sealed, b"aae"), (sealed[1:], b"aad"), (b"", b"")):
        for opening in (gcm.open, gcm.open_secret):
            with pytest.raises(Refused) as caught:
                opening(NONCE, changed, aad)
            assert caught.value.rule == "aead"
            assert caught.value.advice()


def test_gcm_takes_no_plaintext_too() -> None:
    gcm = Gcm(Secret(bytes(32)))
    sealed = gcm.seal(NONCE, b"")
    assert len(sealed) == 16
    assert gcm.open(NONCE, sealed) == octets(gcm.open_secret(NONCE, sealed)) == b""


def test_gcm_wants_keys_of_32_and_nonces_of_12_octets() -> None:
    with pytest.raises(UsageError, match="an AES key of 16 octets"):
        Gcm(Secret(bytes(16)))
    gcm = Gcm(Secret(bytes(32)))
    for attempt in (gcm.seal, gcm.open, gcm.open_secret):
        with pytest.raises(UsageError, match="a nonce of 16 octets"):
            attempt(bytes(16), b"")


def test_a_pin_is_digested_by_scrypt() -> None:
    salt = bytes(range(16))
    expected = hashlib.scrypt(b"12345678", salt=salt, n=1 << 14, r=8, p=1, maxmem=1 << 26, dklen=32)
    assert pin_digest(bytearray(b"12345678"), salt) == expected
    with pytest.raises(UsageError, match="a salt of 8 octets"):
        pin_digest(b"12345678", bytes(8))
