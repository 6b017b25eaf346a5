"""The native protocol between an application, or the front, and a vault.

One message is one packet of a Unix SEQPACKET socket, at most 64 KiB, all integers little-endian. A connection
begins with `Hello`, answered by `Welcome`. From then on each request is answered by one reply with its tag:

    request   u16 operation | u16 zero | u32 tag | body, a `Request` of the operation
    reply     u32 status | u32 tag | u64 generation | body, the request's `REPLY`; UTF-8 text where status is not OK

`generation` counts the changes to the token objects of the partition: while it stays the same, so do they.
No message carries a private or secret key.
"""

import enum
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar

from endocarp.errors import DecodeError
from endocarp.wire.codec import (
    NO_CONTEXT,
    U8,
    U16,
    U32,
    U64,
    Bytes,
    Const,
    Context,
    Items,
    Nested,
    Octets,
    Struct,
    Text,
    secret,
    u8,
    u16,
    u32,
)
from endocarp.wire.codec import Data as Buffer
from endocarp.wire.requests import TypedRequest
from endocarp.wire.suites import GCM_TAG_SIZE, SIGNATURE_SIZE, Cipher, Scheme, Suite

MAGIC = int.from_bytes(b"ENDO", "little")
VERSION = 1
MESSAGE_LIMIT = 1 << 16
"""No message is longer, in octets, its header included."""
DATA_LIMIT = 60 * 1024
"""The most data that one operation signs, verifies, encrypts, decrypts or draws, in octets."""
REASON_LIMIT = 200
LABEL_LIMIT = 255
ID_LIMIT = 255
ATTRIBUTE_LIMIT = 4096
"""The longest value of one application attribute, in octets."""
ATTRIBUTE_COUNT = 64
ATTRIBUTES_LIMIT = 16 * 1024
"""The most octets that the values of all application attributes of one object take together."""
ASSOCIATED_LIMIT = 2048
"""The most data that AES-GCM authenticates beside the data that it encrypts, in octets."""
PIN_LIMIT = 64
SHORTEST_PIN = 6
"""The least size of a PIN that its owner chooses, in octets; the greatest is PIN_LIMIT."""
PIN_ATTEMPTS = 10
"""So many wrong PINs lock the partition."""
NONCE_SIZE = 32
SESSION_HANDLE = 1 << 63
"""Set in the handle of every object that lives only as long as its connection."""


class Operation(enum.IntEnum):
    """What a request asks for."""

    PING = 1
    INFO = 2
    LOGIN = 3
    LOGOUT = 4
    SET_PIN = 5
    GENERATE = 6
    FIND = 7
    GET_OBJECT = 8
    SET_ATTRIBUTES = 9
    DESTROY = 10
    SIGN = 11
    VERIFY = 12
    ENCRYPT = 13
    DECRYPT = 14
    RANDOM = 15
    REPORT = 16
    DISCARD = 17


class Status(enum.IntEnum):
    """How an operation ended."""

    OK = 0
    MESSAGE_INVALID = 1
    """The body does not have the form of its operation."""
    VERSION_UNSUPPORTED = 2
    OPERATION_UNKNOWN = 3
    NOT_LOGGED_IN = 4
    ALREADY_LOGGED_IN = 5
    PIN_INCORRECT = 6
    PIN_LOCKED = 7
    """Too many wrong PINs: this one no longer opens anything."""
    PIN_INVALID = 8
    """The new PIN is too short, too long or not text."""
    NO_SUCH_OBJECT = 9
    NOT_PERMITTED = 10
    """The object's policy does not allow this."""
    MECHANISM_INVALID = 11
    """The suite of the key has no such scheme or cipher."""
    TEMPLATE_INVALID = 12
    """The description asks for an object that may not exist."""
    DATA_INVALID = 13
    """The data has a size or form that the mechanism does not take."""
    SIGNATURE_INVALID = 14
    CIPHERTEXT_INVALID = 15
    STORE_FULL = 16
    """There is no room for another object; nothing has changed."""
    STORE_FAILED = 17
    """The store could not be written; nothing has changed.

    Only where the disk also failed to take back what it had written may the change be found at the next start.
    """
    FAILED = 18
    """The vault could not do it for a reason of its own; nothing has changed."""


