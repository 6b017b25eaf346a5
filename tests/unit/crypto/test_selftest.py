"""Known answers stand before the first use of an algorithm."""

from collections.abc import Callable

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from endocarp.crypto import selftest
from endocarp.crypto.digest import Buffer, sha256
from endocarp.crypto.keys import PrivateKey, generate
from endocarp.crypto.primitives import Gcm
from endocarp.crypto.selftest import FOR_SUITE, TESTS, Algorithm, run
from endocarp.errors import DecodeError, Refused
from endocarp.wire.suites import CIPHERS, SCHEMES, Cipher, Scheme, Suite


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_passed", set())


@pytest.mark.parametrize("algorithm", Algorithm)
def test_every_algorithm_gives_its_known_answers(algorithm: Algorithm) -> None:
    run([algorithm])


def test_every_suite_has_a_test() -> None:
    assert set(FOR_SUITE) == set(Suite)
    assert set(FOR_SUITE.values()) <= set(TESTS) == set(Algorithm)


def test_a_test_runs_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def test() -> bool:
        runs.append(1)
        return True

    monkeypatch.setitem(TESTS, Algorithm.HKDF, test)
    run([Algorithm.HKDF, Algorithm.DIGESTS, Algorithm.HKDF])
    run([Algorithm.HKDF])
    assert len(runs) == 1


def _raises(error: Exception) -> Callable[[], bool]:
    def test() -> bool:
        raise error

    return test


@pytest.mark.parametrize(
    "test",
    [
        lambda: False,
        _raises(UnsupportedAlgorithm("ML-DSA")),
        _raises(DecodeError("PrivateKey", "none")),
        _raises(ValueError()),
    ],
    ids=["wrong answer", "not in this library", "an error of ours", "an error of the library"],
)
def test_a_wrong_answer_is_refused_each_time(
    test: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TESTS, Algorithm.ML_DSA_87, test)
    for _ in range(2):
        with pytest.raises(Refused, match="ML-DSA-87 gives wrong answers") as caught:
            run([Algorithm.DIGESTS, Algorithm.ML_DSA_87])
        assert caught.value.rule == "selftest"


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (Algorithm.DIGESTS, "sha256"),
        (Algorithm.HMAC, "hmac_sha512"),
        (Algorithm.KDF, "kdf_sha384"),
        (Algorithm.HKDF, "hkdf_sha384"),
        (Algorithm.DRBG, "drbg_scalar"),
        (Algorithm.AES_CBC, "doe_decrypt"),
        (Algorithm.SCRYPT, "pin_digest"),
        (Algorithm.RSA, "sha256"),
        (Algorithm.ML_DSA_65, "sha256"),
    ],
)
def test_a_function_that_answers_wrongly_is_noticed(
    algorithm: Algorithm, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Answers with the last octet changed.
    right = getattr(selftest, name)

    def wrong(*arguments: object) -> object:
        answer = right(*arguments)
        if isinstance(answer, bytes):
            return answer[:-1] + bytes((answer[-1] ^ 1,))
        answer.view[-1] ^= 1
        return answer

    monkeypatch.setattr(selftest, name, wrong)
    with pytest.raises(Refused, match=r"wrong answers"):
        run([algorithm])


@pytest.mark.parametrize("suite", [suite for suite in Suite if SCHEMES[suite]])
def test_every_scheme_and_cipher_of_a_suite_runs(suite: Suite) -> None:
    ran: set[Scheme | Cipher] = set()

    class Watched(PrivateKey):
        def sign(self, scheme: Scheme, data: Buffer) -> bytes:
            ran.add(scheme)
            return super().sign(scheme, data)

        def decrypt(self, cipher: Cipher, data: bytes) -> bytes:
            ran.add(cipher)
            return super().decrypt(cipher, data)

    key = generate(suite)
    watched = Watched(suite, key._key)
    assert selftest._signs(watched)
    assert selftest._decrypts(watched)
    assert ran == SCHEMES[suite] | CIPHERS[suite]


@pytest.mark.parametrize("scheme", SCHEMES[Suite.P256])
def test_a_scheme_that_signs_or_verifies_wrongly_is_noticed(scheme: Scheme) -> None:
    class Wrong(PrivateKey):
        def sign(self, asked: Scheme, data: Buffer) -> bytes:
            return super().sign(asked, data if asked is not scheme else bytes(data)[::-1])

    assert not selftest._signs(Wrong(Suite.P256, generate(Suite.P256)._key))
    key = generate(Suite.P256)
    key.public._verifiers[scheme] = lambda signature, data: None
    assert not selftest._signs(key)


class SealsWrongly(Gcm):
    def seal(self, nonce: bytes, plaintext: object, aad: object = b"") -> bytes:
        return bytes(32)


class OpensAnything(Gcm):
    def open(self, nonce: bytes, sealed: object, aad: object = b"") -> bytes:
        return bytes(16)


@pytest.mark.parametrize("kind", [SealsWrongly, OpensAnything])
def test_an_aead_that_seals_wrongly_or_opens_anything_is_noticed(
    kind: type[Gcm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "Gcm", kind)
    with pytest.raises(Refused, match="AES-256-GCM"):
        run([Algorithm.AES_GCM])


def test_the_rsa_answer_is_that_of_plain_arithmetic() -> None:
    # RFC 8017, 8.2.1 and 9.2, computed without the library.
    p, q = selftest._PRIMES
    digest_info = bytes.fromhex("3031300d060960864801650304020105000420") + sha256(b"sample")
    encoded = b"\x00\x01" + b"\xff" * (253 - len(digest_info)) + b"\x00" + digest_info
    d = pow(65537, -1, (p - 1) * (q - 1))
    signature = pow(int.from_bytes(encoded, "big"), d, p * q).to_bytes(256, "big")
    assert sha256(signature).hex() == selftest.RSA_SIGNATURE_DIGEST
