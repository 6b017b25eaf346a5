"""The first stage: derives the device's identity, takes a firmware bundle, verifies, measures and hands off.

Source: Caliptra ROM, "Cold reset"; passive mode, where the firmware arrives through the mailbox.
"""

from dataclasses import dataclass

from endocarp.crypto import selftest
from endocarp.crypto.digest import Buffer, sha256, sha384
from endocarp.crypto.secret import Secret
from endocarp.errors import EndocarpError, PeerError
from endocarp.rot import dice, kv, tcb
from endocarp.rot.boot import Boot, Event, Stage
from endocarp.rot.bundle import VerifiedImage, verify_bundle
from endocarp.rot.dice import Cdi, KeyPair
from endocarp.rot.dispatch import Call, Faults, Registry
from endocarp.rot.fuses import Device, Fuses
from endocarp.rot.kv import KeyVault
from endocarp.rot.pcr import ROM_CURRENT, ROM_JOURNEY, STASH, PcrBank
from endocarp.rot.profile import CALIPTRA_2_1_2, Profile
from endocarp.rot.tcb import TcbInfo
from endocarp.wire import handoff, mailbox
from endocarp.wire.handoff import CertificatePair, Handoff, Measurement
from endocarp.wire.mailbox import (
    Capability,
    DataReply,
    DeviceStatus,
    DpeResultReply,
    EmptyReply,
    FuseOwnerInfo,
    FuseVendorInfo,
    MailboxError,
    PcrLogId,
)


@dataclass(frozen=True)
class Loaded:
    """What ROM leaves: the table and, copied once and verified, the images to run next."""

    table: Handoff
    fmc: bytes
    runtime: bytes


