"""The runtime: every command, every refusal, and that a refusal leaves no trace."""

import dataclasses
from collections.abc import Callable

import pytest

from endocarp.core import Attach
from endocarp.crypto import selftest
from endocarp.crypto.digest import sha384
from endocarp.crypto.selftest import TESTS, Algorithm
from endocarp.errors import DeviceError, EndocarpError, PeerError, Refused
from endocarp.rot import dice, kv
from endocarp.rot.boot import Stage
from endocarp.rot.builder import SigningKeys, build_manifest
from endocarp.rot.dispatch import Call
from endocarp.rot.dpe import PL0_LIMIT
from endocarp.rot.fuses import Device
from endocarp.rot.kv import KeyVault
from endocarp.rot.mailbox import number_of
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.rot.provision import provision, root_authority
from endocarp.rot.refusals import ManifestRefused
from endocarp.rot.runtime import CERTIFICATES, COMMANDS, PERMITS, Privilege, Runtime
from endocarp.wire import custody, dpe, mailbox
from endocarp.wire.checks import ManifestCheck
from endocarp.wire.handoff import Handoff, Measurement, Writer
from endocarp.wire.mailbox import (
    PL0_CALLER,
    PL1_CALLER,
    AuthResult,
    Command,
    ImageSource,
    MailboxError,
    Reply,
    Request,
    decode_reply,
    with_checksum,
)
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Suite

VAULT = FirmwareId.VAULT
IMAGE = b"the archive of a vault"
DIGEST = sha384(IMAGE)
SKIP = 1


@pytest.fixture(scope="module")
def manifest(signing: SigningKeys) -> bytes:
    return build_manifest({VAULT: IMAGE, FirmwareId.FRONT: b"front"}, signing, svn=4)


@pytest.fixture(scope="module")
def provisioned(device: Device, signing: SigningKeys) -> Device:
    keys = {Suite.P384: signing.owner.ecc, Suite.ML_DSA_87: signing.owner.mldsa}
    return provision(device, root_authority("MODEL test root", keys), CALIPTRA_2_1_2)


def execute(runtime: Runtime, request: Request[Reply], caller: int = PL0_CALLER) -> Reply:
    octets = runtime.execute(Call(caller, request.COMMAND, with_checksum(request)))
    return decode_reply(request, octets)


def snapshot(runtime: Runtime, memory: bytearray) -> object:
    return (
        runtime.stage,
        runtime.bank.values,
        runtime.bank.log,
        runtime.dpe.contexts,
        runtime.idevid,
        runtime.manifest,
        runtime.authorized,
        runtime.self_test,
        bytes(memory),
    )


def authorize(
    digest: bytes = DIGEST,
    *,
    fw_id: int = VAULT,
    flags: int = 0,
    source: int = ImageSource.IN_REQUEST,
    size: int = 0,
) -> mailbox.AuthorizeAndStash:
    return mailbox.AuthorizeAndStash(fw_id, digest, bytes(48), 0, flags, source, size)


def hand_over_image(runtime: Runtime, image: bytes = IMAGE, *, flags: int = 0) -> int:
    request = authorize(flags=flags, source=ImageSource.LOAD_ADDRESS, size=len(image))
    call = Call(PL0_CALLER, request.COMMAND, with_checksum(request), memoryview(image))
    return decode_reply(request, runtime.execute(call)).auth_req_result


# --- start -----------------------------------------------------------------------------------------------------


def test_the_runtime_takes_no_table_but_the_fmcs(left_by_rom: tuple[Handoff, bytes]) -> None:
    memory = bytearray(left_by_rom[1])
    with pytest.raises(Refused, match="written by ROM"):
        Runtime(left_by_rom[0], KeyVault(memoryview(memory)))
    assert not any(memory)


def test_measurements_stashed_in_rom_become_contexts(left_by_fmc: tuple[Handoff, bytes]) -> None:
    stashed = (Measurement(7, b"a" * 48, bytes(48), 1), Measurement(8, b"b" * 48, bytes(48), 2))
    handoff = dataclasses.replace(left_by_fmc[0], measurements=stashed)
    runtime = Runtime(handoff, KeyVault(memoryview(bytearray(left_by_fmc[1]))))
    assert [(context.tci_type, context.svn) for context in runtime.dpe.contexts[2:]] == [(7, 1), (8, 2)]


