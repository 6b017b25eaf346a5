"""Steps: what reads and writes the fields of a wire structure, one step for each form or run of forms.

A step takes its values from a dictionary by field name and puts them back there. It checks every length
before it slices, and tells what is wrong with octets as `DecodeError`; a value that has no place on the wire
is our caller's mistake, a `UsageError`.
"""

import enum
import struct
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from endocarp.errors import DecodeError, UsageError
from endocarp.wire.forms import Array, Const, Int, Items, Nested, OneOf, Padded, Since

if TYPE_CHECKING:
    from endocarp.wire.codec import Struct

Values = dict[str, Any]
Context = Mapping[str, int]
Data = bytes | bytearray | memoryview
Fetch = Callable[[Values], Any]
Finish = Callable[[Values], None]

NO_CONTEXT: Context = types.MappingProxyType({})


class Step(Protocol):
    """Reads some neighbouring fields into `values`, or writes them from there."""

    size: int | None

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Put the fields at `data[at:]` into `values`; return where they end."""

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Append the octets of the fields to `out`."""


# --- fields of fixed size -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One field of a run: its `struct` format, and how its value is fetched and finished where it is not plain."""

    where: str
    name: str
    code: str
    fetch: Fetch | None = None
    finish: Finish | None = None


class Run:
    """Neighbouring fields of fixed size: one `struct` call."""

    def __init__(self, order: str, cells: list[Cell]) -> None:
        self.codec = struct.Struct(order + "".join(cell.code for cell in cells))
        self.size: int | None = self.codec.size
        self.cells = cells
        named = [cell for cell in cells if cell.name]
        self.names = [cell.name for cell in named]
        self.plain = all(cell.fetch is None for cell in named)
        self.fetches = [(cell.name, cell.fetch) for cell in named]
        self.finishes = [cell.finish for cell in named if cell.finish is not None]

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Unpack the whole run, then convert what is not plain."""
        try:
            values.update(zip(self.names, self.codec.unpack_from(data, at), strict=True))
        except struct.error:
            raise DecodeError(self._cut(len(data) - at), "cut short") from None
        for finish in self.finishes:
            finish(values)
        return at + self.codec.size

    def _cut(self, left: int) -> str:
        """Return the name of the first field that does not fit into `left` octets."""
        ends = range(1, len(self.cells))
        codes = [cell.code for cell in self.cells]
        whole = sum(struct.calcsize(f"<{''.join(codes[:end])}") <= left for end in ends)
        return self.cells[whole].where

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Pack the whole run."""
        if self.plain:
            out.append(self.codec.pack(*[values[name] for name in self.names]))
        else:
            out.append(
                self.codec.pack(
                    *[values[name] if fetch is None else fetch(values) for name, fetch in self.fetches]
                )
            )


class _Members(dict[int, Any]):
    """What stands for each number: a member of `base`, an enum or bool; DecodeError where nothing does."""

    def __init__(self, where: str, base: Any) -> None:
        super().__init__({0: False, 1: True} if base is bool else {int(each.value): each for each in base})
        self.where, self.base = where, base

    def __missing__(self, number: int) -> Any:
        try:
            return _unknown(self.base, number)
        except ValueError:
            raise DecodeError(self.where, f"unknown value {number:#x}") from None


def _members_of(where: str, base: Any) -> _Members | None:
    """Return what turns a number into `base`, or None where it stays a number."""
    if base is bool or (isinstance(base, type) and issubclass(base, enum.Enum)):
        return _Members(where, base)
    return None


def _unknown(base: Any, number: int) -> Any:
    """Return the value of an open enum or a combination of flags; ValueError where there is none."""
    if base is bool:
        raise ValueError(number)
    return base(number)


def number_cell(where: str, name: str, base: Any, form: Int, fetch: Fetch | None, order: str) -> Cell:
    """Return the cell of an integer, converted to `base` where that is an enum or bool."""
    members = _members_of(where, base)
    if form.size == 3:
        return _three_octets_cell(where, name, members, form, fetch, order)
    if members is None:
        return Cell(where, name, form.code, fetch)

    def finish(values: Values) -> None:
        values[name] = members[values[name]]

    return Cell(where, name, form.code, fetch, finish)


def _three_octets_cell(
    where: str, name: str, members: _Members | None, form: Int, fetch: Fetch | None, order: str
) -> Cell:
    end = byte_order(order)

    def outer(values: Values) -> bytes:
        number: int = values[name] if fetch is None else fetch(values)
        return number.to_bytes(3, end, signed=form.signed)

    def finish(values: Values) -> None:
        number = int.from_bytes(values[name], end, signed=form.signed)
        values[name] = number if members is None else members[number]

    return Cell(where, name, form.code, outer, finish)


def byte_order(order: str) -> Literal["little", "big"]:
    """Return the name that integers have for the byte order of the `struct` module."""
    return "little" if order == "<" else "big"


