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
octets is always told as `DecodeError("Struct.field", reason)`; a value that has no place on the wire is a
`UsageError`, and a declaration that makes no sense is a `TypeError` when its class is made.
"""

import dataclasses
import functools
import struct
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, cast, dataclass_transform

from endocarp.errors import DecodeError, UsageError
from endocarp.wire.forms import (
    I32,
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
    Int,
    Items,
    Nested,
    Octets,
    OneOf,
    OpenIntEnum,
    Padded,
    Reserved,
    Since,
    Text,
    Words,
    i32,
    measured,
    secret,
    u8,
    u16,
    u24,
    u32,
    u64,
)
from endocarp.wire.steps import (
    NO_CONTEXT,
    Cell,
    Choice,
    Context,
    Data,
    Fetch,
    Inner,
    IntArray,
    ItemList,
    Measure,
    Octetstring,
    Part,
    Rest,
    Run,
    Step,
    Values,
    Versioned,
    WithPadding,
    bits_cell,
    const_cell,
    number_cell,
    octets_cell,
    words_cell,
)

__all__ = [
    "I32", "NO_CONTEXT", "U8", "U16", "U24", "U32", "U64", "Array", "Bits", "Bytes", "Const", "Context", "Data",
    "Form", "Int", "Items", "Nested", "Octets", "OneOf", "OpenIntEnum", "Padded", "Reserved", "Since", "Struct",
    "Text", "Words", "forms_of", "i32", "measured", "secret", "u8", "u16", "u24", "u32", "u64",
]  # fmt: skip


@dataclass_transform(frozen_default=True, field_specifiers=(measured, secret))
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
    def fixed_size(cls) -> int:
        """Return SIZE of a struct that has one; a TypeError where a field is of variable size."""
        if cls.SIZE is None:
            raise TypeError(f"{cls.__name__} is of variable size")
        return cls.SIZE

    @classmethod
    def decode(cls, data: Data, context: Context = NO_CONTEXT) -> Self:
        """Read one struct that fills `data` completely."""
        value, end = cls.decode_from(data, 0, context)
        if end != len(data):
            raise DecodeError(cls.__name__, f"{len(data) - end} octets left over")
        return value

    @classmethod
    def decode_from(cls, data: Data, at: int = 0, context: Context = NO_CONTEXT) -> tuple[Self, int]:
        """Read one struct that begins at `at`, which is not negative; return it and where it ends."""
        self = object.__new__(cls)
        values = self.__dict__
        for step in cls._steps:
            at = step.read(values, data, at, context)
        self.check()
        return self, at

    def encode(self, context: Context = NO_CONTEXT) -> bytes:
        """Return the octets of this struct; UsageError where a value has no place in its field."""
        out: list[bytes] = []
        try:
            self.encode_into(out, context)
        except (struct.error, OverflowError, UnicodeEncodeError) as fault:
            raise UsageError(f"{type(self).__name__}: {fault}") from fault
        return b"".join(out)

    def encode_into(self, out: list[bytes], context: Context) -> None:
        """Append the octets of this struct to `out`."""
        for step in self._steps:
            step.write(self.__dict__, out, context)

    def check(self) -> None:
        """Raise DecodeError where decoded values break a rule of the format; called after each decoding."""


# --- planning -------------------------------------------------------------------------------------------------


def forms_of(cls: type[Struct]) -> dict[str, tuple[Any, Form]]:
    """Return the type and the form of each field, in the order of the wire."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cast("Any", cls))]
    return {name: _form(f"{cls.__name__}.{name}", hints[name]) for name in names}


def _plan(cls: type[Struct]) -> tuple[Step, ...]:
    """Turn the annotations of a class into its steps."""
    fields = {field.name: field for field in dataclasses.fields(cast("Any", cls))}
    forms = forms_of(cls)
    planner = _Planner(cls.__name__, cls.BYTE_ORDER, _measures(cls.__name__, forms))
    for name, (base, form) in forms.items():
        planner.add(name, base, form, fields[name].default)
    return tuple(planner.finish())


def _form(where: str, hint: Any) -> tuple[Any, Form]:
    base, *extras = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    forms = [extra for extra in extras if isinstance(extra, Form)]
    if len(forms) != 1:
        raise TypeError(f"{where} has no wire form")
    return base, forms[0]


def _measures(owner: str, forms: dict[str, tuple[Any, Form]]) -> dict[str, Fetch]:
    """Return, for each field that measures or tags a later one, how the encoder finds its value."""
    fetches: dict[str, Fetch] = {}
    seen: set[str] = set()
    for name, (_, form) in forms.items():
        for field, fetch in _needs(name, form):
            if field not in seen or (fetch is not None and field in fetches):
                raise TypeError(f"{owner}.{name} needs {field!r}, an earlier field of its own")
            if fetch is not None:
                fetches[field] = fetch
        seen.add(name)
    return fetches