@pytest.mark.parametrize("name", [b"RTMR", b"CCIV"])
def test_names_of_the_root_of_trust_are_not_taken_over_from_rom(
    left_by_fmc: tuple[Handoff, bytes], name: bytes
) -> None:
    stashed = (Measurement(int.from_bytes(name, "little"), b"a" * 48, bytes(48), 1),)
    handoff, memory = dataclasses.replace(left_by_fmc[0], measurements=stashed), bytearray(left_by_fmc[1])
    with pytest.raises(PeerError) as refused:
        Runtime(handoff, KeyVault(memoryview(memory)))
    assert refused.value.number == MailboxError.RUNTIME_STASH_MEASUREMENT_RESERVED_FW_ID
    assert not any(memory)


# --- privilege -------------------------------------------------------------------------------------------------


def test_permits_name_commands_that_exist() -> None:
    assert PERMITS.keys() <= COMMANDS.handlers.keys()
    assert set(COMMANDS.handlers) == set(Command) - {Command.FIRMWARE_LOAD}


@pytest.mark.parametrize("command", sorted(COMMANDS.handlers))
def test_only_pl0_gets_what_the_table_keeps_for_it(runtime: Runtime, command: int) -> None:
    needed = PERMITS.get(Command(command), Privilege.PL1)
    runtime.admit(Call(PL0_CALLER, command, b""))
    if needed is Privilege.PL1:
        runtime.admit(Call(PL1_CALLER, command, b""))
        return
    with pytest.raises(PeerError) as refused:
        runtime.admit(Call(PL1_CALLER, command, b""))
    assert refused.value.number == MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL


def test_without_the_signed_flag_nobody_has_pl0(left_by_fmc: tuple[Handoff, bytes]) -> None:
    handoff = dataclasses.replace(left_by_fmc[0], header_flags=0)
    runtime = Runtime(handoff, KeyVault(memoryview(bytearray(left_by_fmc[1]))))
    assert runtime.privilege(PL0_CALLER) is Privilege.PL1


# --- information and identity ----------------------------------------------------------------------------------


def test_before_a_manifest_is_set_fw_info_names_none(runtime: Runtime, manifest: bytes) -> None:
    info = execute(runtime, mailbox.FwInfo())
    assert info.authman_sha384_digest == bytes(48)
    assert info.soc_manifest_current_svn == 0
    execute(runtime, mailbox.SetAuthManifest(manifest))
    info = execute(runtime, mailbox.FwInfo())
    assert info.authman_sha384_digest == sha384(manifest)
    assert info.soc_manifest_current_svn == 4


def test_version_names_rom_fmc_and_runtime(runtime: Runtime) -> None:
    profile = CALIPTRA_2_1_2
    assert execute(runtime, mailbox.Version()).fips_rev == (
        profile.hardware_revision,
        profile.fmc_version << 16 | profile.rom_version,
        profile.runtime_version,
    )


def test_capabilities_are_big_endian(runtime: Runtime) -> None:
    assert execute(runtime, mailbox.Capabilities()).capabilities == bytes(7) + b"\1" + bytes(7) + b"\1"


def test_the_idevid_keys_are_told(runtime: Runtime) -> None:
    ecc = execute(runtime, mailbox.GetIdevEcc384Info())
    assert b"\4" + ecc.idev_pub_x + ecc.idev_pub_y == runtime.handoff.idev_keys.ecc
    assert execute(runtime, mailbox.GetIdevMldsa87Info()).idev_pub_key == runtime.handoff.idev_keys.mldsa


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_certificates_are_those_of_the_table(
    runtime: Runtime, kind: type[Request[mailbox.DataReply]]
) -> None:
    stored = CERTIFICATES[kind]
    expected = {
        dice.LDEVID: runtime.handoff.ldevid,
        dice.FMC_ALIAS: runtime.handoff.fmc_alias,
        dice.RT_ALIAS: runtime.handoff.rt_alias,
    }[stored.layer]
    assert execute(runtime, kind(), PL1_CALLER).data == expected[stored.suite]


