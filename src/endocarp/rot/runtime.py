"""The third stage: serves commands for as long as the server runs.

`Runtime` holds the state; the functions below it are the commands. A command changes state only after its last
check, so that what is refused leaves no trace. Source: Caliptra runtime.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from endocarp.core import Attach
from endocarp.crypto import selftest
from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384
from endocarp.crypto.keys import PublicKey
from endocarp.errors import DecodeError, PeerError, Refused
from endocarp.rot import dice, kv
from endocarp.rot.boot import Boot, Event, Stage
from endocarp.rot.custody import CustodyConnection
from endocarp.rot.dice import Cdi, Layer, Validity
from endocarp.rot.dispatch import Call, Faults, Registry, name_of
from endocarp.rot.dpe import Dpe, Issuer
from endocarp.rot.kv import KeyVault
from endocarp.rot.manifest import AuthorizedImages, ManifestAnchors, verify_manifest
from endocarp.rot.pcr import FMC_CURRENT, FMC_JOURNEY, STASH, PcrBank
from endocarp.rot.profile import CALIPTRA_2_1_2, Profile
from endocarp.wire import dpe, mailbox
from endocarp.wire.handoff import CertificatePair, Handoff, Writer
from endocarp.wire.image import PL0_PAUSER_FLAG
from endocarp.wire.mailbox import (
    PL0_CALLER,
    PL1_CALLER,
    AuthResult,
    Capability,
    Command,
    DataReply,
    DpeResultReply,
    EmptyReply,
    ImageSource,
    MailboxError,
    Request,
    StashFlags,
)
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Scheme, Suite

NO_DIGEST = bytes(48)
NO_REVISION = bytes(20)
AXI_RESPONSE = 1 << 31
"""Flag of INVOKE_DPE_MLDSA87: the reply goes to foreign memory."""


class Privilege(enum.IntEnum):
    """What a caller may do; 0 is the highest."""

    PL0 = 0
    PL1 = 1


PERMITS: Mapping[Command, Privilege] = {
    Command.POPULATE_IDEV_ECC384_CERT: Privilege.PL0,
    Command.POPULATE_IDEV_MLDSA87_CERT: Privilege.PL0,
    Command.STASH_MEASUREMENT: Privilege.PL0,
    Command.SET_AUTH_MANIFEST: Privilege.PL0,
    Command.ATTACH_CUSTODY: Privilege.PL0,
    # deviation: in Caliptra anybody may shut the module down; here that would end the whole server.
    Command.SHUTDOWN: Privilege.PL0,
}
"""The commands that not everybody may have."""


class SelfTest(enum.Enum):
    """Where the self-test on demand is."""

    IDLE = "idle"
    DONE = "done"


class Runtime:
    """The root of trust in service, from the table that FMC left and the key vault.

    Raises Refused where the table is not FMC's. Whatever goes wrong, the key vault is wiped.
    """

    def __init__(self, handoff: Handoff, vault: KeyVault, profile: Profile = CALIPTRA_2_1_2) -> None:
        self.handoff, self.profile = handoff, profile
        self.idevid = CertificatePair()
        """Empty until box has handed the certificates in."""
        self.manifest: AuthorizedImages | None = None
        self.authorized: Mapping[int, bytes] = {}
        """The SHA-384 of each image that was authorized in this boot, by its number."""
        self.self_test = SelfTest.IDLE
        self._boot = Boot(Stage.RUNTIME)
        self._vault = vault
        with self._boot.guard(vault):
            if handoff.writer is not Writer.FMC:
                raise Refused(
                    MailboxError.FMC_HANDOFF_INVALID_PARAM.name,
                    f"the hand-off table was written by {handoff.writer.name}",
                    "reset the server",
                )
            selftest.run(dice.ALGORITHMS)
            self.bank = PcrBank(handoff.pcrs, handoff.pcr_log)
            self._validity = Validity.decode(handoff.not_before, handoff.not_after)
            self.rt_alias = dice.authority(
                lambda suite: dice.load_key(vault, dice.RT_ALIAS, suite),
                lambda public: dice.name_of(dice.RT_ALIAS, public, profile),
            )
            self.dpe = self._initialize_dpe()

    def _initialize_dpe(self) -> Dpe:
        tree = Dpe(
            lambda: self._vault.take(kv.RT_CDI, Cdi),
            Issuer(self.rt_alias, self._validity, self.chain),
            locality=self.handoff.pl0_pauser,
            current=self.bank[FMC_CURRENT],
            journey=self.bank[FMC_JOURNEY],
            # Caliptra runtime, "DPE initialization": the callers that the mailbox lets in.
            configuration=sha384(*(caller.to_bytes(4, "little") for caller in (PL0_CALLER, PL1_CALLER))),
        )
        for stashed in self.handoff.measurements:
            tree.derive_context(stashed.measurement, stashed.metadata, stashed.svn)
        return tree

    @property
    def stage(self) -> Stage:
        """RUNTIME, SHUT_DOWN, or FATAL after a self-test that failed."""
        return self._boot.stage

    def limit(self, command: int) -> int:
        """Return how many octets a frame with this command may carry."""
        return COMMANDS.limit(command)

    def privilege(self, caller: int) -> Privilege:
        """Return what a caller may do."""
        # Caliptra runtime, "Privilege levels": the signed header must say that the number in it is meant.
        valid = self.handoff.header_flags & PL0_PAUSER_FLAG
        return Privilege.PL0 if valid and caller == self.handoff.pl0_pauser else Privilege.PL1

    def admit(self, call: Call) -> None:
        """Raise PeerError where this caller may not have this command, or nobody may any more."""
        if self.stage is not Stage.RUNTIME:
            raise PeerError(MailboxError.RUNTIME_SHUTDOWN, f"the root of trust: {self.stage.value}")
        needed = PERMITS.get(Command(call.command), Privilege.PL1)
        if self.privilege(call.caller) > needed:
            raise not_privileged(call)

    def execute(self, call: Call) -> bytes:
        """Run a command and return the octets of its reply; raise an EndocarpError where it is refused."""
        return COMMANDS.execute(self, call)

    def custody(self, message: bytes) -> CustodyConnection:
        """Return the custody core that an Attach's message asks for."""
        request = mailbox.AttachCustody.decode(message)
        digest = self.authorized[request.fw_id]
        return CustodyConnection(self._vault, self.rt_alias, self._validity, request.partition_id, digest)

    def certificates(self) -> Mapping[Layer, CertificatePair]:
        """Return the certificates from the device down."""
        return {
            dice.IDEVID: self.idevid,
            dice.LDEVID: self.handoff.ldevid,
            dice.FMC_ALIAS: self.handoff.fmc_alias,
            dice.RT_ALIAS: self.handoff.rt_alias,
        }

    def chain(self, suite: Suite) -> bytes:
        """Return the certificates above a DPE leaf, DER, one after another, the device's first."""
        return b"".join(pair[suite] for pair in self.certificates().values())

    def quote(self, suite: Suite, nonce: bytes) -> tuple[bytes, bytes]:
        """Return the digest over PCRs and nonce as this suite quotes it, and the signature."""
        digest, key = self.bank.quote_digest(nonce), dice.load_key(self._vault, dice.FMC_ALIAS, suite)
        if suite is Suite.P384:
            return digest[:48], key.sign(Scheme.ECDSA_DIGEST, digest[:48])
        # Caliptra runtime, "QUOTE_PCRS_MLDSA87": the engine gets the digest last octet first.
        return digest, key.sign(Scheme.ML_DSA, digest[::-1])

    def stash(self, measurement: bytes, tci_type: int, svn: int) -> None:
        """Derive a DPE context for a measurement and extend PCR 31 by it."""
        self.dpe.derive_context(measurement, tci_type, svn)
        self.bank.extend(STASH, measurement)

    def test_again(self) -> None:
        """Run every known-answer test; Refused, the key vault wiped and nothing answered any more where one fails."""
        # Caliptra, "Self test": an algorithm that fails its known-answer test is not used again before a reset.
        with self._boot.guard(self._vault):
            selftest.run(dice.ALGORITHMS, again=True)
        self.self_test = SelfTest.DONE

    def shut_down(self) -> None:
        """Wipe the key vault, then answer nothing any more.

        Each private key is taken out of the vault for one signature, so none stays behind here; what the library of
        cryptography made of one on the way lies in its own heap until that is used again.
        """
        # Caliptra, change log: SHUTDOWN is acknowledged only after everything is wiped.
        self._vault.erase_all()
        self._boot.advance(Event.SHUTDOWN)


