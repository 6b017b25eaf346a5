"""p11-kit's RPC: frames, and the values that calls are made of (p11-kit, rpc-message.c, 0.24.1 to 0.26.4).

A connection begins with one octet each way, the dialect. Each call is a frame, all integers big-endian:

    u32 code | u32 size of options | u32 size of body | options | body

A strange process writes these octets: each size and count is held against what has arrived before anything is
allocated, and every fault is a DecodeError. `p11_calls` puts the values together into calls.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, assert_never

from endocarp.errors import DecodeError
from endocarp.wire.p11_forms import (
    ATTRIBUTE_FORMS,
    NO_PARAMETER,
    PARAMETER_FIELDS,
    PARAMETER_TYPES,
    ValueForm,
)

DIALECT_LIMIT = 2
"""The newest dialect: 0 is spoken by clients up to 0.24, 1 by 0.25.0 and later, 2 by 0.25.6 and later."""
FRAME_LIMIT = 1 << 20
"""The longest frame taken, header included, in octets."""
FRAME_LEAST = 20
"""No frame is shorter, in octets: its header, no options, and a call without values."""
ATTRIBUTE_COUNT_LIMIT = 1 << 10
"""The most attributes or mechanisms in one array."""
DEPTH_LIMIT = 8
"""How deep templates may stand in templates."""
NULL = 0xFFFFFFFF
"""In place of a size: the pointer was NULL. In place of a room: there was a buffer, and its size was 0."""

_FRAME = struct.Struct(">III")
_HEADER = _FRAME.size
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_ROOM = struct.Struct(">II")
_SIZED = struct.Struct(">BI")
_ATTRIBUTE_OCTETS = 5
"""No attribute is shorter on the wire."""
_C_ATTRIBUTE_OCTETS = 24
"""The size of a CK_ATTRIBUTE in the memory of a machine of 64 bits, in which sizes of templates are told."""


def choose_dialect(offered: int) -> int:
    """Return the dialect to answer to the newest that a client knows."""
    # p11-kit, rpc-transport.c: the client says the newest that it knows, and follows the answer. A newer one than ours is
    # answered with ours.
    return min(offered, DIALECT_LIMIT)


def decode_frame_end(octets: bytes | bytearray) -> int:
    """Return where the frame that `octets` begin with ends; where its header has not arrived, the least it can be.

    DecodeError where it is shorter or longer than frames are: there is no way on from there, the connection has to end.
    """
    if len(octets) < _HEADER:
        return FRAME_LEAST
    _, options, size = _FRAME.unpack_from(octets)
    end: int = _HEADER + options + size
    if not FRAME_LEAST <= end <= FRAME_LIMIT:
        raise DecodeError("Frame", f"{end} octets, at least {FRAME_LEAST} and at most {FRAME_LIMIT}")
    return end


def split_frame(octets: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return the frame that `octets` begin with, and what stands behind it; DecodeError where it is cut short."""
    end = decode_frame_end(octets)
    if len(octets) < end:
        raise DecodeError("Frame", f"{len(octets)} octets of {end}")
    return bytes(octets[:end]), bytes(octets[end:])


def decode_frame(octets: bytes) -> tuple[int, bytes]:
    """Return the code, which the reply repeats, and the body of one whole frame.

    DecodeError where it is cut short or something is left over.
    """
    try:
        code, options, size = _FRAME.unpack_from(octets)
    except struct.error:
        raise DecodeError("Frame", "cut short") from None
    # The options name the client's module; nobody asks for them.
    body = _HEADER + options
    if len(octets) != body + size:
        raise DecodeError("Frame", f"{len(octets)} octets, {body + size} announced")
    return code, octets[body:]


def encode_frame(code: int, body: bytes) -> bytes:
    """Return a frame without options."""
    return _FRAME.pack(code, 0, len(body)) + body


ByteArray = bytes | int
"""Octets; where the pointer was NULL, or in the answer to a question for the size, only their number."""
UlongArray = Sequence[int] | int
"""Numbers; in the answer to a question for the size, only how many there are."""


