"""Points and signatures in halves."""

import pytest

from endocarp.errors import DecodeError
from endocarp.wire import p384

X, Y = b"x" * 48, b"y" * 48


def test_a_point_is_put_together_and_taken_apart() -> None:
    assert p384.point(X, Y) == b"\4" + X + Y
    assert p384.coordinates(b"\4" + X + Y) == (X, Y)


@pytest.mark.parametrize("octets", [b"", X + Y, b"\2" + X + Y, b"\4" + X + Y[:-1], b"\4" + X + Y + b"\0"])
def test_what_is_no_uncompressed_point_is_refused(octets: bytes) -> None:
    with pytest.raises(DecodeError, match="no uncompressed P-384 point"):
        p384.coordinates(octets)


def test_a_signature_has_two_halves() -> None:
    assert p384.halves(X + Y) == (X, Y)


@pytest.mark.parametrize("signature", [b"", X, X + Y[:-1], X + Y + b"\0"])
def test_a_signature_of_another_size_is_refused(signature: bytes) -> None:
    with pytest.raises(DecodeError, match="must be 96"):
        p384.halves(signature)
