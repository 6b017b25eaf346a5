"""Declarative wire structures: annotate a class, get a frozen dataclass that encodes and decodes itself.

    class Example(Struct):
        version: U8
        kind: Annotated[Kind, u8]                        # a closed enum: an unknown number is a DecodeError
        reserved: Annotated[None, Reserved(2)] = None
        nonce: Annotated[bytes, Octets(32)]
        label: Annotated[str, Text(u16, limit=64)]       # a length in front
        digest: Annotated[bytes, Bytes("hash", negotiated=True)]   # a length from the context
        context: Annotated[bytes, Since("version", 2, Octets(8))] = bytes(8)

    octets = Example(1, Kind.A, nonce=bytes(32), label="x", digest=bytes(48)).encode({"hash": 48})
    Example.decode(octets, {"hash": 48})

A class is planned once, when it is made, into a list of steps. Neighbouring fields of fixed size become one
step, so that one `struct` call covers them all; that is where the speed comes from. Counts and lengths that
stand in a field of their own are filled by the encoder: declare them `= measured()`.

Every variable field has a limit, checked before anything is sliced or allocated. What is wrong with the
octets is always told as `DecodeError("Struct.field", reason)`.
"""

import dataclasses
import enum
import functools
import struct
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, Self, cast, dataclass_transform

from endocarp.errors import DecodeError

Values = dict[str, Any]
Context = Mapping[str, int]

NO_CONTEXT: Context = types.MappingProxyType({})


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


# --- forms: how one field stands on the wire ------------------------------------------------------------------


class Form:
    """How one field stands on the wire."""


@dataclass(frozen=True)
class Int(Form):
    """An integer of 1, 2, 3, 4 or 8 octets in the byte order of its struct."""

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
    """`size` octets that are zero when sent and ignored when received."""

    size: int


@dataclass(frozen=True)
class Bits(Form):
    """`width` bits; neighbouring Bits share one integer of 8, 16, 32 or 64 bits, lowest bit first."""

    width: int


@dataclass(frozen=True)
class Const(Form):
    """An integer that must have this value."""

    value: int
    form: Int


@dataclass(frozen=True)
class Array(Form):
    """Exactly `count` integers, as a tuple."""

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

    length: Int | str | None
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


def measured() -> Any:
    """Declare a count, length or tag that the encoder works out: it takes no part in comparison or repr."""
    return dataclasses.field(default=0, compare=False, repr=False)


# --- structs --------------------------------------------------------------------------------------------------


