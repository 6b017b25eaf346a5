"""Reading and writing of each form, with the wrong octets and the wrong values that each one refuses."""

import enum
from typing import Annotated

import pytest

from endocarp.errors import DecodeError, UsageError
from endocarp.wire.codec import (
    U8,
    U16,
    U32,
    Array,
    Bits,
    Bytes,
    Const,
    Int,
    Items,
    Nested,
    Octets,
    OneOf,
    OpenIntEnum,
    Padded,
    Reserved,
    Since,
    Struct,
    Text,
    Words,
    i32,
    measured,
    u8,
    u16,
    u24,
    u32,
)
from endocarp.wire.steps import NO_CONTEXT, byte_order

# --- integers -------------------------------------------------------------------------------------------------


def test_octets_cut_short_name_the_field_that_does_not_fit() -> None:
    class Header(Struct):
        one: U8
        reserved: Annotated[None, Reserved(2)] = None
        four: U32 = 0

    for size, field in [(0, "one"), (1, "reserved"), (2, "reserved"), (3, "four"), (6, "four")]:
        with pytest.raises(DecodeError) as caught:
            Header.decode(bytes(size))
        assert (caught.value.where, caught.value.reason) == (f"Header.{field}", "cut short")


def test_signed_integers_keep_their_sign() -> None:
    class Signed(Struct):
        a: Annotated[int, Int(1, signed=True)]
        b: Annotated[int, Int(3, signed=True)]
        c: Annotated[int, i32]

    assert Signed(-1, -2, -3).encode() == b"\xff\xfe\xff\xff\xfd\xff\xff\xff"
    assert Signed.decode(Signed(-1, -2, -3).encode()) == Signed(-1, -2, -3)


class Kind(enum.IntEnum):
    """A closed enum of two."""

    A = 1
    B = 2


class Vendor(OpenIntEnum):
    """An open enum of one."""

    A = 1


class Usage(enum.IntFlag):
    """Flags, unknown ones included."""

    SIGN = 1
    VERIFY = 2


@pytest.mark.parametrize("form", [u8, u24, Const(2, u8), Const(2, u24)], ids=repr)
def test_a_closed_enum_refuses_numbers_without_a_name(form: Int | Const) -> None:
    class Message(Struct):
        kind: Annotated[Kind, form]

    octets = Message(Kind.B).encode()
    assert Message.decode(octets).kind is Kind.B
    with pytest.raises(DecodeError, match=r"Message.kind: unknown value 0x9"):
        Message.decode(b"\x09" + octets[1:])


def test_an_open_enum_keeps_a_strangers_number() -> None:
    class Message(Struct):
        kind: Annotated[Vendor, u32]

    assert Message.decode(b"\x01\0\0\0").kind is Vendor.A
    message = Message.decode(b"\x09\0\0\x80")
    assert isinstance(message.kind, Vendor)
    assert message.encode() == b"\x09\0\0\x80"
    assert Message.decode(message.encode()) == message


def test_flags_keep_combinations_and_unknown_bits() -> None:
    class Message(Struct):
        usage: Annotated[Usage, u8]

    assert Message.decode(b"\x03").usage == Usage.SIGN | Usage.VERIFY
    assert Message.decode(b"\x81").encode() == b"\x81"
    assert isinstance(Message.decode(b"\x81").usage, Usage)


@pytest.mark.parametrize("form", [u8, u24], ids=repr)
def test_a_truth_value_is_zero_or_one(form: Int) -> None:
    class Message(Struct):
        yes: Annotated[bool, form]

    for truth in (False, True):
        assert Message.decode(Message(truth).encode()).yes is truth
    with pytest.raises(DecodeError, match=r"Message.yes: unknown value 0x2"):
        Message.decode(b"\x02" + bytes(form.size - 1))


@pytest.mark.parametrize("form", [u8, u16, u24, u32], ids=repr)
def test_a_constant_is_always_sent_and_must_arrive(form: Int) -> None:
    class Message(Struct):
        magic: Annotated[int, Const(0x42, form)] = measured()

    octets = Message().encode()
    assert octets == (0x42).to_bytes(form.size, "little")
    assert Message.decode(octets).magic == 0x42
    with pytest.raises(DecodeError, match=r"Message.magic: 0x43, must be 0x42"):
        Message.decode((0x43).to_bytes(form.size, "little"))