class Rom:
    """The ROM of one device, from its reset on; answers mailbox commands until it has handed off.

    `vault` is the empty key vault that later stages inherit. `image` is the archive that this code was started
    from, whose SHA-256 goes into FW_INFO. Once `result` is there, run `result.fmc`.
    """

    def __init__(
        self, device: Device, vault: KeyVault, image: Buffer, profile: Profile = CALIPTRA_2_1_2
    ) -> None:
        self.device, self.profile = device, profile
        self.result: Loaded | None = None
        self.fault: EndocarpError | None = None
        """Why the boot came to its end, where it did."""
        self._boot = Boot(Stage.RESET)
        self._vault = vault
        self._bank = PcrBank()
        self._measurements: tuple[Measurement, ...] = ()
        with self._boot.guard(vault):
            selftest.run(dice.ALGORITHMS)
            self._digest = sha256(image)
            idev_keys = self._derive_idevid()
            self._idev_public = dice.public_keys(idev_keys)
            self.ldevid = self._derive_ldevid(idev_keys)
            dice.erase_keys(vault, dice.IDEVID)
        self._boot.advance(Event.IDENTITY_DERIVED)

    @property
    def stage(self) -> Stage:
        """Where the boot is."""
        return self._boot.stage

    def limit(self, command: int) -> int:
        """Return how many octets a frame with this command may carry."""
        return COMMANDS.limit(command)

    def admit(self, call: Call) -> None:
        """Let every caller have every command of this stage."""

    def execute(self, call: Call) -> bytes:
        """Run a command and return the octets of its reply.

        Every error ends the boot (Caliptra ROM: an error in the cold-boot flow is fatal): the key vault is wiped, and
        later commands are answered by the same refusal, or, after a fault of our own, by RUNTIME_SHUTDOWN.
        """
        if self.fault is not None:
            raise self.fault
        if self.stage is not Stage.ROM:
            raise PeerError(
                MailboxError.RUNTIME_SHUTDOWN, f"the ROM is not there any more: {self.stage.value}"
            )
        try:
            with self._boot.guard(self._vault):
                return COMMANDS.execute(self, call)
        except EndocarpError as error:
            self.fault = error
            raise

    # --- identity ----------------------------------------------------------------------------------------------

    def _derive_idevid(self) -> KeyPair:
        with dice.unique_device_secret(self.device) as uds, dice.field_entropy(self.device) as entropy:
            self._vault.put(kv.FIELD_ENTROPY, entropy)
            with dice.idevid_cdi(uds) as cdi, dice.stable_root_idev(cdi) as root:
                self._vault.put(kv.IDEV_CDI, cdi)
                self._vault.put(kv.STABLE_ROOT_IDEV, root)
                return dice.derive_keys(self._vault, cdi, dice.IDEVID)

    def _derive_ldevid(self, issuer: KeyPair) -> CertificatePair:
        with (
            self._vault.take(kv.IDEV_CDI, Cdi) as idev,
            self._vault.take(kv.FIELD_ENTROPY, Secret) as entropy,
            dice.ldevid_cdi(idev, entropy) as cdi,
        ):
            self._vault.put(kv.LDEV_CDI, cdi)
            keys = dice.derive_keys(self._vault, cdi, dice.LDEVID)
        # deviation: Caliptra puts the stable identity root of the LDevID here, which no command of ours takes.
        self._vault.erase(kv.FIELD_ENTROPY)
        fuses, profile = self.device.fuses, self.profile
        idevid = dice.authority(
            issuer.__getitem__,
            lambda public: dice.name_of(dice.IDEVID, public, profile),
            lambda public: dice.idevid_key_id(public, fuses),
        )
        return dice.certify(dice.LDEVID, dice.public_halves(keys), idevid, ueid=fuses.ueid, profile=profile)

    # --- commands ----------------------------------------------------------------------------------------------

    def stash(self, measurement: Measurement) -> None:
        """Keep a measurement for the DPE of the runtime, and extend PCR 31 by it."""
        limit = self.profile.rom_stash_limit
        if len(self._measurements) >= limit:
            raise PeerError(
                MailboxError.FW_PROC_MAILBOX_STASH_MEASUREMENT_MAX_LIMIT, f"{limit} measurements are stashed"
            )
        self._measurements += (measurement,)
        self._bank.extend(STASH, measurement.measurement)

    def load(self, bundle: bytes) -> None:
        """Verify a bundle, measure it, derive and certify the FMC alias, and leave the result."""
        image = verify_bundle(bundle, self.device.fuses, self.profile)
        status = _device_status(self.device.fuses, image)
        self._measure(status, image)
        fmc_alias = self._derive_fmc_alias(image, status)
        table = self._table(image, fmc_alias)
        self._boot.advance(Event.FIRMWARE_VERIFIED)
        self.result = Loaded(table, image.fmc, image.runtime)

    def shut_down(self) -> None:
        """Wipe the key vault, then answer nothing any more."""
        self._vault.erase_all()
        self._boot.advance(Event.SHUTDOWN)

    def _measure(self, status: DeviceStatus, image: VerifiedImage) -> None:
        # Caliptra ROM, "PCR0 and PCR1": status of the device, both key hashes, then the FMC.
        for entry, data in (
            (PcrLogId.DEVICE_STATUS, status.encode()),
            (PcrLogId.VENDOR_PUB_KEY_INFO_HASH, image.vendor_pk_hash),
            (PcrLogId.OWNER_PUB_KEY_HASH, image.owner_pk_hash),
            (PcrLogId.FMC_TCI, image.fmc_digest),
        ):
            self._bank.measure(entry, (ROM_CURRENT, ROM_JOURNEY), data)

    def _derive_fmc_alias(self, image: VerifiedImage, status: DeviceStatus) -> CertificatePair:
        with self._vault.take(kv.LDEV_CDI, Cdi) as ldev, dice.fmc_cdi(ldev, self._bank[ROM_CURRENT]) as cdi:
            self._vault.put(kv.FMC_CDI, cdi)
            keys = dice.derive_keys(self._vault, cdi, dice.FMC_ALIAS)
        issuer = dice.authority(
            dice.load_keys(self._vault, dice.LDEVID).__getitem__,
            lambda public: dice.name_of(dice.LDEVID, public, self.profile),
        )
        dice.erase_keys(self._vault, dice.LDEVID)
        return dice.certify(
            dice.FMC_ALIAS,
            dice.public_halves(keys),
            issuer,
            ueid=self.device.fuses.ueid,
            profile=self.profile,
            evidence=[_tcb(status, image, self.profile)],
            validity=image.validity,
        )

    def _table(self, image: VerifiedImage, fmc_alias: CertificatePair) -> Handoff:
        fuses, header, manifest, validity = self.device.fuses, image.header, image.manifest, image.validity
        return Handoff(
            marker=handoff.MARKER,
            version=handoff.VERSION,
            writer=handoff.Writer.ROM,
            svn_checked=fuses.svn_checked,
            soc_manifest_min_svn=fuses.soc_manifest_min_svn,
            soc_manifest_max_svn=fuses.soc_manifest_max_svn,
            ueid=fuses.ueid,
            fw_svn=image.svn,
            min_fw_svn=image.svn,
            cold_boot_fw_svn=image.svn,
            header_flags=header.flags,
            pl0_pauser=header.pl0_pauser,
            pqc_type=manifest.pqc_key_type,
            vendor_ecc_index=header.vendor_ecc_pub_key_idx,
            vendor_pqc_index=header.vendor_pqc_pub_key_idx,
            rom_digest=self._digest,
            fmc_digest=image.fmc_digest,
            runtime_digest=image.runtime_digest,
            vendor_pk_hash=image.vendor_pk_hash,
            owner_pk_hash=image.owner_pk_hash,
            fmc_revision=manifest.fmc.revision,
            runtime_revision=manifest.runtime.revision,
            not_before=validity.not_before.encode(),
            not_after=validity.not_after.encode(),
            vendor_keys=image.vendor_keys,
            owner_keys=image.owner_keys,
            idev_keys=self._idev_public,
            ldevid=self.ldevid,
            fmc_alias=fmc_alias,
            rt_alias=CertificatePair(),
            pcrs=self._bank.values,
            pcr_log=self._bank.log,
            measurements=self._measurements,
        )


