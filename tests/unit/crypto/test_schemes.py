"""Each scheme as the library does it: published answers, independent recomputation, sizes of data."""

import hashlib
import itertools

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa, utils

from endocarp.crypto.schemes import deterministic_signer, signers, verifiers
from endocarp.errors import UsageError
from endocarp.wire.suites import DIGEST_SIZE, SCHEMES, SIGNATURE_SIZE, Scheme, Suite

MESSAGE = b"sample"
P256 = ec.derive_private_key(
    0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1()
)
P384 = ec.derive_private_key(
    0x6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5,
    ec.SECP384R1(),
)
EC_KEYS = {Suite.P256: P256, Suite.P384: P384}


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


# RFC 6979, A.2.5 with SHA-256 and A.2.6 with SHA-384.
@pytest.mark.parametrize(
    ("suite", "message", "signature"),
    [
        (
            Suite.P256,
            b"sample",
            (
                "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
                "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
            ),
        ),
        (
            Suite.P256,
            b"test",
            (
                "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367"
                "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083"
            ),
        ),
        (
            Suite.P384,
            b"sample",
            (
                "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46"
                "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8"
            ),
        ),
        (
            Suite.P384,
            b"test",
            (
                "8203b63d3c853e8d77227fb377bcf7b7b772e97892a80f36ab775d509d7a5feb0542a7f0812998da8f1dd3ca3cf023db"
                "ddd0760448d42d8a43af45af836fce4de8be06b485e9b61b827c2f13173923e06a739f040649a667bf3b828246baa5a5"
            ),
        ),
    ],
)
def test_deterministic_ecdsa_gives_the_published_answers(
    suite: Suite, message: bytes, signature: str
) -> None:
    assert deterministic_signer(suite, EC_KEYS[suite])(message).hex() == signature


def ecdsa_verifies(suite: Suite, raw: bytes, message: bytes, algorithm: ec.ECDSA) -> None:
    """Ask the library itself: raises InvalidSignature where the raw signature does not hold."""
    half = len(raw) // 2
    r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    EC_KEYS[suite].public_key().verify(utils.encode_dss_signature(r, s), message, algorithm)


@pytest.mark.parametrize("suite", [Suite.P256, Suite.P384])
@pytest.mark.parametrize(
    ("scheme", "algorithm"),
    [
        (Scheme.ECDSA_SHA256, hashes.SHA256()),
        (Scheme.ECDSA_SHA384, hashes.SHA384()),
        (Scheme.ECDSA_SHA512, hashes.SHA512()),
    ],
)
def test_ecdsa_signs_raw_with_any_of_its_hashes(
    suite: Suite, scheme: Scheme, algorithm: hashes.HashAlgorithm
) -> None:
    signature = signers(suite, EC_KEYS[suite])[scheme](MESSAGE)
    assert len(signature) == SIGNATURE_SIZE[suite]
    ecdsa_verifies(suite, signature, MESSAGE, ec.ECDSA(algorithm))
    verifiers(suite, EC_KEYS[suite].public_key())[scheme](signature, MESSAGE)


def test_raw_halves_keep_their_size_however_short_the_numbers_are() -> None:
    # About every 128th half begins with a zero octet, which DER leaves out, and every second has its top bit set.
    sign, verify = (
        signers(Suite.P256, P256)[Scheme.ECDSA_SHA256],
        verifiers(Suite.P256, P256.public_key())[Scheme.ECDSA_SHA256],
    )
    firsts = set()
    for number in range(1000):
        message = number.to_bytes(2, "big")
        signature = sign(message)
        assert len(signature) == 64
        firsts |= {signature[0], signature[32]}
        if not signature[0] or not signature[32]:
            verify(signature, message)
    assert {0, 0xFF} <= firsts


