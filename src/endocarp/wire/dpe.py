"""DPE commands and responses for the profiles P384_SHA384 and MLDSA87, as INVOKE_DPE carries them.

A command is `CommandHeader` and the command's fields; a response is `ResponseHeader` and, where its status is 0,
the fields of the reply. All integers are little-endian. Source: TCG DPE iRoT profile with Caliptra's extensions,
version 0.13.
"""

import enum
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from endocarp.errors import DecodeError, DeviceError
from endocarp.wire import p384
from endocarp.wire.codec import U16, U32, Bytes, Const, Octets, Struct, u32
from endocarp.wire.requests import TypedRequest

COMMAND_MAGIC = 0x44504543
RESPONSE_MAGIC = 0x44504552

DEFAULT_HANDLE = bytes(16)
"""The handle of the default context of a locality; it never rotates."""

LABEL_SIZE = 48
MAX_CHUNK_SIZE = 2048
"""The largest piece that GetCertificateChain answers, in octets."""

MAX_CERT_SIZE = 22 * 1024
"""The largest certificate that CertifyKey answers, in octets."""


class Profile(enum.IntEnum):
    """What a DPE signs with; both measure with SHA-384."""

    P384_SHA384 = 4
    MLDSA87 = 5


class Status(enum.IntEnum):
    """Statuses of a response."""

    SUCCESS = 0
    INTERNAL_ERROR = 1
    INVALID_COMMAND = 2
    INVALID_ARGUMENT = 3
    INVALID_HANDLE = 0x80
    INVALID_LOCALITY = 0x81
    ARGUMENT_NOT_SUPPORTED = 0x83
    PLATFORM_INVALID_OFFSET = 0x01000001


class Code(enum.IntEnum):
    """Command codes."""

    GET_PROFILE = 1
    CERTIFY_KEY = 9
    SIGN = 0xA
    GET_CERTIFICATE_CHAIN = 0x10


class Format(enum.IntEnum):
    """What CertifyKey answers."""

    X509 = 0
    CSR = 1


class Support(enum.IntFlag):
    """What a DPE can do, in the reply to GetProfile."""

    AUTO_INIT = 1 << 29
    X509 = 1 << 26


class CommandHeader(Struct):
    """In front of each command."""

    magic: Annotated[int, Const(COMMAND_MAGIC, u32)]
    command: U32
    profile: U32


class ResponseHeader(Struct):
    """In front of each response."""

    magic: Annotated[int, Const(RESPONSE_MAGIC, u32)]
    status: U32
    profile: U32


Reply = TypeVar("Reply", bound=Struct)


class Request(TypedRequest[Reply]):
    """Base of the commands: the fields after the header. A class names its reply and its code."""

    CODE: ClassVar[Code]

    def __init_subclass__(cls, *, code: Code) -> None:
        super().__init_subclass__()
        cls.CODE = code


class GetProfileReply(Struct):
    """Version and abilities of a DPE; `flags` are `Support`."""

    major_version: U16
    minor_version: U16
    vendor_id: U32
    vendor_sku: U32
    max_tci_nodes: U32
    flags: U32


class GetProfile(Request[GetProfileReply], code=Code.GET_PROFILE):
    """Ask for version and abilities."""


class CertifyKeyP384Reply(Struct):
    """The public key and its certificate, DER; `context_handle` is the new handle."""

    context_handle: Annotated[bytes, Octets(16)]
    derived_pubkey_x: Annotated[bytes, Octets(48)]
    derived_pubkey_y: Annotated[bytes, Octets(48)]
    cert: Annotated[bytes, Bytes(u32, limit=MAX_CERT_SIZE)]

    @property
    def public_key(self) -> bytes:
        """The uncompressed point, 97 octets."""
        return p384.point(self.derived_pubkey_x, self.derived_pubkey_y)

    @classmethod
    def of(cls, handle: bytes, public_key: bytes, cert: bytes) -> Self:
        """Return the reply about an uncompressed point."""
        return cls(handle, *p384.coordinates(public_key), cert)


class CertifyKeyP384(Request[CertifyKeyP384Reply], code=Code.CERTIFY_KEY):
    """Derive the key of a context and label, and certify it; `format` is a `Format`."""

    context_handle: Annotated[bytes, Octets(16)]
    flags: U32
    format: U32
    label: Annotated[bytes, Octets(LABEL_SIZE)]


class CertifyKeyMldsa87Reply(Struct):
    """The public key and its certificate, DER; `context_handle` is the new handle."""

    context_handle: Annotated[bytes, Octets(16)]
    pubkey: Annotated[bytes, Octets(2592)]
    cert: Annotated[bytes, Bytes(u32, limit=MAX_CERT_SIZE)]

    @property
    def public_key(self) -> bytes:
        """The public key, 2,592 octets."""
        return self.pubkey


class CertifyKeyMldsa87(Request[CertifyKeyMldsa87Reply], code=Code.CERTIFY_KEY):
    """Derive the key of a context and label, and certify it; `format` is a `Format`."""

    context_handle: Annotated[bytes, Octets(16)]
    flags: U32
    format: U32
    label: Annotated[bytes, Octets(LABEL_SIZE)]