class Version(NamedTuple):
    """CK_VERSION."""

    major: int
    minor: int


class Attribute(NamedTuple):
    """An attribute and its value, whose type `p11_forms.ValueForm` tells.

    `value` is None where it is unavailable, and where a number was sent with a size that no number has. In a
    reply, `bytes` alone may be told by their size only: then the value is a `Size`.
    """

    type: int
    value: Any


class Size(NamedTuple):
    """In place of an attribute's octets: how many there are."""

    octets: int


class AttributeRoom(NamedTuple):
    """A question for an attribute: `room` is the size of the buffer in octets, 0 to be told the size."""

    type: int
    room: int
    nested: "tuple[AttributeRoom, ...]" = ()


class Mechanism(NamedTuple):
    """A mechanism; its parameter is one of `p11_forms.PARAMETER_TYPES`, another tuple, or None."""

    type: int
    parameter: tuple[Any, ...] | None = None


def byte_room(told: int) -> int | None:
    """Return the size of the caller's buffer; None where there is none, and only the size is asked for."""
    # p11-kit 0.25, rpc-client.c: all ones tell a buffer of size 0 from no buffer.
    return 0 if told == NULL else told or None


class Reader:
    """Takes values one after another from the body of a call; `where` names the call in errors."""

    __slots__ = ("at", "data", "dialect", "where")

    def __init__(self, data: bytes, at: int, dialect: int, where: str) -> None:
        self.data = data
        self.at = at
        self.dialect = dialect
        self.where = where

    def error(self, reason: str) -> DecodeError:
        """Return the error to raise for a fault at this place."""
        return DecodeError(self.where, f"{reason} (at octet {self.at})")

    def end(self) -> None:
        """Raise DecodeError where something is left."""
        if self.at != len(self.data):
            raise self.error(f"{len(self.data) - self.at} octets left over")

    def u32(self) -> int:
        """Take a number of four octets."""
        at = self.at
        try:
            value: int = _U32.unpack_from(self.data, at)[0]
        except struct.error:
            raise self.error("cut short") from None
        self.at = at + 4
        return value

    def ulong(self) -> int:
        """Take a CK_ULONG, which has eight octets whatever the client's machine."""
        at = self.at
        try:
            value: int = _U64.unpack_from(self.data, at)[0]
        except struct.error:
            raise self.error("cut short") from None
        self.at = at + 8
        return value

    def byte(self) -> int:
        """Take one octet as a number."""
        at = self.at
        try:
            value = self.data[at]
        except IndexError:
            raise self.error("cut short") from None
        self.at = at + 1
        return value

    def version(self) -> Version:
        """Take a CK_VERSION."""
        return Version(self.byte(), self.byte())

    def octets(self) -> bytes:
        """Take octets with their size in front; a NULL pointer is no octets."""
        size = self.u32()
        if size == NULL:
            return b""
        at = self.at
        end = at + size
        if end > len(self.data):
            raise self.error(f"{size} octets where {len(self.data) - at} are left")
        self.at = end
        return self.data[at:end]

    def byte_array(self) -> ByteArray:
        """Take octets, or their number alone."""
        return self.octets() if self.byte() else self.u32()

    def ulong_array(self) -> UlongArray:
        """Take numbers, or their count alone."""
        valid = self.byte()
        count = self.u32()
        return self.ulongs(count) if valid else count

    def byte_room(self) -> int | None:
        """Take the size of the caller's buffer; None where there is none, and only the size is asked for."""
        return byte_room(self.u32())

    def ulong_room(self) -> int | None:
        """Take how many numbers the caller has room for; None where only their count is asked for."""
        return self.u32() or None

    def ulongs(self, count: int) -> tuple[int, ...]:
        """Take `count` numbers."""
        if count > ATTRIBUTE_COUNT_LIMIT or count * 8 > len(self.data) - self.at:
            raise self.error(f"{count} numbers where {len(self.data) - self.at} octets are left")
        values = struct.unpack_from(f">{count}Q", self.data, self.at)
        self.at += count * 8
        return values

    def attributes(self, depth: int = 0) -> tuple[Attribute, ...]:
        """Take a template."""
        count = self._count(_ATTRIBUTE_OCTETS, depth)
        return tuple([self.attribute(depth) for _ in range(count)])

    def attribute(self, depth: int) -> Attribute:
        """Take one attribute."""
        number = self.u32()
        if not self.byte():
            return Attribute(number, None)
        size = self.u32()
        return Attribute(number, self._value(ATTRIBUTE_FORMS.get(number, ValueForm.OCTETS), size, depth))

    def _value(self, form: ValueForm, size: int, depth: int) -> Any:
        match form:
            case ValueForm.BYTE:
                value = self.byte()
                return value if size == 1 else None
            case ValueForm.ULONG:
                value = self.ulong()
                # Four on a machine of 32 bits.
                return value if size in (4, 8) else None
            case ValueForm.TEMPLATE:
                return self.attributes(depth + 1)
            case ValueForm.MECHANISMS:
                return self.ulongs(self.u32())
            case ValueForm.OCTETS:
                return self.octets()
            case ValueForm.RAW_BYTE:
                return self._raw((1,))
            case ValueForm.RAW_ULONG:
                return self._raw((4, 8))
            case _:
                assert_never(form)

    def _raw(self, sizes: tuple[int, ...]) -> int | None:
        octets = self.octets()
        return int.from_bytes(octets, "little") if len(octets) in sizes else None

    def attribute_rooms(self) -> tuple[AttributeRoom, ...]:
        """Take the questions for attributes that end a call.

        Since 0.25.4, inside dialect 1, a question for a template holds questions: so both forms are tried there.
        """
        if self.dialect == 1:
            start = self.at
            try:
                rooms = self._rooms(0, nested=True)
                self.end()
            except DecodeError:
                self.at = start
            else:
                return rooms
        return self._rooms(0, nested=self.dialect > 1)

    def _rooms(self, depth: int, *, nested: bool) -> tuple[AttributeRoom, ...]:
        return tuple([self._room(depth, nested=nested) for _ in range(self._count(_ROOM.size, depth))])

    def _room(self, depth: int, *, nested: bool) -> AttributeRoom:
        number, room = self.u32(), self.u32()
        if nested and room and ATTRIBUTE_FORMS.get(number) is ValueForm.TEMPLATE:
            return AttributeRoom(number, room, self._rooms(depth + 1, nested=True))
        return AttributeRoom(number, room)

    def _count(self, size: int, depth: int) -> int:
        """Take the count of items of at least `size` octets each."""
        # CVE-2026-13757 was the missing bound on depth.
        if depth > DEPTH_LIMIT:
            raise self.error("too many templates inside one another")
        count = self.u32()
        if count > ATTRIBUTE_COUNT_LIMIT or count * size > len(self.data) - self.at:
            raise self.error(f"{count} attributes where {len(self.data) - self.at} octets are left")
        return count

    def mechanism(self) -> Mechanism | None:
        """Take a mechanism; None is the NULL that cancels an operation."""
        number = self.u32()
        if number == NULL:
            return None
        if number in NO_PARAMETER:
            # The old dialects say so with a NULL.
            if self.dialect < 2:
                self.octets()
            return Mechanism(number)
        if self.dialect > 1 and not self.byte():
            return Mechanism(number)
        fields = PARAMETER_FIELDS.get(number, "b")
        values = tuple([_PARAMETER_READERS[field](self) for field in fields])
        named = PARAMETER_TYPES.get(number)
        return Mechanism(number, values if named is None else named._make(values))


