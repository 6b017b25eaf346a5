"""The mechanisms that the token offers, and what each one asks of the vault. Free of cryptography but for hashes.

The front hashes: the vault signs digests, so data of any size and in any number of parts comes down to one small
question. For a caller it makes no difference, since the front sees all his data anyway.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from endocarp.errors import PeerError
from endocarp.wire import der, oids
from endocarp.wire.cryptoki import CKA, CKG_MGF1, CKK, CKM, CKP, CKR, MechanismFlags
from endocarp.wire.hsm import ASSOCIATED_LIMIT
from endocarp.wire.p11 import Mechanism
from endocarp.wire.p11_forms import GcmParameters, OaepParameters, PssParameters
from endocarp.wire.suites import AES_KEY_SIZE, GCM_NONCE_SIZE, GCM_TAG_SIZE, Cipher, Scheme, Suite

EC: Final = frozenset({Suite.P256, Suite.P384})
RSA: Final = frozenset({Suite.RSA2048, Suite.RSA3072})
ML_DSA: Final = frozenset({Suite.ML_DSA_65, Suite.ML_DSA_87})
AES: Final = frozenset({Suite.AES256})

PUBLIC_EXPONENT = (65537).to_bytes(3, "big")
"""The exponent of every RSA key, as CKA_PUBLIC_EXPONENT has it."""


class Hash(Protocol):
    """A hash under way."""

    def update(self, data: bytes, /) -> None:
        """Take some more data."""

    def digest(self) -> bytes:
        """Return the digest of all data so far."""


class _Mu:
    """The message representative of ML-DSA, for an empty context (FIPS 204, algorithms 2 and 7)."""

    def __init__(self, public: bytes) -> None:
        self._shake = hashlib.shake_256(hashlib.shake_256(public).digest(64) + b"\0\0")
        self.update = self._shake.update

    def digest(self) -> bytes:
        return self._shake.digest(64)


DIGESTS: Mapping[int, Callable[[], Hash]] = MappingProxyType(
    {
        # Only as a digest of its own, which old formats ask for: no mechanism here signs one.
        CKM.SHA_1: functools.partial(hashlib.sha1, usedforsecurity=False),
        CKM.SHA224: hashlib.sha224,
        CKM.SHA256: hashlib.sha256,
        CKM.SHA384: hashlib.sha384,
        CKM.SHA512: hashlib.sha512,
    }
)
"""The digests, computed in the front."""

DIGEST_SIZES: Mapping[int, int] = MappingProxyType(
    {CKM.SHA_1: 20, CKM.SHA224: 28, CKM.SHA256: 32, CKM.SHA384: 48, CKM.SHA512: 64}
)
_HASH_OIDS: Final[dict[int, str]] = {
    CKM.SHA256: "2.16.840.1.101.3.4.2.1",
    CKM.SHA384: "2.16.840.1.101.3.4.2.2",
    CKM.SHA512: "2.16.840.1.101.3.4.2.3",
}


@dataclass(frozen=True)
class SignRule:
    """How a mechanism signs and verifies: hash the data, put `prefix` before the digest, ask for `scheme`.

    `start` begins the hash, given the raw public key; None where the caller's data goes as it is, in one part.
    """

    suites: frozenset[Suite]
    scheme: Scheme
    start: Callable[[bytes], Hash] | None = None
    prefix: bytes = b""


def _started(number: int) -> Callable[[bytes], Hash]:
    """Return what begins a plain hash, whatever the key."""
    return lambda _public: DIGESTS[number]()


def _digest_info(number: int) -> bytes:
    """Return what RFC 8017, 9.2 puts before a digest."""
    size = DIGEST_SIZES[number]
    info = der.sequence(der.sequence(der.oid(_HASH_OIDS[number]), der.null()), der.octet_string(bytes(size)))
    return info[:-size]


_PSS: Final[dict[int, Scheme]] = {
    CKM.SHA256: Scheme.RSA_PSS_DIGEST_SHA256,
    CKM.SHA384: Scheme.RSA_PSS_DIGEST_SHA384,
    CKM.SHA512: Scheme.RSA_PSS_DIGEST_SHA512,
}
_PSS_MECHANISMS: Final[dict[int, CKM]] = {
    CKM.SHA256_RSA_PKCS_PSS: CKM.SHA256,
    CKM.SHA384_RSA_PKCS_PSS: CKM.SHA384,
    CKM.SHA512_RSA_PKCS_PSS: CKM.SHA512,
}
_SIGNING: Final[dict[int, SignRule]] = {
    CKM.ECDSA: SignRule(EC, Scheme.ECDSA_DIGEST),
    CKM.ECDSA_SHA256: SignRule(EC, Scheme.ECDSA_DIGEST, _started(CKM.SHA256)),
    CKM.ECDSA_SHA384: SignRule(EC, Scheme.ECDSA_DIGEST, _started(CKM.SHA384)),
    CKM.ECDSA_SHA512: SignRule(EC, Scheme.ECDSA_DIGEST, _started(CKM.SHA512)),
    CKM.RSA_PKCS: SignRule(RSA, Scheme.RSA_PKCS1),
    CKM.SHA256_RSA_PKCS: SignRule(RSA, Scheme.RSA_PKCS1, _started(CKM.SHA256), _digest_info(CKM.SHA256)),
    CKM.SHA384_RSA_PKCS: SignRule(RSA, Scheme.RSA_PKCS1, _started(CKM.SHA384), _digest_info(CKM.SHA384)),
    CKM.SHA512_RSA_PKCS: SignRule(RSA, Scheme.RSA_PKCS1, _started(CKM.SHA512), _digest_info(CKM.SHA512)),
    CKM.ML_DSA: SignRule(ML_DSA, Scheme.ML_DSA_MU, _Mu),
}
_OAEP: Final[dict[int, Cipher]] = {CKM.SHA_1: Cipher.RSA_OAEP_SHA1, CKM.SHA256: Cipher.RSA_OAEP_SHA256}

# --- what is announced ----------------------------------------------------------------------------------------


class MechanismInfo(NamedTuple):
    """CK_MECHANISM_INFO: key sizes in bits, for AES and ML-DSA in octets."""

    smallest: int
    largest: int
    flags: MechanismFlags


_SIGN: Final = MechanismFlags.SIGN | MechanismFlags.VERIFY
_CRYPT: Final = MechanismFlags.ENCRYPT | MechanismFlags.DECRYPT
_EC_FLAGS: Final = MechanismFlags.EC_F_P | MechanismFlags.EC_NAMEDCURVE | MechanismFlags.EC_UNCOMPRESS
_PAIR: Final = MechanismFlags.GENERATE_KEY_PAIR

MECHANISMS: Mapping[int, MechanismInfo] = MappingProxyType(
    {
        CKM.RSA_PKCS_KEY_PAIR_GEN: MechanismInfo(2048, 3072, _PAIR),
        CKM.RSA_PKCS: MechanismInfo(2048, 3072, _SIGN | _CRYPT),
        CKM.SHA256_RSA_PKCS: MechanismInfo(2048, 3072, _SIGN),
        CKM.SHA384_RSA_PKCS: MechanismInfo(2048, 3072, _SIGN),
        CKM.SHA512_RSA_PKCS: MechanismInfo(2048, 3072, _SIGN),
        CKM.RSA_PKCS_PSS: MechanismInfo(2048, 3072, _SIGN),
        CKM.SHA256_RSA_PKCS_PSS: MechanismInfo(2048, 3072, _SIGN),
        CKM.SHA384_RSA_PKCS_PSS: MechanismInfo(2048, 3072, _SIGN),
        CKM.SHA512_RSA_PKCS_PSS: MechanismInfo(2048, 3072, _SIGN),
        CKM.RSA_PKCS_OAEP: MechanismInfo(2048, 3072, _CRYPT),
        CKM.EC_KEY_PAIR_GEN: MechanismInfo(256, 384, _PAIR | _EC_FLAGS),
        CKM.ECDSA: MechanismInfo(256, 384, _SIGN | _EC_FLAGS),
        CKM.ECDSA_SHA256: MechanismInfo(256, 384, _SIGN | _EC_FLAGS),
        CKM.ECDSA_SHA384: MechanismInfo(256, 384, _SIGN | _EC_FLAGS),
        CKM.ECDSA_SHA512: MechanismInfo(256, 384, _SIGN | _EC_FLAGS),
        CKM.ML_DSA_KEY_PAIR_GEN: MechanismInfo(1952, 2592, _PAIR),
        CKM.ML_DSA: MechanismInfo(1952, 2592, _SIGN),
        CKM.AES_KEY_GEN: MechanismInfo(AES_KEY_SIZE, AES_KEY_SIZE, MechanismFlags.GENERATE),
        CKM.AES_GCM: MechanismInfo(AES_KEY_SIZE, AES_KEY_SIZE, _CRYPT),
        **dict.fromkeys(DIGESTS, MechanismInfo(0, 0, MechanismFlags.DIGEST)),
    }
)
"""Every mechanism of the token. Clients hide from applications those that they do not know."""

# --- what a mechanism comes down to ---------------------------------------------------------------------------


def sign_rule(mechanism: Mechanism, suite: Suite) -> SignRule:
    """Return how to sign or verify with a key of `suite`; PeerError with the CKR to answer where it cannot be."""
    rule = _SIGNING.get(mechanism.type)
    if rule is None:
        rule = _pss_rule(mechanism)
    elif mechanism.parameter is not None:
        raise PeerError(CKR.MECHANISM_PARAM_INVALID, "this mechanism has no parameter")
    _check_suite(suite, rule.suites)
    return rule


def _pss_rule(mechanism: Mechanism) -> SignRule:
    if mechanism.type not in _PSS_MECHANISMS and mechanism.type != CKM.RSA_PKCS_PSS:
        raise _unknown(mechanism)
    parameters = mechanism.parameter
    scheme = _PSS.get(parameters.hash) if isinstance(parameters, PssParameters) else None
    if not isinstance(parameters, PssParameters) or scheme is None:
        raise PeerError(CKR.MECHANISM_PARAM_INVALID, "PSS wants SHA-256, SHA-384 or SHA-512")
    # PKCS#11 2.40 Mechanisms, 2.1.10: the hash of the parameter is the mechanism's. Ours: MGF1 with the same, and a
    # salt as long.
    expected = (_PSS_MECHANISMS.get(mechanism.type, parameters.hash), DIGEST_SIZES[parameters.hash])
    if (parameters.hash, parameters.salt_size) != expected or CKG_MGF1.get(parameters.mgf) != parameters.hash:
        raise PeerError(CKR.MECHANISM_PARAM_INVALID, "PSS wants one hash throughout, and a salt of its size")
    hashed = mechanism.type in _PSS_MECHANISMS
    return SignRule(RSA, scheme, _started(parameters.hash) if hashed else None)


@dataclass(frozen=True)
class CipherRule:
    """How a mechanism encrypts and decrypts; `nonce` and `associated` are AES-GCM's."""

    suites: frozenset[Suite]
    cipher: Cipher
    nonce: bytes = b""
    associated: bytes = b""