class SignP384Reply(Struct):
    """A signature; `new_context_handle` is the new handle."""

    new_context_handle: Annotated[bytes, Octets(16)]
    sig_r: Annotated[bytes, Octets(48)]
    sig_s: Annotated[bytes, Octets(48)]

    @property
    def signature(self) -> bytes:
        """r‖s, 96 octets."""
        return self.sig_r + self.sig_s

    @classmethod
    def of(cls, handle: bytes, signature: bytes) -> Self:
        """Return the reply with r‖s."""
        return cls(handle, *p384.halves(signature))


class SignP384(Request[SignP384Reply], code=Code.SIGN):
    """Sign a SHA-384 digest with the key of a context and label."""

    context_handle: Annotated[bytes, Octets(16)]
    label: Annotated[bytes, Octets(LABEL_SIZE)]
    flags: U32
    digest: Annotated[bytes, Octets(48)]


class SignMldsa87Reply(Struct):
    """A signature, 4,627 octets and one zero; `new_context_handle` is the new handle."""

    new_context_handle: Annotated[bytes, Octets(16)]
    padded_signature: Annotated[bytes, Octets(4628)]

    @property
    def signature(self) -> bytes:
        """The signature, 4,627 octets."""
        return self.padded_signature[:4627]


class SignMldsa87(Request[SignMldsa87Reply], code=Code.SIGN):
    """Sign with the key of a context and label.

    `mu` is SHAKE256(SHAKE256(public key, 64) ‖ 00 00 ‖ message, 64). Bit 0 of `flags`, for a raw message in its
    place, is not taken here.
    """

    context_handle: Annotated[bytes, Octets(16)]
    label: Annotated[bytes, Octets(LABEL_SIZE)]
    flags: U32
    mu: Annotated[bytes, Octets(64)]


class GetCertificateChainReply(Struct):
    """A piece of the chain: the first `certificate_size` octets of the buffer."""

    certificate_size: U32
    buffer: Annotated[bytes, Octets(MAX_CHUNK_SIZE)]

    def check(self) -> None:
        """Refuse a size beyond the buffer."""
        if self.certificate_size > MAX_CHUNK_SIZE:
            raise DecodeError(
                "GetCertificateChainReply.certificate_size",
                f"{self.certificate_size} octets, at most {MAX_CHUNK_SIZE}",
            )

    @classmethod
    def of(cls, piece: bytes) -> Self:
        """Return the reply with a piece of at most 2,048 octets."""
        return cls(len(piece), piece.ljust(MAX_CHUNK_SIZE, b"\0"))

    @property
    def piece(self) -> bytes:
        """The octets of the chain."""
        return self.buffer[: self.certificate_size]


class TciNodeData(Struct):
    """What one context adds to the measurement hash, 108 octets."""

    tci_type: U32
    tci_cumulative: Annotated[bytes, Octets(48)]
    tci_current: Annotated[bytes, Octets(48)]
    locality: U32
    svn: U32


class GetCertificateChain(Request[GetCertificateChainReply], code=Code.GET_CERTIFICATE_CHAIN):
    """Ask for a piece of the certificate chain: DER certificates one after another, the root's child first."""

    offset: U32
    size: U32


COMMANDS: dict[Profile, dict[int, type[Request[Any]]]] = {
    Profile.P384_SHA384: {
        Code.GET_PROFILE: GetProfile,
        Code.CERTIFY_KEY: CertifyKeyP384,
        Code.SIGN: SignP384,
        Code.GET_CERTIFICATE_CHAIN: GetCertificateChain,
    },
    Profile.MLDSA87: {
        Code.GET_PROFILE: GetProfile,
        Code.CERTIFY_KEY: CertifyKeyMldsa87,
        Code.SIGN: SignMldsa87,
        Code.GET_CERTIFICATE_CHAIN: GetCertificateChain,
    },
}
"""The commands of each profile."""


def encode_command(profile: Profile, request: Request[Any]) -> bytes:
    """Return a command with its header, ready for INVOKE_DPE."""
    return CommandHeader(COMMAND_MAGIC, request.CODE, profile).encode() + request.encode()


@dataclass(frozen=True)
class RawCommand:
    """A command whose fields are not read yet."""

    code: int
    profile: int
    body: bytes


def split_command(octets: bytes) -> RawCommand:
    """Read the header of a command; DecodeError where it is short or has another magic."""
    header, end = CommandHeader.decode_from(octets)
    return RawCommand(header.command, header.profile, octets[end:])


def asks_for_x509(profile: Profile, octets: bytes) -> bool:
    """Tell whether a command asks for an X.509 certificate; DecodeError as `split_command`."""
    command = split_command(octets)
    if command.code != Code.CERTIFY_KEY:
        return False
    try:
        request = cast(
            "CertifyKeyP384 | CertifyKeyMldsa87", COMMANDS[profile][Code.CERTIFY_KEY].decode(command.body)
        )
    except DecodeError:
        return False
    return request.format == Format.X509


def encode_response(profile: int, status: int, reply: Struct | None = None) -> bytes:
    """Return a response; a reply stands in it only where the status is 0."""
    header = ResponseHeader(RESPONSE_MAGIC, status, profile).encode()
    return header if reply is None else header + reply.encode()


def decode_response(request: Request[Reply] | type[Request[Reply]], octets: bytes) -> Reply:
    """Read a response; DeviceError with the status where it is not 0."""
    header, end = ResponseHeader.decode_from(octets)
    if header.status:
        raise DeviceError(header.status, f"{request.CODE.name} was refused by the DPE")
    return request.read_reply(octets[end:])
