"""The closed lists of what keys there are and what can be done with them; the numbers stand on the wire.

Nothing here computes: front, vault, token view and client share these names without touching cryptography.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType


class Suite(enum.IntEnum):
    """A kind of key, its size included."""

    P256 = 1
    P384 = 2
    RSA2048 = 3
    RSA3072 = 4
    AES256 = 5
    ML_DSA_65 = 6
    ML_DSA_87 = 7


class Scheme(enum.IntEnum):
    """A way to sign. ECDSA signatures are raw r‖s, each half as long as the order of the curve, big-endian."""

    ECDSA_DIGEST = 1
    """Over the caller's digest of 20 to 64 octets."""
    ECDSA_SHA256 = 2
    ECDSA_SHA384 = 3
    ECDSA_SHA512 = 4
    RSA_PKCS1 = 5
    """RSASSA-PKCS1-v1_5 without a digest: the caller gives the DigestInfo, or other data, as it is."""
    RSA_PKCS1_SHA256 = 6
    RSA_PKCS1_SHA384 = 7
    RSA_PKCS1_SHA512 = 8
    RSA_PSS_SHA256 = 9
    """RSASSA-PSS, MGF1 with the same hash, salt as long as the digest; so all PSS schemes."""
    RSA_PSS_SHA384 = 10
    RSA_PSS_SHA512 = 11
    RSA_PSS_DIGEST_SHA256 = 12
    """Over the caller's digest of exactly the size of the hash."""
    RSA_PSS_DIGEST_SHA384 = 13
    RSA_PSS_DIGEST_SHA512 = 14
    ML_DSA = 15
    """Pure ML-DSA (FIPS 204), empty context, hedged."""
    ML_DSA_MU = 16
    """ML-DSA over the message representative mu of 64 octets (FIPS 204, algorithm 7, line 6)."""


class Cipher(enum.IntEnum):
    """A way to encrypt."""

    AES_GCM = 1
    """The tag stands behind the ciphertext."""
    RSA_OAEP_SHA1 = 2
    """MGF1 with the same hash, empty label."""
    RSA_OAEP_SHA256 = 3
    RSA_PKCS1 = 4


_ECDSA = frozenset({Scheme.ECDSA_DIGEST, Scheme.ECDSA_SHA256, Scheme.ECDSA_SHA384, Scheme.ECDSA_SHA512})
_RSA = frozenset(scheme for scheme in Scheme if scheme.name.startswith("RSA_"))
_ML_DSA = frozenset({Scheme.ML_DSA, Scheme.ML_DSA_MU})
_RSA_CIPHERS = frozenset({Cipher.RSA_OAEP_SHA1, Cipher.RSA_OAEP_SHA256, Cipher.RSA_PKCS1})

SCHEMES: Mapping[Suite, frozenset[Scheme]] = MappingProxyType(
    {
        Suite.P256: _ECDSA,
        Suite.P384: _ECDSA,
        Suite.RSA2048: _RSA,
        Suite.RSA3072: _RSA,
        Suite.AES256: frozenset(),
        Suite.ML_DSA_65: _ML_DSA,
        Suite.ML_DSA_87: _ML_DSA,
    }
)
"""The ways to sign with a key of a suite; none for AES."""

CIPHERS: Mapping[Suite, frozenset[Cipher]] = MappingProxyType(
    {
        Suite.P256: frozenset(),
        Suite.P384: frozenset(),
        Suite.RSA2048: _RSA_CIPHERS,
        Suite.RSA3072: _RSA_CIPHERS,
        Suite.AES256: frozenset({Cipher.AES_GCM}),
        Suite.ML_DSA_65: frozenset(),
        Suite.ML_DSA_87: frozenset(),
    }
)
"""The ways to encrypt with a key of a suite."""

SIGNATURE_SIZE: Mapping[Suite, int] = MappingProxyType(
    {
        Suite.P256: 64,
        Suite.P384: 96,
        Suite.RSA2048: 256,
        Suite.RSA3072: 384,
        Suite.AES256: 0,
        Suite.ML_DSA_65: 3309,
        Suite.ML_DSA_87: 4627,
    }
)
"""The size of every signature of a suite, in octets."""

AES_KEY_SIZE = 32
GCM_NONCE_SIZE = 12
GCM_TAG_SIZE = 16
"""The sizes of AES-256-GCM, in octets."""

DIGEST_SIZE: Mapping[Scheme, int] = MappingProxyType(
    {
        Scheme.RSA_PSS_DIGEST_SHA256: 32,
        Scheme.RSA_PSS_DIGEST_SHA384: 48,
        Scheme.RSA_PSS_DIGEST_SHA512: 64,
        Scheme.ML_DSA_MU: 64,
    }
)
"""The exact size of the data, in octets, for the schemes that fix it."""
