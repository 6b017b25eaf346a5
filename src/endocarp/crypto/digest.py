"""Digests of public octets, and comparison in constant time; the standard library only.

Cheap to import: this module does not load the crypto library, so that what only measures needs nothing more.
"""

import hashlib
import hmac

Buffer = bytes | bytearray | memoryview
"""What holds octets."""


def sha1(*parts: Buffer) -> bytes:
    """Return the 20 octets of SHA-1 over the parts; only for names that a format gives (RFC 5280 key ids)."""
    return _digest(hashlib.sha1(usedforsecurity=False), parts)


def sha256(*parts: Buffer) -> bytes:
    """Return the 32 octets of SHA-256 over the parts, one after another."""
    return _digest(hashlib.sha256(), parts)


def sha384(*parts: Buffer) -> bytes:
    """Return the 48 octets of SHA-384 over the parts, one after another."""
    return _digest(hashlib.sha384(), parts)


def sha512(*parts: Buffer) -> bytes:
    """Return the 64 octets of SHA-512 over the parts, one after another."""
    return _digest(hashlib.sha512(), parts)


def shake256(*parts: Buffer, size: int) -> bytes:
    """Return `size` octets of SHAKE256 over the parts, one after another."""
    state = hashlib.shake_256()
    for part in parts:
        state.update(part)
    return state.digest(size)


def equal(a: Buffer, b: Buffer) -> bool:
    """Tell whether two octet strings are the same, in a time that depends on their lengths alone."""
    return hmac.compare_digest(a, b)


def _digest(state: "hashlib._Hash", parts: tuple[Buffer, ...]) -> bytes:
    for part in parts:
        state.update(part)
    return state.digest()