class ObjectClass(enum.IntEnum):
    """What an object is; the numbers are those of PKCS#11."""

    PUBLIC_KEY = 2
    PRIVATE_KEY = 3
    SECRET_KEY = 4


class Policy(enum.IntFlag, boundary=enum.STRICT):
    """What an object is allowed to do and to become; the names are those of PKCS#11's attributes."""

    TOKEN = 1 << 0
    """Kept in the store; else it lives as long as its connection."""
    PRIVATE = 1 << 1
    """Neither seen nor used without login."""
    SENSITIVE = 1 << 2
    EXTRACTABLE = 1 << 3
    MODIFIABLE = 1 << 4
    DESTROYABLE = 1 << 5
    SIGN = 1 << 6
    VERIFY = 1 << 7
    ENCRYPT = 1 << 8
    DECRYPT = 1 << 9
    WRAP = 1 << 10
    UNWRAP = 1 << 11
    DERIVE = 1 << 12
    LOCAL = 1 << 16
    """Made in this vault; this and what follows is set by the vault alone."""
    ALWAYS_SENSITIVE = 1 << 17
    NEVER_EXTRACTABLE = 1 << 18


# --- the beginning of a connection ----------------------------------------------------------------------------


class Hello(Struct):
    """What a client says first; the front reads it and passes it on with the connection."""

    magic: Annotated[int, Const(MAGIC, u32)]
    version: U16


class Welcome(Struct):
    """The vault's answer to Hello; after a status other than OK it closes the connection."""

    status: Annotated[Status, u32]
    version: U16
    """The version of this protocol that the vault speaks."""
    partition: U32
    generation: U64


# --- objects --------------------------------------------------------------------------------------------------


class Attribute(Struct):
    """An attribute that means something to applications only; the vault keeps it and asks nothing."""

    type: U64
    value: Annotated[bytes, Bytes(u16, limit=ATTRIBUTE_LIMIT)]


class Template(Struct):
    """The part of an object that its owner decides."""

    policy: Annotated[Policy, u32]
    label: Annotated[str, Text(u16, limit=LABEL_LIMIT)] = ""
    id: Annotated[bytes, Bytes(u16, limit=ID_LIMIT)] = b""
    attributes: Annotated[tuple[Attribute, ...], Items(Attribute, u16, limit=ATTRIBUTE_COUNT)] = ()

    def check(self) -> None:
        """Hold the limit on all attribute values together, so that any description fits one message."""
        size = sum(len(attribute.value) for attribute in self.attributes)
        if size > ATTRIBUTES_LIMIT:
            raise DecodeError("Template.attributes", f"{size} octets, at most {ATTRIBUTES_LIMIT}")


class Description(Struct):
    """An object as everybody who may see it sees it."""

    handle: U64
    object_class: Annotated[ObjectClass, u8]
    suite: Annotated[Suite, u8]
    template: Annotated[Template, Nested(Template)]
    public: Annotated[bytes, Bytes(u16, limit=4096)]
    """The public key, also of a private key: EC 04‖X‖Y, RSA DER RSAPublicKey, ML-DSA FIPS 204; else empty."""


# --- requests and their replies -------------------------------------------------------------------------------

Answer = TypeVar("Answer", bound=Struct)
Asked = TypeVar("Asked", bound="Request[Any]")


class Request(TypedRequest[Answer]):
    """The body of a request; `Request[X]` is answered by X."""

    OPERATION: ClassVar[Operation]

    def __init_subclass__(cls, *, operation: Operation) -> None:
        super().__init_subclass__()
        cls.OPERATION = operation


class Nothing(Struct):
    """An answer that says no more than its status."""


class Ping(Request[Nothing], operation=Operation.PING):
    """Ask whether somebody is there."""


class InfoReply(Struct):
    """The partition as this connection sees it."""

    partition: U32
    logged_in: Annotated[bool, u8]
    pin_attempts: U8
    """How many wrong PINs from now lock the partition; 0 where it is locked."""
    objects: U32
    """Token objects, those that this connection may not see included."""


class Info(Request[InfoReply], operation=Operation.INFO):
    """Ask for the state of the partition and of this connection."""


