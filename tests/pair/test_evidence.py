"""The real root of trust, the real vault's report and the real collector against the verifier, in memory."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from endocarp.box.evidence import Call as Asked
from endocarp.box.evidence import EvidenceCollector, ReportCall
from endocarp.crypto import keys
from endocarp.crypto.digest import sha384
from endocarp.hsm.partition import Identity
from endocarp.hsm.report import Surroundings, make_report
from endocarp.rot import dice, kv
from endocarp.rot.bundle import SigningKeys, build_bundle, build_manifest, public_key_hashes, references
from endocarp.rot.dispatch import Call, Responder
from endocarp.rot.fmc import run_fmc
from endocarp.rot.fuses import Device, Lifecycle, manufacture
from endocarp.rot.kv import KeyVault
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.rot.provision import provision, root_authority, root_certificates
from endocarp.rot.rom import Rom
from endocarp.rot.runtime import Runtime
from endocarp.verifier.appraise import appraise
from endocarp.verifier.chain import Anchor
from endocarp.verifier.policy import References
from endocarp.verifier.verdict import Outcome, Verdict
from endocarp.wire import custody, mailbox, pem
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import Component, Evidence, StashEntry, Statement, Status
from endocarp.wire.mailbox import (
    PL0_CALLER,
    AuthResult,
    ImageSource,
    Reply,
    Request,
    decode_reply,
    seal_request,
)
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Suite

MODEL = "MODEL-pair"
ROM, FMC, RUNTIME = b"rom archive", b"fmc archive" * 50, b"runtime archive" * 300
IMAGES = {FirmwareId.BOX: b"box" * 100, FirmwareId.FRONT: b"front" * 80, FirmwareId.VAULT: b"vault" * 60}
NONCE, NOW = bytes(range(32)), 1_800_000_000.0


@dataclass
class Server:
    """A server of the real parts: what box does between them is done here, without processes."""

    signing: SigningKeys
    root_keys: Mapping[Suite, keys.PrivateKey]
    identity: Identity
    images: Mapping[FirmwareId, bytes] = field(default_factory=lambda: dict(IMAGES))
    runtime_image: bytes = RUNTIME
    svn: int = 3
    lifecycle: Lifecycle = Lifecycle.PRODUCTION
    debug_locked: bool = True
    manifest: bytes = b""
    """Built anew where it is empty; each time it is another one, since ML-DSA signatures are hedged."""

    def boot(self) -> None:
        """Make the device, boot it, authorize and stash every image."""
        self.bundle = build_bundle(FMC, self.runtime_image, self.signing, svn=self.svn)
        self.manifest = self.manifest or build_manifest(self.images, self.signing)
        memory = KeyVault(memoryview(bytearray(kv.SIZE)))
        device = self.device()
        rom = Rom(device, memory, ROM)
        rom.execute(Call(PL0_CALLER, mailbox.Command.FIRMWARE_LOAD, self.bundle))
        assert rom.result is not None
        self.runtime = Runtime(run_fmc(rom.result.table, memory, rom.result.runtime), memory)
        self.execute(mailbox.PopulateIdevEcc384Cert(device.idevid_ecc_certificate))
        self.execute(mailbox.PopulateIdevMldsa87Cert(device.idevid_mldsa_certificate))
        self.execute(mailbox.SetAuthManifest(self.manifest))
        self.stash_log = tuple(self.stash(fw_id, image) for fw_id, image in self.images.items())

    def device(self) -> Device:
        vendor, owner = public_key_hashes(self.signing)
        fresh = manufacture(
            lambda size: hashlib.shake_128(bytes([size])).digest(size),
            model=MODEL,
            vendor_pk_hash=vendor,
            owner_pk_hash=owner,
            lifecycle=self.lifecycle,
            debug_locked=self.debug_locked,
        )
        return provision(fresh, root_authority(MODEL, self.root_keys), CALIPTRA_2_1_2)

    def stash(self, fw_id: FirmwareId, image: bytes) -> StashEntry:
        request = mailbox.AuthorizeAndStash(
            fw_id, bytes(48), bytes(48), 0, 0, ImageSource.LOAD_ADDRESS, len(image)
        )
        assert self.execute(request, memoryview(image)).auth_req_result == AuthResult.AUTHORIZED
        return StashEntry(fw_id, fw_id.name.lower(), sha384(image), 0)

    def call(self, request: Request[Reply], attached: memoryview | None = None) -> bytes:
        responder: Responder = self.runtime
        return responder.execute(Call(PL0_CALLER, request.COMMAND, seal_request(request), attached))

    def execute(self, request: Request[Reply], attached: memoryview | None = None) -> Reply:
        return decode_reply(request, self.call(request, attached))

    def report(self, partition: int, nonce: bytes) -> bytes:
        """Do what a vault does when it starts, and when it is asked for its report."""
        channel = self.runtime.custody(mailbox.AttachCustody(partition, FirmwareId.VAULT).encode())
        public = custody.CertifyIdentity(self.identity.ecc.public.raw, self.identity.mldsa.public.raw)
        assert channel.receive(custody.encode_request(public), 0.0) == []
        certification = custody.decode_reply(public, channel.outgoing()[0])
        surroundings = Surroundings(certification, "secret", {"seccomp": "filter"})
        return make_report(
            self.identity, surroundings, partition=partition, nonce=nonce, generation=1, objects=0
        )

    def evidence(self, nonce: bytes = NONCE) -> bytes:
        collector = EvidenceCollector(
            nonce,
            stash_log=self.stash_log,
            partitions=(0,),
            inventory=(Component("package cbor2", bytes(48)),),
            statements=(Statement("root of trust", "silicon", Status.MODELLED, "files"),),
        )
        asking = collector.requests()
        asked = next(asking)
        while True:
            try:
                asked = asking.send(self.answer(asked))
            except StopIteration as done:
                return bytes(done.value)

    def answer(self, asked: Asked | ReportCall) -> bytes:
        if isinstance(asked, ReportCall):
            return self.report(asked.partition, asked.nonce)
        return self.call(asked.request)

    def anchor(self) -> Anchor:
        pair = root_certificates(MODEL, self.root_keys)
        text = pem.encode(pem.CERTIFICATE, pair.mldsa) + pem.encode(pem.CERTIFICATE, pair.ecc)
        return Anchor.from_pem(MODEL, text)

    def references(self) -> References:
        found = references(
            model=MODEL, bundle=self.bundle, manifest=self.manifest, images=self.images, rom=ROM
        )
        return References.from_json(json.dumps(found))


@pytest.fixture(scope="module")
def honest() -> Server:
    server = Server(
        SigningKeys.generate(),
        {suite: keys.generate(suite) for suite in dice.SUITES},
        Identity(keys.generate(Suite.P384), keys.generate(Suite.ML_DSA_87)),
    )
    server.boot()
    return server


def judge(server: Server, octets: bytes, expected: References, nonce: bytes | None = NONCE) -> Verdict:
    return appraise(octets, {MODEL: server.anchor()}, expected, nonce, NOW)


def failed(verdict: Verdict) -> set[str]:
    return {one.rule for one in verdict.findings if one.outcome is Outcome.FAILED}


def both(*rules: str) -> set[str]:
    return {f"{rule}.{suite}" for rule in rules for suite in ("ecc384", "ml_dsa_87")}


def another(honest: Server, **changes: object) -> Server:
    """Boot another server of the same maker, with something changed."""
    server = replace(honest, **changes)  # type: ignore[arg-type]
    server.boot()
    return server


def test_evidence_of_the_real_server_is_verified(honest: Server) -> None:
    octets = honest.evidence()
    verdict = judge(honest, octets, honest.references())
    assert verdict.failures == ()
    assert verdict.accepted
    assert len(octets) < 100_000


def test_evidence_for_another_challenge_is_refused(honest: Server) -> None:
    verdict = judge(honest, honest.evidence(bytes(32)), honest.references())
    assert failed(verdict) == {"nonce.challenge"}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        (
            {"runtime_image": b"another runtime"},
            {"image.runtime.reference"},
        ),
        (
            {"images": {**IMAGES, FirmwareId.VAULT: b"another vault"}, "manifest": b""},
            {"image.vault.reference", "image.manifest.reference"},
        ),
        ({"svn": 2}, {"policy.svn"}),
        ({"lifecycle": Lifecycle.MANUFACTURING}, {"policy.lifecycle"}),
        ({"debug_locked": False}, {"policy.debug"}),
    ],
)
def test_another_server_of_the_same_maker_is_refused_by_what_differs(
    honest: Server, changes: dict[str, object], rules: set[str]
) -> None:
    server = another(honest, **changes)
    assert failed(judge(honest, server.evidence(), honest.references())) == rules


def spliced(honest: Server, change: Callable[[Evidence], Evidence]) -> bytes:
    """Return the evidence with its payload changed; the signatures are left as they are."""
    message = SignedMessage.decode(honest.evidence())
    return replace(message, payload=change(Evidence.decode(message.payload)).encode()).encode()


def test_parts_of_another_boot_do_not_fit(honest: Server) -> None:
    other = another(honest, runtime_image=b"another runtime")
    foreign = Evidence.decode(SignedMessage.decode(other.evidence()).payload)
    octets = spliced(honest, lambda own: replace(own, quotes=foreign.quotes, pcr_log=foreign.pcr_log))
    assert failed(judge(honest, octets, honest.references())) == {
        "image.runtime.reference",
        "info.consistent",
        *both("envelope.signature", "tcb.runtime", "tcb.root"),
    }
    octets = spliced(honest, lambda own: replace(own, partitions=foreign.partitions))
    assert failed(judge(honest, octets, honest.references())) == {
        "report.rt_alias",
        *both(
            "envelope.signature",
            "chain.signature.partition",
            "chain.issuer.partition",
            "chain.authority_key.partition",
        ),
    }


def test_a_restarted_vault_reports_under_the_same_identity(honest: Server) -> None:
    one, other = (
        Evidence.decode(SignedMessage.decode(honest.evidence(nonce)).payload) for nonce in (NONCE, bytes(32))
    )
    assert one.partitions[0].certificates[Suite.P384] == other.partitions[0].certificates[Suite.P384]
    assert one.chains[Suite.P384].rt_alias == other.chains[Suite.P384].rt_alias
    assert one.chains[Suite.P384].dpe_leaf != other.chains[Suite.P384].dpe_leaf
