"""How the library does each scheme: one function a (key, scheme), bound when the key is parsed.

That keeps the path of a signature short: one look-up, then the library, then for ECDSA four slices that turn its
DER into raw r‖s.
"""

from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed, encode_dss_signature

from endocarp.crypto.digest import Buffer, equal
from endocarp.errors import UsageError
from endocarp.wire.suites import DIGEST_SIZE, SCHEMES, SIGNATURE_SIZE, Scheme, Suite

Sign = Callable[[Buffer], bytes]
"""Data in, signature out; UsageError where the data has the wrong size."""
Verify = Callable[[bytes, Buffer], None]
"""Signature and data in; InvalidSignature where they do not fit, UsageError as in signing."""

MlDsaPrivate = mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MlDsaPublic = mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
PrivateLibraryKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | MlDsaPrivate
PublicLibraryKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | MlDsaPublic

_SHORTEST_DIGEST, _LONGEST_DIGEST = 20, 64
_PKCS1_OVERHEAD = 11

_ECDSA: Final[Mapping[Scheme, hashes.HashAlgorithm]] = {
    Scheme.ECDSA_SHA256: hashes.SHA256(),
    Scheme.ECDSA_SHA384: hashes.SHA384(),
    Scheme.ECDSA_SHA512: hashes.SHA512(),
}
_CURVE_HASH: Final[Mapping[Suite, hashes.HashAlgorithm]] = {
    Suite.P256: hashes.SHA256(),
    Suite.P384: hashes.SHA384(),
}
_RsaWay = tuple[padding.PKCS1v15 | padding.PSS, hashes.HashAlgorithm | Prehashed | NoDigestInfo]


def _pss(algorithm: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)


_RSA: Final[Mapping[Scheme, _RsaWay]] = {
    Scheme.RSA_PKCS1: (padding.PKCS1v15(), NoDigestInfo()),
    Scheme.RSA_PKCS1_SHA256: (padding.PKCS1v15(), hashes.SHA256()),
    Scheme.RSA_PKCS1_SHA384: (padding.PKCS1v15(), hashes.SHA384()),
    Scheme.RSA_PKCS1_SHA512: (padding.PKCS1v15(), hashes.SHA512()),
    Scheme.RSA_PSS_SHA256: (_pss(hashes.SHA256()), hashes.SHA256()),
    Scheme.RSA_PSS_SHA384: (_pss(hashes.SHA384()), hashes.SHA384()),
    Scheme.RSA_PSS_SHA512: (_pss(hashes.SHA512()), hashes.SHA512()),
    Scheme.RSA_PSS_DIGEST_SHA256: (_pss(hashes.SHA256()), Prehashed(hashes.SHA256())),
    Scheme.RSA_PSS_DIGEST_SHA384: (_pss(hashes.SHA384()), Prehashed(hashes.SHA384())),
    Scheme.RSA_PSS_DIGEST_SHA512: (_pss(hashes.SHA512()), Prehashed(hashes.SHA512())),
}


def signers(suite: Suite, key: PrivateLibraryKey) -> dict[Scheme, Sign]:
    """Return a function for each scheme of the suite."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return {scheme: _ecdsa_signer(suite, key, scheme) for scheme in SCHEMES[suite]}
        case rsa.RSAPrivateKey():
            return {scheme: _rsa_signer(suite, key, scheme) for scheme in SCHEMES[suite]}
        case _:
            return {Scheme.ML_DSA: key.sign, Scheme.ML_DSA_MU: _mu_signer(key)}


def deterministic_signer(suite: Suite, key: ec.EllipticCurvePrivateKey) -> Sign:
    """Return ECDSA with the hash of the curve's size and the nonce of RFC 6979."""
    return _raw_ecdsa(suite, key, ec.ECDSA(_CURVE_HASH[suite], deterministic_signing=True))


def verifiers(suite: Suite, key: PublicLibraryKey) -> dict[Scheme, Verify]:
    """Return a function for each scheme of the suite."""
    match key:
        case ec.EllipticCurvePublicKey():
            return {scheme: _ecdsa_verifier(suite, key, scheme) for scheme in SCHEMES[suite]}
        case rsa.RSAPublicKey():
            return {scheme: _rsa_verifier(suite, key, scheme) for scheme in SCHEMES[suite]}
        case _:
            return {Scheme.ML_DSA: key.verify, Scheme.ML_DSA_MU: _mu_verifier(key)}


# --- ECDSA ----------------------------------------------------------------------------------------------------


def _ecdsa_signer(suite: Suite, key: ec.EllipticCurvePrivateKey, scheme: Scheme) -> Sign:
    if scheme is not Scheme.ECDSA_DIGEST:
        return _raw_ecdsa(suite, key, ec.ECDSA(_ECDSA[scheme]))
    hashed = _CURVE_HASH[suite]
    return _raw_ecdsa(suite, key, ec.ECDSA(Prehashed(hashed)), hashed.digest_size)


