"""The custody channel: what one vault asks of the root of trust, over a connection bound to its partition.

A transport that keeps messages (SOCK_SEQPACKET); a message is at most 32 KiB. A request is `u32 operation` and
its fields; a reply is `u32 status` and, where that is 0, its fields. All integers are little-endian. The
partition is not in the messages: the channel was bound to it when it was attached.
"""

import enum
from typing import Annotated, Any, ClassVar, TypeVar

from endocarp.errors import DecodeError, DeviceError
from endocarp.wire.codec import U32, Bytes, Octets, Struct, secret, u32
from endocarp.wire.requests import TypedRequest

MESSAGE_LIMIT = 32 * 1024
"""The largest message, in octets."""


class Operation(enum.IntEnum):
    """What a vault may ask."""

    SEAL_KEY = 1
    CERTIFY_IDENTITY = 2


class Status(enum.IntEnum):
    """How a request ended."""

    SUCCESS = 0
    MALFORMED = 1
    UNKNOWN_OPERATION = 2
    KEY_INVALID = 3
    SHUT_DOWN = 4


Reply = TypeVar("Reply", bound=Struct)

REQUESTS: "dict[int, type[Request[Any]]]" = {}
"""Every request class by its operation."""


class Request(TypedRequest[Reply]):
    """Base of the requests: the fields after the operation. A class names its reply and its operation."""

    OPERATION: ClassVar[Operation]

    def __init_subclass__(cls, *, operation: Operation) -> None:
        super().__init_subclass__()
        cls.OPERATION = operation
        REQUESTS[operation] = cls


class SealKeyReply(Struct):
    """The key that seals the store of this partition; the receiver keeps it as a Secret and forgets the message."""

    key: Annotated[bytes, Octets(32)] = secret()


class SealKey(Request[SealKeyReply], operation=Operation.SEAL_KEY):
    """Ask for the seal key: the same at every boot of this device, whatever firmware runs."""


class CertifyIdentityReply(Struct):
    """Certificates of both identity keys by the RT alias, DER.

    `rt_alias_key_id` is the key id of the P-384 RT alias key; `image_digest` is the SHA-384 of the vault's image
    as it was authorized.
    """

    rt_alias_key_id: Annotated[bytes, Octets(20)]
    image_digest: Annotated[bytes, Octets(48)]
    ecc_certificate: Annotated[bytes, Bytes(u32, limit=4096)]
    mldsa_certificate: Annotated[bytes, Bytes(u32, limit=12288)]


class CertifyIdentity(Request[CertifyIdentityReply], operation=Operation.CERTIFY_IDENTITY):
    """Ask for certificates of the partition's identity keys.

    `ecc_public` is an uncompressed P-384 point, `mldsa_public` an ML-DSA-87 key as FIPS 204 encodes it.
    """

    ecc_public: Annotated[bytes, Octets(97)]
    mldsa_public: Annotated[bytes, Octets(2592)]


class Head(Struct):
    """The operation of a request, or the status of a reply."""

    number: U32


def encode_request(request: Request[Any]) -> bytes:
    """Return the message of a request."""
    return Head(request.OPERATION).encode() + request.encode()


def split_request(message: bytes) -> tuple[int, bytes]:
    """Return the operation of a request and the octets of its fields."""
    head, end = Head.decode_from(message)
    return head.number, message[end:]


def encode_reply(reply: Struct) -> bytes:
    """Return the message of a reply that succeeded."""
    return Head(Status.SUCCESS).encode() + reply.encode()


def encode_refusal(status: Status) -> bytes:
    """Return the message of a reply that failed."""
    return Head(status).encode()


def decode_reply(request: Request[Reply] | type[Request[Reply]], message: bytes) -> Reply:
    """Read a reply; DeviceError where the request was refused, DecodeError where the octets are wrong."""
    head, end = Head.decode_from(message)
    if head.number:
        known = head.number in Status.__members__.values()
        reason = Status(head.number).name if known else "unknown status"
        raise DeviceError(head.number, f"{request.OPERATION.name} was refused by the root of trust: {reason}")
    if len(message) > MESSAGE_LIMIT:
        raise DecodeError("custody", f"{len(message)} octets, at most {MESSAGE_LIMIT}")
    return request.read_reply(message[end:])