class Login(Request[Nothing], operation=Operation.LOGIN):
    """Log this connection in. A wrong PIN is counted, delayed from the fourth, locked at the tenth."""

    pin: Annotated[bytes, Bytes(u16, limit=PIN_LIMIT)] = secret()


class Logout(Request[Nothing], operation=Operation.LOGOUT):
    """Log this connection out; its private session objects are gone."""


class SetPin(Request[Nothing], operation=Operation.SET_PIN):
    """Change the PIN; a wrong old one counts as a wrong login."""

    old: Annotated[bytes, Bytes(u16, limit=PIN_LIMIT)] = secret()
    new: Annotated[bytes, Bytes(u16, limit=PIN_LIMIT)] = secret()


class Objects(Struct):
    """Some objects, and where the next page begins."""

    after: U64
    """Give this to Find for the next page; 0 where there is none."""
    objects: Annotated[tuple[Description, ...], Items(Description, u16)]


class Generate(Request[Objects], operation=Operation.GENERATE):
    """Make a key, or a pair as one step; the answer is the private or secret key, then the public key."""

    suite: Annotated[Suite, u8]
    key: Annotated[Template, Nested(Template)]
    """For the private key of a pair, or for the secret key."""
    public: Annotated[Template, Nested(Template)] = Template(Policy(0))
    """For the public key of a pair; ignored where the suite has none."""


class Find(Request[Objects], operation=Operation.FIND):
    """Ask for the objects that this connection may see, by handle, as many as one message holds."""

    after: U64 = 0
    """Only objects with a greater handle."""
    label: Annotated[str, Text(u16, limit=LABEL_LIMIT)] = ""
    """Only objects with this label; empty for all."""
    id: Annotated[bytes, Bytes(u16, limit=ID_LIMIT)] = b""
    """Only objects with this id; empty for all."""


class GetObject(Request[Description], operation=Operation.GET_OBJECT):
    """Ask for one object."""

    handle: U64


class SetAttributes(Request[Description], operation=Operation.SET_ATTRIBUTES):
    """Put another template in place of an object's; policy may only become stricter."""

    handle: U64
    template: Annotated[Template, Nested(Template)]


class Destroy(Request[Nothing], operation=Operation.DESTROY):
    """Destroy one object; the other half of a pair stays."""

    handle: U64


class Discard(Request[Nothing], operation=Operation.DISCARD):
    """Discard a session object of this connection, whatever its policy, as the end of the connection would."""

    handle: U64


class Data(Struct):
    """What came out: a signature, a plaintext or random octets."""

    data: Annotated[bytes, Bytes(None, limit=MESSAGE_LIMIT)]


_SIGN = struct.Struct("<QH")
_SCHEMES: Mapping[int, Scheme] = {scheme.value: scheme for scheme in Scheme}


class Sign(Request[Data], operation=Operation.SIGN):
    """Sign `data` with a private key."""

    handle: U64
    scheme: Annotated[Scheme, u16]
    data: Annotated[bytes, Bytes(None, limit=DATA_LIMIT)]

    @classmethod
    def decode_from(cls, data: Buffer, at: int = 0, context: Context = NO_CONTEXT) -> tuple[Self, int]:
        """Read it in one step, since every signature passes here; what is not well formed the codec reads, and says why."""
        if 0 <= len(data) - at - _SIGN.size <= DATA_LIMIT:
            handle, number = _SIGN.unpack_from(data, at)
            scheme = _SCHEMES.get(number)
            if scheme is not None:
                self = object.__new__(cls)
                self.__dict__.update(handle=handle, scheme=scheme, data=bytes(data[at + _SIGN.size :]))
                return self, len(data)
        return super().decode_from(data, at, context)


class Verify(Request[Nothing], operation=Operation.VERIFY):
    """Check a signature with a public key; a wrong one is answered with SIGNATURE_INVALID."""

    handle: U64
    scheme: Annotated[Scheme, u16]
    signature: Annotated[bytes, Bytes(u16, limit=max(SIGNATURE_SIZE.values()))]
    data: Annotated[bytes, Bytes(None, limit=DATA_LIMIT)]


