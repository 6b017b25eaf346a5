"""Declaring structs: what is planned from the annotations, what is refused, and the calls that users make.

Structs are declared inside the tests: planning happens when a class is made, and only so is it seen by
mutation testing.
"""

import dataclasses
import enum
from typing import Annotated, ClassVar

import pytest

from endocarp.errors import DecodeError, UsageError
from endocarp.wire.codec import (
    U8,
    U16,
    U24,
    U32,
    U64,
    Array,
    Bits,
    Bytes,
    Const,
    Form,
    Items,
    Nested,
    Octets,
    OneOf,
    Padded,
    Reserved,
    Since,
    Struct,
    Text,
    Words,
    forms_of,
    i32,
    measured,
    u8,
    u16,
    u24,
    u32,
)


def test_the_example_in_the_head_of_the_module_holds() -> None:
    class Kind(enum.IntEnum):
        A = 7

    class Example(Struct):
        version: U8
        kind: Annotated[Kind, u8]
        reserved: Annotated[None, Reserved(2)] = None
        nonce: Annotated[bytes, Octets(32)] = bytes(32)
        label: Annotated[str, Text(u16, limit=64)] = ""
        digest: Annotated[bytes, Bytes("hash", negotiated=True)] = b""
        context: Annotated[bytes, Since("version", 2, Octets(8))] = bytes(8)

    example = Example(1, Kind.A, label="x", digest=b"d" * 48)
    octets = example.encode({"hash": 48})
    assert octets == b"\x01\x07\0\0" + bytes(32) + b"\x01\0x" + b"d" * 48
    assert Example.decode(octets, {"hash": 48}) == example
    newer = dataclasses.replace(example, version=2, context=b"12345678")
    assert newer.encode({"hash": 48}) == b"\x02" + octets[1:] + b"12345678"
    assert Example.decode(newer.encode({"hash": 48}), {"hash": 48}) == newer


def test_fields_stand_in_the_order_of_their_declaration_and_little_endian() -> None:
    class Header(Struct):
        one: U8
        two: U16
        three: U24
        four: U32
        eight: U64

    header = Header(1, 2, 3, 4, 5)
    assert header.encode().hex() == "010200030000040000000500000000000000"
    assert Header.decode(header.encode()) == header
    assert Header.SIZE == 18


def test_a_struct_may_be_big_endian() -> None:
    class Header(Struct):
        BYTE_ORDER = ">"
        two: U16
        three: U24
        text: Annotated[bytes, Bytes(u16)]
        long: Annotated[bytes, Bytes(u24)]

    header = Header(0x0102, 0x030405, b"x", b"yz")
    assert header.encode() == b"\x01\x02\x03\x04\x05\x00\x01x\x00\x00\x02yz"
    assert Header.decode(header.encode()) == header


def test_a_struct_without_fields_has_no_octets() -> None:
    class Nothing(Struct):
        pass

    assert (Nothing.SIZE, Nothing().encode(), Nothing.decode(b"")) == (0, b"", Nothing())


def test_a_struct_is_a_frozen_value() -> None:
    class Point(Struct):
        x: U8
        y: U8 = 2

    assert Point(1) == Point(1, 2)
    assert hash(Point.decode(b"\x01\x02")) == hash(Point(1))
    assert repr(Point(1)).endswith("Point(x=1, y=2)")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Point(1).x = 3  # type: ignore[misc]


def test_a_struct_inherits_fields_and_keeps_class_variables_apart() -> None:
    class Request(Struct):
        CODE: ClassVar[int] = 0
        checksum: U32

    class Version(Request):
        CODE: ClassVar[int] = 7
        number: U16

    assert Version(1, 2).encode() == b"\x01\0\0\0\x02\0"
    assert (Request.SIZE, Version.fixed_size(), Version.CODE) == (4, 6, 7)


def test_size_is_none_as_soon_as_one_field_varies() -> None:
    class Tail(Struct):
        head: U32
        tail: Annotated[bytes, Bytes(None)]

    class Outer(Struct):
        inner: Annotated[Tail, Nested(Tail)]

    assert (Tail.SIZE, Outer.SIZE) == (None, None)
    with pytest.raises(TypeError, match="Outer is of variable size"):
        Outer.fixed_size()


