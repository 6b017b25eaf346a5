"""The ROM as a process: what it reads, whom it answers, how it ends."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.program import Program, left, program
from tests.simulators.root_of_trust import FMC, ROM, RUNTIME, Server, manufacture_server

from endocarp.crypto.digest import sha384
from endocarp.errors import DecodeError, DeviceError
from endocarp.rot import mailbox as rot_mailbox
from endocarp.shell import rom
from endocarp.shell.archive import read_sealed, seal
from endocarp.shell.mailbox import Mailbox
from endocarp.wire.handoff import Handoff
from endocarp.wire.mailbox import FirmwareLoad, FrameHeader, Version, frame, with_checksum


@pytest.fixture(scope="module")
def server() -> Server:
    return manufacture_server()


@pytest.fixture
def device(server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "device.json"
    path.write_text(server.device.to_json())
    return path


@pytest.fixture(autouse=True)
def no_next_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the jump fail in its last step: the interpreter that it is to become is not there."""
    monkeypatch.setattr(sys, "executable", "/nothing/python")


@contextlib.contextmanager
def reset(device: Path) -> Iterator[tuple[Program, Mailbox, socket.socket]]:
    """Start a ROM; yield it, and the mailbox and the socket through which box speaks to it."""
    ours, theirs = socket.socketpair()
    image = seal(ROM, "rom")
    with ours, theirs, socket.socket(socket.AF_UNIX) as mailbox:
        descriptors = {"image": image, "pl0": theirs.fileno(), "mailbox": mailbox.fileno()}
        with program(rom.main, descriptors, "--device", str(device)) as running:
            yield running, Mailbox(ours), ours
    os.close(image)


def test_a_rom_takes_firmware_and_jumps_with_what_the_next_stage_needs(server: Server, device: Path) -> None:
    with reset(device) as (running, mailbox, _):
        assert running.progress().startswith(f"identity of {server.device.model} derived")
        assert mailbox.execute(Version()).name.startswith(b"Caliptra")
        mailbox.execute(FirmwareLoad(server.bundle))
        assert running.progress().startswith("firmware verified")
        assert running.wait() == 1
        assert isinstance(running.fault, FileNotFoundError)
        assert [read_sealed(fd) for name in ("fmc", "runtime") for fd in left(name)] == [FMC, RUNTIME]
        (table,) = left("handoff")
        assert Handoff.decode(read_sealed(table)).fmc_digest == sha384(FMC)
        assert all(os.get_inheritable(fd) for name in ("fmc", "runtime", "handoff") for fd in left(name))


def test_firmware_that_nobody_signed_is_refused_by_its_rule_and_ends_the_boot(
    server: Server, device: Path
) -> None:
    spoilt = server.bundle.replace(RUNTIME, RUNTIME[:-1] + b"!")
    with reset(device) as (running, mailbox, _):
        running.progress()
        with pytest.raises(DeviceError) as raised:
            mailbox.execute(FirmwareLoad(spoilt))
        assert raised.value.number == 0x000B0016  # RUNTIME_DIGEST_MISMATCH
        failed = running.failed()
        assert failed.rule == "IMAGE_VERIFIER_ERR_RUNTIME_DIGEST_MISMATCH"
        assert "--rebuild" in failed.hint


def test_a_frame_that_lies_about_its_length_ends_the_boot_without_an_answer(device: Path) -> None:
    with reset(device) as (running, _, pl0):
        running.progress()
        pl0.sendall(FrameHeader(FirmwareLoad.COMMAND, 0xFFFFFFFF).encode())
        assert running.wait() == 1
        assert running.fault is None


def test_a_box_that_goes_away_before_it_brings_firmware_ends_the_boot(device: Path) -> None:
    with reset(device) as (running, mailbox, pl0):
        running.progress()
        pl0.shutdown(socket.SHUT_WR)
        assert running.wait() == 1
        with pytest.raises((DecodeError, OSError)):
            mailbox.execute(Version())


def test_a_box_that_goes_away_before_it_is_answered_ends_the_boot(server: Server, device: Path) -> None:
    octets = with_checksum(Version())
    with reset(device) as (running, _, pl0):
        running.progress()
        pl0.sendall(frame(Version.COMMAND, octets) * 2)
        pl0.close()
        assert running.wait() == 1
        assert running.fault is None


def test_a_frame_that_does_not_come_to_its_end_ends_the_boot(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rot_mailbox, "FRAME_TIME", 0.05)
    with reset(device) as (running, _, pl0):
        running.progress()
        pl0.sendall(FrameHeader(Version.COMMAND, 4).encode()[:3])
        assert running.wait() == 1
        assert running.fault is None


def test_without_a_device_there_is_nothing_to_start(tmp_path: Path) -> None:
    with reset(tmp_path / "device.json") as (running, _, _):
        failed = running.failed()
        assert failed.rule == "device"
        assert f"{tmp_path / 'device.json'}: No such file" in failed.reason
        assert failed.hint == "make one with: endocarp rot manufacture"


@pytest.mark.parametrize(
    "octets", [b"", b"{}", b"\xff\xfe", b"{" * 10000], ids=["empty", "no fields", "no text", "deep"]
)
def test_a_damaged_device_is_refused_by_its_path_and_nobody_is_told_to_make_another(
    tmp_path: Path, octets: bytes
) -> None:
    path = tmp_path / "device.json"
    path.write_bytes(octets)
    with reset(path) as (running, _, _):
        failed = running.failed()
        assert (failed.rule, failed.reason.partition(": ")[0]) == ("device", str(path))
        assert failed.hint.startswith("put back a copy of it")