def _device_status(fuses: Fuses, image: VerifiedImage) -> DeviceStatus:
    header = image.header
    return DeviceStatus(
        owner=FuseOwnerInfo(
            owner_hash_in_fuses=image.owner_pk_hash_in_fuses,
            anti_rollback_disable=fuses.anti_rollback_disable,
            ecc_revocation=fuses.ecc_revocation,
            lms_revocation=fuses.lms_revocation,
            mldsa_revocation=fuses.mldsa_revocation,
            fw_fuse_svn=image.effective_fuse_svn,
            soc_manifest_fuse_svn=fuses.soc_manifest_min_svn,
            soc_manifest_max_svn=fuses.soc_manifest_max_svn,
        ),
        vendor=FuseVendorInfo(
            pqc_key_type=image.manifest.pqc_key_type,
            lifecycle=fuses.lifecycle,
            debug_locked=fuses.debug_locked,
            cold_boot_svn=image.svn,
            vendor_ecc_index=header.vendor_ecc_pub_key_idx,
            vendor_pqc_index=header.vendor_pqc_pub_key_idx,
        ),
    )


def _tcb(status: DeviceStatus, image: VerifiedImage, profile: Profile) -> bytes:
    """Return what the FMC alias certificate says was measured."""
    owner = sha384(image.owner_pk_hash, status.owner.encode())
    vendor = sha384(image.vendor_pk_hash, status.vendor.encode())
    return tcb.multi_tcb_info(
        [
            TcbInfo(fwid=owner, type=profile.owner_tcb_type.encode()),
            TcbInfo(fwid=vendor, type=profile.vendor_tcb_type.encode()),
            TcbInfo(fwid=image.fmc_digest, type=profile.fmc_tcb_type.encode(), svn=tcb.fixed_svn(image.svn)),
        ]
    )


# --- handlers --------------------------------------------------------------------------------------------------

COMMANDS: Registry[Rom] = Registry(
    Faults(
        reserved_caller=MailboxError.FW_PROC_MAILBOX_RESERVED_PAUSER,
        checksum=MailboxError.FW_PROC_MAILBOX_INVALID_CHECKSUM,
        unknown=MailboxError.FW_PROC_MAILBOX_INVALID_COMMAND,
        too_long=MailboxError.FW_PROC_MAILBOX_INVALID_REQUEST_LENGTH,
        malformed=MailboxError.FW_PROC_MAILBOX_INVALID_REQUEST_LENGTH,
    )
)


@COMMANDS.handles(mailbox.FirmwareLoad)
def _firmware_load(rom: Rom, request: mailbox.FirmwareLoad, call: Call) -> EmptyReply:
    rom.load(request.bundle)
    return EmptyReply()


@COMMANDS.handles(mailbox.StashMeasurement)
def _stash_measurement(rom: Rom, request: mailbox.StashMeasurement, call: Call) -> DpeResultReply:
    rom.stash(Measurement(request.metadata, request.measurement, request.context, request.svn))
    return DpeResultReply(0)


@COMMANDS.handles(mailbox.Version)
def _version(rom: Rom, request: mailbox.Version, call: Call) -> mailbox.VersionReply:
    profile = rom.profile
    return mailbox.VersionReply.of((profile.hardware_revision, profile.rom_version, 0))


@COMMANDS.handles(mailbox.Capabilities)
def _capabilities(rom: Rom, request: mailbox.Capabilities, call: Call) -> mailbox.CapabilitiesReply:
    return mailbox.CapabilitiesReply(Capability.ROM_BASE.to_bytes(16, "big"))


@COMMANDS.handles(mailbox.GetLdevEcc384Cert)
def _get_ldev_ecc384_cert(rom: Rom, request: mailbox.GetLdevEcc384Cert, call: Call) -> DataReply:
    return DataReply(rom.ldevid.ecc)


@COMMANDS.handles(mailbox.GetLdevMldsa87Cert)
def _get_ldev_mldsa87_cert(rom: Rom, request: mailbox.GetLdevMldsa87Cert, call: Call) -> DataReply:
    return DataReply(rom.ldevid.mldsa)


@COMMANDS.handles(mailbox.Shutdown)
def _shutdown(rom: Rom, request: mailbox.Shutdown, call: Call) -> EmptyReply:
    rom.shut_down()
    return EmptyReply()