class Sealed(Struct):
    """A ciphertext, and the nonce that it was made with; AES-GCM's tag stands behind the ciphertext."""

    nonce: Annotated[bytes, Bytes(u8, limit=16)]
    data: Annotated[bytes, Bytes(None, limit=MESSAGE_LIMIT)]


class Encrypt(Request[Sealed], operation=Operation.ENCRYPT):
    """Encrypt `data` with a public or secret key."""

    handle: U64
    cipher: Annotated[Cipher, u16]
    nonce: Annotated[bytes, Bytes(u8, limit=16)]
    """For AES-GCM; empty, and the vault draws one."""
    associated: Annotated[bytes, Bytes(u16, limit=ASSOCIATED_LIMIT)]
    """For AES-GCM: data that is authenticated and not encrypted."""
    data: Annotated[bytes, Bytes(None, limit=DATA_LIMIT)]


class Decrypt(Request[Data], operation=Operation.DECRYPT):
    """Decrypt `data` with a private or secret key."""

    handle: U64
    cipher: Annotated[Cipher, u16]
    nonce: Annotated[bytes, Bytes(u8, limit=16)]
    associated: Annotated[bytes, Bytes(u16, limit=ASSOCIATED_LIMIT)]
    data: Annotated[bytes, Bytes(None, limit=DATA_LIMIT + GCM_TAG_SIZE)]


class Random(Request[Data], operation=Operation.RANDOM):
    """Draw random octets, at most DATA_LIMIT."""

    size: U32


class Report(Request[Data], operation=Operation.REPORT):
    """Ask for the partition's report over a nonce; the answer is a `wire.evidence.PartitionEvidence`."""

    nonce: Annotated[bytes, Octets(NONCE_SIZE)]


REQUESTS: Mapping[Operation, type[Request[Any]]] = MappingProxyType(
    {request.OPERATION: request for request in Request.__subclasses__()}
)
"""The request of each operation."""

# --- messages -------------------------------------------------------------------------------------------------

_REQUEST = struct.Struct("<HHI")
_REPLY = struct.Struct("<IIQ")
_STATUSES: Mapping[int, Status] = {status.value: status for status in Status}


def encode_request(request: Request[Any], tag: int = 0) -> bytes:
    """Return the message that asks for `request`; its reply will carry `tag`, 32 bits of the caller's choice."""
    return encode_message(request.OPERATION, tag, request.encode())


def encode_message(operation: Operation, tag: int, body: bytes) -> bytes:
    """Return the message of a request whose body was encoded before."""
    return _REQUEST.pack(operation, 0, tag) + body


def decode_header(message: bytes) -> tuple[int, int]:
    """Return the operation's number, known or not, and the tag of a request; DecodeError where it is none."""
    try:
        operation, zero, tag = _REQUEST.unpack_from(message)
    except struct.error:
        raise DecodeError("Request", "cut short") from None
    if zero:
        raise DecodeError("Request", f"{zero:#x} where zero stands")
    return operation, tag


def read_body(kind: type[Asked], message: bytes) -> Asked:
    """Return the body of a request of this kind."""
    request, end = kind.decode_from(message, _REQUEST.size)
    if end != len(message):
        raise DecodeError(kind.__name__, f"{len(message) - end} octets left over")
    return request


class Reply(NamedTuple):
    """A reply; on the path of every signature, and no Struct because this takes a third of the time."""

    status: Status
    tag: int
    generation: int
    body: bytes
    """The encoded REPLY of the request, or a reason as text that holds no secret."""

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Read a message; DecodeError where it is cut short or its status is unknown."""
        try:
            number, tag, generation = _REPLY.unpack_from(message)
        except struct.error:
            raise DecodeError("Reply", "cut short") from None
        status = _STATUSES.get(number)
        if status is None:
            raise DecodeError("Reply.status", f"unknown value {number:#x}")
        return cls(status, tag, generation, message[_REPLY.size :])

    @property
    def reason(self) -> str:
        """What the vault says about a status other than OK."""
        return self.body[:REASON_LIMIT].decode(errors="replace")


def encode_reply(status: Status, tag: int, generation: int, body: bytes) -> bytes:
    """Return the message of a reply; where the status is not OK, the body is a reason of at most REASON_LIMIT."""
    return _REPLY.pack(status, tag, generation) + body
