"""The Caliptra mailbox: commands, their requests and replies, checksums, and the stream frames that carry them.

A request is a `Request[ReplyClass]`, so that `decode_reply(request, octets)` has the type of its reply. The
structs hold what follows the headers: the checksum of a request, the checksum and `fips_status` of a reply are
put on by `with_checksum` and `with_headers`. Offsets of the specification count those headers.

On our socket each message is a frame `u32 command, u32 length, data`, answered by `u32 status, u32 length,
data`: status 0, or the error number and no data. All integers are little-endian.

Source: caliptra-sw, api/src/mailbox.rs, api/src/checksum.rs and error/src/lib.rs.
"""

import enum
import functools
import struct
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from endocarp.errors import DecodeError, DeviceError, UsageError
from endocarp.wire import p384
from endocarp.wire.checks import Check, ManifestCheck
from endocarp.wire.codec import (
    U8,
    U32,
    Array,
    Bytes,
    Nested,
    Octets,
    Reserved,
    Struct,
    Words,
    u16,
    u32,
)
from endocarp.wire.requests import TypedRequest

FIRMWARE_LIMIT = 1024 * 1024
"""The largest firmware bundle that FIRMWARE_LOAD takes, in octets."""

PL0_CALLER = 1
"""The caller behind box's inherited connection; signed firmware headers name it as the one of level 0."""
PL1_CALLER = 2
"""Every caller of the mailbox socket."""

NONCE_SIZE = 32
PCR_COUNT = 32
PCR_SIZE = 48
"""Octets of a nonce; how many registers there are, and the octets of each: Caliptra.md, "PCR vault"."""


class Command(enum.IntEnum):
    """Command codes, named as in the specification; ATTACH_CUSTODY is our own."""

    FIRMWARE_LOAD = 0x46574C44
    FW_INFO = 0x494E464F
    CAPABILITIES = 0x43415053
    VERSION = 0x46505652
    SELF_TEST_START = 0x46504C54
    SELF_TEST_GET_RESULTS = 0x46504C67
    SHUTDOWN = 0x46505344
    GET_IDEV_ECC384_INFO = 0x49444549
    GET_IDEV_MLDSA87_INFO = 0x49444D49
    POPULATE_IDEV_ECC384_CERT = 0x49444550
    POPULATE_IDEV_MLDSA87_CERT = 0x49444D50
    GET_LDEV_ECC384_CERT = 0x4C444556
    GET_LDEV_MLDSA87_CERT = 0x4C444D43
    GET_FMC_ALIAS_ECC384_CERT = 0x43455246
    GET_FMC_ALIAS_MLDSA87_CERT = 0x434D4346
    GET_RT_ALIAS_ECC384_CERT = 0x43455252
    GET_RT_ALIAS_MLDSA87_CERT = 0x434D4352
    STASH_MEASUREMENT = 0x4D454153
    GET_PCR_LOG = 0x504C4F47
    QUOTE_PCRS_ECC384 = 0x50435251
    QUOTE_PCRS_MLDSA87 = 0x5043524D
    SET_AUTH_MANIFEST = 0x41544D4E
    AUTHORIZE_AND_STASH = 0x41545348
    INVOKE_DPE_ECC384 = 0x44504543
    INVOKE_DPE_MLDSA87 = 0x4450454D
    # deviation: Caliptra has no custody channel; box (PL0) attaches one for a vault that was authorized.
    ATTACH_CUSTODY = 0x45435553