def cipher_rule(mechanism: Mechanism, suite: Suite) -> CipherRule:
    """Return how to encrypt or decrypt with a key of `suite`; PeerError with the CKR where it cannot be."""
    known = _CIPHERS.get(mechanism.type)
    if known is None:
        raise _unknown(mechanism)
    rule = known(mechanism.parameter)
    if rule is None:
        raise PeerError(CKR.MECHANISM_PARAM_INVALID, "parameters that the token does not offer")
    _check_suite(suite, rule.suites)
    return rule


def _pkcs1_rule(parameters: object) -> CipherRule | None:
    return CipherRule(RSA, Cipher.RSA_PKCS1) if parameters is None else None


def _oaep_rule(parameters: object) -> CipherRule | None:
    # The label is empty, so it is all the same where it comes from: pkcs11-tool names no source, others one.
    if not isinstance(parameters, OaepParameters) or parameters.label:
        return None
    cipher = _OAEP.get(parameters.hash)
    if cipher is None or CKG_MGF1.get(parameters.mgf) != parameters.hash:
        return None
    return CipherRule(RSA, cipher)


def _gcm_rule(parameters: object) -> CipherRule | None:
    if not isinstance(parameters, GcmParameters) or parameters.tag_bits != GCM_TAG_SIZE * 8:
        return None
    # PKCS#11 3.0 Mechanisms, CK_GCM_PARAMS: ulIvLen tells the length of the IV, and ulIvBits does not.
    if len(parameters.iv) != GCM_NONCE_SIZE or len(parameters.associated) > ASSOCIATED_LIMIT:
        return None
    return CipherRule(AES, Cipher.AES_GCM, parameters.iv, parameters.associated)


