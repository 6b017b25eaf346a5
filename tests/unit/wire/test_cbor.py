"""Strict deterministic CBOR."""

from typing import Any

import cbor2
import pytest

from endocarp.errors import DecodeError
from endocarp.wire import cbor


@pytest.mark.parametrize("value", [0, -1, b"octets", "text", [1, [2]], {1: b"a", 265: {}}, {"a": "b"}, 2**63])
def test_a_value_survives_the_round_trip(value: Any) -> None:
    assert cbor.decode("x", cbor.encode(value), limit=100) == value


@pytest.mark.parametrize("value", [{24: 0, -1: 0}, [{1: {1000: 0, -25: 0}}], {1000: 0, "": 0}])
def test_keys_that_have_two_orders_are_neither_written_nor_read(value: Any) -> None:
    with pytest.raises(ValueError, match="different orders"):
        cbor.encode(value)
    for canonical in (True, False):
        for each in (value, cbor2.CBORTag(5000, value)):
            with pytest.raises(DecodeError):
                cbor.decode("x", cbor2.dumps(each, canonical=canonical), limit=100, tag=5000)


@pytest.mark.parametrize("value", [{23: 0, -1: 0}, {10: 0, 265: 0, -75000: 0}, {"": 0, "aa": 0, "b": 0}])
def test_keys_of_both_signs_or_texts_are_written_in_the_order_of_rfc_8949(value: dict[Any, int]) -> None:
    keys = [cbor2.dumps(key) for key in cbor.decode("x", cbor.encode(value), limit=100)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("octets", "what"),
    [
        ("1801", "an integer in a longer form than needed"),
        ("8101ff", "octets left over"),
        ("a201020103", "a key twice"),
        ("a202010103", "keys out of order"),
        ("9f01ff", "an indefinite length"),
        ("", "nothing"),
        ("5b7fffffffffffffff", "a byte string longer than the world"),
        ("9b7fffffffffffffff", "an array longer than the world"),
        ("62ff00", "text that is not UTF-8"),
        ("c11a514b67b0", "a date"),
        ("c482011a00000001", "a decimal fraction"),
        ("c249010000000000000000", "a big number"),
        ("d81c80", "a shareable value"),
        ("d823612e", "a regular expression"),
        ("d9d9f701", "the tag of self-described CBOR"),
        ("d86301", "a tag that nobody asked for"),
        ("ff", "a break"),
        ("fb7ff0000000000001", "a number that is not one, in a long form"),
    ],
)
def test_other_forms_are_refused(octets: str, what: str) -> None:
    with pytest.raises(DecodeError, match=r"^x: ") as refused:
        cbor.decode("x", bytes.fromhex(octets), limit=100)
    assert refused.value.where == "x", what


def test_depth_is_bounded() -> None:
    nested: list[Any] = [0]
    for _ in range(cbor.DEPTH - 1):
        nested = [nested]
    assert cbor.decode("x", cbor.encode(nested), limit=100) == nested
    with pytest.raises(DecodeError, match="depth"):
        cbor.decode("x", cbor.encode([nested]), limit=100)


def test_size_is_bounded_before_anything_is_read() -> None:
    with pytest.raises(DecodeError, match="101 octets, at most 100"):
        cbor.decode("x", bytes(101), limit=100)


def test_only_the_named_tag_is_understood() -> None:
    octets = cbor.encode(cbor2.CBORTag(98, [1]))
    assert cbor.decode("x", octets, limit=100, tag=98).value == (1,)
    with pytest.raises(DecodeError):
        cbor.decode("x", octets, limit=100, tag=18)


def test_readers_return_what_fits() -> None:
    assert cbor.octets("x", b"ab", least=2, most=2) == b"ab"
    assert cbor.text("x", "ab", limit=2) == "ab"
    assert cbor.number("x", 7, most=7) == 7
    assert cbor.items("x", [1], most=1) == [1]
    assert cbor.record("x", (1, 2), 2) == (1, 2)
    assert cbor.mapping("x", {1: 2}, most=1) == {1: 2}
    assert cbor.claims("x", {1: 2}, (1,)) == {1: 2}


@pytest.mark.parametrize(
    "read",
    [
        lambda: cbor.octets("x", "ab", least=0, most=9),
        lambda: cbor.octets("x", b"ab", least=3, most=9),
        lambda: cbor.octets("x", b"ab", least=0, most=1),
        lambda: cbor.text("x", b"ab", limit=9),
        lambda: cbor.text("x", "abc", limit=2),
        lambda: cbor.text("x", "\x1b[2J", limit=9),
        lambda: cbor.number("x", "1", most=9),
        lambda: cbor.number("x", True, most=9),
        lambda: cbor.number("x", 1.0, most=9),
        lambda: cbor.number("x", -1, most=9),
        lambda: cbor.number("x", 10, most=9),
        lambda: cbor.number("x", 0, most=9, least=1),
        lambda: cbor.items("x", {}, most=9),
        lambda: cbor.items("x", [1, 2], most=1),
        lambda: cbor.items("x", [], most=1, least=1),
        lambda: cbor.record("x", [1], 2),
        lambda: cbor.mapping("x", [], most=9),
        lambda: cbor.mapping("x", {1: 1, 2: 2}, most=1),
        lambda: cbor.claims("x", {2: 1}, (1,)),
        lambda: cbor.claims("x", {}, (1,)),
        # Python takes these keys for the integer 1; on the wire they are other octets.
        lambda: cbor.claims("x", {1.0: 1}, (1,)),
        lambda: cbor.claims("x", {True: 1}, (1,)),
        lambda: cbor.claims("x", {cbor2.CBORSimpleValue(1): 1}, (1,)),
    ],
)
def test_readers_refuse_what_does_not(read: Any) -> None:
    with pytest.raises(DecodeError, match=r"^x: "):
        read()
