"""The closed lists of suites, schemes and ciphers."""

from endocarp.wire.suites import CIPHERS, DIGEST_SIZE, SCHEMES, SIGNATURE_SIZE, Cipher, Scheme, Suite


def test_the_numbers_stand_on_the_wire_and_do_not_move() -> None:
    assert [(suite.name, suite.value) for suite in Suite] == [
        ("P256", 1),
        ("P384", 2),
        ("RSA2048", 3),
        ("RSA3072", 4),
        ("AES256", 5),
        ("ML_DSA_65", 6),
        ("ML_DSA_87", 7),
    ]
    assert [scheme.value for scheme in Scheme] == list(range(1, 17))
    assert [Scheme(number).name for number in (1, 5, 15, 16)] == [
        "ECDSA_DIGEST",
        "RSA_PKCS1",
        "ML_DSA",
        "ML_DSA_MU",
    ]
    assert [cipher.name for cipher in Cipher] == ["AES_GCM", "RSA_OAEP_SHA1", "RSA_OAEP_SHA256", "RSA_PKCS1"]


def test_every_suite_says_how_it_signs_and_encrypts() -> None:
    assert set(SCHEMES) == set(CIPHERS) == set(SIGNATURE_SIZE) == set(Suite)
    for suite in Suite:
        assert bool(SCHEMES[suite]) == bool(SIGNATURE_SIZE[suite]) == (suite is not Suite.AES256)


def test_every_scheme_and_cipher_belongs_to_some_suite() -> None:
    assert frozenset[Scheme]().union(*SCHEMES.values()) == set(Scheme)
    assert frozenset[Cipher]().union(*CIPHERS.values()) == set(Cipher)


def test_schemes_over_digests_fix_the_size_of_their_data() -> None:
    assert {scheme.name: size for scheme, size in DIGEST_SIZE.items()} == {
        "RSA_PSS_DIGEST_SHA256": 32,
        "RSA_PSS_DIGEST_SHA384": 48,
        "RSA_PSS_DIGEST_SHA512": 64,
        "ML_DSA_MU": 64,
    }