def test_byte_orders_have_two_names() -> None:
    assert (byte_order("<"), byte_order(">")) == ("little", "big")


# --- octets ---------------------------------------------------------------------------------------------------


def test_octets_have_exactly_their_size() -> None:
    class Message(Struct):
        nonce: Annotated[bytes, Octets(4)]

    assert Message.decode(b"abcd").nonce == b"abcd"
    for wrong in (b"abc", b"abcde"):
        with pytest.raises(UsageError, match=rf"Message.nonce: {len(wrong)} octets, must be 4"):
            Message(wrong).encode()


def test_words_turn_each_group_of_four() -> None:
    class Message(Struct):
        digest: Annotated[bytes, Words(8)]

    assert Message(b"01234567").encode() == b"32107654"
    assert Message.decode(b"32107654") == Message(b"01234567")
    with pytest.raises(UsageError, match=r"Message.digest: 7 octets, must be 8"):
        Message(b"0123456").encode()


def test_reserved_octets_are_sent_as_zero_and_ignored_on_arrival() -> None:
    class Message(Struct):
        a: U8
        reserved: Annotated[None, Reserved(3)] = None

    assert Message(1).encode() == b"\x01\0\0\0"
    assert Message.decode(b"\x01abc") == Message(1)


def test_reserved_octets_may_stand_alone() -> None:
    class Message(Struct):
        reserved: Annotated[None, Reserved(2)] = None

    assert Message.decode(b"\0\0") == Message()
    with pytest.raises(DecodeError, match=r"Message.reserved: cut short"):
        Message.decode(b"\0")


# --- bits -----------------------------------------------------------------------------------------------------


def test_bits_share_an_integer_lowest_first() -> None:
    class Doe(Struct):
        length: Annotated[int, Bits(18)]
        unused: Annotated[int, Bits(14)] = 0
        low: Annotated[int, Bits(4)] = 0
        high: Annotated[int, Bits(4)] = 0

    doe = Doe(0x3FFFF, 1, 2, 3)
    assert doe.encode() == (0x3FFFF | 1 << 18).to_bytes(4, "little") + b"\x32"
    assert Doe.decode(doe.encode()) == doe
    with pytest.raises(DecodeError, match=r"Doe.length: cut short"):
        Doe.decode(b"")


def test_bits_become_enums_and_truth_values() -> None:
    class Message(Struct):
        kind: Annotated[Kind, Bits(3)]
        yes: Annotated[bool, Bits(1)]
        rest: Annotated[int, Bits(4)]

    message = Message.decode(b"\xaa")
    assert message.kind is Kind.B
    assert message.yes is True
    assert (message.rest, message.encode()) == (10, b"\xaa")
    with pytest.raises(DecodeError, match=r"Message.kind: unknown value 0x7"):
        Message.decode(b"\x07")


def test_a_value_that_is_wider_than_its_bits_is_refused_rather_than_cut() -> None:
    class Message(Struct):
        low: Annotated[int, Bits(4)]
        high: Annotated[int, Bits(4)]

    for wrong in (16, -1):
        with pytest.raises(UsageError, match=rf"Message.low: {wrong} does not fit into 4 bits"):
            Message(wrong, 0).encode()
    assert Message(15, 15).encode() == b"\xff"


# --- arrays ---------------------------------------------------------------------------------------------------


def test_an_array_is_a_tuple_of_its_count() -> None:
    class Message(Struct):
        numbers: Annotated[tuple[int, ...], Array(u16, 3)]

    assert Message((1, 2, 3)).encode() == b"\x01\0\x02\0\x03\0"
    assert Message.decode(b"\x01\0\x02\0\x03\0").numbers == (1, 2, 3)
    assert Message.SIZE == 6
    with pytest.raises(DecodeError, match=r"Message.numbers: cut short"):
        Message.decode(bytes(5))
    with pytest.raises(UsageError, match=r"^Message: "):
        Message((1, 2)).encode()


# --- lengths and counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [u8, u16, u24, u32], ids=repr)
def test_a_length_in_front_may_have_any_size(form: Int) -> None:
    class Message(Struct):
        data: Annotated[bytes, Bytes(form)]

    octets = Message(b"abc").encode()
    assert octets == (3).to_bytes(form.size, "little") + b"abc"
    assert Message.decode(octets) == Message(b"abc")
    for size in range(len(octets)):
        with pytest.raises(DecodeError, match=r"Message.data: cut short"):
            Message.decode(octets[:size])