class Step(Protocol):
    """Reads some neighbouring fields into `values`, or writes them from there."""

    size: int | None

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        """Put the fields at `data[at:]` into `values`; return where they end."""

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Append the octets of the fields to `out`."""


@dataclass_transform(frozen_default=True, field_specifiers=(measured,))
class Struct:
    """Base of every wire structure; see the head of this module for how one is declared."""

    BYTE_ORDER: ClassVar[str] = "<"
    SIZE: ClassVar[int | None] = None
    """The size in octets where every field is of fixed size, else None."""
    _steps: ClassVar[tuple[Step, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclass(frozen=True)(cls)
        cls._steps = _plan(cls)
        sizes = [step.size for step in cls._steps]
        cls.SIZE = None if None in sizes else sum(cast("list[int]", sizes))

    @classmethod
    def decode(cls, data: bytes, context: Context = NO_CONTEXT) -> Self:
        """Read one struct that fills `data` completely."""
        value, end = cls.decode_from(data, 0, context)
        if end != len(data):
            raise DecodeError(cls.__name__, f"{len(data) - end} octets left over")
        return value

    @classmethod
    def decode_from(cls, data: bytes, at: int = 0, context: Context = NO_CONTEXT) -> tuple[Self, int]:
        """Read one struct that begins at `at`; return it and where it ends."""
        self = object.__new__(cls)
        values = self.__dict__
        for step in cls._steps:
            at = step.read(values, data, at, context)
        self.check()
        return self, at

    def encode(self, context: Context = NO_CONTEXT) -> bytes:
        """Return the octets of this struct."""
        out: list[bytes] = []
        self.encode_into(out, context)
        return b"".join(out)

    def encode_into(self, out: list[bytes], context: Context) -> None:
        """Append the octets of this struct to `out`."""
        for step in self._steps:
            step.write(self.__dict__, out, context)

    def check(self) -> None:
        """Raise DecodeError where decoded values break a rule of the format; called after each decoding."""


# --- steps ----------------------------------------------------------------------------------------------------

Fetch = Callable[[Values], Any]
Finish = Callable[[Values], None]


@dataclass(frozen=True)
class _Cell:
    """One field of a run: its `struct` format, and how its value is fetched and finished where it is not plain."""

    name: str
    code: str
    fetch: Fetch | None = None
    finish: Finish | None = None


class _Run:
    """Neighbouring fields of fixed size: one `struct` call."""

    def __init__(self, owner: str, order: str, cells: list[_Cell]) -> None:
        self.codec = struct.Struct(order + "".join(cell.code for cell in cells))
        self.size: int | None = self.codec.size
        named = [cell for cell in cells if cell.name]
        self.where = f"{owner}.{named[0].name}" if named else owner
        self.names = [cell.name for cell in named]
        self.plain = all(cell.fetch is None for cell in named)
        self.fetches = [(cell.name, cell.fetch) for cell in named]
        self.finishes = [cell.finish for cell in named if cell.finish is not None]

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        try:
            values.update(zip(self.names, self.codec.unpack_from(data, at), strict=True))
        except struct.error:
            raise DecodeError(self.where, "cut short") from None
        for finish in self.finishes:
            finish(values)
        return at + self.codec.size

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        if self.plain:
            out.append(self.codec.pack(*[values[name] for name in self.names]))
        else:
            out.append(
                self.codec.pack(
                    *[values[name] if fetch is None else fetch(values) for name, fetch in self.fetches]
                )
            )


class _Array:
    """A fixed number of integers."""

    def __init__(self, where: str, name: str, form: Array, order: str) -> None:
        self.where, self.name = where, name
        self.codec = struct.Struct(f"{order}{form.count}{form.form.code}")
        self.size: int | None = self.codec.size

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        try:
            values[self.name] = self.codec.unpack_from(data, at)
        except struct.error:
            raise DecodeError(self.where, "cut short") from None
        return at + self.codec.size

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        out.append(self.codec.pack(*values[self.name]))


class _Measure:
    """Where a length or a count comes from."""

    def __init__(self, where: str, source: Int | str | None, order: str, *, negotiated: bool = False) -> None:
        self.where, self.negotiated = where, negotiated
        self.prefix = struct.Struct(order + source.code) if isinstance(source, Int) else None
        self.field = source if isinstance(source, str) else None

    def read(self, values: Values, data: bytes, at: int, context: Context) -> tuple[int, int]:
        if self.prefix is not None:
            try:
                return int(self.prefix.unpack_from(data, at)[0]), at + self.prefix.size
            except struct.error:
                raise DecodeError(self.where, "cut short") from None
        if self.field is None:
            return max(len(data) - at, 0), at
        return (context if self.negotiated else values)[self.field], at

    def write(self, number: int, out: list[bytes], context: Context) -> None:
        if self.prefix is not None:
            out.append(self.prefix.pack(number))
        elif self.negotiated and context[cast("str", self.field)] != number:
            raise ValueError(f"{self.where}: {number} octets, {context[cast('str', self.field)]} negotiated")


class _Bytes:
    """Octets of variable length, as they are or as text."""

    size: int | None = None

    def __init__(self, where: str, name: str, form: Bytes | Text, order: str) -> None:
        self.where, self.name, self.limit = where, name, form.limit
        negotiated = isinstance(form, Bytes) and form.negotiated
        self.measure = _Measure(where, form.length, order, negotiated=negotiated)
        self.text = isinstance(form, Text)

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        number, at = self.measure.read(values, data, at, context)
        if number > self.limit:
            raise DecodeError(self.where, f"{number} octets, at most {self.limit}")
        piece = data[at : at + number]
        if len(piece) != number:
            raise DecodeError(self.where, "cut short")
        values[self.name] = self._text(piece) if self.text else piece
        return at + number

    def _text(self, piece: bytes) -> str:
        try:
            return str(piece, "utf-8")
        except UnicodeDecodeError:
            raise DecodeError(self.where, "not UTF-8") from None

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        piece = values[self.name].encode() if self.text else values[self.name]
        if len(piece) > self.limit:
            raise ValueError(f"{self.where}: {len(piece)} octets, at most {self.limit}")
        self.measure.write(len(piece), out, context)
        out.append(piece)


class _Items:
    """Structs one after another."""

    size: int | None = None

    def __init__(self, where: str, name: str, form: Items, order: str) -> None:
        self.where, self.name, self.form = where, name, form
        self.measure = _Measure(where, form.count, order)

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        number, at = self.measure.read(values, data, at, context)
        if number > self.form.limit:
            raise DecodeError(self.where, f"{number} items, at most {self.form.limit}")
        items = []
        for _ in range(number):
            item, at = self.form.item.decode_from(data, at, context)
            items.append(item)
        values[self.name] = tuple(items)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        items = values[self.name]
        if len(items) > self.form.limit:
            raise ValueError(f"{self.where}: {len(items)} items, at most {self.form.limit}")
        self.measure.write(len(items), out, context)
        for item in items:
            item.encode_into(out, context)


class _Nested:
    """A struct inside another."""

    def __init__(self, name: str, form: Nested) -> None:
        self.name, self.item = name, form.item
        self.size: int | None = form.item.SIZE

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        values[self.name], at = self.item.decode_from(data, at, context)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        values[self.name].encode_into(out, context)


class _OneOf:
    """A struct chosen by an earlier field."""

    size: int | None = None

    def __init__(self, where: str, name: str, form: OneOf) -> None:
        self.where, self.name, self.form = where, name, form

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        tag = values[self.form.tag]
        choice = self.form.choices.get(tag)
        if choice is None:
            raise DecodeError(self.where, f"no choice for {self.form.tag} = {int(tag):#x}")
        values[self.name], at = choice.decode_from(data, at, context)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        values[self.name].encode_into(out, context)


class _Since:
    """Fields that are there from a version on."""

    size: int | None = None

    def __init__(self, name: str, form: Since, default: Any, steps: list[Step]) -> None:
        self.name, self.form, self.default, self.steps = name, form, default, steps

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        if values[self.form.field] < self.form.least:
            values[self.name] = self.default
            return at
        for step in self.steps:
            at = step.read(values, data, at, context)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        if values[self.form.field] >= self.form.least:
            for step in self.steps:
                step.write(values, out, context)


class _Padded:
    """Fields that end on a boundary."""

    size: int | None = None

    def __init__(self, where: str, form: Padded, steps: list[Step]) -> None:
        self.where, self.to, self.steps = where, form.to, steps

    def read(self, values: Values, data: bytes, at: int, context: Context) -> int:
        end = at
        for step in self.steps:
            end = step.read(values, data, end, context)
        end += (at - end) % self.to
        if end > len(data):
            raise DecodeError(self.where, "padding cut short")
        return end

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        inner: list[bytes] = []
        for step in self.steps:
            step.write(values, inner, context)
        out += inner
        out.append(bytes(-sum(map(len, inner)) % self.to))


# --- planning -------------------------------------------------------------------------------------------------


def _plan(cls: type[Struct]) -> tuple[Step, ...]:
    """Turn the annotations of a class into its steps."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cast("Any", cls))}
    forms = {name: _form(f"{cls.__name__}.{name}", hints[name]) for name in fields}
    fetches = _measures({name: form for name, (_, form) in forms.items()})
    planner = _Planner(cls.__name__, cls.BYTE_ORDER, fetches)
    for name, (base, form) in forms.items():
        planner.add(name, base, form, fields[name].default)
    return tuple(planner.finish())


