"""Known answers: each algorithm proves itself once a process, before its first use.

    run([Algorithm.KDF, *(FOR_SUITE[suite] for suite in suites)])

A wrong answer raises Refused("selftest"); whoever called ends then, before any key was touched. Every scheme and
cipher of each suite runs once: signatures that are not reproducible are tested by verifying what was signed, those of
ML-DSA (hedged) also by their public key, which a seed fixes. Sources: FIPS 180-4 and 202 examples, RFC 4231, RFC 5869
with SHA-384, RFC 6979 A.2, SP 800-38A F.2.6, the GCM submission's test case 14, Caliptra's hw-model for its KDF, ACVP
for ML-DSA; scrypt and RSA are our own.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm

from endocarp.crypto.digest import sha1, sha256, sha384, sha512, shake256
from endocarp.crypto.keys import PrivateKey, load, p384_from_scalar
from endocarp.crypto.primitives import (
    P384_ORDER,
    Gcm,
    doe_decrypt,
    drbg_scalar,
    hkdf_sha384,
    hmac_sha512,
    kdf_sha384,
    kdf_sha512,
    pin_digest,
)
from endocarp.crypto.secret import Secret
from endocarp.errors import EndocarpError, Refused
from endocarp.wire import der, oids
from endocarp.wire.suites import CIPHERS, DIGEST_SIZE, SCHEMES, Scheme, Suite


class Algorithm(enum.Enum):
    """What is tested as one; the value is the name that people read."""

    DIGESTS = "SHA-1, SHA-2 and SHAKE256"
    HMAC = "HMAC-SHA-512"
    KDF = "Caliptra's KDF"
    HKDF = "HKDF-SHA-384"
    DRBG = "HMAC-SHA384-DRBG"
    AES_CBC = "AES-256-CBC"
    AES_GCM = "AES-256-GCM"
    SCRYPT = "scrypt"
    P256 = "ECDSA P-256"
    P384 = "ECDSA P-384"
    RSA = "RSA"
    ML_DSA_65 = "ML-DSA-65"
    ML_DSA_87 = "ML-DSA-87"


FOR_SUITE: Final[Mapping[Suite, Algorithm]] = {
    Suite.P256: Algorithm.P256,
    Suite.P384: Algorithm.P384,
    Suite.RSA2048: Algorithm.RSA,
    Suite.RSA3072: Algorithm.RSA,
    Suite.AES256: Algorithm.AES_GCM,
    Suite.ML_DSA_65: Algorithm.ML_DSA_65,
    Suite.ML_DSA_87: Algorithm.ML_DSA_87,
}
"""The test that stands before the first use of a key of this suite."""

_passed: set[Algorithm] = set()


def run(algorithms: Iterable[Algorithm], *, again: bool = False) -> None:
    """Test each of these that this process has not tested yet, or, with `again`, each.

    Raises Refused("selftest") at the first wrong answer.
    """
    for algorithm in algorithms:
        if algorithm in _passed and not again:
            continue
        _passed.discard(algorithm)
        if not _answers_well(TESTS[algorithm]):
            raise Refused(
                "selftest", f"{algorithm.value} gives wrong answers", "do not use this installation"
            )
        _passed.add(algorithm)


def _answers_well(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except (EndocarpError, UnsupportedAlgorithm, ValueError):
        return False


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


def _gives(secret: Secret, expected: str) -> bool:
    with secret:
        return secret == Secret(_hex(expected))


def _digests() -> bool:
    return (
        sha1(b"abc") == _hex("a9993e364706816aba3e25717850c26c9cd0d89d")
        and sha256(b"abc") == _hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        and sha384(b"abc")
        == _hex(
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
        )
        and sha512(b"abc")
        == _hex(
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        )
        and shake256(size=32) == _hex("46b9dd2b0ba88d13233b3feb743eeb243fcd52ea62b81b82b50c27646ed5762f")
    )


def _hmacs() -> bool:
    key, message = b"Jefe", b"what do ya want for nothing?"
    return _gives(
        hmac_sha512(key, message),
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    )


_OBFUSCATION_KEY = _hex("a0a1a2a3b0b1b2b3c0c1c2c3d0d1d2d3e0e1e2e3f0f1f2f3a4a5a6a7b4b5b6b7")
_OBFUSCATION_IV = _hex("fb10365ba1179741fba193a10f406d7e")


def _kdf() -> bool:
    # The IDevID CDI of Caliptra's hw-model, from its fuses: no context. Then a context, with both hashes.
    with Secret(_OBFUSCATION_KEY) as key, doe_decrypt(key, _OBFUSCATION_IV, bytes(range(64))) as uds:
        cdi = kdf_sha512(uds, b"idevid_cdi")
    with Secret(bytes(range(48))) as key:
        return (
            _gives(
                cdi,
                "5f16621da0874f3ca0fa2cd28b89e09340c02cda3c80dc2ecd05ba39a446e8a0"
                "27f1036e75206040bd3ee2313cb5c11c40c498eb6f6d4eda9d3e0e9abf544d6a",
            )
            and _gives(
                kdf_sha512(key, b"label", b"context"),
                "a7dd625952ab02e588a1c2902068b54f9f09a1e8a7f193c63e176dcab75ec579"
                "171953c1f0782c2502eecbfd753cde8ce44e497bebdb0dda8130582e3b9a71af",
            )
            and _gives(
                kdf_sha384(key, b"derive_cdi", b"context"),
                "72076cc18831bda926faaac5bd5044d97400593624887379a6a62c90deb0492d"
                "5a0b2246f6eddacaf257ad527bc6e010",
            )
        )


def _hkdf() -> bool:
    with Secret(b"\x0b" * 22) as key:
        return _gives(
            hkdf_sha384(key, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42),
            "9b5097a86038b805309076a44b3a9f38063e25b516dcbf369f394cfab43685f748b6457763e4f0204fc5",
        )


_P384_SCALAR = _hex(
    "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5"
)


def _drbg() -> bool:
    # RFC 6979 makes its nonce with this generator: entropy is the key, the nonce is the digest of the message.
    with Secret(_P384_SCALAR) as seed:
        return _gives(
            drbg_scalar(seed, sha384(b"sample"), P384_ORDER),
            "94ed910d1a099dad3254e9242ae85abde4ba15168eaf0ca87a555fd56d10fbca"
            "2907e3e83ba95368623b8c4686915cf9",
        )


def _aes_cbc() -> bool:
    iv, ciphertext = bytes(range(16)), _hex("f58c4c04d6e5f1ba779eabfb5f7bfbd6")
    with Secret(_hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")) as key:
        return _gives(doe_decrypt(key, iv, ciphertext), "6bc1bee22e409f96e93d7e117393172a")


def _aes_gcm() -> bool:
    with Secret(bytes(32)) as key:
        aead = Gcm(key)
    sealed = _hex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
    if aead.seal(bytes(12), bytes(16)) != sealed or aead.open(bytes(12), sealed) != bytes(16):
        return False
    try:
        aead.open(bytes(12), sealed[:-1] + b"\x00")
    except Refused:
        return True
    return False


def _scrypt() -> bool:
    expected = _hex("844fd76c3f545a63bc849368c7224fce556567974a1bc8b4c304494b0ada1348")
    return pin_digest(b"12345678", bytes(range(16))) == expected


def _verifies(key: PrivateKey, scheme: Scheme, signature: bytes, data: bytes = b"sample") -> bool:
    """Tell whether a signature over `data` holds, and holds over nothing else."""
    other = bytes((data[0] ^ 1,)) + data[1:]
    return key.public.verify(scheme, signature, data) and not key.public.verify(scheme, signature, other)


def _signs(key: PrivateKey) -> bool:
    """Tell whether what a key signs by each scheme of its suite holds."""
    digest = sha512(b"sample")
    data = {scheme: digest[: DIGEST_SIZE.get(scheme)] for scheme in SCHEMES[key.suite]}
    return all(_verifies(key, scheme, key.sign(scheme, each), each) for scheme, each in data.items())


def _decrypts(key: PrivateKey) -> bool:
    """Tell whether a key decrypts what its public half encrypts by each cipher of its suite."""
    sealed = {cipher: key.public.encrypt(cipher, b"sample") for cipher in CIPHERS[key.suite]}
    return b"sample" not in sealed.values() and all(
        key.decrypt(cipher, octets) == b"sample" for cipher, octets in sealed.items()
    )


def _ecdsa(key: PrivateKey, scheme: Scheme, expected: bytes) -> bool:
    return key.sign_deterministic(b"sample") == expected and _verifies(key, scheme, expected) and _signs(key)


def _p256() -> bool:
    frame = _hex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")
    scalar = _hex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721")
    with Secret(frame + scalar) as octets:
        key = load(Suite.P256, octets)
    expected = _hex(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
    )
    return _ecdsa(key, Scheme.ECDSA_SHA256, expected)


def _p384() -> bool:
    with Secret(_P384_SCALAR) as scalar:
        key = p384_from_scalar(scalar)
    expected = _hex(
        "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46"
        "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8"
    )
    return _ecdsa(key, Scheme.ECDSA_SHA384, expected)


# Two primes of 1024 bits that were made for this test and protect nothing.
_PRIMES = (
    int(
        "f80f43a4f0c8b1ecb5a578da38d56b0808348d2e094f1395f305695501e8ee6e1167df74d6273e71aa5bd4f7c571f3d1"
        "b85aed6f731576b478850489620f4e7410f126bf3b49145ed9a94dbaee48c61607a578f59539203ea10e44602ce6ef14"
        "2f69efa737ad24b50cbc449f8f26237aac880b0e69d06598923fcf0ad4d594af",
        16,
    ),
    int(
        "d20694cae10488abcc722eaf5bd563fd68554cd682908da12a26b13d1b202c59afea9485618f249ecb9ed330879707a3"
        "25c2bbec9405727ceaf0229ddac3c5de246896ea69df0f473bb831f0d906792a0fd4ed7f7da55e626494106b813c9d7e"
        "aee171ff6e7ce2de057b547a808820bd23a8acbaa1a6350ac3359e78bd1fa439",
        16,
    ),
)


RSA_SIGNATURE_DIGEST: Final = "0bfede01e1385de5f001a4bc3d55b8eaf0520f3c7a07781c974fe1afaf80e7cf"
"""SHA-256 of the PKCS#1 v1.5 signature over `sample` with SHA-256 by the key of these primes."""


