"""Typed keys: parsed once, then used many times.

A private key lives in the heap of the crypto library from the moment it is parsed; that copy cannot be wiped from
Python, and it stays until the key object is forgotten: a vault keeps each key that it has used once until the process
ends, or the key is destroyed. Where it is not parsed, a key stands in the form of `export()`: PKCS#8 for EC and RSA,
the seed of 32 octets for ML-DSA, the 32 octets themselves for AES. The library takes all of these from secret memory
as they are, EC scalars included (in a PKCS#8 frame that stands there too, so that no scalar becomes a Python
integer). What it gives, it gives as `bytes`: `generate`, `export` and `decrypt` leave a copy in ordinary memory
behind.

Key generation, RSA, and the nonces of signatures draw on the library's own entropy: it takes none from outside.
So signatures cannot be reproduced, ML-DSA's (hedged) included; the exception is `sign_deterministic`.
"""

from collections.abc import Callable, Mapping
from typing import Final, assert_never

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa

from endocarp.crypto.digest import Buffer
from endocarp.crypto.primitives import Gcm, Part
from endocarp.crypto.schemes import (
    PrivateLibraryKey,
    PublicLibraryKey,
    Sign,
    deterministic_signer,
    signers,
    verifiers,
)
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, Refused, UsageError
from endocarp.wire import der, oids
from endocarp.wire.suites import CIPHERS, SIGNATURE_SIZE, Cipher, Scheme, Suite

_CURVES: Final[Mapping[Suite, ec.EllipticCurve]] = {Suite.P256: ec.SECP256R1(), Suite.P384: ec.SECP384R1()}
_POINT_SIZE: Final = {Suite.P256: 65, Suite.P384: 97}
_MODULUS_BITS: Final = {Suite.RSA2048: 2048, Suite.RSA3072: 3072}
_PUBLIC_EXPONENT: Final = 65537

_EC_PUBLIC_KEY = "1.2.840.10045.2.1"
# RFC 5480, 2.1.1; RFC 8017, A.1; RFC 9881, 2.
_ALGORITHMS: Final[Mapping[Suite, bytes]] = {
    Suite.P256: der.sequence(der.oid(_EC_PUBLIC_KEY), der.oid(oids.P256)),
    Suite.P384: der.sequence(der.oid(_EC_PUBLIC_KEY), der.oid(oids.P384)),
    Suite.RSA2048: der.sequence(der.oid(oids.RSA_ENCRYPTION), der.null()),
    Suite.RSA3072: der.sequence(der.oid(oids.RSA_ENCRYPTION), der.null()),
    Suite.ML_DSA_65: der.sequence(der.oid(oids.ML_DSA_65)),
    Suite.ML_DSA_87: der.sequence(der.oid(oids.ML_DSA_87)),
}

_CIPHER_PADDING: Final[Mapping[Cipher, padding.OAEP | padding.PKCS1v15]] = {
    Cipher.RSA_OAEP_SHA1: padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),  # noqa: S303
    Cipher.RSA_OAEP_SHA256: padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
    Cipher.RSA_PKCS1: padding.PKCS1v15(),
}
# RFC 8017, 7.1.1 and 7.2.1: what the padding takes at least, in octets.
_CIPHER_OVERHEAD: Final = {Cipher.RSA_OAEP_SHA1: 42, Cipher.RSA_OAEP_SHA256: 66, Cipher.RSA_PKCS1: 11}

# RFC 5208 around RFC 5915, up to where the scalar of 48 octets stands; the public key may be left out.
_P384_FRAME: Final = bytes.fromhex("304e020100301006072a8648ce3d020106052b81040022043730350201010430")

_DER, _X962 = serialization.Encoding.DER, serialization.Encoding.X962


