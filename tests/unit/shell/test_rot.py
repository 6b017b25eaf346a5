"""The runtime as a process: what box, strangers and vaults get of it, each on the channel that is theirs."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.kernel import no_descriptor_leaks
from tests.simulators.program import Program, program
from tests.simulators.root_of_trust import IMAGES, Server, manufacture_server
from tests.simulators.stages import left_by_fmc

from endocarp.errors import DecodeError, DeviceError
from endocarp.rot import kv
from endocarp.rot.mailbox import MailboxConnection
from endocarp.shell import rot
from endocarp.shell.archive import seal
from endocarp.shell.mailbox import Mailbox
from endocarp.shell.memory import map_secret
from endocarp.shell.rot import BoxLine, RootOfTrust
from endocarp.shell.sockets import listen_at
from endocarp.wire import custody
from endocarp.wire.control import Seccomp
from endocarp.wire.mailbox import (
    PL0_CALLER,
    AttachCustody,
    AuthorizeAndStash,
    AuthResult,
    FrameHeader,
    GetPcrLog,
    ImageSource,
    MailboxError,
    PopulateIdevEcc384Cert,
    PopulateIdevMldsa87Cert,
    SetAuthManifest,
    Shutdown,
    Version,
)
from endocarp.wire.manifest import FirmwareId

VAULT = IMAGES[FirmwareId.VAULT]
BY_MEMORY = AuthorizeAndStash(
    FirmwareId.VAULT, bytes(48), bytes(48), 0, 0, ImageSource.LOAD_ADDRESS, len(VAULT)
)


@pytest.fixture(scope="module")
def server() -> Server:
    return manufacture_server()


class Serving:
    """A runtime that serves, and the channels to it."""

    def __init__(
        self, program: Program, pl0: socket.socket, door: Path, listener: socket.socket, vault: int
    ) -> None:
        self.program, self.pl0, self.door, self.listener, self.vault = program, pl0, door, listener, vault
        self.box = Mailbox(pl0)


@contextlib.contextmanager
def runtime(server: Server, directory: Path, *words: str) -> Iterator[Serving]:
    """Run the runtime on what ROM and FMC left."""
    ours, theirs = socket.socketpair()
    door = directory / "mailbox.sock"
    with left_by_fmc(server) as descriptors, ours, theirs, listen_at(door, socket.SOCK_STREAM) as listener:
        channels = {"pl0": theirs.fileno(), "mailbox": listener.fileno()}
        with program(rot.main, {**descriptors, **channels}, *words) as running:
            yield Serving(running, ours, door, listener, descriptors["vault"])


@pytest.fixture
def serving(server: Server, tmp_path: Path) -> Iterator[Serving]:
    """Return a runtime that box has given certificates and manifest."""
    with runtime(server, tmp_path) as serving:
        serving.program.ready()
        serving.box.execute(PopulateIdevEcc384Cert(server.device.idevid_ecc_certificate))
        serving.box.execute(PopulateIdevMldsa87Cert(server.device.idevid_mldsa_certificate))
        serving.box.execute(SetAuthManifest(server.manifest))
        yield serving


def authorize(serving: Serving, octets: bytes = VAULT) -> int:
    """Hand the vault's image over, in sealed memory."""
    image = seal(octets, "vault")
    try:
        return serving.box.execute(BY_MEMORY, [image]).auth_req_result
    finally:
        os.close(image)