def test_octets_left_over_are_refused() -> None:
    class Short(Struct):
        x: U8

    with pytest.raises(DecodeError, match=r"^Short: 2 octets left over$"):
        Short.decode(b"\x01\x02\x03")


def test_decode_from_says_where_the_struct_ends() -> None:
    class Pair(Struct):
        x: U8
        y: Annotated[bytes, Bytes(u8)]

    assert Pair.decode_from(b"\xff\xff\x05\x01zrest", 2) == (Pair(5, b"z"), 5)
    assert Pair.decode_from(b"\x05\x00") == (Pair(5, b""), 2)


def test_a_start_behind_the_end_of_the_data_is_cut_short() -> None:
    class Fixed(Struct):
        x: U8

    with pytest.raises(DecodeError, match=r"Fixed.x: cut short"):
        Fixed.decode_from(b"ab", 3)


def test_check_is_called_after_decoding_and_not_before_encoding() -> None:
    class Even(Struct):
        x: U8

        def check(self) -> None:
            if self.x % 2:
                raise DecodeError("Even.x", "odd")

    assert Even.decode(b"\x02") == Even(2)
    with pytest.raises(DecodeError, match=r"Even.x: odd"):
        Even.decode(Even(3).encode())


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview], ids=lambda kind: kind.__name__)
def test_every_kind_of_buffer_gives_the_same_values(buffer: type[bytes]) -> None:
    class Mixed(Struct):
        nonce: Annotated[bytes, Octets(2)]
        words: Annotated[bytes, Words(4)]
        label: Annotated[str, Text(u8)]
        data: Annotated[bytes, Bytes(u24)]
        rest: Annotated[bytes, Bytes(None)]

    value = Mixed(b"ab", b"1234", "label", b"data", b"rest")
    decoded = Mixed.decode(buffer(value.encode()))
    assert decoded == value
    assert {type(decoded.data), type(decoded.rest), type(decoded.nonce)} == {bytes}


def test_a_decoded_value_does_not_change_with_its_buffer() -> None:
    class Blob(Struct):
        data: Annotated[bytes, Bytes(None)]

    buffer = bytearray(b"before")
    blob = Blob.decode(buffer)
    buffer[:] = b"after!"
    assert blob.data == b"before"


# --- counts, lengths and tags that stand in a field of their own ----------------------------------------------


def test_the_encoder_fills_counts_and_lengths_and_comparison_ignores_them() -> None:
    class Record(Struct):
        a: U8

    class Table(Struct):
        items_count: Annotated[int, u16] = measured()
        label_size: Annotated[int, u24] = measured()
        data_size: Annotated[int, u32] = measured()
        items: Annotated[tuple[Record, ...], Items(Record, "items_count")] = ()
        label: Annotated[str, Text("label_size")] = ""
        data: Annotated[bytes, Bytes("data_size")] = b""

    table = Table(items=(Record(1), Record(2)), label="é", data=b"xyz")
    octets = table.encode()
    assert octets == b"\x02\0\x02\0\0\x03\0\0\0\x01\x02" + "é".encode() + b"xyz"
    decoded = Table.decode(octets)
    assert decoded == table
    assert (decoded.items_count, decoded.label_size, decoded.data_size) == (2, 2, 3)
    assert "items_count" not in repr(decoded)


def test_a_length_may_stand_in_bits() -> None:
    class Packed(Struct):
        flag: Annotated[int, Bits(1)]
        size: Annotated[int, Bits(7)] = measured()
        data: Annotated[bytes, Bytes("size")] = b""

    packed = Packed(1, data=b"abc")
    assert packed.encode() == b"\x07abc"
    assert Packed.decode(b"\x07abc") == packed
    with pytest.raises(UsageError, match=r"Packed.size: 128 does not fit into 7 bits"):
        Packed(0, data=bytes(128)).encode()