class PublicKey:
    """A public key that was checked when it was made: on the curve, of the right size."""

    __slots__ = ("_key", "_verifiers", "raw", "suite")

    def __init__(self, suite: Suite, raw: bytes, key: PublicLibraryKey) -> None:
        self.suite = suite
        self.raw = raw
        """EC: 04‖X‖Y; ML-DSA: as in FIPS 204; RSA: the DER of an RSAPublicKey."""
        self._key = key
        self._verifiers = verifiers(suite, key)

    @classmethod
    def from_raw(cls, suite: Suite, raw: bytes) -> "PublicKey":
        """Read what `raw` gives; DecodeError where it is no key of this suite."""
        try:
            return cls(suite, raw, _public_from_raw(suite, raw))
        except ValueError:
            raise DecodeError("PublicKey.raw", f"no public key for {suite.name}") from None

    @classmethod
    def from_spki(cls, octets: bytes) -> "PublicKey":
        """Read a SubjectPublicKeyInfo, DER; DecodeError where it holds no key of a known suite."""
        info = der.Reader.of_sequence(octets, "PublicKey.spki")
        algorithm, raw = info.element(), info.bit_string()
        info.end()
        for suite, known in _ALGORITHMS.items():
            if algorithm == known and _is_of_size(suite, raw):
                return cls.from_raw(suite, raw)
        raise DecodeError("PublicKey.spki", "a key of an algorithm or size that is not known here")

    def spki(self) -> bytes:
        """Return the SubjectPublicKeyInfo, DER."""
        return der.sequence(_ALGORITHMS[self.suite], der.bit_string(self.raw))

    def verify(self, scheme: Scheme, signature: bytes, data: Buffer) -> bool:
        """Tell whether this is a signature over the data; UsageError where the scheme is not one of the suite."""
        verify = self._verifiers.get(scheme)
        if verify is None:
            raise _not_of_suite(self.suite, scheme)
        try:
            verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def encrypt(self, cipher: Cipher, data: Buffer) -> bytes:
        """Return the data encrypted, as long as the modulus; UsageError for wrong ciphers and too much data."""
        if not isinstance(self._key, rsa.RSAPublicKey) or cipher not in CIPHERS[self.suite]:
            raise _not_of_suite(self.suite, cipher)
        limit = SIGNATURE_SIZE[self.suite] - _CIPHER_OVERHEAD[cipher]
        if len(data) > limit:
            raise UsageError(f"{len(data)} octets to encrypt", f"give at most {limit} octets")
        return self._key.encrypt(bytes(data), _CIPHER_PADDING[cipher])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and (self.suite, self.raw) == (other.suite, other.raw)

    def __hash__(self) -> int:
        return hash((self.suite, self.raw))

    def __repr__(self) -> str:
        return f"<PublicKey {self.suite.name} {self.raw[:8].hex()}…>"


