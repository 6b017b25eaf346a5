"""Keyed primitives and key derivation; secrets go in and come out as `Secret`.

Where octets pass through ordinary memory all the same: HMAC gives its result as `bytes`, one copy that nobody can
wipe; the generator of scalars is made of it, and compares its output as an integer. Everything else is written by
the library into the memory of the secret. Keyed contexts of the library (`Gcm`) hold the key in its own heap.
"""

from typing import TypeVar, overload

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from endocarp.crypto.digest import Buffer
from endocarp.crypto.secret import Secret
from endocarp.errors import Refused, UsageError
from endocarp.wire.suites import AES_KEY_SIZE, GCM_NONCE_SIZE, GCM_TAG_SIZE

S = TypeVar("S", bound=Secret)
Part = Secret | Buffer

P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)
"""The order of the group of P-384 (SP 800-186, 3.2.1.4)."""

PIN_COST = 1 << 14
"""Scrypt's N for PINs: with r = 8 and p = 1 one guess costs 16 MiB and about 40 ms."""

_SHA384, _SHA512 = hashes.SHA384(), hashes.SHA512()
_BLOCK = 16


def hmac_sha512(key: Part, *parts: Part) -> Secret:
    """Return the 64 octets of HMAC-SHA-512 over the parts, one after another."""
    return Secret(_hmac(_SHA512, key, parts))


def _hmac(algorithm: hashes.HashAlgorithm, key: Part, parts: tuple[Part, ...]) -> bytes:
    state = hmac.HMAC(_octets(key), algorithm)
    for part in parts:
        state.update(_octets(part))
    return state.finalize()


def _octets(part: Part) -> Buffer:
    return part.view if isinstance(part, Secret) else part


@overload
def kdf_sha512(key: Secret, label: bytes, context: bytes | None = None) -> Secret: ...
@overload
def kdf_sha512(key: Secret, label: bytes, context: bytes | None = None, *, kind: type[S]) -> S: ...
def kdf_sha512(
    key: Secret, label: bytes, context: bytes | None = None, *, kind: type[Secret] = Secret
) -> Secret:
    """Return 64 octets: Caliptra's KDF with HMAC-SHA-512, as a secret of this kind."""
    return _kdf(_SHA512, key, label, context, kind)


@overload
def kdf_sha384(key: Secret, label: bytes, context: bytes | None = None) -> Secret: ...
@overload
def kdf_sha384(key: Secret, label: bytes, context: bytes | None = None, *, kind: type[S]) -> S: ...
def kdf_sha384(
    key: Secret, label: bytes, context: bytes | None = None, *, kind: type[Secret] = Secret
) -> Secret:
    """Return 48 octets: Caliptra's KDF with HMAC-SHA-384, as a secret of this kind."""
    return _kdf(_SHA384, key, label, context, kind)


def _kdf(
    algorithm: hashes.HashAlgorithm, key: Secret, label: bytes, context: bytes | None, kind: type[Secret]
) -> Secret:
    # SP 800-108, 4.1 as Caliptra's drivers do it: one block, counter first, no length behind; the separator of a
    # zero octet stands only where a context is given, an empty one included.
    fixed = label if context is None else label + b"\x00" + context
    size = algorithm.digest_size
    derivation = KBKDFHMAC(
        algorithm=algorithm,
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=None,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=fixed,
    )
    out = kind.empty(size)
    derivation.derive_into(key.view, out.view)
    return out


def hkdf_sha384(key: Secret, salt: bytes, info: bytes, size: int) -> Secret:
    """Return `size` octets of HKDF with SHA-384 (RFC 5869)."""
    out = Secret.empty(size)
    HKDF(algorithm=_SHA384, length=size, salt=salt, info=info).derive_into(key.view, out.view)
    return out


def drbg_scalar(seed: Secret, nonce: bytes, order: int) -> Secret:
    """Return the first output of HMAC-SHA384-DRBG that lies in 1 .. order - 1, as 48 octets, big-endian.

    `seed` is the entropy, `nonce` follows it (SP 800-90A, 10.1.2; the loop is that of RFC 6979, 3.2 h).
    """
    with Secret.empty(48) as key, Secret(b"\x01" * 48) as value:

        def update(*provided: Part) -> None:
            for round_ in (b"\x00", b"\x01") if provided else (b"\x00",):
                key.view[:] = _hmac(_SHA384, key, (value, round_, *provided))
                value.view[:] = _hmac(_SHA384, key, (value,))

        update(seed, nonce)
        while True:
            value.view[:] = _hmac(_SHA384, key, (value,))
            if 0 < int.from_bytes(value.view, "big") < order:
                return Secret(value.view)
            update()