class MailboxError(enum.IntEnum):
    """Error numbers that the mailbox answers, named as in the specification; the image verifier has its own."""

    FW_PROC_MAILBOX_INVALID_COMMAND = 0x01020004
    FW_PROC_MAILBOX_INVALID_CHECKSUM = 0x01020005
    FW_PROC_MAILBOX_INVALID_REQUEST_LENGTH = 0x01020006
    FW_PROC_MAILBOX_STASH_MEASUREMENT_MAX_LIMIT = 0x01020008
    FW_PROC_MAILBOX_RESERVED_PAUSER = 0x01020009
    FMC_HANDOFF_INVALID_PARAM = 0x000F0004
    ROM_GLOBAL_PCR_LOG_EXHAUSTED = 0x01050006
    RUNTIME_INTERNAL = 0x000E0001
    RUNTIME_UNIMPLEMENTED_COMMAND = 0x000E0002
    RUNTIME_INSUFFICIENT_MEMORY = 0x000E0003
    RUNTIME_INVALID_CHECKSUM = 0x000E0005
    RUNTIME_SHUTDOWN = 0x000E0008
    RUNTIME_MAILBOX_INVALID_PARAMS = 0x000E0009
    RUNTIME_SELF_TEST_IN_PROGRESS = 0x000E0011
    RUNTIME_SELF_TEST_NOT_STARTED = 0x000E0012
    RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL = 0x000E0016
    RUNTIME_IDEV_CERT_POPULATION_FAILED = 0x000E001C
    RUNTIME_DPE_COMMAND_DESERIALIZATION_FAILED = 0x000E0027
    RUNTIME_PL0_USED_DPE_CONTEXT_THRESHOLD_REACHED = 0x000E0037
    RUNTIME_AUTH_AND_STASH_UNSUPPORTED_IMAGE_SOURCE = 0x000E004E
    RUNTIME_CMD_RESERVED_PAUSER = 0x000E004F
    RUNTIME_IMAGE_METADATA_NOT_FOUND = 0x000E0061
    RUNTIME_STASH_MEASUREMENT_RESERVED_FW_ID = 0x000E00B0


class AuthResult(enum.IntEnum):
    """What AUTHORIZE_AND_STASH answers."""

    AUTHORIZED = 0xDEADC0DE
    AUTHORIZED_BY_OWNER = 0xC0DEDEAD
    NOT_IN_MANIFEST = 0x21523F21
    DIGEST_MISMATCH = 0x8BFB95CB


class ImageSource(enum.IntEnum):
    """Where AUTHORIZE_AND_STASH finds the image or its digest."""

    IN_REQUEST = 1
    LOAD_ADDRESS = 2
    STAGING_ADDRESS = 3


class StashFlags(enum.IntFlag):
    """Flags of AUTHORIZE_AND_STASH."""

    SKIP_STASH = 1


class Capability(enum.IntFlag):
    """What CAPABILITIES tells."""

    ROM_BASE = 1
    RT_BASE = 1 << 64


class PcrLogId(enum.IntEnum):
    """What an entry of the PCR log measures."""

    DEVICE_STATUS = 1
    VENDOR_PUB_KEY_INFO_HASH = 2
    OWNER_PUB_KEY_HASH = 3
    FMC_TCI = 4
    STASH = 5
    RT_TCI = 6
    FW_IMAGE_MANIFEST = 7


Reply = TypeVar("Reply", bound=Struct)

REQUESTS: dict[int, "type[Request[Any]]"] = {}
"""Every request class by its command code."""


class Request(TypedRequest[Reply]):
    """Base of the requests: the fields after the checksum. A class names its reply and its command.

    `LIMIT` is the largest body in octets. A body that ends in a buffer may be shorter, or padded with zeros up
    to the limit, as callers do that send the whole C structure.
    """

    COMMAND: ClassVar[Command]
    LIMIT: ClassVar[int]
    CHECKED: ClassVar[bool] = True
    """Whether request and reply have the mailbox headers; only FIRMWARE_LOAD has none."""

    def __init_subclass__(cls, *, command: Command, limit: int | None = None) -> None:
        super().__init_subclass__()
        cls.COMMAND = command
        cls.LIMIT = cls.SIZE if limit is None else limit  # type: ignore[assignment]
        REQUESTS[command] = cls


# --- replies that several commands share -----------------------------------------------------------------------