def test_populated_certificates_head_the_chain(runtime: Runtime, provisioned: Device) -> None:
    ecc, mldsa = provisioned.idevid_ecc_certificate, provisioned.idevid_mldsa_certificate
    execute(runtime, mailbox.PopulateIdevEcc384Cert(ecc))
    execute(runtime, mailbox.PopulateIdevMldsa87Cert(mldsa))
    for profile, octets in ((dpe.Profile.P384_SHA384, ecc), (dpe.Profile.MLDSA87, mldsa)):
        command = dpe.encode_command(profile, dpe.GetCertificateChain(0, 256))
        response = runtime.dpe.execute(profile, PL0_CALLER, command)
        assert dpe.decode_response(dpe.GetCertificateChain, response).piece == octets[:256]


@pytest.mark.parametrize("octets", [b"", b"no certificate"])
def test_a_certificate_that_is_none_is_not_populated(
    runtime: Runtime, memory: bytearray, octets: bytes
) -> None:
    before = snapshot(runtime, memory)
    for request in (mailbox.PopulateIdevEcc384Cert(octets), mailbox.PopulateIdevMldsa87Cert(octets)):
        with pytest.raises(PeerError) as refused:
            execute(runtime, request)
        assert refused.value.number == MailboxError.RUNTIME_IDEV_CERT_POPULATION_FAILED
    assert snapshot(runtime, memory) == before


def test_a_certificate_of_another_device_is_not_populated(runtime: Runtime) -> None:
    with pytest.raises(PeerError, match="no certificate of this device's"):
        execute(runtime, mailbox.PopulateIdevEcc384Cert(runtime.handoff.ldevid.ecc))


# --- self-test and shutdown ------------------------------------------------------------------------------------


def test_the_self_test_runs_once_for_each_result(runtime: Runtime) -> None:
    with pytest.raises(PeerError) as refused:
        execute(runtime, mailbox.SelfTestGetResults())
    assert refused.value.number == MailboxError.RUNTIME_SELF_TEST_NOT_STARTED
    execute(runtime, mailbox.SelfTestStart())
    with pytest.raises(PeerError) as refused:
        execute(runtime, mailbox.SelfTestStart())
    assert refused.value.number == MailboxError.RUNTIME_SELF_TEST_IN_PROGRESS
    execute(runtime, mailbox.SelfTestGetResults())


def answers_wrongly() -> bool:
    return False


def answers_not_at_all() -> bool:
    raise ValueError("the library refuses")