@pytest.mark.parametrize("suite", [Suite.P256, Suite.P384])
@pytest.mark.parametrize(
    "algorithm", [hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
)
def test_ecdsa_signs_digests_of_every_usual_size(suite: Suite, algorithm: hashes.HashAlgorithm) -> None:
    digest = hashlib.new(algorithm.name, MESSAGE).digest()
    signature = signers(suite, EC_KEYS[suite])[Scheme.ECDSA_DIGEST](digest)
    ecdsa_verifies(suite, signature, MESSAGE, ec.ECDSA(algorithm))
    verifiers(suite, EC_KEYS[suite].public_key())[Scheme.ECDSA_DIGEST](signature, digest)


@pytest.mark.parametrize("size", [19, 65])
def test_a_digest_has_20_to_64_octets(size: int) -> None:
    signature = bytes(64)
    with pytest.raises(UsageError, match=f"a digest of {size} octets"):
        signers(Suite.P256, P256)[Scheme.ECDSA_DIGEST](bytes(size))
    with pytest.raises(UsageError, match=f"a digest of {size} octets"):
        verifiers(Suite.P256, P256.public_key())[Scheme.ECDSA_DIGEST](signature, bytes(size))


@pytest.mark.parametrize("size", [0, 63, 65, 96])
def test_an_ecdsa_signature_of_another_size_does_not_hold(size: int) -> None:
    with pytest.raises(InvalidSignature):
        verifiers(Suite.P256, P256.public_key())[Scheme.ECDSA_SHA256](bytes(size), MESSAGE)


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64], ids=["zeros", "beyond the order"])
def test_ecdsa_numbers_out_of_range_do_not_hold(signature: bytes) -> None:
    with pytest.raises(InvalidSignature):
        verifiers(Suite.P256, P256.public_key())[Scheme.ECDSA_SHA256](signature, MESSAGE)


@pytest.mark.parametrize("scheme", [Scheme.RSA_PKCS1, Scheme.RSA_PKCS1_SHA256, Scheme.RSA_PSS_SHA256])
def test_an_rsa_signature_is_as_long_as_the_modulus(rsa_key: rsa.RSAPrivateKey, scheme: Scheme) -> None:
    sign = signers(Suite.RSA2048, rsa_key)[scheme]
    verify = verifiers(Suite.RSA2048, rsa_key.public_key())[scheme]
    # About every 256th begins with a zero octet, and is the same number without it.
    signed = ((message := number.to_bytes(4, "big"), sign(message)) for number in itertools.count())
    message, signature = next(pair for pair in signed if not pair[1][0])
    verify(signature, message)
    for other in (signature[1:], b"\0" + signature, b""):
        with pytest.raises(InvalidSignature):
            verify(other, message)


def test_rsa_pkcs1_is_what_rfc_8017_says(rsa_key: rsa.RSAPrivateKey) -> None:
    # RFC 8017, 8.2.1 and 9.2, computed without the library.
    sign = signers(Suite.RSA2048, rsa_key)
    digest_info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(MESSAGE).digest()
    encoded = b"\x00\x01" + b"\xff" * (256 - 3 - len(digest_info)) + b"\x00" + digest_info
    numbers = rsa_key.private_numbers()
    expected = pow(int.from_bytes(encoded, "big"), numbers.d, numbers.public_numbers.n).to_bytes(256, "big")
    assert sign[Scheme.RSA_PKCS1_SHA256](MESSAGE) == expected
    assert sign[Scheme.RSA_PKCS1](digest_info) == expected


def rsa_data(scheme: Scheme) -> bytes:
    return bytes(DIGEST_SIZE.get(scheme, 40))


@pytest.mark.parametrize("scheme", sorted(SCHEMES[Suite.RSA2048]))
def test_every_rsa_scheme_goes_there_and_back(scheme: Scheme, rsa_key: rsa.RSAPrivateKey) -> None:
    data = rsa_data(scheme)
    signature = signers(Suite.RSA2048, rsa_key)[scheme](memoryview(data))
    verify = verifiers(Suite.RSA2048, rsa_key.public_key())[scheme]
    assert len(signature) == 256
    verify(signature, data)
    with pytest.raises(InvalidSignature):
        verify(signature, data[:-1] + b"\x01")
    with pytest.raises(InvalidSignature):
        verify(signature[1:], data)