DATA_LIMIT = 25168
"""The most octets of a reply of variable length: that of INVOKE_DPE, caliptra-sw, api/src/mailbox.rs."""


class EmptyReply(Struct):
    """Nothing after the headers."""


class DataReply(Struct):
    """Octets of variable length: a certificate, a log, a DPE response."""

    data: Annotated[bytes, Bytes(u32, limit=DATA_LIMIT)]


class DpeResultReply(Struct):
    """The status of the DPE operation behind a command; 0 is success."""

    dpe_result: U32


# --- loading and information -----------------------------------------------------------------------------------


class FirmwareLoad(Request[EmptyReply], command=Command.FIRMWARE_LOAD, limit=FIRMWARE_LIMIT):
    """Load and start a firmware bundle; the raw bundle travels without headers."""

    CHECKED: ClassVar[bool] = False

    bundle: Annotated[bytes, Bytes(None, limit=FIRMWARE_LIMIT)]


class VersionReply(Struct):
    """`mode` is 0x46495053, "FIPS"; `fips_rev` is the hardware, ROM and firmware revision."""

    mode: U32
    fips_rev: Annotated[tuple[int, ...], Array(u32, 3)]
    name: Annotated[bytes, Octets(12)]

    @classmethod
    def of(cls, revisions: tuple[int, int, int]) -> Self:
        """Return the reply of a module with these revisions."""
        return cls(int.from_bytes(b"FIPS", "big"), revisions, b"Caliptra RTM")


class Version(Request[VersionReply], command=Command.VERSION):
    """Ask for name and revisions of the module."""


class CapabilitiesReply(Struct):
    """A big-endian set of 128 bits."""

    capabilities: Annotated[bytes, Octets(16)]


class Capabilities(Request[CapabilitiesReply], command=Command.CAPABILITIES):
    """Ask what ROM and runtime can do."""


class FwInfoReply(Struct):
    """What runs here: security versions, digests and key hashes in standard byte order after decoding."""

    pl0_pauser: U32
    fw_svn: U32
    min_fw_svn: U32
    cold_boot_fw_svn: U32
    attestation_disabled: U32
    rom_revision: Annotated[bytes, Octets(20)]
    fmc_revision: Annotated[bytes, Octets(20)]
    runtime_revision: Annotated[bytes, Octets(20)]
    rom_sha256_digest: Annotated[bytes, Words(32)]
    fmc_sha384_digest: Annotated[bytes, Words(48)]
    runtime_sha384_digest: Annotated[bytes, Words(48)]
    owner_pub_key_hash: Annotated[bytes, Words(48)]
    authman_sha384_digest: Annotated[bytes, Words(48)]
    most_recent_fw_error: U32
    vendor_pub_key_hash: Annotated[bytes, Words(48)]
    image_manifest_pqc_type: U32
    vendor_ecc384_pub_key_index: U32
    vendor_pqc_pub_key_index: U32
    soc_manifest_current_svn: U32
    soc_manifest_min_svn: U32
    owner_auth_manifest_current_svn: U32
    owner_auth_manifest_min_svn: U32


class FwInfo(Request[FwInfoReply], command=Command.FW_INFO):
    """Ask what runs here."""


class SelfTestStart(Request[EmptyReply], command=Command.SELF_TEST_START):
    """Run the known-answer tests again."""


class SelfTestGetResults(Request[EmptyReply], command=Command.SELF_TEST_GET_RESULTS):
    """Ask whether the tests that were started have passed."""


class Shutdown(Request[EmptyReply], command=Command.SHUTDOWN):
    """Wipe the key vault and refuse all later commands."""


# --- identity --------------------------------------------------------------------------------------------------


class GetIdevEcc384InfoReply(Struct):
    """The IDevID public key: coordinates of 48 octets, big-endian."""

    idev_pub_x: Annotated[bytes, Octets(48)]
    idev_pub_y: Annotated[bytes, Octets(48)]

    @classmethod
    def of(cls, point: bytes) -> Self:
        """Return the reply about an uncompressed point of 97 octets."""
        return cls(*p384.coordinates(point))


