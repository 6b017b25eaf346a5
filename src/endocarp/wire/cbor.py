"""Strict deterministic CBOR (RFC 8949, 4.2) over cbor2: one value has one form, and every other form is refused.

The library is lenient on purpose: left-over octets, long forms of integers, unsorted keys and dates, fractions or
regular expressions behind tags all pass. Here a value is encoded again and must give the octets that came in, and no
tag is understood but those the caller names. The readers at the end check the type and the limits of one value.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import cbor2

from endocarp.errors import DecodeError

DEPTH = 8
"""How deep containers and tags may be nested in any of our formats."""

# The tags that cbor2 turns into objects of other types: each would be work, or a surprise, at a stranger's command.
_INTERPRETED = (
    0,
    1,
    2,
    3,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)


def _refuse(value: object, immutable: object) -> NoReturn:
    raise ValueError("this tag is not allowed here")


_REFUSE_ALL = dict.fromkeys(_INTERPRETED, _refuse)


def encode(value: object) -> bytes:
    """Return the one deterministic form of `value`; ValueError where the library does not write it."""
    _check_orders(value)
    return cbor2.dumps(value, canonical=True)


def _check_orders(value: object) -> None:
    """Refuse a map whose keys the library would put into the order of RFC 7049, where that is another one.

    The two orders are one as long as no key that begins with a smaller octet is longer: so with texts alone, with
    integers of one sign, and with both signs where no negative one is shorter than a positive one.
    """
    if isinstance(value, cbor2.CBORTag):
        _check_orders(value.value)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_orders(each)
    elif isinstance(value, Mapping):
        keys = sorted(cbor2.dumps(key, canonical=True) for key in value)
        if keys != sorted(keys, key=len):
            raise ValueError("keys that RFC 7049 and RFC 8949 put into different orders")
        for each in value.values():
            _check_orders(each)


def decode(where: str, octets: bytes, *, limit: int, tag: int | None = None) -> Any:
    """Return the value that fills `octets` completely, at most `limit` of them.

    `tag` is the only tag that may occur, at any place: as `cbor2.CBORTag`. Raises DecodeError named `where` for
    anything that is not well-formed, not deterministic, tagged otherwise or nested deeper than DEPTH.
    """
    if len(octets) > limit:
        raise DecodeError(where, f"{len(octets)} octets, at most {limit}")

    def hook(found: cbor2.CBORTag, immutable: bool) -> cbor2.CBORTag:
        return found if found.tag == tag else _refuse(found, immutable)

    try:
        value = cbor2.loads(
            octets,
            tag_hook=hook,
            semantic_decoders=_REFUSE_ALL,
            max_depth=DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
        again = encode(value)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(where, f"no CBOR of ours: {error}") from None
    if again != octets:
        raise DecodeError(where, "not in deterministic form")
    return value


def octets(where: str, value: object, *, least: int, most: int) -> bytes:
    """Return `value` if it is a byte string of `least` to `most` octets."""
    if not isinstance(value, bytes):
        raise DecodeError(where, "no byte string")
    if not least <= len(value) <= most:
        raise DecodeError(where, f"{len(value)} octets, {least} to {most} allowed")
    return value


def text(where: str, value: object, *, limit: int) -> str:
    """Return `value` if it is a text of at most `limit` characters that a terminal can show as it is."""
    if not isinstance(value, str):
        raise DecodeError(where, "no text")
    if len(value) > limit or not value.isprintable():
        raise DecodeError(where, f"text longer than {limit} characters, or not printable")
    return value


def number(where: str, value: object, *, most: int, least: int = 0) -> int:
    """Return `value` if it is an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise DecodeError(where, "no integer")
    if not least <= value <= most:
        raise DecodeError(where, f"{value}, {least} to {most} allowed")
    return value


def items(where: str, value: object, *, most: int, least: int = 0) -> Sequence[Any]:
    """Return `value` if it is an array of `least` to `most` items."""
    if not isinstance(value, list | tuple):
        raise DecodeError(where, "no array")
    if not least <= len(value) <= most:
        raise DecodeError(where, f"{len(value)} items, {least} to {most} allowed")
    return value


def record(where: str, value: object, size: int) -> Sequence[Any]:
    """Return `value` if it is an array of exactly `size` items."""
    return items(where, value, least=size, most=size)


def mapping(where: str, value: object, *, most: int) -> Mapping[Any, Any]:
    """Return `value` if it is a map of at most `most` entries, whose keys are integers or texts."""
    if not isinstance(value, Mapping):
        raise DecodeError(where, "no map")
    # 1, 1.0, true and simple(1) are four keys on the wire, and one to a dictionary.
    if not all(type(key) in (int, str) for key in value):
        raise DecodeError(where, "a key that is neither integer nor text")
    if len(value) > most:
        raise DecodeError(where, f"{len(value)} entries, at most {most}")
    return value


def claims(where: str, value: object, keys: Sequence[int]) -> Mapping[int, Any]:
    """Return `value` if it is a map with exactly these keys."""
    found = mapping(where, value, most=len(keys))
    if set(found) != set(keys):
        raise DecodeError(where, "a claim is missing, or one is too many")
    return found