class Writer:
    """Gives the octets of values; the mirror of Reader."""

    __slots__ = ("dialect",)

    def __init__(self, dialect: int) -> None:
        self.dialect = dialect

    def ulong(self, value: int) -> bytes:
        """Give a CK_ULONG."""
        return _U64.pack(value)

    def byte(self, value: int) -> bytes:
        """Give one octet."""
        return bytes((value,))

    def version(self, value: Version) -> bytes:
        """Give a CK_VERSION."""
        return bytes(value)

    def octets(self, value: bytes) -> bytes:
        """Give octets with their size in front."""
        return _U32.pack(len(value)) + value

    def byte_array(self, value: ByteArray) -> bytes:
        """Give octets, or their number alone."""
        return _SIZED.pack(0, value) if isinstance(value, int) else _SIZED.pack(1, len(value)) + value

    def ulong_array(self, value: UlongArray) -> bytes:
        """Give numbers, or their count alone."""
        if isinstance(value, int):
            return _SIZED.pack(0, value)
        return struct.pack(f">BI{len(value)}Q", 1, len(value), *value)

    def byte_room(self, value: int | None) -> bytes:
        """Give the size of a buffer; None where there is none."""
        empty = NULL if self.dialect else 0
        return _U32.pack(0 if value is None else value or empty)

    def ulong_room(self, value: int | None) -> bytes:
        """Give how many numbers there is room for; None to ask for their count."""
        return _U32.pack(value or 0)

    def attributes(self, value: Sequence[Attribute]) -> bytes:
        """Give a template, or the answer to questions for attributes."""
        return _U32.pack(len(value)) + b"".join([self.attribute(attribute) for attribute in value])

    def attribute(self, attribute: Attribute) -> bytes:
        """Give one attribute."""
        number, value = attribute
        if value is None:
            return _U32.pack(number) + b"\0"
        head = _U32.pack(number) + b"\1"
        if isinstance(value, Size):
            return head + _ROOM.pack(value.octets, NULL)
        return head + self._value(ATTRIBUTE_FORMS.get(number, ValueForm.OCTETS), value)

    def _value(self, form: ValueForm, value: Any) -> bytes:
        match form:
            case ValueForm.BYTE:
                return struct.pack(">IB", 1, value)
            case ValueForm.ULONG:
                return struct.pack(">IQ", 8, value)
            case ValueForm.TEMPLATE:
                return _U32.pack(len(value) * _C_ATTRIBUTE_OCTETS) + self.attributes(value)
            case ValueForm.MECHANISMS:
                return struct.pack(f">II{len(value)}Q", len(value) * 8, len(value), *value)
            case ValueForm.OCTETS:
                return self._sized(value)
            case ValueForm.RAW_BYTE:
                return self._sized(bytes((value,)))
            case ValueForm.RAW_ULONG:
                return self._sized(value.to_bytes(8, "little"))
            case _:
                assert_never(form)

    def _sized(self, octets: bytes) -> bytes:
        return _U32.pack(len(octets)) + self.octets(octets)

    def attribute_rooms(self, value: Sequence[AttributeRoom]) -> bytes:
        """Give questions for attributes."""
        return _U32.pack(len(value)) + b"".join([self._room(question) for question in value])

    def _room(self, question: AttributeRoom) -> bytes:
        number, room, nested = question
        told = _ROOM.pack(number, room)
        if self.dialect and room and ATTRIBUTE_FORMS.get(number) is ValueForm.TEMPLATE:
            return told + self.attribute_rooms(nested)
        return told

    def mechanism(self, value: Mechanism | None) -> bytes:
        """Give a mechanism, or the NULL that cancels an operation."""
        if value is None:
            return _U32.pack(NULL)
        number, parameter = value
        told = _U32.pack(number)
        if number in NO_PARAMETER:
            return told + _U32.pack(NULL) if self.dialect < 2 else told
        if self.dialect > 1:
            told += self.byte(parameter is not None)
        fields = zip(PARAMETER_FIELDS.get(number, "b"), parameter or (), strict=False)
        return told + b"".join([_PARAMETER_WRITERS[field](self, part) for field, part in fields])


_PARAMETER_READERS: dict[str, Callable[[Reader], Any]] = {
    "u": Reader.ulong,
    "y": Reader.byte,
    "b": Reader.octets,
}
_PARAMETER_WRITERS: dict[str, Callable[[Writer, Any], bytes]] = {
    "u": Writer.ulong,
    "y": Writer.byte,
    "b": Writer.octets,
}