@contextlib.contextmanager
def custody_channel(serving: Serving, partition: int) -> Iterator[socket.socket]:
    """Attach a custody channel; yield the vault's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            serving.box.execute(AttachCustody(partition, FirmwareId.VAULT), [theirs.fileno()])
        yield ours


def serves(serving: Serving) -> bool:
    return serving.box.execute(Version()).name.startswith(b"Caliptra")


def ask(channel: socket.socket, request: custody.Request[custody.Reply]) -> custody.Reply:
    channel.sendall(custody.encode_request(request))
    return custody.decode_reply(request, channel.recv(custody.MESSAGE_LIMIT))


# --- the process ----------------------------------------------------------------------------------------------------


def test_the_runtime_serves_behind_its_sandbox_until_it_is_told_to_stop(
    server: Server, tmp_path: Path
) -> None:
    with runtime(server, tmp_path) as serving:
        report = serving.program.ready().sandbox
        assert (report.uid, report.no_new_privileges, report.not_dumpable) == (os.getuid(), 1, 1)
        assert report.seccomp == Seccomp.FILTER or any("seccomp" in note.text for note in report.notes)
        assert serves(serving)
        assert serving.program.stop() == 0
        # Whatever was secret is wiped by then.
        assert bytes(map_secret(serving.vault, kv.SIZE)[0]) == bytes(kv.SIZE)


def test_the_end_of_whoever_started_it_is_its_end(server: Server, tmp_path: Path) -> None:
    with runtime(server, tmp_path) as serving:
        serving.program.ready()
        serving.program.channel.socket.close()
        assert serving.program.wait() == 0


def test_where_a_step_of_the_sandbox_is_missing_and_required_it_does_not_serve(
    server: Server, tmp_path: Path
) -> None:
    with runtime(server, tmp_path, "--require-sandbox", "yes") as serving:
        # The tests' own threads stand outside: there is always a step missing here.
        failed = serving.program.failed()
        assert (failed.rule, "lacks" in failed.reason) == ("sandbox.incomplete", True)


def test_where_nobody_answers_box_any_more_it_is_no_root_of_trust_and_ends(serving: Serving) -> None:
    serving.pl0.sendall(FrameHeader(Version.COMMAND, 0xFFFFFFFF).encode())
    assert serving.program.said() is None
    assert serving.program.wait() == 0


def test_where_nobody_listens_for_callers_any_more_it_ends(serving: Serving) -> None:
    serving.listener.shutdown(socket.SHUT_RDWR)
    assert serving.program.said() is None
    assert serving.program.wait() == 0


# --- callers --------------------------------------------------------------------------------------------------------


def test_a_caller_of_the_socket_is_answered_but_has_not_what_is_for_box(serving: Serving) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(serving.door))
    with contextlib.closing(Mailbox(connection)) as stranger:
        assert stranger.execute(Version()) == serving.box.execute(Version())
        with pytest.raises(DeviceError) as raised:
            stranger.execute(SetAuthManifest(b"mine"))
        assert raised.value.number == MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL


def test_a_caller_who_breaks_the_framing_loses_his_connection_and_nobody_else(serving: Serving) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(serving.door))
        stranger.sendall(FrameHeader(Version.COMMAND, 0xFFFFFFFF).encode())
        assert stranger.recv(1) == b""
    assert serves(serving)


def test_a_caller_in_the_middle_of_a_frame_keeps_nobody_waiting(serving: Serving) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(serving.door))
        stranger.sendall(FrameHeader(Version.COMMAND, 4).encode()[:3])
        assert serves(serving)


# --- what comes beside a command ------------------------------------------------------------------------------------


def test_an_image_in_sealed_memory_is_hashed_here_and_held_against_the_manifest(serving: Serving) -> None:
    assert authorize(serving) == AuthResult.AUTHORIZED
    assert authorize(serving, VAULT[:-1] + b"!") == AuthResult.DIGEST_MISMATCH


def test_memory_that_can_still_change_counts_for_nothing(serving: Serving) -> None:
    loose = os.memfd_create("loose", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(loose, VAULT)
    with pytest.raises(DeviceError) as raised:
        serving.box.execute(BY_MEMORY, [loose])
    os.close(loose)
    assert raised.value.number == MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS
    assert authorize(serving) == AuthResult.AUTHORIZED


def test_a_vault_that_was_authorized_gets_the_seal_key_of_its_partition_the_same_each_time(
    serving: Serving,
) -> None:
    authorize(serving)
    keys = []
    for partition in (0, 1, 0):
        with custody_channel(serving, partition) as channel:
            keys.append(ask(channel, custody.SealKey()).key)
    assert keys[0] == keys[2] != keys[1]


def test_without_an_authorized_vault_there_is_no_custody(serving: Serving) -> None:
    with (
        pytest.raises(DeviceError) as raised,
        custody_channel(serving, 0),
    ):
        pass
    assert raised.value.number == MailboxError.RUNTIME_IMAGE_METADATA_NOT_FOUND


def test_custody_is_granted_to_a_channel_not_to_thin_air(serving: Serving) -> None:
    authorize(serving)
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, second:
        serving.box.execute(Version(), [first.fileno()])
        # What came beside an earlier command belongs to that.
        for _ in range(2):
            with pytest.raises(DeviceError) as raised:
                serving.box.execute(AttachCustody(0, FirmwareId.VAULT))
            assert raised.value.number == MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS
    assert serves(serving)


def test_of_two_channels_the_later_one_counts(serving: Serving) -> None:
    authorize(serving)
    first, second = (socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
    with first[0], first[1], second[0], second[1]:
        serving.box.execute(Version(), [first[1].fileno()])
        first[1].close()
        serving.box.execute(AttachCustody(0, FirmwareId.VAULT), [second[1].fileno()])
        assert first[0].recv(1) == b""
        assert ask(second[0], custody.SealKey()).key


def test_a_vault_that_sends_nonsense_is_told_so_and_disturbs_nobody(serving: Serving) -> None:
    authorize(serving)
    with custody_channel(serving, 0) as channel:
        channel.sendall(b"\xff" * 64)
        with pytest.raises(DeviceError):
            custody.decode_reply(custody.SealKey(), channel.recv(custody.MESSAGE_LIMIT))
        channel.sendall(bytes(custody.MESSAGE_LIMIT + 1))
        assert channel.recv(1) == b""
    assert serving.box.execute(GetPcrLog()).data


def test_after_a_shutdown_nothing_is_answered_any_more_and_it_still_stops(serving: Serving) -> None:
    serving.box.execute(Shutdown())
    with pytest.raises(DeviceError) as raised:
        serving.box.execute(Version())
    assert raised.value.number == MailboxError.RUNTIME_SHUTDOWN
    assert serving.program.stop() == 0


# --- the line to box ------------------------------------------------------------------------------------------------


@pytest.fixture
def line(server: Server) -> Iterator[tuple[BoxLine, socket.socket]]:
    """Return a line to box, and box's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, no_descriptor_leaks():
        yield BoxLine(theirs, MailboxConnection(server.runtime, PL0_CALLER)), ours


