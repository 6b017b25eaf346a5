"""The admin socket of a box: a stream of frames `u32 length, message`; each request gets one answer.

The socket lies in the state directory and belongs to the user who runs the server (mode 0600).
"""

import enum
from typing import Annotated

from endocarp.wire.codec import (
    U16,
    U32,
    U64,
    Bytes,
    Items,
    Nested,
    Octets,
    OneOf,
    Struct,
    Text,
    measured,
    u8,
    u16,
    u32,
)
from endocarp.wire.control import SandboxReport

MAX_FRAME = 1 << 20
"""The size in octets that no message exceeds; evidence is the largest, about 100 KiB."""


class FrameHeader(Struct):
    """What stands before each message."""

    length: U32


class ProcessState(enum.IntEnum):
    """How a process of the box stands."""

    STARTING = 1
    SERVING = 2


class ProcessStatus(Struct):
    """One process: resident memory in KiB, time since its start in milliseconds, SHA-384 of its image."""

    name: Annotated[str, Text(u8, limit=32)]
    state: Annotated[ProcessState, u8]
    pid: U32
    restarts: U32
    uptime: U64
    resident: U32
    image: Annotated[bytes, Octets(48)]
    sandbox: Annotated[SandboxReport, Nested(SandboxReport)]


class PartitionStatus(Struct):
    """One partition and where its two doors are."""

    partition: U32
    native: Annotated[str, Text(u16)]
    p11_kit: Annotated[str, Text(u16)]


class Measurement(Struct):
    """One measurement that the box stashed, in order: four-letter name of the image, SHA-384."""

    firmware_id: U32
    name: Annotated[str, Text(u8, limit=64)]
    digest: Annotated[bytes, Octets(48)]


class GetStatus(Struct):
    """Ask how the box stands."""


class Status(Struct):
    """How the box stands; `boots` counts the cold boots of the root of trust since the box started."""

    version: Annotated[str, Text(u8, limit=64)]
    model: Annotated[str, Text(u8, limit=128)]
    state_directory: Annotated[str, Text(u16)]
    boots: U32
    process_count: U16 = measured()
    partition_count: U16 = measured()
    measurement_count: U16 = measured()
    processes: Annotated[tuple[ProcessStatus, ...], Items(ProcessStatus, "process_count", limit=256)] = ()
    partitions: Annotated[
        tuple[PartitionStatus, ...], Items(PartitionStatus, "partition_count", limit=256)
    ] = ()
    measurements: Annotated[tuple[Measurement, ...], Items(Measurement, "measurement_count", limit=256)] = ()


class GetEvidence(Struct):
    """Ask for evidence over a challenge of the relying party."""

    nonce: Annotated[bytes, Octets(32)]


class Evidence(Struct):
    """Evidence as `wire.evidence` has it, signed."""

    octets: Annotated[bytes, Bytes(u32, limit=MAX_FRAME)]


class Failure(Struct):
    """The request was not carried out: rule, reason and advice as `endocarp.errors` has them."""

    rule: Annotated[str, Text(u16)]
    reason: Annotated[str, Text(u16)]
    hint: Annotated[str, Text(u16)] = ""


class Kind(enum.IntEnum):
    """What a message of the admin socket is."""

    GET_STATUS = 1
    GET_EVIDENCE = 2
    STATUS = 0x81
    EVIDENCE = 0x82
    FAILURE = 0xFF


class AdminRequest(Struct):
    """A question to the box."""

    kind: Annotated[Kind, u8] = measured()
    body: Annotated[
        GetStatus | GetEvidence, OneOf("kind", {Kind.GET_STATUS: GetStatus, Kind.GET_EVIDENCE: GetEvidence})
    ] = GetStatus()


class AdminReply(Struct):
    """The answer of the box."""

    kind: Annotated[Kind, u8] = measured()
    body: Annotated[
        Status | Evidence | Failure,
        OneOf("kind", {Kind.STATUS: Status, Kind.EVIDENCE: Evidence, Kind.FAILURE: Failure}),
    ] = Failure("", "")