class GetIdevEcc384Info(Request[GetIdevEcc384InfoReply], command=Command.GET_IDEV_ECC384_INFO):
    """Ask for the IDevID public key, P-384."""


class GetIdevMldsa87InfoReply(Struct):
    """The IDevID public key as FIPS 204 encodes it."""

    idev_pub_key: Annotated[bytes, Octets(2592)]


class GetIdevMldsa87Info(Request[GetIdevMldsa87InfoReply], command=Command.GET_IDEV_MLDSA87_INFO):
    """Ask for the IDevID public key, ML-DSA-87."""


class PopulateIdevEcc384Cert(Request[EmptyReply], command=Command.POPULATE_IDEV_ECC384_CERT, limit=4 + 1024):
    """Hand in the IDevID certificate, which heads the DPE certificate chain (PL0)."""

    cert: Annotated[bytes, Bytes(u32, limit=1024)]


class PopulateIdevMldsa87Cert(
    Request[EmptyReply], command=Command.POPULATE_IDEV_MLDSA87_CERT, limit=4 + 8192
):
    """Hand in the IDevID certificate, which heads the DPE certificate chain (PL0)."""

    cert: Annotated[bytes, Bytes(u32, limit=8192)]


class GetLdevEcc384Cert(Request[DataReply], command=Command.GET_LDEV_ECC384_CERT):
    """Ask for the LDevID certificate, DER."""


class GetLdevMldsa87Cert(Request[DataReply], command=Command.GET_LDEV_MLDSA87_CERT):
    """Ask for the LDevID certificate, DER."""


class GetFmcAliasEcc384Cert(Request[DataReply], command=Command.GET_FMC_ALIAS_ECC384_CERT):
    """Ask for the FMC alias certificate, DER."""


class GetFmcAliasMldsa87Cert(Request[DataReply], command=Command.GET_FMC_ALIAS_MLDSA87_CERT):
    """Ask for the FMC alias certificate, DER."""


class GetRtAliasEcc384Cert(Request[DataReply], command=Command.GET_RT_ALIAS_ECC384_CERT):
    """Ask for the RT alias certificate, DER."""


class GetRtAliasMldsa87Cert(Request[DataReply], command=Command.GET_RT_ALIAS_MLDSA87_CERT):
    """Ask for the RT alias certificate, DER."""


# --- measurement -----------------------------------------------------------------------------------------------


class StashMeasurement(Request[DpeResultReply], command=Command.STASH_MEASUREMENT):
    """Extend PCR 31 with a measurement and derive a DPE context for it (PL0).

    `metadata` becomes the `tci_type` of the context.
    """

    metadata: U32
    measurement: Annotated[bytes, Octets(48)]
    context: Annotated[bytes, Octets(48)]
    svn: U32


class GetPcrLog(Request[DataReply], command=Command.GET_PCR_LOG):
    """Ask for the PCR log: entries of 56 octets, oldest first; see `decode_pcr_log`."""


PCR_LOG_LIMIT = 17
"""The most entries that the log holds: caliptra-sw, drivers/src/memory_layout.rs."""


class PcrLogEntry(Struct):
    """One extension of the PCRs in `pcr_mask` by the first octets of `data`; how many, its id tells."""

    id: Annotated[PcrLogId, u16]
    reserved: Annotated[None, Reserved(2)] = None
    pcr_mask: U32 = 0
    data: Annotated[bytes, Octets(48)] = bytes(48)


class FuseOwnerInfo(Struct):
    """The fuses that speak of the owner and of rollback, 11 octets."""

    owner_hash_in_fuses: U8
    anti_rollback_disable: U8
    ecc_revocation: U8
    lms_revocation: U32
    mldsa_revocation: U8
    fw_fuse_svn: U8
    soc_manifest_fuse_svn: U8
    soc_manifest_max_svn: U8