@pytest.mark.parametrize("test", [answers_wrongly, answers_not_at_all])
def test_a_self_test_that_fails_ends_the_service(
    runtime: Runtime, memory: bytearray, monkeypatch: pytest.MonkeyPatch, test: Callable[[], bool]
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(TESTS, Algorithm.KDF, test)
        with pytest.raises(Refused, match="gives wrong answers"):
            execute(runtime, mailbox.SelfTestStart())
    assert runtime.stage is Stage.FATAL
    assert not any(memory)
    for request in (mailbox.QuotePcrsEcc384(bytes(32)), mailbox.SelfTestStart(), mailbox.Version()):
        with pytest.raises(PeerError, match="fatal") as refused:
            runtime.execute(Call(PL0_CALLER, request.COMMAND, with_checksum(request)))
        assert refused.value.number == MailboxError.RUNTIME_SHUTDOWN
    runtime.shut_down()
    assert runtime.stage is Stage.FATAL
    selftest.run([Algorithm.KDF], again=True)


def test_after_a_shutdown_no_key_is_left_with_those_that_used_it(runtime: Runtime, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    hand_over_image(runtime)
    channel = runtime.custody(mailbox.AttachCustody(3, VAULT).encode())
    runtime.shut_down()
    for suite in dice.SUITES:
        with pytest.raises(Refused, match="holds no"):
            runtime.quote(suite, bytes(32))
        with pytest.raises(Refused, match="holds no"):
            runtime.rt_alias.key(suite)
    assert channel.receive(custody.encode_request(custody.SealKey()), 0.0) == []
    with pytest.raises(DeviceError) as refused:
        custody.decode_reply(custody.SealKey, channel.outgoing()[0])
    assert refused.value.number == custody.Status.SHUT_DOWN


def test_after_a_shutdown_every_command_is_refused(runtime: Runtime, memory: bytearray) -> None:
    execute(runtime, mailbox.Shutdown())
    assert runtime.stage is Stage.SHUT_DOWN
    assert not any(memory)
    for request in (mailbox.Version(), mailbox.QuotePcrsEcc384(bytes(32)), mailbox.Shutdown()):
        with pytest.raises(PeerError) as refused:
            runtime.execute(Call(PL0_CALLER, request.COMMAND, with_checksum(request)))
        assert refused.value.number == MailboxError.RUNTIME_SHUTDOWN
    runtime.shut_down()


# --- measurement -----------------------------------------------------------------------------------------------


def test_a_stash_extends_pcr_31_and_the_tree(runtime: Runtime) -> None:
    assert execute(runtime, mailbox.StashMeasurement(7, b"m" * 48, bytes(48), 3)).dpe_result == 0
    assert runtime.bank[31] == sha384(bytes(48), b"m" * 48)
    last = runtime.dpe.contexts[-1]
    assert (last.tci_type, last.current, last.svn) == (7, b"m" * 48, 3)


@pytest.mark.parametrize("name", [b"RTMR", b"CCIV"])
def test_names_of_the_root_of_trust_cannot_be_stashed(
    runtime: Runtime, memory: bytearray, name: bytes
) -> None:
    before = snapshot(runtime, memory)
    with pytest.raises(PeerError) as refused:
        execute(runtime, mailbox.StashMeasurement(int.from_bytes(name, "little"), bytes(48), bytes(48), 0))
    assert refused.value.number == MailboxError.RUNTIME_STASH_MEASUREMENT_RESERVED_FW_ID
    assert snapshot(runtime, memory) == before


def test_a_stash_without_room_leaves_no_trace(runtime: Runtime, memory: bytearray, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    while len(runtime.dpe.contexts) < PL0_LIMIT:
        runtime.stash(b"m" * 48, 7, 0)
    before = snapshot(runtime, memory)
    requests: tuple[Request[mailbox.DpeResultReply] | Request[mailbox.AuthorizeAndStashReply], ...] = (
        mailbox.StashMeasurement(7, bytes(48), bytes(48), 0),
        authorize(),
    )
    for request in requests:
        with pytest.raises(PeerError) as refused:
            runtime.execute(Call(PL0_CALLER, request.COMMAND, with_checksum(request)))
        assert refused.value.number == MailboxError.RUNTIME_PL0_USED_DPE_CONTEXT_THRESHOLD_REACHED
        assert snapshot(runtime, memory) == before


def test_quotes_differ_by_their_nonce(runtime: Runtime) -> None:
    first, second = (
        execute(runtime, mailbox.QuotePcrsEcc384(bytes((octet,)) * 32), PL1_CALLER) for octet in (1, 2)
    )
    assert first.pcrs == second.pcrs == runtime.bank.values
    assert first.digest != second.digest
    assert first.nonce == b"\1" * 32
    assert execute(runtime, mailbox.QuotePcrsMldsa87(bytes(32)), PL1_CALLER).pcrs == runtime.bank.values


def test_the_log_is_that_of_rom_and_fmc(runtime: Runtime) -> None:
    execute(runtime, mailbox.StashMeasurement(7, b"m" * 48, bytes(48), 3))
    assert execute(runtime, mailbox.GetPcrLog(), PL1_CALLER).data == runtime.handoff.pcr_log


# --- authorization ---------------------------------------------------------------------------------------------


def test_a_manifest_that_was_changed_is_refused(runtime: Runtime, memory: bytearray, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    before = snapshot(runtime, memory)
    with pytest.raises(ManifestRefused) as refused:
        execute(runtime, mailbox.SetAuthManifest(manifest[:-1] + bytes((manifest[-1] ^ 1,))))
    assert refused.value.check is ManifestCheck.RUNTIME_AUTH_MANIFEST_VENDOR_ECC_SIGNATURE_INVALID
    assert snapshot(runtime, memory) == before


def test_without_a_manifest_nothing_is_authorized(runtime: Runtime) -> None:
    assert execute(runtime, authorize()).auth_req_result == AuthResult.NOT_IN_MANIFEST
    assert runtime.authorized == {}


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        (authorize(), AuthResult.AUTHORIZED),
        (authorize(bytes(48)), AuthResult.DIGEST_MISMATCH),
        (authorize(fw_id=0x1234), AuthResult.NOT_IN_MANIFEST),
        (authorize(fw_id=FirmwareId.BOX), AuthResult.NOT_IN_MANIFEST),
    ],
)
def test_a_digest_that_is_only_said_is_judged_and_grants_nothing(
    runtime: Runtime, manifest: bytes, request_: mailbox.AuthorizeAndStash, result: AuthResult
) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    contexts = runtime.dpe.contexts
    assert execute(runtime, request_).auth_req_result == result
    assert (runtime.dpe.contexts != contexts) is (result is AuthResult.AUTHORIZED)
    assert runtime.authorized == {}


def test_a_restart_is_authorized_without_a_context(runtime: Runtime, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    contexts, pcrs = runtime.dpe.contexts, runtime.bank.values
    assert execute(runtime, authorize(flags=SKIP)).auth_req_result == AuthResult.AUTHORIZED
    assert (runtime.dpe.contexts, runtime.bank.values) == (contexts, pcrs)


def test_a_restarted_image_counts_as_hashed_without_a_context(runtime: Runtime, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    contexts = runtime.dpe.contexts
    assert hand_over_image(runtime, flags=SKIP) == AuthResult.AUTHORIZED
    assert (runtime.dpe.contexts, runtime.authorized) == (contexts, {VAULT: DIGEST})


def test_a_stranger_may_ask_but_authorizes_nothing(runtime: Runtime, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    reply = execute(runtime, authorize(flags=SKIP), PL1_CALLER)
    assert reply.auth_req_result == AuthResult.AUTHORIZED
    assert runtime.authorized == {}
    with pytest.raises(PeerError) as refused:
        execute(runtime, authorize(), PL1_CALLER)
    assert refused.value.number == MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL


def test_memory_beside_the_frame_is_hashed_whatever_the_request_says(
    runtime: Runtime, manifest: bytes
) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    for image, result in ((IMAGE, AuthResult.AUTHORIZED), (IMAGE[::-1], AuthResult.DIGEST_MISMATCH)):
        assert hand_over_image(runtime, image) == result
        assert runtime.authorized == {VAULT: DIGEST}


@pytest.mark.parametrize(
    ("source", "size", "image", "error"),
    [
        (ImageSource.LOAD_ADDRESS, len(IMAGE), None, MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS),
        (ImageSource.LOAD_ADDRESS, len(IMAGE) + 1, IMAGE, MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS),
        (
            ImageSource.STAGING_ADDRESS,
            0,
            None,
            MailboxError.RUNTIME_AUTH_AND_STASH_UNSUPPORTED_IMAGE_SOURCE,
        ),
        (0, 0, None, MailboxError.RUNTIME_AUTH_AND_STASH_UNSUPPORTED_IMAGE_SOURCE),
    ],
)
def test_an_image_that_is_not_there_is_refused(
    runtime: Runtime,
    memory: bytearray,
    manifest: bytes,
    source: int,
    size: int,
    image: bytes | None,
    error: MailboxError,
) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    before = snapshot(runtime, memory)
    request = authorize(source=source, size=size)
    attached = None if image is None else memoryview(image)
    with pytest.raises(PeerError) as refused:
        runtime.execute(Call(PL0_CALLER, request.COMMAND, with_checksum(request), attached))
    assert refused.value.number == error
    assert snapshot(runtime, memory) == before


# --- custody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fw_id", [VAULT, FirmwareId.FRONT])
def test_no_custody_without_an_authorized_vault(runtime: Runtime, manifest: bytes, fw_id: int) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    front = authorize(sha384(b"front"), fw_id=FirmwareId.FRONT, flags=SKIP)
    assert execute(runtime, front).auth_req_result == AuthResult.AUTHORIZED
    request = mailbox.AttachCustody(0, fw_id)
    call = Call(PL0_CALLER, request.COMMAND, with_checksum(request))
    with pytest.raises(PeerError) as refused:
        runtime.execute(call)
    assert refused.value.number == MailboxError.RUNTIME_IMAGE_METADATA_NOT_FOUND
    assert call.events == []


def test_an_authorized_vault_gets_its_channel(runtime: Runtime, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    hand_over_image(runtime)
    request = mailbox.AttachCustody(3, VAULT)
    call = Call(PL0_CALLER, request.COMMAND, with_checksum(request), channel=True)
    runtime.execute(call)
    (event,) = call.events
    assert isinstance(event, Attach)
    channel = runtime.custody(event.message)
    assert (channel.partition, channel.image_digest) == (3, DIGEST)


def test_custody_without_a_channel_is_refused(runtime: Runtime, manifest: bytes) -> None:
    execute(runtime, mailbox.SetAuthManifest(manifest))
    hand_over_image(runtime)
    request = mailbox.AttachCustody(3, VAULT)
    call = Call(PL0_CALLER, request.COMMAND, with_checksum(request))
    with pytest.raises(PeerError, match="no channel") as refused:
        runtime.execute(call)
    assert refused.value.number == MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS
    assert call.events == []


# --- DPE -------------------------------------------------------------------------------------------------------


def carried(profile: dpe.Profile, command: bytes, flags: int = 0) -> Request[mailbox.DataReply]:
    if profile is dpe.Profile.P384_SHA384:
        return mailbox.InvokeDpeEcc384(command)
    return mailbox.InvokeDpeMldsa87(flags, bytes(12), command)


@pytest.mark.parametrize("profile", dpe.Profile)
def test_dpe_errors_are_no_mailbox_errors(runtime: Runtime, profile: dpe.Profile) -> None:
    command = dpe.encode_command(profile, dpe.GetCertificateChain(0, 4096))
    response = execute(runtime, carried(profile, command), PL1_CALLER).data
    assert dpe.ResponseHeader.decode(response).status == dpe.Status.INVALID_ARGUMENT


@pytest.mark.parametrize("profile", dpe.Profile)
def test_octets_that_are_no_dpe_command_are_a_mailbox_error(runtime: Runtime, profile: dpe.Profile) -> None:
    with pytest.raises(PeerError) as refused:
        execute(runtime, carried(profile, b"nonsense"))
    assert refused.value.number == MailboxError.RUNTIME_DPE_COMMAND_DESERIALIZATION_FAILED


def test_there_is_no_foreign_memory_to_answer_to(runtime: Runtime) -> None:
    with pytest.raises(PeerError) as refused:
        execute(runtime, carried(dpe.Profile.MLDSA87, b"", flags=1 << 31))
    assert refused.value.number == MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS


def test_a_stranger_gets_no_certificate_and_has_no_context(runtime: Runtime) -> None:
    profile = dpe.Profile.P384_SHA384
    certify = dpe.CertifyKeyP384(dpe.DEFAULT_HANDLE, 0, dpe.Format.X509, bytes(48))
    with pytest.raises(PeerError) as refused:
        execute(runtime, carried(profile, dpe.encode_command(profile, certify)), PL1_CALLER)
    assert refused.value.number == MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL
    sign = dpe.SignP384(dpe.DEFAULT_HANDLE, bytes(48), 0, bytes(48))
    response = execute(runtime, carried(profile, dpe.encode_command(profile, sign)), PL1_CALLER).data
    assert dpe.ResponseHeader.decode(response).status == dpe.Status.INVALID_LOCALITY


# --- the way to every handler ----------------------------------------------------------------------------------


def test_commands_of_the_rom_are_unknown_here(runtime: Runtime) -> None:
    with pytest.raises(PeerError) as refused:
        runtime.execute(Call(PL0_CALLER, Command.FIRMWARE_LOAD, b"bundle"))
    assert refused.value.number == MailboxError.RUNTIME_UNIMPLEMENTED_COMMAND
    assert runtime.limit(Command.FIRMWARE_LOAD) == 4096


@pytest.mark.parametrize("command", sorted(COMMANDS.handlers))
def test_noise_is_refused_without_a_trace(runtime: Runtime, memory: bytearray, command: int) -> None:
    before = snapshot(runtime, memory)
    for body in (b"\xff", b"\xff" * 3, b"\xff" * 108, b"\xff" * 4096):
        octets = mailbox.checksum(command, body).to_bytes(4, "little") + body
        with pytest.raises(EndocarpError) as refused:
            runtime.execute(Call(PL0_CALLER, command, octets))
        assert number_of(refused.value) != 0
        assert snapshot(runtime, memory) == before


def test_a_vault_that_was_wiped_gives_no_keys(runtime: Runtime, memory: bytearray) -> None:
    memory[:] = bytes(kv.SIZE)
    command = dpe.encode_command(
        dpe.Profile.P384_SHA384, dpe.SignP384(dpe.DEFAULT_HANDLE, bytes(48), 0, bytes(48))
    )
    with pytest.raises(Refused) as refused:
        execute(runtime, mailbox.InvokeDpeEcc384(command))
    assert number_of(refused.value) == MailboxError.RUNTIME_INTERNAL


def test_the_table_of_the_fmc_is_what_the_runtime_serves(left_by_fmc: tuple[Handoff, bytes]) -> None:
    assert left_by_fmc[0].writer is Writer.FMC