def _rsa_key() -> PrivateKey:
    p, q = _PRIMES
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = (0, p * q, 65537, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    inside = der.sequence(*(der.integer(number) for number in numbers))
    algorithm = der.sequence(der.oid(oids.RSA_ENCRYPTION), der.null())
    with Secret(der.sequence(der.integer(0), algorithm, der.octet_string(inside))) as octets:
        return load(Suite.RSA2048, octets)


def _rsa() -> bool:
    key = _rsa_key()
    signature = key.sign(Scheme.RSA_PKCS1_SHA256, b"sample")
    return sha256(signature) == _hex(RSA_SIGNATURE_DIGEST) and _signs(key) and _decrypts(key)


def _ml_dsa(suite: Suite, seed: str, public_digest: str) -> bool:
    with Secret(_hex(seed)) as octets:
        key = load(suite, octets)
    return sha256(key.public.raw) == _hex(public_digest) and _signs(key)


def _ml_dsa_65() -> bool:
    return _ml_dsa(
        Suite.ML_DSA_65,
        "a991fd42b071d49c48ae3e75c647459e0daad1e1ba356a04801912d3294bcff8",
        "b1a7d0d2f0d7a04b9d5ffccd9bd578864dab4a01cdd7f70a05cd1f4f0672e43a",
    )


def _ml_dsa_87() -> bool:
    return _ml_dsa(
        Suite.ML_DSA_87,
        "a16f5b0796703e2d1a0140a35cbf36efabe70e752ba59b6a9a0e9c4b05302f73",
        "33f49649f05ec2fc3b050007b18ade043bbc8d1c0ded03a269d540486daaa5f4",
    )


TESTS: Final[dict[Algorithm, Callable[[], bool]]] = {
    Algorithm.DIGESTS: _digests,
    Algorithm.HMAC: _hmacs,
    Algorithm.KDF: _kdf,
    Algorithm.HKDF: _hkdf,
    Algorithm.DRBG: _drbg,
    Algorithm.AES_CBC: _aes_cbc,
    Algorithm.AES_GCM: _aes_gcm,
    Algorithm.SCRYPT: _scrypt,
    Algorithm.P256: _p256,
    Algorithm.P384: _p384,
    Algorithm.RSA: _rsa,
    Algorithm.ML_DSA_65: _ml_dsa_65,
    Algorithm.ML_DSA_87: _ml_dsa_87,
}
"""What is asked of each algorithm; True for the right answers."""
