"""P-384 keys and signatures as octets: whole, and in the halves that some formats hold apart.

Source: SEC 1, 2.3.3, without compression; ECDSA signatures as r‖s. All numbers are big-endian.
"""

from endocarp.errors import DecodeError

NUMBER_SIZE = 48
"""Octets of a coordinate, of r and of s."""

_UNCOMPRESSED = b"\x04"


def point(x: bytes, y: bytes) -> bytes:
    """Return the uncompressed point 04‖x‖y, 97 octets."""
    return _UNCOMPRESSED + x + y


def coordinates(octets: bytes) -> tuple[bytes, bytes]:
    """Return x and y of an uncompressed point; DecodeError where the octets have another form."""
    if len(octets) != 1 + 2 * NUMBER_SIZE or octets[:1] != _UNCOMPRESSED:
        raise DecodeError("p384", f"no uncompressed P-384 point: {len(octets)} octets")
    return octets[1 : 1 + NUMBER_SIZE], octets[1 + NUMBER_SIZE :]


def halves(signature: bytes) -> tuple[bytes, bytes]:
    """Return r and s of a signature; DecodeError where it has not 96 octets."""
    if len(signature) != 2 * NUMBER_SIZE:
        raise DecodeError("p384", f"a signature of {len(signature)} octets, must be {2 * NUMBER_SIZE}")
    return signature[:NUMBER_SIZE], signature[NUMBER_SIZE:]
