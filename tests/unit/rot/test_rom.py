"""The ROM: what it answers, what it refuses, and what it leaves behind."""

import dataclasses

import pytest

from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha256, sha384
from endocarp.errors import EndocarpError, PeerError
from endocarp.rot import kv
from endocarp.rot.boot import Stage
from endocarp.rot.builder import SigningKeys, build_bundle
from endocarp.rot.dispatch import Call
from endocarp.rot.fuses import Device
from endocarp.rot.kv import KeyVault
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.rot.refusals import ImageRefused
from endocarp.rot.rom import Rom
from endocarp.wire import mailbox
from endocarp.wire.checks import Check
from endocarp.wire.handoff import Measurement, Writer
from endocarp.wire.image import SignedData
from endocarp.wire.mailbox import (
    PL0_CALLER,
    Command,
    MailboxError,
    Reply,
    Request,
    decode_reply,
    with_checksum,
)
from endocarp.wire.suites import Suite

IMAGE = b"the archive of the rom"
NO_DATES = SignedData(bytes(15), bytes(15), bytes(10))


def execute(rom: Rom, request: Request[Reply]) -> Reply:
    octets = rom.execute(Call(PL0_CALLER, request.COMMAND, with_checksum(request)))
    return decode_reply(request, octets)


@pytest.fixture
def memory() -> bytearray:
    return bytearray(kv.SIZE)


@pytest.fixture
def rom(device: Device, memory: bytearray) -> Rom:
    return Rom(device, KeyVault(memoryview(memory)), IMAGE)


def slot(memory: bytearray, number: int) -> bytes:
    return bytes(memory[number * 64 : number * 64 + 64])


def test_after_reset_only_what_is_needed_lies_in_the_vault(rom: Rom, memory: bytearray) -> None:
    assert rom.stage is Stage.ROM
    held = {number for number in range(kv.SLOT_COUNT) if any(slot(memory, number))}
    assert held == {0, 4, 5, 6}


def test_version_and_capabilities_speak_of_the_rom_alone(rom: Rom) -> None:
    version = execute(rom, mailbox.Version())
    assert version.fips_rev == (CALIPTRA_2_1_2.hardware_revision, CALIPTRA_2_1_2.rom_version, 0)
    assert execute(rom, mailbox.Capabilities()).capabilities == bytes(15) + b"\1"


def test_the_ldevid_certificates_are_there_before_any_firmware(rom: Rom) -> None:
    for request, suite in (
        (mailbox.GetLdevEcc384Cert(), Suite.P384),
        (mailbox.GetLdevMldsa87Cert(), Suite.ML_DSA_87),
    ):
        certificate = Certificate.parse(execute(rom, request).data)
        assert certificate.public.suite is suite
        assert certificate.common_name.endswith("LDevID")


def test_a_bundle_is_verified_measured_and_handed_off(
    rom: Rom, memory: bytearray, bundle: bytes, runtime_image: bytes
) -> None:
    before = slot(memory, 6)
    assert execute(rom, mailbox.FirmwareLoad(bundle)) == mailbox.EmptyReply()
    assert rom.stage is Stage.FMC
    assert rom.result is not None
    table = rom.result.table
    assert rom.result.runtime == runtime_image
    assert table.writer is Writer.ROM
    assert table.rom_digest == sha256(IMAGE)
    assert table.runtime_digest == sha384(runtime_image)
    assert table.fmc_digest == sha384(rom.result.fmc)
    assert table.fw_svn == 5
    assert len(table.pcr_log) == 4 * 56
    assert not any(slot(memory, 4) + slot(memory, 5)), "LDevID keys stay"
    assert slot(memory, 6) != before
    fmc = Certificate.parse(table.fmc_alias.ecc)
    info = fmc.extensions["2.23.133.5.4.5"].value
    for name in ("FUSE_OWNER_INFO", "FUSE_VENDOR_INFO", "FMC_FIRMWARE_INFO"):
        assert f"CALIPTRA_2_X_{name}".encode() in info
    assert table.fmc_digest in info
    assert fmc.signed_by(Certificate.parse(rom.ldevid.ecc).public)


def test_after_the_hand_off_no_command_is_taken(rom: Rom, bundle: bytes) -> None:
    execute(rom, mailbox.FirmwareLoad(bundle))
    with pytest.raises(PeerError) as refused:
        execute(rom, mailbox.Version())
    assert refused.value.number == MailboxError.RUNTIME_SHUTDOWN


@pytest.mark.parametrize(
    ("vendor", "owner", "dates"),
    [
        (("2024", "2034"), None, ("20240101000000Z", "20340101000000Z")),
        (("2024", "2034"), ("2025", "2035"), ("20250101000000Z", "20350101000000Z")),
        (("2024", None), None, ("20230101000000Z", "99991231235959Z")),
    ],
)
def test_alias_certificates_have_the_dates_of_the_signed_header(
    rom: Rom,
    signing: SigningKeys,
    vendor: tuple[str, str | None],
    owner: tuple[str, str] | None,
    dates: tuple[str, str],
) -> None:
    bundle = build_bundle(
        b"fmc!", b"rt!!", signing, vendor_data=signed(vendor), owner_data=signed(owner or (None, None))
    )
    execute(rom, mailbox.FirmwareLoad(bundle))
    assert rom.result is not None
    table = rom.result.table
    assert (table.not_before.decode(), table.not_after.decode()) == dates
    certificate = Certificate.parse(table.fmc_alias.ecc)
    assert (certificate.not_before, certificate.not_after) == dates


def signed(years: tuple[str | None, str | None]) -> SignedData:
    first, last = (f"{year}0101000000Z".encode() if year else bytes(15) for year in years)
    return dataclasses.replace(NO_DATES, not_before=first, not_after=last)