def test_a_measured_field_is_no_argument() -> None:
    class Message(Struct):
        size: Annotated[int, u8] = measured()
        data: Annotated[bytes, Bytes("size")] = b""

    assert Message(b"ab").encode() == b"\x02ab"
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'size'"):
        Message(size=2)  # type: ignore[call-arg]


def test_a_tag_chooses_the_struct_and_is_filled_from_it() -> None:
    class Small(Struct):
        x: U8

    class Large(Struct):
        x: U32

    class Message(Struct):
        kind: Annotated[int, u8] = measured()
        body: Annotated[Small | Large, OneOf("kind", {1: Small, 2: Large})] = Small(0)

    assert Message(body=Small(5)).encode() == b"\x01\x05"
    assert Message(body=Large(5)).encode() == b"\x02\x05\0\0\0"
    assert Message.decode(b"\x02\x05\0\0\0") == Message(body=Large(5))
    with pytest.raises(DecodeError, match=r"Message.body: no choice for kind = 0x3"):
        Message.decode(b"\x03\x05")
    with pytest.raises(UsageError, match=r"body: Message is none of its choices"):
        Message(body=Message()).encode()  # type: ignore[arg-type]


def test_a_measured_field_may_itself_be_versioned() -> None:
    class Message(Struct):
        version: U8
        size: Annotated[int, Since("version", 2, u8)] = measured()
        data: Annotated[bytes, Since("version", 2, Bytes("size"))] = b""

    assert Message(2, data=b"ab").encode() == b"\x02\x02ab"
    assert Message.decode(b"\x02\x02ab") == Message(2, data=b"ab")
    assert Message.decode(b"\x01") == Message(1)


def test_padding_may_surround_a_measured_field() -> None:
    class Message(Struct):
        size: Annotated[int, u8] = measured()
        data: Annotated[bytes, Padded(4, Bytes("size"))] = b""
        end: U8 = 9

    assert Message(data=b"abc").encode() == b"\x03abc\0\x09"
    assert Message(data=b"abcd").encode() == b"\x04abcd\x09"
    assert Message.decode(b"\x03abc\0\x09") == Message(data=b"abc")


# --- what has no place on the wire ----------------------------------------------------------------------------


def test_an_integer_out_of_range_is_our_callers_mistake() -> None:
    class Fixed(Struct):
        x: U8
        y: U24
        z: Annotated[int, i32]

    for values in [(256, 0, 0), (-1, 0, 0), (0, 1 << 24, 0), (0, -1, 0), (0, 0, 1 << 31)]:
        with pytest.raises(UsageError, match=r"^Fixed: "):
            Fixed(*values).encode()
    assert Fixed.decode(Fixed(255, (1 << 24) - 1, -(1 << 31)).encode()) == Fixed(
        255, (1 << 24) - 1, -(1 << 31)
    )


def test_a_list_that_its_count_cannot_tell_is_our_callers_mistake() -> None:
    class Record(Struct):
        a: U8

    class Table(Struct):
        items: Annotated[tuple[Record, ...], Items(Record, u8)]

    with pytest.raises(UsageError, match=r"^Table: "):
        Table((Record(0),) * 256).encode()


def test_text_that_is_no_utf8_is_our_callers_mistake() -> None:
    class Label(Struct):
        text: Annotated[str, Text(u8)]

    with pytest.raises(UsageError, match=r"^Label: .*surrogates"):
        Label("\ud800").encode()


# --- declarations that make no sense ---------------------------------------------------------------------------


def test_a_field_without_a_form_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Bare.x has no wire form"):

        class Bare(Struct):
            x: int


def test_a_field_with_two_forms_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Double.x has no wire form"):

        class Double(Struct):
            x: Annotated[int, u8, u16]


def test_other_annotations_may_stand_beside_the_form() -> None:
    class Noted(Struct):
        x: Annotated[int, "the abscissa", u8]

    assert Noted(1).encode() == b"\x01"


