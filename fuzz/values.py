"""Random values of any wire structure, made from the forms of its fields."""

import dataclasses
import enum
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar, cast

from endocarp.errors import DecodeError
from endocarp.wire.codec import (
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
    Struct,
    Text,
    Words,
    forms_of,
)

S = TypeVar("S", bound=Struct)
ATTEMPTS = 2000
"""How often a struct is built anew until its own rules, `check`, are kept."""
LETTERS = "aZ09 /é\u20ac\U0001f511"


class Sizes(dict[str, int]):
    """A context in which every negotiated size is there: drawn when it is first asked for."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random

    def __missing__(self, name: str) -> int:
        return self.setdefault(name, self.random.choice((0, 4, 32, 48)))


def make(cls: type[S], random: Random, context: Sizes | None = None) -> S:
    """Return a random value that keeps every rule of its struct; ValueError where none is found."""
    sizes = Sizes(random) if context is None else context
    for _ in range(ATTEMPTS):
        value = _build(cls, random, sizes)
        try:
            value.check()
        except DecodeError:
            continue
        return value
    raise ValueError(f"no random {cls.__name__} keeps its own rules")


def _build(cls: type[S], random: Random, context: Sizes) -> S:
    fields = {field.name: field for field in dataclasses.fields(cast("Any", cls))}
    maker = _Maker(random, context, forms_of(cls))
    for name, (base, form) in maker.forms.items():
        if fields[name].init:
            maker.values[name] = maker.value(base, form, fields[name].default)
    return cls(**maker.values)


class _Maker:
    """Draws the fields of one struct, each knowing the ones before it."""

    def __init__(self, random: Random, context: Sizes, forms: dict[str, tuple[Any, Form]]) -> None:
        self.random, self.context, self.forms = random, context, forms
        self.values: dict[str, Any] = {}

    def value(self, base: Any, form: Form, default: Any) -> Any:
        """Return a value for one field."""
        match form:
            case Const(value=number):
                return _typed(base, number)
            case Int() | Bits():
                return self._number(base, *_range(form))
            case Octets(size) | Words(size):
                return self.random.randbytes(size)
            case Reserved():
                return None
            case Array(form=inner, count=count):
                return tuple(self._number(int, *_range(inner)) for _ in range(count))
            case Since(field=field, least=least, form=inner):
                return self.value(base, inner, default) if self.values[field] >= least else default
            case Padded(form=inner):
                return self.value(base, inner, default)
            case _:
                return self._variable(form)

    def _variable(self, form: Form) -> Any:
        match form:
            case Bytes(negotiated=True):
                return self.random.randbytes(min(self.context[str(form.length)], form.limit))
            case Bytes():
                return self.random.randbytes(self._size(form.length, form.limit))
            case Text():
                return self._text(self._size(form.length, form.limit))
            case Items(item=item):
                count = min(self._size(form.count, form.limit), 3)
                return tuple(make(item, self.random, self.context) for _ in range(count))
            case Nested(item=item):
                return make(item, self.random, self.context)
            case OneOf(choices=choices):
                return make(self.random.choice(list(choices.values())), self.random, self.context)
            case _:
                raise TypeError(f"no random value for {form!r}")

    def _size(self, length: Int | str | None, limit: int) -> int:
        """Return a small size that the field in front can tell, now and then the largest."""
        form = self.forms[length][1] if isinstance(length, str) else length
        while isinstance(form, Since | Padded):
            form = form.form
        most = limit if form is None else min(limit, _range(form)[1])
        return most if self.random.random() < 0.01 else self.random.randint(0, min(most, 70))

    def _text(self, size: int) -> str:
        text = "".join(self.random.choice(LETTERS) for _ in range(size))
        return text.encode()[:size].decode(errors="ignore")

    def _number(self, base: Any, least: int, most: int) -> Any:
        if base is bool:
            return self.random.random() < 0.5
        if isinstance(base, type) and issubclass(base, enum.Flag):
            return self._flags(base)
        if isinstance(base, type) and issubclass(base, enum.Enum):
            fitting = [member for member in base if least <= member.value <= most]
            if not issubclass(base, OpenIntEnum) or self.random.random() < 0.8:
                return self.random.choice(fitting)
        number = self.random.choice((least, most, 0, 1, 2, 3, self.random.randint(least, most)))
        return _typed(base, min(number, most))

    def _flags(self, base: type[enum.Flag]) -> enum.Flag:
        chosen = base(0)
        for member in base:
            chosen |= member if self.random.random() < 0.5 else base(0)
        return chosen


def _typed(base: Any, number: int) -> Any:
    convert: Callable[[int], Any] = base if isinstance(base, type) else int
    return convert(number)


def _range(form: Form) -> tuple[int, int]:
    match form:
        case Bits(width=width):
            return 0, (1 << width) - 1
        case Int(size=size, signed=True):
            return -(1 << 8 * size - 1), (1 << 8 * size - 1) - 1
        case Int(size=size):
            return 0, (1 << 8 * size) - 1
        case _:
            raise TypeError(f"{form!r} is no number")


def spoil(octets: bytes, random: Random) -> bytes:
    """Return the octets with one thing wrong: a bit, a length, the end, or nothing at all."""
    spoilt = bytearray(octets)
    at = random.randrange(len(spoilt)) if spoilt else 0
    match random.randrange(6):
        case 0:
            return random.randbytes(random.choice((0, 1, 4, 16, len(octets), 200)))
        case 1:
            return octets[: random.randint(0, len(octets))]
        case 2:
            return octets + random.randbytes(random.randint(1, 8))
        case 3:
            spoilt[at : at + 4] = random.choice(
                (b"\xff", b"\x00", b"\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80")
            )
        case _:
            spoilt[at : at + 1] = bytes(octet ^ 1 << random.randrange(8) for octet in spoilt[at : at + 1])
    return bytes(spoilt)