_CIPHERS: Final[dict[int, Callable[[object], CipherRule | None]]] = {
    CKM.RSA_PKCS: _pkcs1_rule,
    CKM.RSA_PKCS_OAEP: _oaep_rule,
    CKM.AES_GCM: _gcm_rule,
}


def _check_suite(suite: Suite, suites: frozenset[Suite]) -> None:
    if suite not in suites:
        raise PeerError(CKR.KEY_TYPE_INCONSISTENT, f"the mechanism does not work with a {suite.name} key")


def _unknown(mechanism: Mechanism) -> PeerError:
    return PeerError(CKR.MECHANISM_INVALID, f"no mechanism {mechanism.type:#x} for this")


# --- what kind of key is made ---------------------------------------------------------------------------------

CURVES: Mapping[Suite, bytes] = MappingProxyType(
    {Suite.P256: der.oid(oids.P256), Suite.P384: der.oid(oids.P384)}
)
"""CKA_EC_PARAMS of each curve: its name, in DER."""
MODULUS_BITS: Mapping[Suite, int] = MappingProxyType({Suite.RSA2048: 2048, Suite.RSA3072: 3072})
PARAMETER_SETS: Mapping[Suite, CKP] = MappingProxyType(
    {Suite.ML_DSA_65: CKP.ML_DSA_65, Suite.ML_DSA_87: CKP.ML_DSA_87}
)
KEY_TYPES: Mapping[Suite, CKK] = MappingProxyType(
    dict.fromkeys(EC, CKK.EC)
    | dict.fromkeys(RSA, CKK.RSA)
    | dict.fromkeys(ML_DSA, CKK.ML_DSA)
    | dict.fromkeys(AES, CKK.AES)
)