def const_cell(where: str, name: str, base: Any, form: Const, order: str) -> Cell:
    """Return the cell of an integer that must have one value."""
    cell = number_cell(where, name, base, form.form, lambda values: form.value, order)

    def finish(values: Values) -> None:
        if cell.finish is not None:
            cell.finish(values)
        if values[name] != form.value:
            raise DecodeError(where, f"{values[name]:#x}, must be {form.value:#x}")

    return Cell(where, name, cell.code, cell.fetch, finish)


def octets_cell(where: str, name: str, size: int) -> Cell:
    """Return the cell of octets of fixed size."""
    return Cell(where, name, f"{size}s", lambda values: _exactly(where, values[name], size))


def words_cell(where: str, name: str, size: int) -> Cell:
    """Return the cell of octets that stand reversed in groups of four."""
    big, little = struct.Struct(f">{size // 4}I"), struct.Struct(f"<{size // 4}I")

    def fetch(values: Values) -> bytes:
        return little.pack(*big.unpack(_exactly(where, values[name], size)))

    def finish(values: Values) -> None:
        values[name] = big.pack(*little.unpack(values[name]))

    return Cell(where, name, f"{size}s", fetch, finish)


def _exactly(where: str, piece: bytes, size: int) -> bytes:
    if len(piece) != size:
        raise UsageError(f"{where}: {len(piece)} octets, must be {size}")
    return piece


@dataclass(frozen=True)
class Part:
    """One field of an integer that is shared bit by bit."""

    where: str
    name: str
    base: Any
    width: int
    fetch: Fetch | None