def _form(where: str, hint: Any) -> tuple[Any, Form]:
    base, *extras = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    forms = [extra for extra in extras if isinstance(extra, Form)]
    if len(forms) != 1:
        raise TypeError(f"{where} has no wire form")
    return base, forms[0]


def _measures(forms: dict[str, Form]) -> dict[str, Fetch]:
    """Return, for each field that measures or tags a later one, how the encoder finds its value."""
    fetches: dict[str, Fetch] = {}
    for name, form in forms.items():
        match _inmost(form):
            case Bytes(length=str(field), negotiated=False) | Items(count=str(field)):
                fetches[field] = functools.partial(_length, name)
            case Text(length=str(field)):
                fetches[field] = functools.partial(_text_length, name)
            case OneOf(tag=field, choices=choices):
                fetches[field] = functools.partial(
                    _tag, name, {cls: number for number, cls in choices.items()}
                )
            case _:
                pass
    return fetches


def _inmost(form: Form) -> Form:
    return _inmost(form.form) if isinstance(form, Since | Padded) else form


def _length(name: str, values: Values) -> int:
    return len(values[name])


def _text_length(name: str, values: Values) -> int:
    return len(values[name].encode())


def _tag(name: str, numbers: dict[type[Struct], int], values: Values) -> int:
    return numbers[type(values[name])]