class PrivateKey:
    """A private key of any asymmetric suite, parsed and ready."""

    __slots__ = ("_key", "_signers", "public", "suite")

    def __init__(self, suite: Suite, key: PrivateLibraryKey) -> None:
        self.suite = suite
        self.public = PublicKey(suite, _public_to_raw(key.public_key()), key.public_key())
        self._key = key
        self._signers = signers(suite, key)

    def signer(self, scheme: Scheme) -> Sign:
        """Return what signs by this scheme; UsageError where it is not one of the suite."""
        signer = self._signers.get(scheme)
        if signer is None:
            raise _not_of_suite(self.suite, scheme)
        return signer

    def sign(self, scheme: Scheme, data: Buffer) -> bytes:
        """Return the signature over the data, of SIGNATURE_SIZE octets.

        UsageError where the scheme is not one of the suite, or the data has a size that it does not take.
        """
        return self.signer(scheme)(data)

    def sign_deterministic(self, data: Buffer) -> bytes:
        """Return ECDSA over the data with the hash of the curve's size and the nonce of RFC 6979, as raw r‖s."""
        if not isinstance(self._key, ec.EllipticCurvePrivateKey):
            raise UsageError(
                f"no deterministic signatures with {self.suite.name}", "the library hedges ML-DSA"
            )
        return deterministic_signer(self.suite, self._key)(data)

    def decrypt(self, cipher: Cipher, data: bytes) -> bytes:
        """Return what was encrypted; Refused("decrypt") where the padding does not fit.

        A wrong PKCS#1 v1.5 padding gives random octets, not an error (implicit rejection).
        """
        if not isinstance(self._key, rsa.RSAPrivateKey) or cipher not in CIPHERS[self.suite]:
            raise _not_of_suite(self.suite, cipher)
        try:
            return self._key.decrypt(data, _CIPHER_PADDING[cipher])
        except ValueError:
            raise Refused("decrypt", "these octets were not encrypted for this key") from None

    def export(self) -> Secret:
        """Return what `load` takes: PKCS#8 DER, or the 32 octets of an ML-DSA seed."""
        if isinstance(self._key, mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey):
            return Secret(self._key.private_bytes_raw())
        return Secret(
            self._key.private_bytes(_DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    def __repr__(self) -> str:
        return f"<PrivateKey {self.suite.name}>"


class AesKey:
    """An AES-256 key, keyed once; it also keeps its octets, in a `Secret`, since the library gives none back."""

    __slots__ = ("_gcm", "_octets")

    suite: Final = Suite.AES256

    def __init__(self, octets: Secret) -> None:
        self._gcm = Gcm(octets)
        self._octets = Secret(octets.view)

    def seal(self, nonce: bytes, plaintext: Part, associated: Buffer = b"") -> bytes:
        """Return ciphertext and tag; the nonce, 12 octets, is never given twice."""
        return self._gcm.seal(nonce, plaintext, associated)

    def open(self, nonce: bytes, sealed: Buffer, associated: Buffer = b"") -> bytes:
        """Return the plaintext; Refused("aead") where the tag does not fit."""
        return self._gcm.open(nonce, sealed, associated)

    def export(self) -> Secret:
        """Return the 32 octets of the key."""
        return Secret(self._octets.view)

    def __repr__(self) -> str:
        return "<AesKey AES256>"


def generate(suite: Suite) -> PrivateKey:
    """Make a key pair with the library's own entropy; UsageError for AES256, whose keys are made by `AesKey`."""
    return PrivateKey(suite, _generator(suite)())


def _generator(suite: Suite) -> Callable[[], PrivateLibraryKey]:
    match suite:
        case Suite.P256 | Suite.P384:
            return lambda: ec.generate_private_key(_CURVES[suite])
        case Suite.RSA2048 | Suite.RSA3072:
            return lambda: rsa.generate_private_key(_PUBLIC_EXPONENT, _MODULUS_BITS[suite])
        case Suite.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.generate
        case Suite.ML_DSA_87:
            return mldsa.MLDSA87PrivateKey.generate
        case Suite.AES256:
            raise _no_pair()
        case _:
            assert_never(suite)


def load(suite: Suite, octets: Secret) -> PrivateKey:
    """Read what `export` gave; DecodeError where it is no key of this suite.

    An RSA key is held against itself by one signature; its primes are not tested again, which would cost a tenth
    of a second. So this is for keys that were exported here and kept under a seal, not for strangers' keys.
    """
    try:
        return PrivateKey(suite, _private_from(suite, octets))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DecodeError("PrivateKey", f"no private key for {suite.name}") from None


def p384_from_scalar(scalar: Secret) -> PrivateKey:
    """Return the P-384 key with this scalar of 48 octets, big-endian; DecodeError where it is 0 or too large."""
    if len(scalar) != SIGNATURE_SIZE[Suite.P384] // 2:
        raise DecodeError("PrivateKey", f"a scalar of {len(scalar)} octets, P384 has 48")
    with Secret.empty(len(_P384_FRAME) + len(scalar)) as frame:
        frame.view[: len(_P384_FRAME)] = _P384_FRAME
        frame.view[len(_P384_FRAME) :] = scalar.view
        return load(Suite.P384, frame)


def mldsa87_from_seed(seed: Secret) -> PrivateKey:
    """Return the ML-DSA-87 key with this seed, the 32 octets that FIPS 204 calls ξ; DecodeError otherwise."""
    return load(Suite.ML_DSA_87, seed)


def _private_from(suite: Suite, octets: Secret) -> PrivateLibraryKey:
    match suite:
        case Suite.P256 | Suite.P384:
            return _ec_private(suite, octets)
        case Suite.RSA2048 | Suite.RSA3072:
            return _rsa_private(suite, octets)
        case Suite.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.from_seed_bytes(octets.view)
        case Suite.ML_DSA_87:
            return mldsa.MLDSA87PrivateKey.from_seed_bytes(octets.view)
        case Suite.AES256:
            raise _no_pair()
        case _:
            assert_never(suite)


def _ec_private(suite: Suite, octets: Secret) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_der_private_key(octets.view, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVES[suite].name:
        raise ValueError
    return key


def _rsa_private(suite: Suite, octets: Secret) -> rsa.RSAPrivateKey:
    key = serialization.load_der_private_key(octets.view, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != _MODULUS_BITS[suite]:
        raise ValueError
    # A wrong octet in a key for the Chinese remainder theorem can give its primes away with the first signature
    # that leaves.
    probe = key.sign(b"", padding.PKCS1v15(), hashes.SHA256())
    try:
        key.public_key().verify(probe, b"", padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise ValueError from None
    return key


def _public_from_raw(suite: Suite, raw: bytes) -> PublicLibraryKey:
    match suite:
        case Suite.P256 | Suite.P384:
            # Compressed points are points too, but not the one form that is hashed to names.
            if len(raw) != _POINT_SIZE[suite]:
                raise ValueError
            return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[suite], raw)
        case Suite.RSA2048 | Suite.RSA3072:
            return _rsa_public(suite, raw)
        case Suite.ML_DSA_65:
            return mldsa.MLDSA65PublicKey.from_public_bytes(raw)
        case Suite.ML_DSA_87:
            return mldsa.MLDSA87PublicKey.from_public_bytes(raw)
        case Suite.AES256:
            raise _no_pair()
        case _:
            assert_never(suite)


def _rsa_public(suite: Suite, raw: bytes) -> rsa.RSAPublicKey:
    modulus, exponent = _rsa_numbers(raw)
    # A negative number is as long as its magnitude is.
    if modulus < 0 or modulus.bit_length() != _MODULUS_BITS[suite]:
        raise ValueError
    # FIPS 186-5, 5.1: the exponent is odd, above 2^16 and below 2^256.
    if not exponent & 1 or not 1 << 16 < exponent < 1 << 256:
        raise ValueError
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _rsa_numbers(raw: bytes) -> tuple[int, int]:
    key = der.Reader.of_sequence(raw, "PublicKey.raw")
    modulus, exponent = key.integer(), key.integer()
    key.end()
    return modulus, exponent


def _is_of_size(suite: Suite, raw: bytes) -> bool:
    bits = _MODULUS_BITS.get(suite)
    return bits is None or _rsa_numbers(raw)[0].bit_length() == bits


def _public_to_raw(key: PublicLibraryKey) -> bytes:
    match key:
        case ec.EllipticCurvePublicKey():
            return key.public_bytes(_X962, serialization.PublicFormat.UncompressedPoint)
        case rsa.RSAPublicKey():
            return key.public_bytes(_DER, serialization.PublicFormat.PKCS1)
        case _:
            return key.public_bytes_raw()


def _not_of_suite(suite: Suite, way: Scheme | Cipher) -> UsageError:
    return UsageError(
        f"{way.name} is not for {suite.name}", "see SCHEMES and CIPHERS in endocarp.wire.suites"
    )


def _no_pair() -> UsageError:
    return UsageError("AES has no key pairs", "use AesKey")