def _raw_ecdsa(
    suite: Suite, key: ec.EllipticCurvePrivateKey, algorithm: ec.ECDSA, digest_size: int | None = None
) -> Sign:
    half = SIGNATURE_SIZE[suite] // 2
    sign = key.sign

    def signer(data: Buffer) -> bytes:
        if digest_size is not None and len(data) != digest_size:
            data = _fitted(data, digest_size)
        # SEQUENCE { r INTEGER, s INTEGER }: below 128 octets for both curves, so every length is one octet. An
        # integer is half an order long, one zero octet longer where its top bit is set, or shorter.
        signature = sign(data, algorithm)
        end = 4 + signature[3]
        r, s = signature[4:end], signature[end + 2 :]
        return r[-half:].rjust(half, b"\x00") + s[-half:].rjust(half, b"\x00")

    return signer


def _fitted(digest: Buffer, size: int) -> bytes:
    # FIPS 186-5, 6.4.1: a digest is a big-endian number of which the leftmost bits count, as many as the order
    # has. Cut, or filled with zeros in front, it stays the same number and has the size that the library wants.
    if not _SHORTEST_DIGEST <= len(digest) <= _LONGEST_DIGEST:
        raise UsageError(f"a digest of {len(digest)} octets", "give 20 to 64 octets")
    return bytes(digest[:size]).rjust(size, b"\x00")


def _ecdsa_verifier(suite: Suite, key: ec.EllipticCurvePublicKey, scheme: Scheme) -> Verify:
    half = SIGNATURE_SIZE[suite] // 2
    size = _CURVE_HASH[suite].digest_size
    digest = scheme is Scheme.ECDSA_DIGEST
    algorithm = ec.ECDSA(Prehashed(_CURVE_HASH[suite]) if digest else _ECDSA[scheme])

    def verifier(signature: bytes, data: Buffer) -> None:
        message = _fitted(data, size) if digest else data
        if len(signature) != 2 * half:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        key.verify(encode_dss_signature(r, s), message, algorithm)

    return verifier


# --- RSA ------------------------------------------------------------------------------------------------------


def _rsa_signer(suite: Suite, key: rsa.RSAPrivateKey, scheme: Scheme) -> Sign:
    way, algorithm = _RSA[scheme]
    check = _rsa_check(suite, scheme)

    def signer(data: Buffer) -> bytes:
        check(data)
        return key.sign(bytes(data), way, algorithm)

    return signer


def _rsa_verifier(suite: Suite, key: rsa.RSAPublicKey, scheme: Scheme) -> Verify:
    way, algorithm = _RSA[scheme]
    check = _rsa_check(suite, scheme)
    size = SIGNATURE_SIZE[suite]

    def verifier(signature: bytes, data: Buffer) -> None:
        check(data)
        # RFC 8017, 8.1.2 and 8.2.2, step 1. The library takes one without its leading zero octets.
        if len(signature) != size:
            raise InvalidSignature
        if isinstance(algorithm, NoDigestInfo):
            # The library signs no octets at all in this way, but its `verify` finds that signature wrong.
            if not equal(key.recover_data_from_signature(signature, padding.PKCS1v15(), None), bytes(data)):
                raise InvalidSignature
            return
        key.verify(signature, bytes(data), way, algorithm)

    return verifier


def _rsa_check(suite: Suite, scheme: Scheme) -> Callable[[Buffer], None]:
    if scheme is Scheme.RSA_PKCS1:
        return _at_most(SIGNATURE_SIZE[suite] - _PKCS1_OVERHEAD)
    return _exactly(DIGEST_SIZE[scheme]) if scheme in DIGEST_SIZE else lambda data: None


def _at_most(limit: int) -> Callable[[Buffer], None]:
    def check(data: Buffer) -> None:
        if len(data) > limit:
            raise UsageError(f"{len(data)} octets to sign as they are", f"give at most {limit} octets")

    return check


def _exactly(size: int) -> Callable[[Buffer], None]:
    def check(data: Buffer) -> None:
        if len(data) != size:
            raise UsageError(f"a digest of {len(data)} octets", f"give {size} octets")

    return check


# --- ML-DSA ---------------------------------------------------------------------------------------------------

_check_mu = _exactly(DIGEST_SIZE[Scheme.ML_DSA_MU])


def _mu_signer(key: MlDsaPrivate) -> Sign:
    def signer(mu: Buffer) -> bytes:
        _check_mu(mu)
        return key.sign_mu(mu)

    return signer


def _mu_verifier(key: MlDsaPublic) -> Verify:
    def verifier(signature: bytes, mu: Buffer) -> None:
        _check_mu(mu)
        key.verify_mu(signature, mu)

    return verifier
