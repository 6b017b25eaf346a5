"""What stands in the store of a partition, one record a change.

Private and secret keys stand here sealed once more (`endocarp.hsm.keys`), so that the records that a running vault
keeps and writes never hold one in the clear.
"""

import enum
from typing import Annotated

from endocarp.errors import DecodeError, Refused
from endocarp.wire.codec import (
    U8,
    U64,
    Bytes,
    Items,
    Nested,
    Octets,
    OneOf,
    Struct,
    measured,
    secret,
    u8,
    u16,
)
from endocarp.wire.hsm import Description

SEALED_LIMIT = 4096


class Kind(enum.IntEnum):
    """What a record says."""

    BIRTH = 1
    PIN = 2
    FAILURES = 3
    PUT = 4
    REMOVE = 5


class Birth(Struct):
    """The partition was made, with these two identity keys, sealed."""

    ecc: Annotated[bytes, Bytes(u16, limit=SEALED_LIMIT)]
    mldsa: Annotated[bytes, Bytes(u16, limit=SEALED_LIMIT)]


class Pin(Struct):
    """The PIN was set: scrypt of it, and how often it was wrong since it was last right."""

    salt: Annotated[bytes, Octets(16)] = secret()
    digest: Annotated[bytes, Octets(32)] = secret()
    failures: U8 = 0


class Failures(Struct):
    """The PIN is about to be compared, or was right: how often it has been wrong by now."""

    failures: U8


class StoredObject(Struct):
    """An object, and its sealed key where it is a private or secret one."""

    description: Annotated[Description, Nested(Description)]
    sealed: Annotated[bytes, Bytes(u16, limit=SEALED_LIMIT)] = b""


class Put(Struct):
    """These objects were made, or took the place of what had their handles."""

    generation: U64
    next_handle: U64
    objects: Annotated[tuple[StoredObject, ...], Items(StoredObject, u16)]


class Remove(Struct):
    """The object with this handle was destroyed."""

    generation: U64
    handle: U64


Body = Birth | Pin | Failures | Put | Remove


class Record(Struct):
    """One record."""

    kind: Annotated[Kind, u8] = measured()
    body: Annotated[
        Body,
        OneOf(
            "kind",
            {
                Kind.BIRTH: Birth,
                Kind.PIN: Pin,
                Kind.FAILURES: Failures,
                Kind.PUT: Put,
                Kind.REMOVE: Remove,
            },
        ),
    ] = Failures(0)


def encode(body: Body) -> bytes:
    """Return the octets of a record."""
    return Record(body=body).encode()


def decode(octets: bytes) -> Body:
    """Read what `encode` gave; Refused where another version of this program wrote something else."""
    try:
        return Record.decode(octets).body
    except DecodeError as error:
        hint = "start the version of this program that wrote it"
        raise Refused("store-content", f"a record of the store cannot be read: {error}", hint) from None