def test_a_length_over_its_limit_is_refused_before_anything_is_sliced() -> None:
    class Message(Struct):
        data: Annotated[bytes, Bytes(u32, limit=4)]

    assert Message.decode(b"\x04\0\0\0abcd") == Message(b"abcd")
    with pytest.raises(DecodeError, match=r"Message.data: 5 octets, at most 4"):
        Message.decode(b"\x05\0\0\0abcde")
    with pytest.raises(DecodeError, match=r"Message.data: 4294967295 octets, at most 4"):
        Message.decode(b"\xff\xff\xff\xff")
    with pytest.raises(UsageError, match=r"Message.data: 5 octets, at most 4"):
        Message(b"abcde").encode()


def test_a_huge_count_is_refused_before_anything_is_allocated() -> None:
    class Nothing(Struct):
        pass

    class Message(Struct):
        items: Annotated[tuple[Nothing, ...], Items(Nothing, u32, limit=3)]

    assert Message.decode(b"\x03\0\0\0") == Message((Nothing(),) * 3)
    with pytest.raises(DecodeError, match=r"Message.items: 4294967295 items, at most 3"):
        Message.decode(b"\xff\xff\xff\xff")
    with pytest.raises(UsageError, match=r"Message.items: 4 items, at most 3"):
        Message((Nothing(),) * 4).encode()


def test_a_negative_length_or_count_is_refused() -> None:
    class Record(Struct):
        a: U8

    class Length(Struct):
        size: Annotated[int, i32] = measured()
        data: Annotated[bytes, Bytes("size")] = b""

    class Count(Struct):
        items: Annotated[tuple[Record, ...], Items(Record, i32)]

    with pytest.raises(DecodeError, match=r"Length.data: -1 octets"):
        Length.decode(b"\xff\xff\xff\xff")
    with pytest.raises(DecodeError, match=r"Count.items: -1 items"):
        Count.decode(b"\xff\xff\xff\xff")


def test_what_is_left_may_be_taken_whole_up_to_its_limit() -> None:
    class Message(Struct):
        head: U8
        rest: Annotated[bytes, Bytes(None, limit=3)]

    assert Message.decode(b"\x01") == Message(1, b"")
    assert Message.decode(b"\x01abc") == Message(1, b"abc")
    assert Message(1, b"abc").encode() == b"\x01abc"
    with pytest.raises(DecodeError, match=r"Message.rest: 4 octets, at most 3"):
        Message.decode(b"\x01abcd")


def test_nothing_is_left_behind_the_end() -> None:
    class Rest(Struct):
        rest: Annotated[bytes, Bytes(None)]

    assert Rest.decode_from(b"ab", 5) == (Rest(b""), 5)


def test_a_negotiated_size_comes_from_the_context() -> None:
    class Message(Struct):
        signature: Annotated[bytes, Bytes("signature", negotiated=True)]

    assert Message.decode(b"abcd", {"signature": 4}) == Message(b"abcd")
    assert Message(b"abcd").encode({"signature": 4}) == b"abcd"
    with pytest.raises(DecodeError, match=r"Message.signature: cut short"):
        Message.decode(b"abc", {"signature": 4})
    with pytest.raises(UsageError, match=r"Message.signature: 4 octets, 5 negotiated"):
        Message(b"abcd").encode({"signature": 5})


def test_a_size_that_was_not_negotiated_is_our_callers_mistake() -> None:
    class Message(Struct):
        signature: Annotated[bytes, Bytes("signature", negotiated=True)]

    with pytest.raises(UsageError, match=r"the context has no size named signature"):
        Message.decode(b"abcd")
    with pytest.raises(UsageError, match=r"the context has no size named signature"):
        Message(b"abcd").encode(NO_CONTEXT)
    with pytest.raises(DecodeError, match=r"Message.signature: -1 octets"):
        Message.decode(b"abcd", {"signature": -1})


def test_text_is_utf8_and_measured_in_octets() -> None:
    class Message(Struct):
        label: Annotated[str, Text(u8, limit=4)]

    assert Message("éé").encode() == b"\x04" + "éé".encode()
    assert Message.decode(b"\x04" + "éé".encode()) == Message("éé")
    with pytest.raises(UsageError, match=r"Message.label: 5 octets, at most 4"):
        Message("éé!").encode()
    with pytest.raises(DecodeError, match=r"Message.label: not UTF-8"):
        Message.decode(b"\x01\xff")