class FuseVendorInfo(Struct):
    """The fuses and the header fields that speak of the vendor, 6 octets (7 from ROM 2.1.3 on)."""

    pqc_key_type: U8
    lifecycle: U8
    debug_locked: U8
    cold_boot_svn: U8
    vendor_ecc_index: U8
    vendor_pqc_index: U8


class DeviceStatus(Struct):
    """What ROM 2.1.0 to 2.1.2 extends PCR 0 and 1 by first, 17 octets."""

    owner: Annotated[FuseOwnerInfo, Nested(FuseOwnerInfo)]
    vendor: Annotated[FuseVendorInfo, Nested(FuseVendorInfo)]


class QuotedPcrs(Struct):
    """What both quotes begin with: the registers, the caller's nonce, and counters that no signature covers."""

    pcrs: Annotated[bytes, Octets(PCR_COUNT * PCR_SIZE)]
    nonce: Annotated[bytes, Octets(NONCE_SIZE)]
    reset_ctrs: Annotated[tuple[int, ...], Array(u32, PCR_COUNT)]

    def pcr(self, index: int) -> bytes:
        """Return one PCR, 48 octets."""
        return self.pcrs[index * PCR_SIZE : (index + 1) * PCR_SIZE]


_NO_RESETS = (0,) * PCR_COUNT


class QuotePcrsEcc384Reply(QuotedPcrs):
    """PCRs and a signature over them by the FMC alias key.

    `digest` is the first 48 octets of SHA-512(pcrs ‖ nonce), and is what the signature is over.
    """

    digest: Annotated[bytes, Octets(48)]
    signature_r: Annotated[bytes, Octets(p384.NUMBER_SIZE)]
    signature_s: Annotated[bytes, Octets(p384.NUMBER_SIZE)]

    @classmethod
    def of(cls, pcrs: bytes, nonce: bytes, digest: bytes, signature: bytes) -> Self:
        """Return the reply with r‖s; nothing has been reset since boot."""
        return cls(pcrs, nonce, _NO_RESETS, digest, *p384.halves(signature))


class QuotePcrsEcc384(Request[QuotePcrsEcc384Reply], command=Command.QUOTE_PCRS_ECC384):
    """Ask for a quote over a nonce of the caller."""

    nonce: Annotated[bytes, Octets(NONCE_SIZE)]


class QuotePcrsMldsa87Reply(QuotedPcrs):
    """PCRs and a signature over them by the FMC alias key.

    `digest` is SHA-512(pcrs ‖ nonce); the signature is over its 64 octets in reverse order. `signature` is
    4,627 octets and one zero.
    """

    digest: Annotated[bytes, Octets(64)]
    signature: Annotated[bytes, Octets(4628)]

    @classmethod
    def of(cls, pcrs: bytes, nonce: bytes, digest: bytes, signature: bytes) -> Self:
        """Return the reply with a signature of 4,627 octets; nothing has been reset since boot."""
        return cls(pcrs, nonce, _NO_RESETS, digest, signature + b"\0")


class QuotePcrsMldsa87(Request[QuotePcrsMldsa87Reply], command=Command.QUOTE_PCRS_MLDSA87):
    """Ask for a quote over a nonce of the caller."""

    nonce: Annotated[bytes, Octets(NONCE_SIZE)]


# --- authorization ---------------------------------------------------------------------------------------------


class SetAuthManifest(Request[EmptyReply], command=Command.SET_AUTH_MANIFEST, limit=4 + 34816):
    """Hand in the SoC manifest, which lists the images that may run (PL0)."""

    manifest: Annotated[bytes, Bytes(u32, limit=34816)]


class AuthorizeAndStashReply(Struct):
    """The verdict, an `AuthResult`."""

    auth_req_result: U32


