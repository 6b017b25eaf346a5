"""DER (X.690): writers of single elements, and a strict reader with bounds.

A writer returns the whole element, tag and length included; elements are put together by concatenation:

    sequence(integer(1), octet_string(b"ab"), context(0, oid("1.2.840.113549.1.9.14"), constructed=True))

The reader walks over the same elements and refuses what DER refuses: lengths that are not the shortest, the
indefinite form, integers with needless octets, booleans other than 0 and 255. It is a view over the octets: it
copies only what the caller takes out. Every fault is a DecodeError whose `where` the caller chose.
"""

import re
from datetime import UTC, datetime
from typing import Self

from endocarp.errors import DecodeError, UsageError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTF8_STRING, PRINTABLE_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x13, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
CONTEXT, CONSTRUCTED = 0x80, 0x20

LIMIT = 1 << 20
"""The longest element that the reader takes, in octets."""

# X.680, 41.4: all that may stand in a PrintableString.
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*")


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return an element: tag, shortest length, and the parts one after another."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def sequence(*elements: bytes) -> bytes:
    """Return a SEQUENCE of elements."""
    return tlv(SEQUENCE, *elements)


def set_(*elements: bytes) -> bytes:
    """Return a SET OF elements, sorted as DER wants it (X.690, 11.6)."""
    return tlv(SET, *sorted(elements))


