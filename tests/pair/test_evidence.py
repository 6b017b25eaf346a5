"""The root of trust against the verifier: what the real cores measure and sign is believed, and nothing else."""

import json
from collections.abc import Mapping

import pytest
from tests.simulators.relying import failed
from tests.simulators.root_of_trust import (
    IMAGES,
    MODEL,
    NONCE,
    ROM,
    Server,
    ask,
    authorize,
    manufacture_server,
)

from endocarp.box.evidence import Call, EvidenceCollector
from endocarp.crypto import keys
from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384
from endocarp.hsm.partition import Identity
from endocarp.hsm.report import Surroundings, make_report
from endocarp.rot.builder import references
from endocarp.verifier.appraise import appraise
from endocarp.verifier.chain import Anchor
from endocarp.verifier.policy import ReferenceValues
from endocarp.verifier.verdict import Verdict
from endocarp.wire import custody, mailbox
from endocarp.wire.evidence import StashEntry
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Suite

NOW = 1_800_000_000.0
PARTITION = 0


@pytest.fixture(scope="module")
def server() -> Server:
    """A server whose images are all authorized."""
    server = manufacture_server()
    for fw_id in (FirmwareId.FRONT, FirmwareId.VAULT):
        authorize(server, fw_id)
    return server


@pytest.fixture(scope="module")
def report(server: Server) -> bytes:
    """The report of a partition whose identity was certified over its custody channel."""
    server.box.execute(mailbox.AttachCustody(PARTITION, FirmwareId.VAULT))
    channel = server.runtime.custody(server.box.attached.pop())
    identity = Identity(keys.generate(Suite.P384), keys.generate(Suite.ML_DSA_87))
    certified = ask(channel, custody.CertifyIdentity(identity.ecc.public.raw, identity.mldsa.public.raw))
    surroundings = Surroundings(certified, "ordinary", {"seccomp": "in force"})
    return make_report(identity, surroundings, partition=PARTITION, nonce=NONCE, generation=1, objects=0)


STASHED = tuple(
    StashEntry(fw_id, fw_id.name.lower(), sha384(IMAGES[fw_id]), 0)
    for fw_id in (FirmwareId.BOX, FirmwareId.FRONT, FirmwareId.VAULT)
)


def collect(
    server: Server, report: bytes, nonce: bytes = NONCE, stashed: tuple[StashEntry, ...] = STASHED
) -> bytes:
    asking = EvidenceCollector(
        nonce, stash_log=stashed, partitions=[PARTITION], inventory=[], statements=[]
    ).requests()
    call = next(asking)
    while True:
        answer = server.box.call(call.request) if isinstance(call, Call) else report
        try:
            call = asking.send(answer)
        except StopIteration as done:
            return bytes(done.value)


def judge(server: Server, octets: bytes, bundle: bytes | None = None) -> Verdict:
    expected = references(
        model=MODEL, bundle=bundle or server.bundle, manifest=server.manifest, images=IMAGES, rom=ROM
    )
    roots: Mapping[Suite, Certificate] = {
        suite: Certificate.parse(server.root[suite]) for suite in (Suite.P384, Suite.ML_DSA_87)
    }
    anchors = {MODEL: Anchor(MODEL, roots)}
    return appraise(octets, anchors, ReferenceValues.from_json(json.dumps(expected)), NONCE, NOW)


def test_evidence_of_an_untouched_server_is_believed(server: Server, report: bytes) -> None:
    verdict = judge(server, collect(server, report))
    assert failed(verdict) == set()
    assert verdict.accepted


def test_a_log_that_leaves_an_image_out_is_refused(server: Server, report: bytes) -> None:
    verdict = judge(server, collect(server, report, stashed=STASHED[:-1]))
    assert not verdict.accepted
    assert failed(verdict) == {"log.pcr31", "tcb.stash.ecc384", "tcb.stash.ml_dsa_87", "report.image"}


def test_firmware_that_the_builder_does_not_know_is_refused(server: Server, report: bytes) -> None:
    other = manufacture_server(runtime=b"another runtime")
    verdict = judge(server, collect(server, report), bundle=other.bundle)
    assert not verdict.accepted
    assert "image.runtime.reference" in failed(verdict)


def test_evidence_over_another_nonce_is_refused(server: Server, report: bytes) -> None:
    verdict = judge(server, collect(server, report, nonce=bytes(32)))
    assert not verdict.accepted
    assert failed(verdict) == {"nonce.challenge", "report.nonce"}