# --- structs in structs ----------------------------------------------------------------------------------------


def test_a_nested_struct_stands_in_place_with_the_same_context() -> None:
    class Inner(Struct):
        data: Annotated[bytes, Bytes("hash", negotiated=True)]

    class Outer(Struct):
        inner: Annotated[Inner, Nested(Inner)]
        items: Annotated[tuple[Inner, ...], Items(Inner, u8)]

    outer = Outer(Inner(b"ab"), (Inner(b"cd"), Inner(b"ef")))
    assert outer.encode({"hash": 2}) == b"ab\x02cdef"
    assert Outer.decode(b"ab\x02cdef", {"hash": 2}) == outer
    with pytest.raises(DecodeError, match=r"Inner.data: cut short"):
        Outer.decode(b"ab\x03cdef", {"hash": 2})


def test_a_nested_struct_of_fixed_size_leaves_the_size_known() -> None:
    class Inner(Struct):
        a: U16

    class Outer(Struct):
        inner: Annotated[Inner, Nested(Inner)]
        b: U8

    assert Outer.SIZE == 3
    assert Outer.decode(b"\x01\0\x02") == Outer(Inner(1), 2)


def test_the_limits_of_nested_lists_hold_at_each_level() -> None:
    class Row(Struct):
        cells: Annotated[bytes, Bytes(u8, limit=2)]

    class Table(Struct):
        rows: Annotated[tuple[Row, ...], Items(Row, u8, limit=2)]

    assert Table.decode(b"\x02\x01a\x02bc") == Table((Row(b"a"), Row(b"bc")))
    with pytest.raises(DecodeError, match=r"Row.cells: 3 octets, at most 2"):
        Table.decode(b"\x01\x03abc")
    with pytest.raises(DecodeError, match=r"Table.rows: 3 items, at most 2"):
        Table.decode(b"\x03\x00\x00\x00")


def test_an_earlier_field_chooses_the_struct() -> None:
    class Small(Struct):
        x: U8

    class Large(Struct):
        x: U32

    class Message(Struct):
        kind: Annotated[Kind, u8] = measured()
        body: Annotated[Small | Large, OneOf("kind", {Kind.B: Large, 7: Small})] = Small(0)

    assert Message(Large(5)).encode() == b"\x02\x05\0\0\0"
    assert Message.decode(b"\x02\x05\0\0\0") == Message(Large(5))
    with pytest.raises(DecodeError, match=r"Message.body: no choice for kind = 0x1"):
        Message.decode(b"\x01\x05")


# --- versions and padding ---------------------------------------------------------------------------------------


def test_a_later_field_is_there_from_its_version_on() -> None:
    class Message(Struct):
        version: U8
        label: Annotated[str, Since("version", 3, Text(u8))] = "none"
        end: U8 = 0

    assert Message(2).encode() == b"\x02\0"
    assert Message.decode(b"\x02\0") == Message(2, "none", 0)
    assert Message(3, "ab", 1).encode() == b"\x03\x02ab\x01"
    assert Message.decode(b"\x03\x02ab\x01") == Message(3, "ab", 1)
    with pytest.raises(UsageError, match=r"Message.label: needs version >= 3"):
        Message(2, "lost").encode()


def test_padding_is_counted_from_where_the_field_begins() -> None:
    class Message(Struct):
        head: U8
        data: Annotated[bytes, Padded(4, Bytes(u8))]
        end: U8

    for data, padded in [(b"", b"\0\0\0\0"), (b"abc", b"\x03abc"), (b"abcd", b"\x04abcd\0\0\0")]:
        assert Message(1, data, 2).encode() == b"\x01" + padded + b"\x02"
        assert Message.decode(b"\x01" + padded + b"\x02") == Message(1, data, 2)


def test_padding_that_is_cut_short_is_refused() -> None:
    class Message(Struct):
        data: Annotated[bytes, Padded(4, Bytes(u8))]

    with pytest.raises(DecodeError, match=r"Message.data: padding cut short"):
        Message.decode(b"\x01a\0")


def test_padding_that_is_not_zero_is_refused() -> None:
    class Message(Struct):
        data: Annotated[bytes, Padded(4, Bytes(u8))]

    with pytest.raises(DecodeError, match=r"Message.data: padding that is not zero"):
        Message.decode(b"\x01a\0\x01")