def p384_scalar(seed: Secret) -> Secret:
    """Return the private scalar that Caliptra makes of a seed of 48 octets: 48 octets, big-endian."""
    if len(seed) != 48:
        raise UsageError(f"a seed of {len(seed)} octets", "give 48 octets")
    return drbg_scalar(seed, bytes(48), P384_ORDER)


def mldsa_seed(kdf_output: Secret) -> Secret:
    """Return the seed of an ML-DSA identity key: the first 32 octets of a KDF output, reversed as a whole."""
    out = Secret.empty(32)
    out.view[:] = kdf_output.view[:32][::-1]
    return out


@overload
def doe_decrypt(key: Secret, iv: bytes, ciphertext: bytes) -> Secret: ...
@overload
def doe_decrypt(key: Secret, iv: bytes, ciphertext: bytes, *, kind: type[S]) -> S: ...
def doe_decrypt(key: Secret, iv: bytes, ciphertext: bytes, *, kind: type[Secret] = Secret) -> Secret:
    """Return what the deobfuscation engine makes of fuses: AES-256-CBC without padding.

    `key` has 32 octets, `iv` 16, `ciphertext` a multiple of 16; UsageError otherwise.
    """
    if len(key) != AES_KEY_SIZE or len(iv) != _BLOCK or len(ciphertext) % _BLOCK:
        raise UsageError(
            "deobfuscation with wrong sizes", "key 32, iv 16, ciphertext a multiple of 16 octets"
        )
    context = Cipher(algorithms.AES256(key.view), modes.CBC(iv)).decryptor()
    # The library wants room for one block more than it writes.
    with Secret.empty(len(ciphertext) + _BLOCK) as room:
        size = context.update_into(ciphertext, room.view)
        context.finalize()
        out = kind.empty(size)
        out.view[:] = room.view[:size]
    return out


class Gcm:
    """AES-256-GCM, keyed once: nonces of 12 octets, the tag of 16 octets stands behind the ciphertext.

    The caller never gives the same nonce twice. A tag that does not fit raises Refused("aead").
    """

    def __init__(self, key: Secret) -> None:
        if len(key) != AES_KEY_SIZE:
            raise UsageError(f"an AES key of {len(key)} octets", f"give {AES_KEY_SIZE} octets")
        self._aead = AESGCM(key.view)

    def seal(self, nonce: bytes, plaintext: Part, associated: Buffer = b"") -> bytes:
        """Return ciphertext and tag; `associated` is authenticated with them."""
        _check_nonce(nonce)
        return self._aead.encrypt(nonce, _octets(plaintext), associated)

    def open(self, nonce: bytes, sealed: Buffer, associated: Buffer = b"") -> bytes:
        """Return the plaintext of what `seal` gave."""
        _check_nonce(nonce)
        try:
            return self._aead.decrypt(nonce, sealed, associated)
        except InvalidTag:
            raise _bad_tag() from None

    def open_secret(self, nonce: bytes, sealed: Buffer, associated: Buffer = b"") -> Secret:
        """Return the plaintext of what `seal` gave; it never leaves secret memory."""
        _check_nonce(nonce)
        if len(sealed) < GCM_TAG_SIZE:
            raise _bad_tag()
        out = Secret.empty(len(sealed) - GCM_TAG_SIZE)
        try:
            self._aead.decrypt_into(nonce, sealed, associated, out.view)
        except InvalidTag:
            out.close()
            raise _bad_tag() from None
        return out


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != GCM_NONCE_SIZE:
        raise UsageError(f"a nonce of {len(nonce)} octets", f"give {GCM_NONCE_SIZE} octets")


def _bad_tag() -> Refused:
    return Refused(
        "aead", "sealed octets whose tag does not fit", "they were changed, or sealed with another key"
    )


def pin_digest(pin: Buffer, salt: bytes) -> bytes:
    """Return the 32 octets of scrypt over a PIN (RFC 7914, N = 16384, r = 8, p = 1); `salt` has 16 or more."""
    if len(salt) < 16:
        raise UsageError(f"a salt of {len(salt)} octets", "give 16 or more")
    return Scrypt(salt=salt, length=32, n=PIN_COST, r=8, p=1).derive(pin)