def test_rsa_signs_no_octets_at_all_as_they_are(rsa_key: rsa.RSAPrivateKey) -> None:
    signature = signers(Suite.RSA2048, rsa_key)[Scheme.RSA_PKCS1](b"")
    verify = verifiers(Suite.RSA2048, rsa_key.public_key())[Scheme.RSA_PKCS1]
    verify(signature, b"")
    with pytest.raises(InvalidSignature):
        verify(signature, b"\0")
    with pytest.raises(InvalidSignature):
        verify(b"", b"")


def test_pss_over_a_digest_is_pss_over_its_message(rsa_key: rsa.RSAPrivateKey) -> None:
    signature = signers(Suite.RSA2048, rsa_key)[Scheme.RSA_PSS_DIGEST_SHA384](
        hashlib.sha384(MESSAGE).digest()
    )
    verifiers(Suite.RSA2048, rsa_key.public_key())[Scheme.RSA_PSS_SHA384](signature, MESSAGE)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    rsa_key.public_key().verify(signature, MESSAGE, pss, hashes.SHA384())


def test_rsa_checks_the_size_of_its_data(rsa_key: rsa.RSAPrivateKey) -> None:
    sign = signers(Suite.RSA2048, rsa_key)
    verify = verifiers(Suite.RSA2048, rsa_key.public_key())
    assert len(sign[Scheme.RSA_PKCS1](bytes(245))) == 256
    # RFC 8017, 9.2: eight octets of padding and three of frame.
    with pytest.raises(UsageError, match="246 octets to sign as they are"):
        sign[Scheme.RSA_PKCS1](bytes(246))
    with pytest.raises(UsageError, match="a digest of 32 octets"):
        sign[Scheme.RSA_PSS_DIGEST_SHA384](bytes(32))
    with pytest.raises(UsageError, match="a digest of 32 octets"):
        verify[Scheme.RSA_PSS_DIGEST_SHA512](bytes(256), bytes(32))


@pytest.mark.parametrize(
    ("suite", "key"),
    [
        (Suite.ML_DSA_65, mldsa.MLDSA65PrivateKey.from_seed_bytes(bytes(32))),
        (Suite.ML_DSA_87, mldsa.MLDSA87PrivateKey.from_seed_bytes(bytes(32))),
    ],
)
def test_ml_dsa_over_mu_is_ml_dsa_over_the_message(
    suite: Suite, key: mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
) -> None:
    # FIPS 204, algorithms 2 and 7: mu = H(H(pk, 64) ‖ 0 ‖ |context| = 0 ‖ M, 64).
    sign, verify = signers(suite, key), verifiers(suite, key.public_key())
    hashed = hashlib.shake_256(key.public_key().public_bytes_raw()).digest(64)
    mu = hashlib.shake_256(hashed + b"\x00\x00" + MESSAGE).digest(64)
    pure, over_mu = sign[Scheme.ML_DSA](MESSAGE), sign[Scheme.ML_DSA_MU](mu)
    assert len(pure) == len(over_mu) == SIGNATURE_SIZE[suite]
    assert sign[Scheme.ML_DSA](MESSAGE) != pure  # hedged
    verify[Scheme.ML_DSA](over_mu, MESSAGE)
    verify[Scheme.ML_DSA_MU](pure, mu)
    with pytest.raises(InvalidSignature):
        verify[Scheme.ML_DSA](pure, MESSAGE + b"s")


def test_mu_has_64_octets() -> None:
    key = mldsa.MLDSA65PrivateKey.from_seed_bytes(bytes(32))
    with pytest.raises(UsageError, match="a digest of 32 octets"):
        signers(Suite.ML_DSA_65, key)[Scheme.ML_DSA_MU](bytes(32))
    with pytest.raises(UsageError, match="a digest of 32 octets"):
        verifiers(Suite.ML_DSA_65, key.public_key())[Scheme.ML_DSA_MU](bytes(3309), bytes(32))


def test_there_is_a_function_for_every_scheme_of_a_suite(rsa_key: rsa.RSAPrivateKey) -> None:
    for suite, key in EC_KEYS.items():
        assert set(signers(suite, key)) == set(verifiers(suite, key.public_key())) == SCHEMES[suite]
    public = rsa_key.public_key()
    assert (
        set(signers(Suite.RSA2048, rsa_key))
        == set(verifiers(Suite.RSA2048, public))
        == SCHEMES[Suite.RSA2048]
    )