def bits_cell(parts: list[Part]) -> Cell:
    """Return the cell of an integer that several fields share, the first one in its lowest bits."""
    layout: list[tuple[Part, int, _Members | None]] = []
    shift = 0
    for part in parts:
        layout.append((part, shift, _members_of(part.where, part.base)))
        shift += part.width
    key = "+".join(part.name for part in parts)

    def fetch(values: Values) -> int:
        return sum(_fitting(part, values) << at for part, at, _ in layout)

    def finish(values: Values) -> None:
        word = values.pop(key)
        for part, at, members in layout:
            number = word >> at & (1 << part.width) - 1
            values[part.name] = number if members is None else members[number]

    return Cell(parts[0].where, key, Int(shift // 8).code, fetch, finish)


def _fitting(part: Part, values: Values) -> int:
    number: int = values[part.name] if part.fetch is None else part.fetch(values)
    if not 0 <= number < 1 << part.width:
        raise UsageError(f"{part.where}: {number} does not fit into {part.width} bits")
    return number


class IntArray:
    """A fixed number of integers."""

    def __init__(self, where: str, name: str, form: Array, order: str) -> None:
        self.where, self.name = where, name
        self.codec = struct.Struct(f"{order}{form.count}{form.form.code}")
        self.size: int | None = self.codec.size

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Read all integers."""
        try:
            values[self.name] = self.codec.unpack_from(data, at)
        except struct.error:
            raise DecodeError(self.where, "cut short") from None
        return at + self.codec.size

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Write all integers."""
        out.append(self.codec.pack(*values[self.name]))


# --- fields of variable size ----------------------------------------------------------------------------------


class Measure:
    """Where a length or a count comes from, and how large it may be."""

    def __init__(
        self,
        where: str,
        source: Int | str,
        order: str,
        *,
        limit: int,
        unit: str,
        negotiated: bool = False,
    ) -> None:
        self.where, self.limit, self.unit, self.negotiated = where, limit, unit, negotiated
        self.prefix = source if isinstance(source, Int) else None
        self.field = source if isinstance(source, str) else ""
        self.order = byte_order(order)

    def read(self, values: Values, data: Data, at: int, context: Context) -> tuple[int, int]:
        """Return the number, which is within its limit, and where it ends."""
        if self.prefix is not None:
            piece = data[at : at + self.prefix.size]
            if len(piece) != self.prefix.size:
                raise DecodeError(self.where, "cut short")
            at += self.prefix.size
            number = int.from_bytes(piece, self.order, signed=self.prefix.signed)
        else:
            number = self._negotiated(context) if self.negotiated else values[self.field]
        if not 0 <= number <= self.limit:
            raise DecodeError(self.where, f"{number} {self.unit}, at most {self.limit}")
        return number, at

    def _negotiated(self, context: Context) -> int:
        try:
            return context[self.field]
        except KeyError:
            raise UsageError(f"{self.where}: the context has no size named {self.field}") from None

    def write(self, number: int, out: list[bytes], context: Context) -> None:
        """Check the number as `read` does, and write it where it stands in front."""
        if number > self.limit:
            raise UsageError(f"{self.where}: {number} {self.unit}, at most {self.limit}")
        if self.prefix is not None:
            out.append(number.to_bytes(self.prefix.size, self.order, signed=self.prefix.signed))
        elif self.negotiated and self._negotiated(context) != number:
            raise UsageError(f"{self.where}: {number} {self.unit}, {self._negotiated(context)} negotiated")


class Octetstring:
    """Octets of variable length, as they are or as text."""

    size: int | None = None

    def __init__(self, where: str, name: str, measure: Measure, *, text: bool = False) -> None:
        self.where, self.name, self.measure, self.text = where, name, measure, text

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Copy the octets: what was read does not change when the buffer does."""
        number, at = self.measure.read(values, data, at, context)
        piece = bytes(data[at : at + number])
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
        """Write the octets, and their length where it stands in front."""
        piece = values[self.name].encode() if self.text else values[self.name]
        self.measure.write(len(piece), out, context)
        out.append(piece)


class Rest:
    """All octets that are left."""

    size: int | None = None

    def __init__(self, where: str, name: str, limit: int) -> None:
        self.where, self.name, self.limit = where, name, limit

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Copy the octets: what was read does not change when the buffer does."""
        size = len(data) - at
        if size > self.limit:
            raise DecodeError(self.where, f"{size} octets, at most {self.limit}")
        piece = values[self.name] = bytes(data[at:])
        return at + len(piece)

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Check the length as `read` does, and write the octets."""
        piece = values[self.name]
        if len(piece) > self.limit:
            raise UsageError(f"{self.where}: {len(piece)} octets, at most {self.limit}")
        out.append(piece)


class ItemList:
    """Structs one after another."""

    size: int | None = None

    def __init__(self, where: str, name: str, form: Items, order: str) -> None:
        self.name, self.item = name, form.item
        self.measure = Measure(where, form.count, order, limit=form.limit, unit="items")

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Read as many structs as were announced, into a tuple."""
        number, at = self.measure.read(values, data, at, context)
        items = []
        for _ in range(number):
            item, at = self.item.decode_from(data, at, context)
            items.append(item)
        values[self.name] = tuple(items)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Write all structs, and their count where it stands in front."""
        items = values[self.name]
        self.measure.write(len(items), out, context)
        for item in items:
            item.encode_into(out, context)


class Inner:
    """A struct inside another."""

    def __init__(self, name: str, form: Nested) -> None:
        self.name, self.item = name, form.item
        self.size: int | None = form.item.SIZE

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Read the struct."""
        values[self.name], at = self.item.decode_from(data, at, context)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Write the struct."""
        values[self.name].encode_into(out, context)


class Choice:
    """A struct chosen by an earlier field."""

    size: int | None = None

    def __init__(self, where: str, name: str, form: OneOf) -> None:
        self.where, self.name, self.form = where, name, form

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Read the struct that the tag calls for."""
        tag: int = values[self.form.tag]
        choice: type[Struct] | None = self.form.choices.get(tag)
        if choice is None:
            raise DecodeError(self.where, f"no choice for {self.form.tag} = {tag:#x}")
        values[self.name], at = choice.decode_from(data, at, context)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Write the struct; its tag was written before, from its class."""
        values[self.name].encode_into(out, context)


class Versioned:
    """Fields that are there from a version on."""

    size: int | None = None

    def __init__(self, where: str, name: str, form: Since, default: Any, steps: list[Step]) -> None:
        self.where, self.name, self.form, self.default, self.steps = where, name, form, default, steps

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Read the field where it is there, else put its default."""
        if values[self.form.field] < self.form.least:
            values[self.name] = self.default
            return at
        for step in self.steps:
            at = step.read(values, data, at, context)
        return at

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Write the field where it is there; a value that would be lost is refused."""
        if values[self.form.field] >= self.form.least:
            for step in self.steps:
                step.write(values, out, context)
        elif values[self.name] != self.default:
            raise UsageError(f"{self.where}: needs {self.form.field} >= {self.form.least}")


class WithPadding:
    """A field that ends on a boundary."""

    size: int | None = None

    def __init__(self, where: str, form: Padded, steps: list[Step]) -> None:
        self.where, self.to, self.steps = where, form.to, steps

    def read(self, values: Values, data: Data, at: int, context: Context) -> int:
        """Read the field and the zero octets that pad it."""
        end = at
        for step in self.steps:
            end = step.read(values, data, end, context)
        padding = bytes(data[end : end + (at - end) % self.to])
        if len(padding) != (at - end) % self.to:
            raise DecodeError(self.where, "padding cut short")
        if any(padding):
            raise DecodeError(self.where, "padding that is not zero")
        return end + len(padding)

    def write(self, values: Values, out: list[bytes], context: Context) -> None:
        """Write the field, then zero octets up to the boundary."""
        inner: list[bytes] = []
        for step in self.steps:
            step.write(values, inner, context)
        out += inner
        out.append(bytes(-sum(map(len, inner)) % self.to))
