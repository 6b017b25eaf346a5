"""A server that issues evidence, written for the tests of the verifier: no code of `rot`, `hsm` or `box` in it.

Everything it says can be spoilt, one thing at a time:

    device = DeviceSimulator()
    device.debug_locked = 0                                       # what it measures and certifies
    device.edits["rt_alias", Suite.P384] = lambda plan: replace(plan, not_after="20240101000000Z")
    evidence = replace(device.evidence(), stash_log=())           # what is put together
    octets = device.sign(evidence).encode()                       # signed by the real leaf all the same
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from endocarp.crypto import certs, keys
from endocarp.crypto.certs import Certificate, KeyUsage, Name
from endocarp.crypto.keys import PrivateKey, PublicKey
from endocarp.verifier.chain import Anchor
from endocarp.verifier.policy import ReferenceValues
from endocarp.wire import cose, der
from endocarp.wire.cose import Algorithm, SignedMessage
from endocarp.wire.evidence import (
    EVIDENCE_TYPE,
    REPORT_TYPE,
    SUITES,
    Chain,
    Component,
    Evidence,
    PartitionEvidence,
    PartitionReport,
    StashEntry,
    Statement,
    Status,
)
from endocarp.wire.mailbox import (
    DataReply,
    FwInfoReply,
    PcrLogEntry,
    PcrLogId,
    QuotePcrsEcc384Reply,
    QuotePcrsMldsa87Reply,
    with_headers,
)
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Scheme, Suite

ROLES = ("root", "idevid", "ldevid", "fmc_alias", "rt_alias", "dpe_leaf", "partition", "stranger")
ISSUERS = {
    "idevid": "root",
    "ldevid": "idevid",
    "fmc_alias": "ldevid",
    "rt_alias": "fmc_alias",
    "dpe_leaf": "rt_alias",
    "partition": "rt_alias",
}
TITLES = {"idevid": "IDevID", "ldevid": "LDevID", "fmc_alias": "FMC Alias", "rt_alias": "Rt Alias"}
PATH_LENGTHS = {"idevid": 7, "ldevid": 6, "fmc_alias": 5, "rt_alias": 4}
PURPOSES = {
    "idevid": (6, 12),
    "ldevid": (7, 12),
    "fmc_alias": (12, 9),
    "rt_alias": (12,),
    "dpe_leaf": (9,),
    "partition": (9,),
}
SUITE_TITLES = {Suite.P384: "Ecc384", Suite.ML_DSA_87: "MlDsa87"}
TCB_INFO, MULTI_TCB_INFO = "2.23.133.5.4.1", "2.23.133.5.4.5"
MODEL = "MODEL-test"
NONCE = bytes(range(32))
NOW = 1_800_000_000.0
SCHEMES = {Algorithm.ESP384: Scheme.ECDSA_SHA384, Algorithm.ML_DSA_87: Scheme.ML_DSA}


def sha384(*parts: bytes) -> bytes:
    return hashlib.sha384(b"".join(parts)).digest()


@functools.cache
def key(role: str, suite: Suite) -> PrivateKey:
    """Return the key of a role; every simulator has the same ones, so that making one is cheap."""
    assert role.partition("/")[0] in ROLES
    return keys.generate(suite)


@functools.cache
def root_certificate(name: str, signer: PrivateKey) -> bytes:
    """Return a root certificate under this name, always the same one."""
    return certs.self_signed_ca(Name(name), signer)


@functools.cache
def issue(tbs: bytes, signer: PrivateKey) -> bytes:
    """Sign a certificate, or return the one that was signed before."""
    return certs.certificate(tbs, signer)


@dataclass(frozen=True)
class Plan:
    """A certificate before it is signed."""

    issuer: bytes
    subject: Name
    public: PublicKey
    signer: PrivateKey
    extensions: Mapping[str, bytes]
    not_before: str = certs.NOT_BEFORE
    not_after: str = certs.NOT_AFTER

    def with_extension(self, name: str, octets: bytes) -> "Plan":
        return replace(self, extensions={**self.extensions, name: octets})

    def without(self, name: str) -> "Plan":
        return replace(
            self, extensions={one: octets for one, octets in self.extensions.items() if one != name}
        )

    def issue(self) -> bytes:
        tbs = certs.tbs_certificate(
            issuer=self.issuer,
            subject=self.subject,
            serial=certs.serial_of(self.public),
            public=self.public,
            signer=self.signer.suite,
            extensions=list(self.extensions.values()),
            not_before=self.not_before,
            not_after=self.not_after,
        )
        return issue(tbs, self.signer)


def tcb_info(
    *, kind: bytes, fwid: bytes, svn: int | None = None, vendor_info: bytes = b"", register: bytes = b""
) -> bytes:
    """Return a DiceTcbInfo with the fields in which this server differs from another."""

    def fwids(digest: bytes) -> bytes:
        return der.sequence(der.oid("2.16.840.1.101.3.4.2.2"), der.octet_string(digest))

    fields = [der.context(6, fwids(fwid), constructed=True)]
    if svn is not None:
        fields.insert(0, der.context(3, der.integer(svn)[2:], constructed=False))
    if vendor_info:
        fields.append(der.context(8, vendor_info, constructed=False))
    fields.append(der.context(9, kind, constructed=False))
    if register:
        number = der.context(1, b"\0", constructed=False)
        digests = der.context(2, fwids(register), constructed=True)
        fields.append(der.context(11, der.sequence(number, digests), constructed=True))
    return der.sequence(*fields)


def context(kind: bytes, digest: bytes, svn: int = 0, *, locality: int = 1, before: bytes = b"") -> bytes:
    """Return what a DPE leaf says of a context that was measured by `digest`, and by `before` ahead of it."""
    register = sha384(sha384(bytes(48), before) if before else bytes(48), digest)
    return tcb_info(
        kind=kind, fwid=digest, svn=svn, vendor_info=locality.to_bytes(4, "big"), register=register
    )


@dataclass
class DeviceSimulator:
    """One server with one partition; every attribute may be changed before anything is issued."""

    nonce: bytes = NONCE
    model: str = MODEL
    ueid: bytes = b"\x01" + bytes(range(16))
    key_set: str = ""
    """Another name gives another device: other keys in every role but the root's."""
    lifecycle: int = 3
    debug_locked: int = 1
    anti_rollback_disable: int = 0
    svn: int = 5
    vendor_hash: bytes = sha384(b"vendor")
    owner_hash: bytes = sha384(b"owner")
    fmc_digest: bytes = sha384(b"fmc")
    runtime_digest: bytes = sha384(b"runtime")
    rom_digest: bytes = hashlib.sha256(b"rom").digest()
    manifest_digest: bytes = sha384(b"manifest")
    attestation_disabled: int = 0
    stash: list[StashEntry] = field(
        default_factory=lambda: [
            StashEntry(FirmwareId[name.upper()], name, sha384(name.encode()), 0)
            for name in ("box", "front", "vault")
        ]
    )
    other_registers: dict[int, bytes] = field(default_factory=dict)
    edits: dict[tuple[str, Suite], Callable[[Plan], Plan]] = field(default_factory=dict)

    # --- keys and certificates ---------------------------------------------------------------------------------

    def key(self, role: str, suite: Suite) -> PrivateKey:
        name = f"{role}/{self.key_set}" if self.key_set and role != "root" else role
        return key(name, suite)

    def name(self, role: str, suite: Suite) -> Name:
        public = self.key(role, suite).public
        serial = hashlib.sha256(public.raw).hexdigest().upper()
        if role == "root":
            return Name(self.model)
        if role == "dpe_leaf":
            return Name("DPE Leaf", hashlib.sha384(public.raw).hexdigest().upper()[:64], printable=True)
        if role == "partition":
            return Name("Endocarp Partition 0", serial)
        return Name(f"Caliptra 2.1 {SUITE_TITLES[suite]} {TITLES[role]}", serial)

    def plan(self, role: str, suite: Suite) -> Plan:
        """Return what the certificate of a role would be, before edits."""
        public, issuer = self.key(role, suite).public, ISSUERS[role]
        extensions = {
            "constraints": certs.basic_constraints(PATH_LENGTHS.get(role)),
            "key_usage": certs.key_usage(self._usages(role)),
            "purposes": certs.extended_key_usage(
                [f"2.23.133.5.4.100.{last}" for last in PURPOSES[role]], critical=role == "dpe_leaf"
            ),
            "ueid": certs.ueid(sha384(b"endocarp evidence", self.nonce) if role == "dpe_leaf" else self.ueid),
            "tcb": self._tcb(role),
            "subject_key_id": certs.subject_key_id(certs.key_id(public)),
            "authority_key_id": certs.authority_key_id(certs.key_id(self.key(issuer, suite).public)),
        }
        return Plan(
            issuer=self.name(issuer, suite).der(),
            subject=self.name(role, suite),
            public=public,
            signer=self.key(issuer, suite),
            extensions={name: octets for name, octets in extensions.items() if octets},
        )

    def certificate(self, role: str, suite: Suite) -> bytes:
        plan, edit = self.plan(role, suite), self.edits.get((role, suite))
        return (edit(plan) if edit else plan).issue()

    def chain(self, suite: Suite) -> Chain:
        roles = ("idevid", "ldevid", "fmc_alias", "rt_alias", "dpe_leaf")
        return Chain(*[self.certificate(role, suite) for role in roles])

    def anchor(self) -> Anchor:
        return Anchor(
            self.model,
            {
                suite: Certificate.parse(root_certificate(self.model, self.key("root", suite)))
                for suite in SUITES
            },
        )

    def _usages(self, role: str) -> Sequence[KeyUsage]:
        if role in ("dpe_leaf", "partition"):
            return (KeyUsage.DIGITAL_SIGNATURE,)
        if role == "rt_alias":
            return (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_CERT_SIGN)
        return (KeyUsage.KEY_CERT_SIGN,)

    # --- measurements ------------------------------------------------------------------------------------------

    @property
    def owner_info(self) -> bytes:
        return bytes([0, self.anti_rollback_disable, 0, *bytes(4), 0, 0, 0, 128])

    @property
    def vendor_info(self) -> bytes:
        return bytes([1, self.lifecycle, self.debug_locked, self.svn, 0, 0])

    def _tcb(self, role: str) -> bytes:
        if role == "fmc_alias":
            return self.fmc_tcb()
        if role == "rt_alias":
            return certs.extension(
                TCB_INFO,
                tcb_info(
                    kind=b"CALIPTRA_2_X_RT_FIRMWARE_INFO", fwid=self.runtime_digest, svn=0x100 | self.svn
                ),
            )
        if role == "dpe_leaf":
            return self.leaf_tcb()
        return self.partition_tcb() if role == "partition" else b""

    def fmc_tcb(self) -> bytes:
        owner = sha384(self.owner_hash, self.owner_info)
        vendor = sha384(self.vendor_hash, self.vendor_info)
        entries = (
            tcb_info(kind=b"CALIPTRA_2_X_FUSE_OWNER_INFO", fwid=owner),
            tcb_info(kind=b"CALIPTRA_2_X_FUSE_VENDOR_INFO", fwid=vendor),
            tcb_info(kind=b"CALIPTRA_2_X_FMC_FIRMWARE_INFO", fwid=self.fmc_digest, svn=0x100 | self.svn),
        )
        return certs.extension(MULTI_TCB_INFO, der.sequence(*entries))

    def leaf_tcb(self) -> bytes:
        pcrs = self.pcrs()
        root = tcb_info(kind=b"RTMR", fwid=pcrs[2], vendor_info=b"\xff" * 4, register=pcrs[3])
        entries = [context(b"CCIV", sha384(b"configuration"))]
        entries += [context(one.fw_id.to_bytes(4, "little"), one.digest, one.svn) for one in self.stash]
        return certs.extension(MULTI_TCB_INFO, der.sequence(root, *entries))

    def partition_tcb(self, partition: int = 0, digest: bytes = sha384(b"vault")) -> bytes:
        info = tcb_info(kind=b"EVLT", fwid=digest, vendor_info=partition.to_bytes(4, "big"))
        return certs.extension(TCB_INFO, info)

    def log_entries(self) -> list[PcrLogEntry]:
        status = (self.owner_info + self.vendor_info).ljust(48, b"\0")
        return [
            PcrLogEntry(PcrLogId.DEVICE_STATUS, None, 0b11, status),
            PcrLogEntry(PcrLogId.VENDOR_PUB_KEY_INFO_HASH, None, 0b11, self.vendor_hash),
            PcrLogEntry(PcrLogId.OWNER_PUB_KEY_HASH, None, 0b11, self.owner_hash),
            PcrLogEntry(PcrLogId.FMC_TCI, None, 0b11, self.fmc_digest),
            PcrLogEntry(PcrLogId.RT_TCI, None, 0b1100, self.runtime_digest),
        ]

    def pcrs(self) -> list[bytes]:
        registers = [bytes(48)] * 32
        rom = [self.owner_info + self.vendor_info, self.vendor_hash, self.owner_hash, self.fmc_digest]
        for index, measured in ((0, rom), (1, rom), (2, [self.runtime_digest]), (3, [self.runtime_digest])):
            for data in measured:
                registers[index] = sha384(registers[index], data)
        for one in self.stash:
            registers[31] = sha384(registers[31], one.digest)
        for index, value in self.other_registers.items():
            registers[index] = value
        return registers

    def quote(self, suite: Suite, nonce: bytes | None = None, signer: PrivateKey | None = None) -> bytes:
        nonce = self.nonce if nonce is None else nonce
        signer = signer or self.key("fmc_alias", suite)
        pcrs = b"".join(self.pcrs())
        digest = hashlib.sha512(pcrs + nonce).digest()
        if suite is Suite.P384:
            signature = signer.sign(Scheme.ECDSA_DIGEST, digest[:48])
            return with_headers(QuotePcrsEcc384Reply.of(pcrs, nonce, digest[:48], signature))
        signature = signer.sign(Scheme.ML_DSA, digest[::-1])
        return with_headers(QuotePcrsMldsa87Reply.of(pcrs, nonce, digest, signature))

    def fw_info_reply(self) -> FwInfoReply:
        return FwInfoReply(
            pl0_pauser=1,
            fw_svn=self.svn,
            min_fw_svn=0,
            cold_boot_fw_svn=self.svn,
            attestation_disabled=self.attestation_disabled,
            rom_revision=bytes(20),
            fmc_revision=bytes(20),
            runtime_revision=bytes(20),
            rom_sha256_digest=self.rom_digest,
            fmc_sha384_digest=self.fmc_digest,
            runtime_sha384_digest=self.runtime_digest,
            owner_pub_key_hash=self.owner_hash,
            authman_sha384_digest=self.manifest_digest,
            most_recent_fw_error=0,
            vendor_pub_key_hash=self.vendor_hash,
            image_manifest_pqc_type=1,
            vendor_ecc384_pub_key_index=0,
            vendor_pqc_pub_key_index=0,
            soc_manifest_current_svn=0,
            soc_manifest_min_svn=0,
            owner_auth_manifest_current_svn=0,
            owner_auth_manifest_min_svn=0,
        )

    # --- what is signed ----------------------------------------------------------------------------------------

    @property
    def rt_alias_key_id(self) -> bytes:
        return certs.key_id(self.key("rt_alias", Suite.P384).public)

    def report(self) -> PartitionReport:
        return PartitionReport(
            nonce=self.nonce,
            rt_alias_key_id=self.rt_alias_key_id,
            partition_id=0,
            image_digest=sha384(b"vault"),
            memory_mode="memfd_secret",
            sandbox={"seccomp": "filter", "landlock": "ABI 7"},
            generation=3,
            object_count=2,
        )

    def partition(
        self, report: PartitionReport | None = None, content_type: str = REPORT_TYPE
    ) -> PartitionEvidence:
        payload = (report or self.report()).encode()
        return PartitionEvidence(
            self._sign("partition", content_type, payload).encode(),
            {suite: self.certificate("partition", suite) for suite in SUITES},
        )

    def evidence(self) -> Evidence:
        log = b"".join(entry.encode() for entry in self.log_entries())
        return Evidence(
            nonce=self.nonce,
            rt_alias_key_id=self.rt_alias_key_id,
            chains={suite: self.chain(suite) for suite in SUITES},
            quotes={suite: self.quote(suite) for suite in SUITES},
            fw_info=with_headers(self.fw_info_reply()),
            pcr_log=with_headers(DataReply(log)),
            stash_log=tuple(self.stash),
            partitions=(self.partition(),),
            inventory=(Component("package cbor2", sha384(b"cbor2")),),
            statements=(Statement("root of trust", "silicon", Status.MODELLED, "fuses are files"),),
        )

    def sign(self, evidence: Evidence, content_type: str = EVIDENCE_TYPE) -> SignedMessage:
        """Sign evidence by the DPE leaf, whatever stands in it."""
        return self._sign("dpe_leaf", content_type, evidence.encode())

    def issue(self) -> bytes:
        """Return the evidence of this server, as it travels."""
        return self.sign(self.evidence()).encode()

    def _sign(self, role: str, content_type: str, payload: bytes) -> SignedMessage:
        signers = {algorithm: self.key(role, cose.SUITE[algorithm]) for algorithm in Algorithm}
        return cose.sign(
            content_type,
            payload,
            {algorithm: certs.key_id(signer.public) for algorithm, signer in signers.items()},
            lambda algorithm, octets: signers[algorithm].sign(SCHEMES[algorithm], octets),
        )


def references(model: str = MODEL) -> ReferenceValues:
    """Return what an unspoilt simulator is expected to show."""
    device = DeviceSimulator()
    digests = {
        "vendor_keys": device.vendor_hash,
        "owner_keys": device.owner_hash,
        "fmc": device.fmc_digest,
        "runtime": device.runtime_digest,
        "manifest": device.manifest_digest,
        "rom": device.rom_digest,
    }
    return ReferenceValues(
        model, digests | {name: sha384(name.encode()) for name in ("box", "front", "vault")}, device.svn
    )