class AuthorizeAndStash(Request[AuthorizeAndStashReply], command=Command.AUTHORIZE_AND_STASH):
    """Ask whether an image may run, and stash its digest unless SKIP_STASH (from PL1 only with SKIP_STASH).

    With source LOAD_ADDRESS the image is the memory that travels beside the frame and `image_size` its size in
    octets; `measurement` is then not looked at.
    """

    fw_id: U32
    measurement: Annotated[bytes, Octets(48)]
    context: Annotated[bytes, Octets(48)]
    svn: U32
    flags: U32
    source: U32
    image_size: U32


class AttachCustody(Request[EmptyReply], command=Command.ATTACH_CUSTODY):
    """Make the connection beside the frame the custody channel of one partition (PL0).

    deviation: Caliptra has no such command. Granted only where `fw_id` was authorized in this boot.
    """

    partition_id: U32
    fw_id: U32


# --- DPE carriers ----------------------------------------------------------------------------------------------


class InvokeDpeEcc384(Request[DataReply], command=Command.INVOKE_DPE_ECC384, limit=4 + 512):
    """Carry a DPE command of profile P384_SHA384; its own errors stand in the DPE response."""

    data: Annotated[bytes, Bytes(u32, limit=512)]


class InvokeDpeMldsa87(Request[DataReply], command=Command.INVOKE_DPE_MLDSA87, limit=20 + 512):
    """Carry a DPE command of profile MLDSA87; its own errors stand in the DPE response.

    Bit 31 of `flags` asks for the reply in foreign memory at `axi_response`, which this model has not.
    """

    flags: U32
    axi_response: Annotated[bytes, Octets(12)]
    data: Annotated[bytes, Bytes(u32, limit=512)]


# --- headers ---------------------------------------------------------------------------------------------------


def checksum(command: int, octets: bytes) -> int:
    """Return 0 minus the octets of the command code and of the message, modulo 2^32; replies use code 0."""
    return -(sum(command.to_bytes(4, "little")) + sum(octets)) & 0xFFFFFFFF


_CHECKSUM = struct.Struct("<I")
_REPLY_HEADER = struct.Struct("<II")


def with_checksum(request: Request[Any]) -> bytes:
    """Return the octets of a request with its checksum in front."""
    body = request.encode()
    if not request.CHECKED:
        return body
    return _CHECKSUM.pack(checksum(request.COMMAND, body)) + body


def without_checksum(command: int, octets: bytes) -> bytes:
    """Check and remove the checksum of a request; DecodeError where it is short or wrong."""
    if len(octets) < _CHECKSUM.size:
        raise DecodeError("MailboxReqHeader.chksum", "cut short")
    body = octets[_CHECKSUM.size :]
    if checksum(command, body) != _CHECKSUM.unpack_from(octets)[0]:
        raise DecodeError("MailboxReqHeader.chksum", "does not match")
    return body


def decode_body(kind: type[Request[Reply]], body: bytes) -> Request[Reply]:
    """Read the body of a request; octets behind a buffer, up to the limit of the class, must be zero."""
    if len(body) > kind.LIMIT:
        raise DecodeError(kind.__name__, f"{len(body)} octets, at most {kind.LIMIT}")
    request, end = kind.decode_from(body)
    if any(body[end:]):
        raise DecodeError(kind.__name__, "octets behind the last field are not zero")
    return request


def with_headers(reply: Struct, fips_status: int = 0) -> bytes:
    """Return the octets of a reply with its headers, checksum and `fips_status`, in front."""
    rest = _CHECKSUM.pack(fips_status) + reply.encode()
    return _CHECKSUM.pack(checksum(0, rest)) + rest