@pytest.mark.parametrize(
    "form",
    [
        Bytes("missing"),
        Text("missing"),
        Items(Struct, "missing"),
        OneOf("missing", {}),
        Since("missing", 1, u8),
        Since("version", 1, Bytes("missing")),
        Padded(4, Bytes("missing")),
        Bytes("late"),
    ],
    ids=repr,
)
def test_a_field_that_needs_another_must_stand_after_it(form: Form) -> None:
    with pytest.raises(TypeError, match=r"Wrong.x needs '(missing|late)', an earlier field of its own"):

        class Wrong(Struct):
            version: U8
            x: Annotated[object, form] = None
            late: U8 = 0


def test_one_count_cannot_measure_two_lists() -> None:
    with pytest.raises(TypeError, match=r"Wrong.b needs 'size', an earlier field of its own"):

        class Wrong(Struct):
            size: Annotated[int, u8] = measured()
            a: Annotated[bytes, Bytes("size")] = b""
            b: Annotated[bytes, Bytes("size")] = b""


def test_one_version_may_decide_on_many_fields() -> None:
    class Message(Struct):
        version: U8
        a: Annotated[int, Since("version", 1, u8)] = 0
        b: Annotated[int, Since("version", 2, u8)] = 0

    assert Message.decode(b"\x02\x03\x04") == Message(2, 3, 4)
    assert Message.decode(b"\x01\x03") == Message(1, 3)


def test_one_struct_cannot_stand_under_two_tags() -> None:
    class Small(Struct):
        x: U8

    with pytest.raises(TypeError, match=r"body: one struct stands under two tags"):

        class Wrong(Struct):
            kind: Annotated[int, u8] = measured()
            body: Annotated[Small, OneOf("kind", {1: Small, 2: Small})] = Small(0)


@pytest.mark.parametrize("form", [Reserved(4), Since("version", 2, u8)], ids=repr)
def test_what_may_be_absent_needs_a_default(form: Form) -> None:
    with pytest.raises(TypeError, match=r"Wrong.x needs a default"):

        class Wrong(Struct):
            version: U8
            x: Annotated[object, form]


def test_bits_must_fill_an_integer() -> None:
    with pytest.raises(TypeError, match=r"Open.a: these bits do not fill an integer"):

        class Open(Struct):
            a: Annotated[int, Bits(3)]

    with pytest.raises(TypeError, match=r"Broken.a: these bits do not fill an integer"):

        class Broken(Struct):
            a: Annotated[int, Bits(3)]
            b: U8


@pytest.mark.parametrize("form", [Words(6), Array(u24, 2), Form()], ids=["words", "array", "form"])
def test_a_form_that_the_codec_cannot_write_is_refused(form: Form) -> None:
    with pytest.raises(TypeError, match=r"Wrong.x: .* is no form of this codec"):

        class Wrong(Struct):
            x: Annotated[object, form]


def test_fields_before_and_after_a_variable_one_are_joined_on_either_side() -> None:
    class Message(Struct):
        a: U8
        b: Annotated[int, Const(0x1234, u16)] = 0x1234
        data: Annotated[bytes, Bytes(u8)] = b""
        c: Annotated[int, Bits(4)] = 1
        d: Annotated[int, Bits(4)] = 2
        e: U32 = 3

    message = Message(9, data=b"xy")
    assert message.encode() == b"\x09\x34\x12\x02xy\x21\x03\0\0\0"
    assert Message.decode(message.encode()) == message


def test_forms_of_tells_type_and_form_of_each_field() -> None:
    class Message(Struct):
        SPEC: ClassVar[str] = "none"
        x: U8
        numbers: Annotated[tuple[int, ...], Array(u16, 2)]

    assert list(forms_of(Message)) == ["x", "numbers"]
    assert forms_of(Message)["x"] == (int, u8)
    assert Message.decode(b"\1\2\0\3\0") == Message(1, (2, 3))


def test_decoding_and_encoding_need_no_context_unless_a_size_is_negotiated() -> None:
    class Plain(Struct):
        x: Annotated[int, u32]

    assert Plain.decode(Plain(1).encode()) == Plain(1)