def not_privileged(call: Call) -> PeerError:
    """Return the error for a command that needs a higher privilege."""
    return PeerError(
        MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL,
        f"caller {call.caller} may not have {name_of(call.command)}",
    )


COMMANDS: Registry[Runtime] = Registry(
    Faults(
        reserved_caller=MailboxError.RUNTIME_CMD_RESERVED_PAUSER,
        checksum=MailboxError.RUNTIME_INVALID_CHECKSUM,
        unknown=MailboxError.RUNTIME_UNIMPLEMENTED_COMMAND,
        too_long=MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS,
        malformed=MailboxError.RUNTIME_INSUFFICIENT_MEMORY,
    )
)


# --- information -----------------------------------------------------------------------------------------------


@COMMANDS.handles(mailbox.Version)
def _version(runtime: Runtime, request: mailbox.Version, call: Call) -> mailbox.VersionReply:
    profile = runtime.profile
    firmware = profile.fmc_version << 16 | profile.rom_version
    return mailbox.VersionReply.of((profile.hardware_revision, firmware, profile.runtime_version))


@COMMANDS.handles(mailbox.Capabilities)
def _capabilities(runtime: Runtime, request: mailbox.Capabilities, call: Call) -> mailbox.CapabilitiesReply:
    return mailbox.CapabilitiesReply((Capability.ROM_BASE | Capability.RT_BASE).to_bytes(16, "big"))


