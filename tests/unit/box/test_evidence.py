"""Collecting evidence from a simulated root of trust and a simulated vault."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.simulators.device import NONCE, DeviceSimulator, sha384
from tests.simulators.relying import judge

from endocarp.box.evidence import Call, EvidenceCollector, ReportCall
from endocarp.errors import DecodeError, DeviceError, UsageError
from endocarp.wire import dpe, mailbox
from endocarp.wire.cose import SignedMessage
from endocarp.wire.dpe import Profile
from endocarp.wire.evidence import EVIDENCE_TYPE, Component, Evidence, Statement, Status
from endocarp.wire.mailbox import DataReply, with_headers
from endocarp.wire.suites import Scheme, Suite

LABEL = sha384(b"endocarp evidence", NONCE)
INVENTORY = (Component("package cbor2", sha384(b"cbor2")),)
STATEMENTS = (Statement("root of trust", "silicon", Status.MODELLED, "fuses are files"),)
Answer = Callable[[dpe.Request[dpe.Reply]], bytes]


class RotSimulator:
    """Answers the mailbox of a simulated server; `spoil` may change the answer to any request."""

    def __init__(self, device: DeviceSimulator) -> None:
        self.device = device
        self.asked: list[str] = []
        self.spoil: dict[str, Callable[[bytes], bytes]] = {}
        self.refuse: dict[str, int] = {}
        self.extra = b""
        self.piece_size = dpe.MAX_CHUNK_SIZE

    def answer(self, call: Call | ReportCall) -> bytes:
        if isinstance(call, ReportCall):
            self.asked.append(f"Report {call.partition}")
            assert call.nonce == self.device.nonce
            return self.device.partition().encode()
        return self.reply(call.request)

    def reply(self, request: mailbox.Request[mailbox.Reply]) -> bytes:
        match request:
            case mailbox.InvokeDpeEcc384():
                return with_headers(DataReply(self.invoke(Profile.P384_SHA384, request.data)))
            case mailbox.InvokeDpeMldsa87():
                assert (request.flags, request.axi_response) == (0, bytes(12))
                return with_headers(DataReply(self.invoke(Profile.MLDSA87, request.data)))
            case _:
                return self.plain(request)

    def plain(self, request: mailbox.Request[mailbox.Reply]) -> bytes:
        self.asked.append(type(request).__name__)
        match request:
            case mailbox.QuotePcrsEcc384():
                return self.device.quote(Suite.P384, request.nonce)
            case mailbox.QuotePcrsMldsa87():
                return self.device.quote(Suite.ML_DSA_87, request.nonce)
            case mailbox.FwInfo():
                return with_headers(self.device.fw_info_reply())
            case _:
                assert isinstance(request, mailbox.GetPcrLog)
                return self.device.evidence().pcr_log

    def invoke(self, profile: Profile, octets: bytes) -> bytes:
        command = dpe.split_command(octets)
        assert command.profile == profile
        request = dpe.COMMANDS[profile][dpe.Code(command.code)].decode(command.body)
        name = type(request).__name__
        self.asked.append(name)
        if name in self.refuse:
            return dpe.encode_response(profile, self.refuse[name])
        suite = Suite.P384 if profile is Profile.P384_SHA384 else Suite.ML_DSA_87
        response = self.run(profile, suite, request)
        return self.spoil[name](response) if name in self.spoil else response

    def run(self, profile: Profile, suite: Suite, request: dpe.Request[dpe.Reply]) -> bytes:
        key, leaf = self.device.key("dpe_leaf", suite), self.device.certificate("dpe_leaf", suite)
        match request:
            case dpe.CertifyKeyP384() | dpe.CertifyKeyMldsa87():
                assert (request.context_handle, request.flags, request.format) == (bytes(16), 0, 0)
                assert request.label == LABEL
                public = key.public.raw[1:] if suite is Suite.P384 else key.public.raw
                body = bytes(16) + public + len(leaf).to_bytes(4, "little") + leaf
            case dpe.GetCertificateChain():
                return self.piece(profile, suite, request)
            case dpe.SignP384():
                body = bytes(16) + key.sign(Scheme.ECDSA_DIGEST, request.digest)
            case _:
                assert isinstance(request, dpe.SignMldsa87)
                body = bytes(16) + key.sign(Scheme.ML_DSA_MU, request.mu) + b"\0"
        return dpe.encode_response(profile, 0) + body

    def piece(self, profile: Profile, suite: Suite, request: dpe.GetCertificateChain) -> bytes:
        chain = self.device.chain(suite)
        octets = chain.idevid + chain.ldevid + chain.fmc_alias + chain.rt_alias + self.extra
        piece = octets[request.offset :][: min(request.size, self.piece_size)]
        if not piece:
            return dpe.encode_response(profile, dpe.Status.PLATFORM_INVALID_OFFSET)
        buffer = piece.ljust(dpe.MAX_CHUNK_SIZE, b"\0")
        return dpe.encode_response(profile, 0) + len(piece).to_bytes(4, "little") + buffer


def collect(rot: RotSimulator, *, partitions: tuple[int, ...] = (0,)) -> bytes:
    collector = EvidenceCollector(
        rot.device.nonce,
        stash_log=rot.device.stash,
        partitions=partitions,
        inventory=INVENTORY,
        statements=STATEMENTS,
    )
    asking = collector.requests()
    call = next(asking)
    while True:
        try:
            call = asking.send(rot.answer(call))
        except StopIteration as done:
            return bytes(done.value)


@pytest.fixture
def rot() -> RotSimulator:
    return RotSimulator(DeviceSimulator())


def test_collected_evidence_convinces_a_relying_party(rot: RotSimulator) -> None:
    assert judge(collect(rot)).failures == ()


def test_evidence_holds_the_answers_unchanged(rot: RotSimulator) -> None:
    message = SignedMessage.decode(collect(rot))
    found, device = Evidence.decode(message.payload), rot.device
    assert message.content_type == EVIDENCE_TYPE
    assert found.chains == {suite: device.chain(suite) for suite in (Suite.P384, Suite.ML_DSA_87)}
    assert found.fw_info == with_headers(device.fw_info_reply())
    assert found.pcr_log == device.evidence().pcr_log
    assert (found.nonce, found.rt_alias_key_id) == (NONCE, device.rt_alias_key_id)
    assert (found.stash_log, found.inventory) == (tuple(device.stash), INVENTORY)
    assert found.statements == STATEMENTS


def test_the_leaf_signs_last(rot: RotSimulator) -> None:
    collect(rot)
    assert rot.asked[-2:] == ["SignP384", "SignMldsa87"]
    assert rot.asked.index("Report 0") < rot.asked.index("SignP384")
    assert set(rot.asked) == {
        "CertifyKeyP384",
        "CertifyKeyMldsa87",
        "GetCertificateChain",
        "QuotePcrsEcc384",
        "QuotePcrsMldsa87",
        "FwInfo",
        "GetPcrLog",
        "Report 0",
        "SignP384",
        "SignMldsa87",
    }


def test_every_partition_is_asked(rot: RotSimulator) -> None:
    octets = collect(rot, partitions=(0, 3))
    assert len(Evidence.decode(SignedMessage.decode(octets).payload).partitions) == 2
    assert {"Report 0", "Report 3"} <= set(rot.asked)


def test_without_partitions_there_are_no_reports(rot: RotSimulator) -> None:
    assert Evidence.decode(SignedMessage.decode(collect(rot, partitions=())).payload).partitions == ()


@pytest.mark.parametrize("size", [700, dpe.MAX_CHUNK_SIZE])
def test_pieces_of_a_chain_may_be_shorter_than_asked_for(rot: RotSimulator, size: int) -> None:
    rot.piece_size = size
    rot.device.edits["rt_alias", Suite.P384] = lambda plan: replace(plan, not_after="20990101000000Z")
    found = Evidence.decode(SignedMessage.decode(collect(rot)).payload)
    assert found.chains[Suite.P384] == rot.device.chain(Suite.P384)


@pytest.mark.parametrize("extra", [b"\x30\x00", b"x", bytes(64 << 10)])
def test_a_chain_of_another_length_is_refused(rot: RotSimulator, extra: bytes) -> None:
    rot.extra = extra
    with pytest.raises(DecodeError, match="certificate chain"):
        collect(rot)


@pytest.mark.parametrize("name", ["CertifyKeyP384", "GetCertificateChain", "SignMldsa87"])
def test_what_the_dpe_refuses_is_told(rot: RotSimulator, name: str) -> None:
    rot.refuse[name] = dpe.Status.PLATFORM_INVALID_OFFSET
    with pytest.raises(DeviceError) as refused:
        collect(rot)
    assert refused.value.number == dpe.Status.PLATFORM_INVALID_OFFSET


@pytest.mark.parametrize("name", ["CertifyKeyMldsa87", "GetCertificateChain", "SignP384"])
def test_an_answer_of_another_form_is_refused(rot: RotSimulator, name: str) -> None:
    rot.spoil[name] = lambda octets: octets[:-1]
    with pytest.raises(DecodeError):
        collect(rot)


def test_another_refusal_in_the_middle_of_a_chain_is_told(rot: RotSimulator) -> None:
    def refuse_later(octets: bytes) -> bytes:
        rot.refuse["GetCertificateChain"] = dpe.Status.INTERNAL_ERROR
        return octets

    rot.spoil["GetCertificateChain"] = refuse_later
    with pytest.raises(DeviceError) as refused:
        collect(rot)
    assert refused.value.number == dpe.Status.INTERNAL_ERROR


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_nonce_has_32_octets(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} octets"):
        EvidenceCollector(bytes(size), stash_log=(), partitions=(), inventory=(), statements=())
