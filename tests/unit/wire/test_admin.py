"""The admin socket's messages, octet by octet."""

import pytest

from endocarp.errors import DecodeError, UsageError
from endocarp.wire.admin import (
    AdminReply,
    AdminRequest,
    Evidence,
    Failure,
    FrameHeader,
    GetEvidence,
    GetStatus,
    Kind,
    Measurement,
    PartitionStatus,
    ProcessState,
    ProcessStatus,
    Status,
)
from endocarp.wire.control import MemoryMode, Note, SandboxReport, Seccomp

SANDBOX = SandboxReport(1000, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET, notes=(Note("no Landlock"),))
STATUS = Status(
    "0.1.0",
    "MODEL-01234567",
    "/srv/endocarp",
    boots=2,
    processes=(ProcessStatus("rot", ProcessState.SERVING, 42, 1, 1500, 30000, bytes(48), SANDBOX),),
    partitions=(PartitionStatus(0, "/srv/native.sock", "/srv/p11-kit.sock"),),
    measurements=(
        Measurement(int.from_bytes(b"EBOX", "little"), "box", bytes(48)),
        Measurement(int.from_bytes(b"EFRT", "little"), "front", b"\x01" * 48),
    ),
)
REQUESTS: dict[Kind, GetStatus | GetEvidence] = {
    Kind.GET_STATUS: GetStatus(),
    Kind.GET_EVIDENCE: GetEvidence(bytes(range(32))),
}
REPLIES: dict[Kind, Status | Evidence | Failure] = {
    Kind.STATUS: STATUS,
    Kind.EVIDENCE: Evidence(b"signed"),
    Kind.FAILURE: Failure("process.rot", "is being reset", "try again"),
}


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
def test_every_request_survives_the_round_trip(kind: Kind) -> None:
    octets = AdminRequest(body=REQUESTS[kind]).encode()
    assert octets[0] == kind
    assert AdminRequest.decode(octets).body == REQUESTS[kind]


@pytest.mark.parametrize("kind", REPLIES, ids=lambda kind: kind.name)
def test_every_reply_survives_the_round_trip(kind: Kind) -> None:
    octets = AdminReply(body=REPLIES[kind]).encode()
    assert octets[0] == kind
    body = AdminReply.decode(octets).body
    assert type(body) is type(REPLIES[kind])
    assert AdminReply(body=body).encode() == octets


def test_every_kind_is_a_request_or_a_reply() -> None:
    assert {*REQUESTS, *REPLIES} == set(Kind)


def test_the_counts_of_a_status_are_filled_in() -> None:
    decoded = Status.decode(STATUS.encode())
    assert (decoded.process_count, decoded.partition_count, decoded.measurement_count) == (1, 1, 2)
    assert (decoded.processes, decoded.measurements) == (STATUS.processes, STATUS.measurements)


def test_a_frame_begins_with_its_length_little_endian() -> None:
    assert FrameHeader(0x0102).encode() == b"\x02\x01\0\0"


def test_the_octets_of_the_short_messages_are_as_declared() -> None:
    assert AdminRequest().encode() == b"\x01"
    assert AdminRequest(body=GetEvidence(bytes(32))).encode() == b"\x02" + bytes(32)
    assert AdminReply(body=Evidence(b"ab")).encode() == b"\x82\x02\0\0\0ab"
    assert AdminReply().encode() == b"\xff\0\0\0\0\0\0"


def test_a_reply_is_no_request_and_a_request_is_no_reply() -> None:
    with pytest.raises(DecodeError, match=r"AdminRequest\.body"):
        AdminRequest.decode(AdminReply(body=Evidence(b"ab")).encode())
    with pytest.raises(DecodeError, match=r"AdminReply\.body"):
        AdminReply.decode(AdminRequest().encode())


@pytest.mark.parametrize(
    ("octets", "where"),
    [
        (b"", "AdminRequest.kind"),
        (b"\x03", "AdminRequest.kind"),
        (b"\x01\0", "AdminRequest"),
        (b"\x02" + bytes(31), "GetEvidence.nonce"),
        (b"\x02" + bytes(33), "AdminRequest"),
    ],
    ids=["empty", "unknown kind", "left over", "short nonce", "long nonce"],
)
def test_requests_that_break_a_rule_are_refused_by_the_name_of_the_field(octets: bytes, where: str) -> None:
    with pytest.raises(DecodeError) as raised:
        AdminRequest.decode(octets)
    assert raised.value.where.startswith(where)


def test_a_process_in_a_state_that_is_not_declared_is_refused() -> None:
    octets = bytearray(STATUS.processes[0].encode())
    octets[1 + len("rot")] = 9
    with pytest.raises(DecodeError, match=r"ProcessStatus\.state"):
        ProcessStatus.decode(octets)


def test_evidence_that_claims_more_than_a_frame_holds_is_refused_before_it_is_read() -> None:
    with pytest.raises(DecodeError, match=r"Evidence\.octets"):
        AdminReply.decode(b"\x82\xff\xff\xff\xff")


def test_a_nonce_of_another_size_has_no_place_on_the_wire() -> None:
    with pytest.raises(UsageError):
        AdminRequest(body=GetEvidence(bytes(31))).encode()
