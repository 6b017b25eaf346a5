"""Descriptions of fields: open enums, codes of integers, measured fields."""

import dataclasses
import enum
import typing
from typing import Annotated

import pytest

from endocarp.wire.codec import Struct
from endocarp.wire.forms import (
    I32,
    U8,
    U16,
    U24,
    U32,
    U64,
    Int,
    Octets,
    OpenIntEnum,
    Text,
    i32,
    measured,
    secret,
    u8,
    u24,
)


def test_an_open_enum_keeps_numbers_that_it_has_no_name_for() -> None:
    class Kind(OpenIntEnum):
        A = 1

    assert Kind(1) is Kind.A
    unknown = Kind(0x80000001)
    assert (unknown, int(unknown), unknown.name) == (0x80000001, 0x80000001, "UNKNOWN_0x80000001")
    assert isinstance(unknown, Kind)
    assert Kind(0x80000001) == unknown
    assert {0x80000001: "vendor"}[unknown] == "vendor"


def test_an_open_enum_takes_only_numbers() -> None:
    class Kind(OpenIntEnum):
        A = 1

    with pytest.raises(ValueError, match="'A' is not a valid"):
        Kind("A")  # type: ignore[arg-type]
    assert isinstance(Kind.A, enum.IntEnum)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (Int(1), "B"),
        (Int(2), "H"),
        (Int(4), "I"),
        (Int(8), "Q"),
        (Int(1, signed=True), "b"),
        (i32, "i"),
        (Int(8, signed=True), "q"),
        (u24, "3s"),
    ],
)
def test_an_integer_has_the_code_of_the_struct_module(form: Int, code: str) -> None:
    assert form.code == code


def test_a_size_that_no_machine_has_is_refused() -> None:
    with pytest.raises(KeyError):
        _ = Int(5).code


def test_the_short_names_say_their_sizes() -> None:
    forms = [typing.get_args(alias)[1] for alias in (U8, U16, U24, U32, U64, I32)]
    assert [form.size for form in forms] == [1, 2, 3, 4, 8, 4]
    assert [form.signed for form in forms] == [False] * 5 + [True]


def test_a_measured_field_is_no_argument_and_takes_no_part_in_comparison_or_repr() -> None:
    field = measured()
    assert isinstance(field, dataclasses.Field)
    assert (field.default, field.init, field.compare, field.repr) == (0, False, False, False)


def test_a_secret_stands_on_the_wire_and_in_no_repr() -> None:
    class Held(Struct):
        key: Annotated[bytes, Octets(4)] = secret()
        pin: Annotated[str, Text(u8)] = secret(default="")

    held = Held(b"1234", "5678")
    assert repr(held).endswith("Held()")
    assert Held.decode(held.encode()) == held
    assert Held(b"1234") == Held(b"1234", "")