def decode_reply(request: Request[Reply] | type[Request[Reply]], octets: bytes) -> Reply:
    """Check the headers of a reply and read its fields; DecodeError where the checksum does not match."""
    if not request.CHECKED:
        return request.read_reply(octets)
    if len(octets) < _REPLY_HEADER.size:
        raise DecodeError("MailboxRespHeader", "cut short")
    rest = octets[_CHECKSUM.size :]
    if checksum(0, rest) != _CHECKSUM.unpack_from(octets)[0]:
        raise DecodeError("MailboxRespHeader.chksum", "does not match")
    return request.read_reply(octets[_REPLY_HEADER.size :])


def decode_pcr_log(octets: bytes) -> tuple[PcrLogEntry, ...]:
    """Read the entries of a PCR log, oldest first."""
    entries = []
    at = 0
    while at < len(octets):
        entry, at = PcrLogEntry.decode_from(octets, at)
        entries.append(entry)
    return tuple(entries)


# --- frames on the stream --------------------------------------------------------------------------------------


class FrameHeader(Struct):
    """In front of each message: the command code or the status, and how many octets follow."""

    code: U32
    length: U32


FRAME_HEADER_SIZE = FrameHeader.fixed_size()


def frame(code: int, octets: bytes) -> bytes:
    """Return a frame: `code` is the command of a request or the status of a reply."""
    return FrameHeader(code, len(octets)).encode() + octets


@functools.cache
def frame_limit(command: int) -> int:
    """Return the largest `length` of a frame with this command, which is one of `REQUESTS`."""
    kind = REQUESTS[command]
    return kind.LIMIT + (_CHECKSUM.size if kind.CHECKED else 0)


REPLY_LIMIT = _REPLY_HEADER.size + 4 + DATA_LIMIT
"""The largest reply, in octets: both headers, the length of its data, and that."""


class MailboxClient:
    """Our caller's end of the stream: one request at a time, no I/O.

    connection.sendall(client.request(QuotePcrsEcc384(nonce)))
    while (octets := client.receive(connection.recv(65536))) is None: ...
    quote = decode_reply(QuotePcrsEcc384, octets)
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiting: Command | None = None

    def request(self, request: Request[Any]) -> bytes:
        """Return the frame to send; UsageError while a reply is outstanding."""
        if self._waiting is not None:
            raise UsageError(f"{self._waiting.name} is not answered yet", "read its reply first")
        self._waiting = request.COMMAND
        return frame(request.COMMAND, with_checksum(request))

    def receive(self, data: bytes) -> bytes | None:
        """Take what arrived; return the octets of the reply once they are all there.

        Raises DeviceError where the mailbox answered an error, and DecodeError where the stream is broken or has
        ended (empty `data`).
        """
        if self._waiting is None:
            raise UsageError("no reply is expected", "send a request first")
        if not data:
            raise DecodeError("mailbox", "the stream ended before the reply")
        self._received += data
        if len(self._received) < FRAME_HEADER_SIZE:
            return None
        header = FrameHeader.decode(bytes(self._received[:FRAME_HEADER_SIZE]))
        if header.length > REPLY_LIMIT:
            raise DecodeError("FrameHeader.length", f"{header.length} octets, at most {REPLY_LIMIT}")
        if len(self._received) < FRAME_HEADER_SIZE + header.length:
            return None
        return self._finish(header)

    def _finish(self, header: FrameHeader) -> bytes:
        octets = bytes(self._received[FRAME_HEADER_SIZE:])
        command, self._waiting = self._waiting, None
        self._received.clear()
        if len(octets) != header.length:
            raise DecodeError("FrameHeader.length", f"{len(octets)} octets follow, not {header.length}")
        if header.code:
            name = command.name if command else "mailbox"
            raise DeviceError(header.code, f"{name} was refused: {error_name(header.code)}")
        return octets


def error_name(number: int) -> str:
    """Return the name of an error number, or the number in hexadecimal where it has none here."""
    return _ERROR_NAMES.get(number, f"{number:#010x}")


_ERROR_NAMES: Mapping[int, str] = {
    one.value: getattr(one, "rule", one.name) for one in (*MailboxError, *Check, *ManifestCheck)
}