def integer(value: int) -> bytes:
    """Return an INTEGER of any size and sign."""
    # One bit more than the magnitude: the sign. For negative numbers ~value has the magnitude.
    bits = (value if value >= 0 else ~value).bit_length() + 1
    return tlv(INTEGER, value.to_bytes((bits + 7) // 8, "big", signed=True))


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER, given in dotted decimals."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tlv(OID, *(_base128(arc) for arc in (first * 40 + second, *rest)))


def _base128(arc: int) -> bytes:
    groups = [arc & 0x7F]
    while arc := arc >> 7:
        groups.append(arc & 0x7F | 0x80)
    return bytes(reversed(groups))


def octet_string(octets: bytes) -> bytes:
    """Return an OCTET STRING."""
    return tlv(OCTET_STRING, octets)


def bit_string(octets: bytes, unused: int = 0) -> bytes:
    """Return a BIT STRING whose last octet ends in `unused` bits that do not count."""
    return tlv(BIT_STRING, bytes((unused,)), octets)


def utf8(text: str) -> bytes:
    """Return a UTF8String."""
    return tlv(UTF8_STRING, text.encode())


def printable(text: str) -> bytes:
    """Return a PrintableString; UsageError where a character is not one of its own."""
    if not _PRINTABLE.fullmatch(text):
        raise UsageError(f"{text!r} is no PrintableString", "give letters, digits, blanks and '()+,-./:=?")
    return tlv(PRINTABLE_STRING, text.encode("ascii"))


def generalized_time(text: str) -> bytes:
    """Return a GeneralizedTime, given as YYYYMMDDHHMMSSZ."""
    return tlv(GENERALIZED_TIME, text.encode("ascii"))


def boolean(*, value: bool) -> bytes:
    """Return a BOOLEAN."""
    return tlv(BOOLEAN, b"\xff" if value else b"\x00")


def null() -> bytes:
    """Return NULL."""
    return tlv(NULL)


def context(number: int, *parts: bytes, constructed: bool) -> bytes:
    """Return an element with the context-specific tag `number`, at most 30.

    An explicit tag is constructed, around one whole element; an implicit one has the form of what it replaces.
    """
    return tlv(context_tag(number, constructed=constructed), *parts)


def context_tag(number: int, *, constructed: bool) -> int:
    """Return the identifier octet of a context-specific tag, for the reader."""
    return CONTEXT | number | (CONSTRUCTED if constructed else 0)


class Reader:
    """Reads the elements of `data` one after another.

    `where` names the format in errors. The methods named after types return values and move on; `end` says that
    nothing may follow.
    """

    def __init__(self, data: bytes, where: str) -> None:
        if len(data) > LIMIT:
            raise DecodeError(where, f"{len(data)} octets, at most {LIMIT} are read")
        self._data = data
        self._at = 0
        self._where = where

    @classmethod
    def of_sequence(cls, data: bytes, where: str) -> Self:
        """Read data that is one SEQUENCE and nothing else; return a reader of its elements."""
        outer = cls(data, where)
        inside = outer.sequence()
        outer.end()
        return inside

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def error(self, reason: str) -> DecodeError:
        """Return the error to raise for a fault at this place."""
        return DecodeError(self._where, f"{reason} (at octet {self._at})")

    def peek(self) -> int:
        """Return the tag of the next element, or 0 where nothing is left."""
        return self._data[self._at] if self else 0

    def element(self, tag: int | None = None) -> bytes:
        """Take the next element whole, header included; with any tag, or this one."""
        start = self._at
        self.content(self.peek() if tag is None else tag)
        return self._data[start : self._at]

    def content(self, tag: int) -> bytes:
        """Take the next element, which must have this tag, and return what is inside."""
        data, at = self._data, self._at
        if len(data) - at < 2:
            raise self.error("cut short")
        if data[at] != tag:
            raise self.error(f"tag {data[at]:#04x} where {tag:#04x} is expected")
        if tag & 0x1F == 0x1F:
            raise self.error("a tag of several octets")
        size, at = self._length(at + 1)
        if size > len(data) - at:
            raise self.error(f"an element of {size} octets where {len(data) - at} are left")
        self._at = at + size
        return data[at : self._at]

    def enter(self, tag: int) -> Self:
        """Take the next element, which must have this tag, and return a reader of what is inside."""
        return type(self)(self.content(tag), self._where)

    def sequence(self) -> Self:
        """Take a SEQUENCE; return a reader of its elements."""
        return self.enter(SEQUENCE)

    def set_(self) -> Self:
        """Take a SET; return a reader of its elements."""
        return self.enter(SET)

    def end(self) -> None:
        """Raise DecodeError where something is left."""
        if self:
            raise self.error(f"{len(self._data) - self._at} octets left over")

    def integer(self) -> int:
        """Take an INTEGER."""
        octets = self.content(INTEGER)
        # X.690, 8.3.2: the first nine bits are neither all zero nor all one.
        if not octets or (len(octets) > 1 and (octets[0], octets[1] >> 7) in ((0x00, 0), (0xFF, 1))):
            raise self.error("an integer that is not in its shortest form")
        return int.from_bytes(octets, "big", signed=True)

    def oid(self) -> str:
        """Take an OBJECT IDENTIFIER; return it in dotted decimals."""
        octets = self.content(OID)
        if not octets or octets[-1] & 0x80:
            raise self.error("an object identifier that ends inside an arc")
        arcs, arc = [], 0
        for octet in octets:
            if arc == 0 and octet == 0x80:
                raise self.error("an object identifier with a needless octet")
            arc = arc << 7 | octet & 0x7F
            if arc >> 64:
                raise self.error("an object identifier with an arc beyond 64 bits")
            if not octet & 0x80:
                arcs.append(arc)
                arc = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))

    def octet_string(self) -> bytes:
        """Take an OCTET STRING."""
        return self.content(OCTET_STRING)

    def bit_string(self) -> bytes:
        """Take a BIT STRING of whole octets."""
        octets = self.content(BIT_STRING)
        if not octets or octets[0]:
            raise self.error("a bit string that is not made of whole octets")
        return octets[1:]

    def bits(self) -> tuple[int, ...]:
        """Take a BIT STRING of named bits; return the numbers of those that are set, bit 0 being the first."""
        octets = self.content(BIT_STRING)
        unused = octets[0] if octets else 8
        # X.690, 11.2.1 and 11.2.2: unused bits are zero and trailing zero bits of named bit lists are left out.
        if unused > 7 or (len(octets) == 1 and unused) or (len(octets) > 1 and not octets[-1] >> unused & 1):
            raise self.error("a list of named bits that is not in its shortest form")
        if len(octets) > 1 and octets[-1] & ((1 << unused) - 1):
            raise self.error("unused bits that are not zero")
        return tuple(
            8 * index + bit
            for index, octet in enumerate(octets[1:])
            for bit in range(8)
            if octet >> (7 - bit) & 1
        )

    def text(self) -> str:
        """Take a UTF8String or a PrintableString."""
        tag = self.peek()
        if tag not in (UTF8_STRING, PRINTABLE_STRING):
            raise self.error(f"tag {tag:#04x} where text is expected")
        try:
            text = self.content(tag).decode()
        except UnicodeDecodeError:
            raise self.error("text that is not in its encoding") from None
        if tag == PRINTABLE_STRING and not _PRINTABLE.fullmatch(text):
            raise self.error("a PrintableString with other characters than it may have")
        return text

    def time(self) -> str:
        """Take a UTCTime or GeneralizedTime of the form that RFC 5280, 4.1.2.5 wants; return YYYYMMDDHHMMSSZ."""
        tag = self.peek()
        if tag not in (UTC_TIME, GENERALIZED_TIME):
            raise self.error(f"tag {tag:#04x} where a time is expected")
        octets = self.content(tag)
        if tag == UTC_TIME:
            octets = (b"19" if octets[:1] >= b"5" else b"20") + octets
        # deviation: RFC 5280, 4.1.2.5 wants years before 2050 as UTCTime; Caliptra's certificates have none.
        if len(octets) != 15 or not octets[:14].isdigit() or octets[14:] != b"Z":
            raise self.error("a time that is not of the form YYYYMMDDHHMMSSZ")
        text = octets.decode("ascii")
        try:
            datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise self.error("a time that no calendar and no clock has") from None
        return text

    def boolean(self) -> bool:
        """Take a BOOLEAN."""
        octets = self.content(BOOLEAN)
        if octets not in (b"\x00", b"\xff"):
            raise self.error("a boolean that is neither 0 nor 255")
        return octets == b"\xff"

    def default_false(self) -> bool:
        """Take a BOOLEAN DEFAULT FALSE, which is there only where it is true."""
        if self.peek() != BOOLEAN:
            return False
        # X.690, 11.5: a value that is the default is left out.
        if not self.boolean():
            raise self.error("a default that is written down")
        return True

    def null(self) -> None:
        """Take a NULL."""
        if self.content(NULL):
            raise self.error("a null with content")

    def _length(self, at: int) -> tuple[int, int]:
        first = self._data[at]
        if first < 0x80:
            return first, at + 1
        octets = self._data[at + 1 : at + 1 + (first & 0x7F)]
        size = int.from_bytes(octets, "big")
        # X.690, 10.1: the definite form, in as few octets as possible.
        if not 0x80 < first < 0x84 or len(octets) != first & 0x7F or size < 0x80 or not octets[0]:
            raise self.error("a length that is not in its shortest form")
        return size, at + 1 + len(octets)
