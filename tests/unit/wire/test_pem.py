"""PEM."""

import pytest

from endocarp.errors import DecodeError
from endocarp.wire import pem


@pytest.mark.parametrize("size", [0, 1, 48, 49, 3000])
def test_an_object_survives_the_round_trip(size: int) -> None:
    octets = bytes(size)
    text = pem.encode(pem.CERTIFICATE, octets)
    assert pem.decode(pem.CERTIFICATE, text) == (octets,)
    assert max(len(line) for line in text.splitlines()) <= 64


def test_several_objects_keep_their_order_and_other_text_is_passed_over() -> None:
    text = "about\n" + pem.encode("CERTIFICATE", b"1") + "between\n" + pem.encode("KEY", b"2")
    text += pem.encode("CERTIFICATE", b"3").replace("\n", "\r\n")
    assert pem.decode("CERTIFICATE", text) == (b"1", b"3")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no CERTIFICATE"),
        (pem.encode("KEY", b"1"), "no CERTIFICATE"),
        ("-----BEGIN CERTIFICATE-----\nMA==\n-----END KEY-----", "begins as CERTIFICATE"),
        ("-----BEGIN CERTIFICATE-----\nM\n-----END CERTIFICATE-----", "no base64"),
        ("-----BEGIN CERTIFICATE-----\nMA=A\n-----END CERTIFICATE-----", "no base64"),
        ("x" * (pem.LIMIT + 1), "at most"),
    ],
)
def test_damaged_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        pem.decode("CERTIFICATE", text)
