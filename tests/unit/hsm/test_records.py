"""What stands in the store."""

import pytest

from endocarp.errors import Refused
from endocarp.hsm.records import Birth, Body, Failures, Pin, Put, Remove, StoredObject, decode, encode
from endocarp.wire.hsm import Description, ObjectClass, Policy, Template
from endocarp.wire.suites import Suite

OBJECT = StoredObject(
    Description(1, ObjectClass.PRIVATE_KEY, Suite.P256, Template(Policy.SIGN, "web"), bytes(65)), b"sealed"
)


@pytest.mark.parametrize(
    "body",
    [
        Birth(b"one", b"two"),
        Pin(bytes(16), bytes(32), 3),
        Failures(10),
        Put(1, 2, (OBJECT, OBJECT)),
        Put(1, 2, ()),
        Remove(3, 1),
    ],
)
def test_a_record_is_read_as_it_was_written(body: Body) -> None:
    assert decode(encode(body)) == body


@pytest.mark.parametrize("octets", [b"", b"\x09", b"\x03", b"\x03\x00\x00"])
def test_a_record_of_another_version_is_refused(octets: bytes) -> None:
    with pytest.raises(Refused) as caught:
        decode(octets)
    assert caught.value.rule == "store-content"
    assert caught.value.advice()