@COMMANDS.handles(mailbox.FwInfo)
def _fw_info(runtime: Runtime, request: mailbox.FwInfo, call: Call) -> mailbox.FwInfoReply:
    handoff, manifest = runtime.handoff, runtime.manifest
    return mailbox.FwInfoReply(
        pl0_pauser=handoff.pl0_pauser,
        fw_svn=handoff.fw_svn,
        min_fw_svn=handoff.min_fw_svn,
        cold_boot_fw_svn=handoff.cold_boot_fw_svn,
        attestation_disabled=0,
        rom_revision=NO_REVISION,
        fmc_revision=handoff.fmc_revision,
        runtime_revision=handoff.runtime_revision,
        rom_sha256_digest=handoff.rom_digest,
        fmc_sha384_digest=handoff.fmc_digest,
        runtime_sha384_digest=handoff.runtime_digest,
        owner_pub_key_hash=handoff.owner_pk_hash,
        authman_sha384_digest=manifest.digest if manifest else NO_DIGEST,
        most_recent_fw_error=0,
        vendor_pub_key_hash=handoff.vendor_pk_hash,
        image_manifest_pqc_type=handoff.pqc_type,
        vendor_ecc384_pub_key_index=handoff.vendor_ecc_index,
        vendor_pqc_pub_key_index=handoff.vendor_pqc_index,
        soc_manifest_current_svn=manifest.svn if manifest else 0,
        soc_manifest_min_svn=handoff.soc_manifest_min_svn,
        owner_auth_manifest_current_svn=0,
        owner_auth_manifest_min_svn=0,
    )


@COMMANDS.handles(mailbox.SelfTestStart)
def _self_test_start(runtime: Runtime, request: mailbox.SelfTestStart, call: Call) -> EmptyReply:
    if runtime.self_test is not SelfTest.IDLE:
        raise PeerError(MailboxError.RUNTIME_SELF_TEST_IN_PROGRESS, "the results are not fetched yet")
    runtime.test_again()
    return EmptyReply()


@COMMANDS.handles(mailbox.SelfTestGetResults)
def _self_test_get_results(runtime: Runtime, request: mailbox.SelfTestGetResults, call: Call) -> EmptyReply:
    if runtime.self_test is not SelfTest.DONE:
        raise PeerError(MailboxError.RUNTIME_SELF_TEST_NOT_STARTED, "no self-test was started")
    runtime.self_test = SelfTest.IDLE
    return EmptyReply()


@COMMANDS.handles(mailbox.Shutdown)
def _shutdown(runtime: Runtime, request: mailbox.Shutdown, call: Call) -> EmptyReply:
    runtime.shut_down()
    return EmptyReply()


# --- identity --------------------------------------------------------------------------------------------------


@COMMANDS.handles(mailbox.GetIdevEcc384Info)
def _get_idev_ecc384_info(
    runtime: Runtime, request: mailbox.GetIdevEcc384Info, call: Call
) -> mailbox.GetIdevEcc384InfoReply:
    return mailbox.GetIdevEcc384InfoReply.of(runtime.handoff.idev_keys.ecc)


@COMMANDS.handles(mailbox.GetIdevMldsa87Info)
def _get_idev_mldsa87_info(
    runtime: Runtime, request: mailbox.GetIdevMldsa87Info, call: Call
) -> mailbox.GetIdevMldsa87InfoReply:
    return mailbox.GetIdevMldsa87InfoReply(runtime.handoff.idev_keys.mldsa)