def _needs(name: str, form: Form) -> list[tuple[str, Fetch | None]]:
    """Return the earlier fields that `form` needs, each with how the encoder fills it, if it does."""
    match form:
        case Since(field=field, form=inner):
            return [(field, None), *_needs(name, inner)]
        case Padded(form=inner):
            return _needs(name, inner)
        case Bytes(length=str(field), negotiated=False) | Items(count=str(field)):
            return [(field, functools.partial(_length, name))]
        case Text(length=str(field)):
            return [(field, functools.partial(_text_length, name))]
        case OneOf(tag=field, choices=choices):
            numbers = {choice: number for number, choice in choices.items()}
            if len(numbers) != len(choices):
                raise TypeError(f"{name}: one struct stands under two tags")
            return [(field, functools.partial(_tag, name, numbers))]
        case _:
            return []


def _length(name: str, values: Values) -> int:
    return len(values[name])


def _text_length(name: str, values: Values) -> int:
    return len(values[name].encode())


def _tag(name: str, numbers: dict[type[Struct], int], values: Values) -> int:
    try:
        return numbers[type(values[name])]
    except KeyError:
        raise UsageError(f"{name}: {type(values[name]).__name__} is none of its choices") from None


class _Planner:
    """Collects the steps of one class, joining neighbouring fields of fixed size."""

    def __init__(self, owner: str, order: str, fetches: dict[str, Fetch]) -> None:
        self.owner, self.order, self.fetches = owner, order, fetches
        self.steps: list[Step] = []
        self.cells: list[Cell] = []
        self.bits: list[Part] = []

    def add(self, name: str, base: Any, form: Form, default: Any) -> None:
        """Plan one field, the next one."""
        where = f"{self.owner}.{name}"
        if isinstance(form, Since | Reserved) and default is dataclasses.MISSING:
            raise TypeError(f"{where} needs a default")
        if isinstance(form, Bits):
            self._add_bits(Part(where, name, base, form.width, self.fetches.get(name)))
            return
        self._refuse_open_bits()
        cell = self._cell(where, name, base, form)
        if cell is not None:
            self.cells.append(cell)
            return
        self._close_run()
        self.steps.append(self._step(where, name, base, form, default))

    def finish(self) -> list[Step]:
        """Return all steps."""
        self._refuse_open_bits()
        self._close_run()
        return self.steps

    def _refuse_open_bits(self) -> None:
        if self.bits:
            raise TypeError(f"{self.bits[0].where}: these bits do not fill an integer")

    def _close_run(self) -> None:
        if self.cells:
            self.steps.append(Run(self.order, self.cells))
            self.cells = []

    def _add_bits(self, part: Part) -> None:
        self.bits.append(part)
        if sum(part.width for part in self.bits) in (8, 16, 32, 64):
            self.cells.append(bits_cell(self.bits))
            self.bits = []

    def _cell(self, where: str, name: str, base: Any, form: Form) -> Cell | None:
        match form:
            case Int():
                return number_cell(where, name, base, form, self.fetches.get(name), self.order)
            case Const():
                return const_cell(where, name, base, form, self.order)
            case Octets(size):
                return octets_cell(where, name, size)
            case Words(size) if size % 4 == 0:
                return words_cell(where, name, size)
            case Reserved(size):
                return Cell(where, "", f"{size}x")
            case _:
                return None

    def _step(self, where: str, name: str, base: Any, form: Form, default: Any) -> Step:
        match form:
            case Array() if form.form.size != 3:
                return IntArray(where, name, form, self.order)
            case Bytes() | Text():
                return self._octetstring(where, name, form)
            case Items():
                return ItemList(where, name, form, self.order)
            case Nested():
                return Inner(name, form)
            case OneOf():
                return Choice(where, name, form)
            case Since():
                return Versioned(where, name, form, default, self._inner(name, base, form.form, default))
            case Padded():
                return WithPadding(where, form, self._inner(name, base, form.form, default))
            case _:
                raise TypeError(f"{where}: {form!r} is no form of this codec")

    def _octetstring(self, where: str, name: str, form: Bytes | Text) -> Step:
        if form.length is None:
            return Rest(where, name, form.limit)
        negotiated = isinstance(form, Bytes) and form.negotiated
        measure = Measure(
            where, form.length, self.order, limit=form.limit, unit="octets", negotiated=negotiated
        )
        return Octetstring(where, name, measure, text=isinstance(form, Text))

    def _inner(self, name: str, base: Any, form: Form, default: Any) -> list[Step]:
        planner = _Planner(self.owner, self.order, self.fetches)
        planner.add(name, base, form, default)
        return planner.finish()