class GenerateRule(NamedTuple):
    """A mechanism that makes keys: the attribute of the template that says which, and the answer to others."""

    attribute: CKA
    suites: Mapping[Any, Suite]
    otherwise: CKR


def _swapped(values: Mapping[Suite, Any]) -> Mapping[Any, Suite]:
    return MappingProxyType({value: suite for suite, value in values.items()})


PAIR_MECHANISMS: Mapping[int, GenerateRule] = MappingProxyType(
    {
        CKM.RSA_PKCS_KEY_PAIR_GEN: GenerateRule(
            CKA.MODULUS_BITS, _swapped(MODULUS_BITS), CKR.ATTRIBUTE_VALUE_INVALID
        ),
        CKM.EC_KEY_PAIR_GEN: GenerateRule(CKA.EC_PARAMS, _swapped(CURVES), CKR.CURVE_NOT_SUPPORTED),
        CKM.ML_DSA_KEY_PAIR_GEN: GenerateRule(
            CKA.PARAMETER_SET, _swapped(PARAMETER_SETS), CKR.ATTRIBUTE_VALUE_INVALID
        ),
    }
)
"""The mechanisms of C_GenerateKeyPair; the attribute stands in the public key's template."""

KEY_MECHANISMS: Mapping[int, GenerateRule] = MappingProxyType(
    {
        CKM.AES_KEY_GEN: GenerateRule(
            CKA.VALUE_LEN, MappingProxyType({AES_KEY_SIZE: Suite.AES256}), CKR.ATTRIBUTE_VALUE_INVALID
        )
    }
)
"""The mechanisms of C_GenerateKey."""

GENERATED_BY: Mapping[Suite, CKM] = MappingProxyType(
    {
        suite: CKM(number)
        for number, rule in {**PAIR_MECHANISMS, **KEY_MECHANISMS}.items()
        for suite in rule.suites.values()
    }
)
"""CKA_KEY_GEN_MECHANISM of the keys of each suite."""


def generated_suite(
    rules: Mapping[int, GenerateRule], mechanism: Mechanism, attributes: Mapping[int, Any]
) -> Suite:
    """Return what kind of key a mechanism and a template ask for; PeerError with the CKR where it cannot be."""
    rule = rules.get(mechanism.type)
    if rule is None:
        raise _unknown(mechanism)
    if mechanism.parameter is not None:
        raise PeerError(CKR.MECHANISM_PARAM_INVALID, "making keys takes no parameter")
    value = attributes.get(rule.attribute)
    if value is None:
        raise PeerError(CKR.TEMPLATE_INCOMPLETE, f"the template is without {rule.attribute.name}")
    suite = rule.suites.get(value)
    if suite is None:
        raise PeerError(rule.otherwise, f"a value of {rule.attribute.name} that the token does not offer")
    return suite