class _Planner:
    """Collects the steps of one class, joining neighbouring fields of fixed size."""

    def __init__(self, owner: str, order: str, fetches: dict[str, Fetch]) -> None:
        self.owner, self.order, self.fetches = owner, order, fetches
        self.steps: list[Step] = []
        self.cells: list[_Cell] = []
        self.bits: list[tuple[str, int]] = []

    def add(self, name: str, base: Any, form: Form, default: Any) -> None:
        where = f"{self.owner}.{name}"
        if isinstance(form, Bits):
            self._add_bits(name, form)
            return
        self._refuse_open_bits()
        cell = self._cell(where, name, base, form)
        if cell is not None:
            self.cells.append(cell)
            return
        self._close_run()
        self.steps.append(self._step(where, name, base, form, default))

    def finish(self) -> list[Step]:
        self._refuse_open_bits()
        self._close_run()
        return self.steps

    def _refuse_open_bits(self) -> None:
        if self.bits:
            raise TypeError(f"{self.owner}.{self.bits[0][0]}: these bits do not fill an integer")

    def _close_run(self) -> None:
        if self.cells:
            self.steps.append(_Run(self.owner, self.order, self.cells))
            self.cells = []

    def _add_bits(self, name: str, form: Bits) -> None:
        self.bits.append((name, form.width))
        if sum(width for _, width in self.bits) in (8, 16, 32, 64):
            self.cells.append(_bits_cell(self.bits))
            self.bits = []

    def _cell(self, where: str, name: str, base: Any, form: Form) -> _Cell | None:
        match form:
            case Int():
                return _int_cell(where, name, base, form, self.fetches.get(name), self.order)
            case Const():
                return _const_cell(where, name, form)
            case Octets(size):
                return _octets_cell(where, name, size)
            case Words(size):
                return _words_cell(where, name, size)
            case Reserved(size):
                return _Cell("", f"{size}x")
            case _:
                return None

    def _step(self, where: str, name: str, base: Any, form: Form, default: Any) -> Step:
        match form:
            case Array():
                return _Array(where, name, form, self.order)
            case Bytes() | Text():
                return _Bytes(where, name, form, self.order)
            case Items():
                return _Items(where, name, form, self.order)
            case Nested():
                return _Nested(name, form)
            case OneOf():
                return _OneOf(where, name, form)
            case Since():
                return _Since(name, form, default, self._inner(name, base, form.form, default))
            case Padded():
                return _Padded(where, form, self._inner(name, base, form.form, default))
            case _:
                raise TypeError(f"{where}: {form!r} is no form of this codec")

    def _inner(self, name: str, base: Any, form: Form, default: Any) -> list[Step]:
        planner = _Planner(self.owner, self.order, self.fetches)
        planner.add(name, base, form, default)
        return planner.finish()


def _int_cell(where: str, name: str, base: Any, form: Int, fetch: Fetch | None, order: str) -> _Cell:
    if form.size == 3:
        return _three_octets_cell(name, form, fetch, order)
    if not (isinstance(base, type) and issubclass(base, enum.Enum)):
        return _Cell(name, form.code, fetch)

    def finish(values: Values) -> None:
        try:
            values[name] = base(values[name])
        except ValueError:
            raise DecodeError(where, f"unknown value {values[name]:#x}") from None

    return _Cell(name, form.code, fetch, finish)


def _three_octets_cell(name: str, form: Int, fetch: Fetch | None, order: str) -> _Cell:
    end: typing.Literal["little", "big"] = "little" if order == "<" else "big"
    inner: Fetch = fetch or (lambda values: values[name])

    def outer(values: Values) -> bytes:
        return cast("int", inner(values)).to_bytes(3, end, signed=form.signed)

    def finish(values: Values) -> None:
        values[name] = int.from_bytes(values[name], end, signed=form.signed)

    return _Cell(name, form.code, outer, finish)


def _const_cell(where: str, name: str, form: Const) -> _Cell:
    def finish(values: Values) -> None:
        if values[name] != form.value:
            raise DecodeError(where, f"{values[name]:#x}, must be {form.value:#x}")

    return _Cell(name, form.form.code, lambda values: form.value, finish)


def _exactly(where: str, piece: bytes, size: int) -> bytes:
    if len(piece) != size:
        raise ValueError(f"{where}: {len(piece)} octets, must be {size}")
    return piece


def _octets_cell(where: str, name: str, size: int) -> _Cell:
    return _Cell(name, f"{size}s", lambda values: _exactly(where, values[name], size))


def _words_cell(where: str, name: str, size: int) -> _Cell:
    big, little = struct.Struct(f">{size // 4}I"), struct.Struct(f"<{size // 4}I")

    def fetch(values: Values) -> bytes:
        return little.pack(*big.unpack(_exactly(where, values[name], size)))

    def finish(values: Values) -> None:
        values[name] = big.pack(*little.unpack(values[name]))

    return _Cell(name, f"{size}s", fetch, finish)


def _bits_cell(parts: list[tuple[str, int]]) -> _Cell:
    layout: list[tuple[str, int, int]] = []
    shift = 0
    for name, width in parts:
        layout.append((name, shift, (1 << width) - 1))
        shift += width
    key = "+".join(name for name, _ in parts)

    def fetch(values: Values) -> int:
        return sum((values[name] & mask) << at for name, at, mask in layout)

    def finish(values: Values) -> None:
        word = values.pop(key)
        values.update((name, word >> at & mask) for name, at, mask in layout)

    return _Cell(key, Int(shift // 8).code, fetch, finish)