@pytest.mark.parametrize("last", [b"\xff" * 15, b"20340101000000+", b"20230101000000Z"])
def test_a_signed_header_whose_dates_are_none_ends_the_boot(
    rom: Rom, memory: bytearray, signing: SigningKeys, last: bytes
) -> None:
    odd = dataclasses.replace(NO_DATES, not_before=b"20240101000000Z", not_after=last)
    with pytest.raises(ImageRefused) as refused:
        execute(rom, mailbox.FirmwareLoad(build_bundle(b"fmc!", b"rt!!", signing, owner_data=odd)))
    assert refused.value.check is Check.ENDOCARP_VALIDITY_INVALID
    assert (rom.stage, rom.fault) == (Stage.FATAL, refused.value)
    assert not any(memory)


def test_a_fault_of_our_own_ends_the_boot_like_a_refusal(rom: Rom, memory: bytearray) -> None:
    stranger = Call(PL0_CALLER, Command.VERSION, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rom.execute(stranger)
    assert rom.stage is Stage.FATAL
    assert not any(memory)
    with pytest.raises(PeerError, match="fatal") as refused:
        execute(rom, mailbox.Version())
    assert refused.value.number == MailboxError.RUNTIME_SHUTDOWN


def test_a_device_that_has_no_identity_leaves_an_empty_vault(device: Device, memory: bytearray) -> None:
    memory[9 * 64] = 1
    with pytest.raises((EndocarpError, ValueError)):
        Rom(dataclasses.replace(device, doe_iv=b""), KeyVault(memoryview(memory)), IMAGE)
    assert not any(memory)


def test_a_refused_bundle_ends_the_boot(rom: Rom, memory: bytearray, bundle: bytes) -> None:
    broken = bundle[:-300] + bytes([bundle[-300] ^ 1]) + bundle[-299:]
    with pytest.raises(ImageRefused) as refused:
        execute(rom, mailbox.FirmwareLoad(broken))
    assert refused.value.check is Check.RUNTIME_DIGEST_MISMATCH
    assert "--rebuild" in refused.value.advice()
    assert rom.stage is Stage.FATAL
    assert rom.fault is refused.value
    assert rom.result is None
    assert not any(memory), "secrets outlive a fatal error"
    with pytest.raises(ImageRefused):
        execute(rom, mailbox.FirmwareLoad(bundle))


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (Call(0xFFFFFFFF, Command.VERSION, b""), MailboxError.FW_PROC_MAILBOX_RESERVED_PAUSER),
        (Call(1, Command.VERSION, bytes(4)), MailboxError.FW_PROC_MAILBOX_INVALID_CHECKSUM),
        (
            Call(1, Command.FW_INFO, with_checksum(mailbox.FwInfo())),
            MailboxError.FW_PROC_MAILBOX_INVALID_COMMAND,
        ),
        (
            Call(1, Command.FIRMWARE_LOAD, bytes(mailbox.FIRMWARE_LIMIT + 1)),
            MailboxError.FW_PROC_MAILBOX_INVALID_REQUEST_LENGTH,
        ),
    ],
)
def test_every_error_of_the_cold_boot_is_fatal(rom: Rom, call: Call, number: int) -> None:
    for _ in range(2):
        with pytest.raises(PeerError) as refused:
            rom.execute(call)
        assert refused.value.number == number
    assert rom.stage is Stage.FATAL


def test_measurements_are_stashed_until_there_is_no_room(rom: Rom, bundle: bytes) -> None:
    stashed = tuple(Measurement(number, bytes((number,)) * 48, bytes(48), 0) for number in range(8))
    for measurement in stashed:
        request = mailbox.StashMeasurement(measurement.metadata, measurement.measurement, bytes(48), 0)
        assert execute(rom, request).dpe_result == 0
    with pytest.raises(PeerError) as refused:
        execute(rom, mailbox.StashMeasurement(9, bytes(48), bytes(48), 0))
    assert refused.value.number == MailboxError.FW_PROC_MAILBOX_STASH_MEASUREMENT_MAX_LIMIT


def test_stashed_measurements_are_handed_off(rom: Rom, bundle: bytes) -> None:
    execute(rom, mailbox.StashMeasurement(7, b"m" * 48, b"c" * 48, 3))
    execute(rom, mailbox.FirmwareLoad(bundle))
    assert rom.result is not None
    assert rom.result.table.measurements == (Measurement(7, b"m" * 48, b"c" * 48, 3),)
    assert rom.result.table.pcrs[31 * 48 :] == sha384(bytes(48), b"m" * 48)


def test_shutdown_wipes_the_vault(rom: Rom, memory: bytearray) -> None:
    execute(rom, mailbox.Shutdown())
    assert rom.stage is Stage.SHUT_DOWN
    assert not any(memory)
    with pytest.raises(EndocarpError):
        execute(rom, mailbox.Version())


def test_frames_are_limited_by_what_the_rom_takes(rom: Rom) -> None:
    assert rom.limit(Command.FIRMWARE_LOAD) == mailbox.FIRMWARE_LIMIT
    assert rom.limit(Command.SET_AUTH_MANIFEST) == 4096


def test_an_unlocked_device_has_another_identity(device: Device, memory: bytearray) -> None:
    fuses = dataclasses.replace(device.fuses, debug_locked=False)
    unlocked = Rom(dataclasses.replace(device, fuses=fuses), KeyVault(memoryview(memory)), IMAGE)
    locked = Rom(device, KeyVault(memoryview(memory)), IMAGE)
    assert unlocked.ldevid.ecc != locked.ldevid.ecc