def test_a_line_that_nothing_comes_over_says_so_when_its_time_is_up(
    line: tuple[BoxLine, socket.socket],
) -> None:
    assert line[0].receive(0.01) is None
    line[1].sendall(b"piece")
    assert line[0].receive(10.0) == b"piece"
    line[1].shutdown(socket.SHUT_WR)
    assert line[0].receive() == b""


def test_a_line_keeps_no_descriptor_of_memory(line: tuple[BoxLine, socket.socket]) -> None:
    for seals, octets in ((True, VAULT), (False, VAULT)):
        image = seal(octets, "vault") if seals else os.memfd_create("loose")
        socket.send_fds(line[1], [b"x"], [image])
        os.close(image)
        assert line[0].receive() == b"x"
    assert line[0].channel is None


def test_where_box_breaks_the_framing_it_hears_the_end(server: Server) -> None:
    service = RootOfTrust(server.runtime)
    ours, theirs = socket.socketpair()
    with ours:
        serving = threading.Thread(target=service.serve_box, args=(theirs,))
        serving.start()
        box = Mailbox(ours)
        box.execute(Version())
        ours.sendall(FrameHeader(Version.COMMAND, 0xFFFFFFFF).encode())
        with pytest.raises((DecodeError, OSError)):
            box.execute(Version())
        serving.join(10)
        assert not serving.is_alive()