@COMMANDS.handles(mailbox.PopulateIdevEcc384Cert)
def _populate_idev_ecc384_cert(
    runtime: Runtime, request: mailbox.PopulateIdevEcc384Cert, call: Call
) -> EmptyReply:
    _check_idevid(runtime, Suite.P384, request.cert)
    runtime.idevid = dataclasses.replace(runtime.idevid, ecc=request.cert)
    return EmptyReply()


@COMMANDS.handles(mailbox.PopulateIdevMldsa87Cert)
def _populate_idev_mldsa87_cert(
    runtime: Runtime, request: mailbox.PopulateIdevMldsa87Cert, call: Call
) -> EmptyReply:
    _check_idevid(runtime, Suite.ML_DSA_87, request.cert)
    runtime.idevid = dataclasses.replace(runtime.idevid, mldsa=request.cert)
    return EmptyReply()


def _check_idevid(runtime: Runtime, suite: Suite, certificate: bytes) -> None:
    # deviation: Caliptra takes any octets; here the certificate must be about this device's key.
    try:
        public: PublicKey | None = Certificate.parse(certificate).public
    except DecodeError:
        public = None
    if public is None or public.raw != runtime.handoff.idev_keys[suite]:
        raise PeerError(
            MailboxError.RUNTIME_IDEV_CERT_POPULATION_FAILED, "no certificate of this device's IDevID key"
        )


@dataclass(frozen=True)
class _Stored:
    """Where a command finds the certificate that it answers."""

    layer: Layer
    suite: Suite


CERTIFICATES: Mapping[type[Request[DataReply]], _Stored] = {
    mailbox.GetLdevEcc384Cert: _Stored(dice.LDEVID, Suite.P384),
    mailbox.GetLdevMldsa87Cert: _Stored(dice.LDEVID, Suite.ML_DSA_87),
    mailbox.GetFmcAliasEcc384Cert: _Stored(dice.FMC_ALIAS, Suite.P384),
    mailbox.GetFmcAliasMldsa87Cert: _Stored(dice.FMC_ALIAS, Suite.ML_DSA_87),
    mailbox.GetRtAliasEcc384Cert: _Stored(dice.RT_ALIAS, Suite.P384),
    mailbox.GetRtAliasMldsa87Cert: _Stored(dice.RT_ALIAS, Suite.ML_DSA_87),
}
"""The commands that answer a certificate, and which."""


def _get_certificate(stored: _Stored) -> Callable[[Runtime, Request[DataReply], Call], DataReply]:
    def get(runtime: Runtime, request: Request[DataReply], call: Call) -> DataReply:
        return DataReply(runtime.certificates()[stored.layer][stored.suite])

    return get


for _kind, _stored in CERTIFICATES.items():
    COMMANDS.handles(_kind)(_get_certificate(_stored))


# --- measurement -----------------------------------------------------------------------------------------------


@COMMANDS.handles(mailbox.StashMeasurement)
def _stash_measurement(runtime: Runtime, request: mailbox.StashMeasurement, call: Call) -> DpeResultReply:
    runtime.stash(request.measurement, request.metadata, request.svn)
    return DpeResultReply(dpe.Status.SUCCESS)


@COMMANDS.handles(mailbox.GetPcrLog)
def _get_pcr_log(runtime: Runtime, request: mailbox.GetPcrLog, call: Call) -> DataReply:
    return DataReply(runtime.bank.log)


@COMMANDS.handles(mailbox.QuotePcrsEcc384)
def _quote_pcrs_ecc384(
    runtime: Runtime, request: mailbox.QuotePcrsEcc384, call: Call
) -> mailbox.QuotePcrsEcc384Reply:
    digest, signature = runtime.quote(Suite.P384, request.nonce)
    return mailbox.QuotePcrsEcc384Reply.of(runtime.bank.values, request.nonce, digest, signature)


@COMMANDS.handles(mailbox.QuotePcrsMldsa87)
def _quote_pcrs_mldsa87(
    runtime: Runtime, request: mailbox.QuotePcrsMldsa87, call: Call
) -> mailbox.QuotePcrsMldsa87Reply:
    digest, signature = runtime.quote(Suite.ML_DSA_87, request.nonce)
    return mailbox.QuotePcrsMldsa87Reply.of(runtime.bank.values, request.nonce, digest, signature)


# --- authorization ---------------------------------------------------------------------------------------------


