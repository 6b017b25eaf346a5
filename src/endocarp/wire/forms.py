"""Forms: how one field of a wire structure stands on the wire. Declarations import them from `wire.codec`.

A form is only a description. `wire.steps` knows how to read and write each one, and `wire.codec` turns the
annotations of a class into steps.
"""

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from endocarp.wire.codec import Struct


class OpenIntEnum(enum.IntEnum):
    """An enum that keeps numbers it has no name for, so that a stranger's values survive a round trip."""

    @classmethod
    def _missing_(cls, value: object) -> "OpenIntEnum | None":
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value:#x}"
        member._value_ = value
        return member


class Form:
    """How one field stands on the wire."""


@dataclass(frozen=True)
class Int(Form):
    """An integer of 1, 2, 3, 4 or 8 octets in the byte order of its struct.

    A field annotated with an enum, or with `bool`, is converted; a number that it does not know is a
    DecodeError.
    """

    size: int
    signed: bool = False

    @property
    def code(self) -> str:
        """The format of the `struct` module; three octets travel as raw octets."""
        if self.size == 3:
            return "3s"
        code = {1: "b", 2: "h", 4: "i", 8: "q"}[self.size]
        return code if self.signed else code.upper()


@dataclass(frozen=True)
class Octets(Form):
    """Exactly `size` octets."""

    size: int


@dataclass(frozen=True)
class Words(Form):
    """`size` octets, a multiple of 4, whose groups of four stand reversed on the wire.

    So travels a byte string that a device keeps as big-endian words in little-endian registers.
    """

    size: int


@dataclass(frozen=True)
class Reserved(Form):
    """`size` octets that are zero when sent and ignored when received; declare the field `= None`."""

    size: int


@dataclass(frozen=True)
class Bits(Form):
    """`width` bits, lowest first, of an integer that neighbouring Bits share.

    The integer has the fewest of 8, 16, 32 or 64 bits that the fields fill exactly, counted from the first.
    """

    width: int


@dataclass(frozen=True)
class Const(Form):
    """An integer that must have this value, and is always sent so."""

    value: int
    form: Int


@dataclass(frozen=True)
class Array(Form):
    """Exactly `count` integers of 1, 2, 4 or 8 octets, as a tuple."""

    form: Int
    count: int


@dataclass(frozen=True)
class Bytes(Form):
    """Octets; `length` is an Int in front, an earlier field, a size of the context, or None for all that is left."""

    length: Int | str | None
    negotiated: bool = False
    limit: int = 1 << 16


@dataclass(frozen=True)
class Text(Form):
    """UTF-8; `length` counts octets, as in Bytes."""

    length: Int | str
    limit: int = 1 << 10


@dataclass(frozen=True)
class Items(Form):
    """Structs one after another; `count` is an Int in front or an earlier field."""

    item: "type[Struct]"
    count: Int | str
    limit: int = 1 << 10


@dataclass(frozen=True)
class Nested(Form):
    """A struct inside this one."""

    item: "type[Struct]"


@dataclass(frozen=True)
class OneOf(Form):
    """A struct chosen by an earlier field, which the encoder fills: declare that field `= measured()`."""

    tag: str
    choices: "Mapping[int, type[Struct]]"


@dataclass(frozen=True)
class Since(Form):
    """Present only where an earlier field, a version, has at least this value; its default stands in otherwise."""

    field: str
    least: int
    form: Form


@dataclass(frozen=True)
class Padded(Form):
    """Followed by zero octets up to a multiple of `to`, counted from where the field begins."""

    to: int
    form: Form


u8, u16, u24, u32, u64, i32 = Int(1), Int(2), Int(3), Int(4), Int(8), Int(4, signed=True)

U8 = Annotated[int, u8]
U16 = Annotated[int, u16]
U24 = Annotated[int, u24]
U32 = Annotated[int, u32]
U64 = Annotated[int, u64]
I32 = Annotated[int, i32]


def secret(*, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that no repr shows: a PIN, a digest of one, a key."""
    return dataclasses.field(default=default, repr=False)


def measured(*, init: Literal[False] = False) -> Any:
    """Declare a count, length or tag that the encoder works out: no argument, and no part in comparison or repr."""
    return dataclasses.field(default=0, init=init, compare=False, repr=False)