@COMMANDS.handles(mailbox.SetAuthManifest)
def _set_auth_manifest(runtime: Runtime, request: mailbox.SetAuthManifest, call: Call) -> EmptyReply:
    handoff = runtime.handoff
    anchors = ManifestAnchors(
        vendor=handoff.vendor_keys,
        owner=handoff.owner_keys,
        svn_checked=bool(handoff.svn_checked),
        min_svn=handoff.soc_manifest_min_svn,
        max_svn=min(runtime.profile.max_svn, handoff.soc_manifest_max_svn),
    )
    runtime.manifest = verify_manifest(request.manifest, anchors)
    return EmptyReply()


@COMMANDS.handles(mailbox.AuthorizeAndStash)
def _authorize_and_stash(
    runtime: Runtime, request: mailbox.AuthorizeAndStash, call: Call
) -> mailbox.AuthorizeAndStashReply:
    skipped = bool(request.flags & StashFlags.SKIP_STASH)
    if not skipped and runtime.privilege(call.caller) is not Privilege.PL0:
        raise not_privileged(call)
    measurement = _image_digest(request, call)
    if runtime.manifest is None:
        return mailbox.AuthorizeAndStashReply(AuthResult.NOT_IN_MANIFEST)
    result = runtime.manifest.authorize(request.fw_id, measurement)
    if result is AuthResult.AUTHORIZED:
        if not skipped:
            runtime.stash(measurement, request.fw_id, request.svn)
        # What runs is what PL0 starts, and only what was hashed here counts: others only ask, a digest is only said.
        hashed = request.source == ImageSource.LOAD_ADDRESS
        if hashed and runtime.privilege(call.caller) is Privilege.PL0:
            runtime.authorized = {**runtime.authorized, request.fw_id: measurement}
    return mailbox.AuthorizeAndStashReply(result)


def _image_digest(request: mailbox.AuthorizeAndStash, call: Call) -> bytes:
    match request.source:
        case ImageSource.IN_REQUEST:
            return request.measurement
        case ImageSource.LOAD_ADDRESS:
            image = call.attached
            if image is None or image.nbytes != request.image_size:
                found = "no memory" if image is None else f"{image.nbytes} octets"
                raise PeerError(
                    MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS,
                    f"{found} came with the frame, must be {request.image_size} octets",
                )
            return sha384(image)
        case _:
            raise PeerError(
                MailboxError.RUNTIME_AUTH_AND_STASH_UNSUPPORTED_IMAGE_SOURCE,
                f"no image source {request.source}",
            )


@COMMANDS.handles(mailbox.AttachCustody)
def _attach_custody(runtime: Runtime, request: mailbox.AttachCustody, call: Call) -> EmptyReply:
    if request.fw_id != FirmwareId.VAULT or request.fw_id not in runtime.authorized:
        raise PeerError(
            MailboxError.RUNTIME_IMAGE_METADATA_NOT_FOUND,
            f"firmware {request.fw_id:#x} was not authorized as a vault in this boot",
        )
    if not call.channel:
        raise PeerError(
            MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS, "no channel to the vault came with the command"
        )
    call.events.append(Attach(request.encode()))
    return EmptyReply()


# --- DPE -------------------------------------------------------------------------------------------------------


@COMMANDS.handles(mailbox.InvokeDpeEcc384)
def _invoke_dpe_ecc384(runtime: Runtime, request: mailbox.InvokeDpeEcc384, call: Call) -> DataReply:
    return _invoke_dpe(runtime, dpe.Profile.P384_SHA384, request.data, call)


@COMMANDS.handles(mailbox.InvokeDpeMldsa87)
def _invoke_dpe_mldsa87(runtime: Runtime, request: mailbox.InvokeDpeMldsa87, call: Call) -> DataReply:
    if request.flags & AXI_RESPONSE:
        raise PeerError(
            MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS, "there is no foreign memory to answer to"
        )
    return _invoke_dpe(runtime, dpe.Profile.MLDSA87, request.data, call)


def _invoke_dpe(runtime: Runtime, profile: dpe.Profile, command: bytes, call: Call) -> DataReply:
    try:
        # Caliptra runtime, "INVOKE_DPE": PL1 gets no X.509 certificates.
        certify = dpe.asks_for_x509(profile, command)
        if certify and runtime.privilege(call.caller) is not Privilege.PL0:
            raise not_privileged(call)
        return DataReply(runtime.dpe.execute(profile, call.caller, command))
    except DecodeError as error:
        raise PeerError(MailboxError.RUNTIME_DPE_COMMAND_DESERIALIZATION_FAILED, str(error)) from None
