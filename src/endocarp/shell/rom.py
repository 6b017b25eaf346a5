"""The ROM as a process: reads the device, takes the firmware bundle on the PL0 channel, becomes the FMC."""

import contextlib
import socket
import sys
import time
from pathlib import Path

from endocarp.core import Close
from endocarp.errors import DecodeError, EndocarpError, Refused, UsageError
from endocarp.rot.fuses import Device
from endocarp.rot.mailbox import MailboxConnection
from endocarp.rot.rom import Loaded, Rom
from endocarp.shell.archive import read_sealed, seal
from endocarp.shell.channel import Channel, told
from endocarp.shell.stage import StageMemory, control_of, jump
from endocarp.wire.mailbox import PL0_CALLER


def main() -> None:
    """Run the first stage; arguments as `shell.channel.start` gives them, `--device PATH` among them."""
    arguments = told(sys.argv[1:])
    control = control_of(arguments)
    try:
        memory = StageMemory()
        device = _read_device(Path(arguments["device"]))
        rom = Rom(device, memory.vault, read_sealed(int(arguments["image"])))
        control.progress(f"rom: identity of {device.model} derived, self-tests passed, waits for firmware")
        result = _serve(rom, socket.socket(fileno=int(arguments["pl0"])), control)
        control.progress(
            f"rom: firmware verified, vendor and owner signatures hold: FMC {_short(result.table.fmc_digest)}"
        )
        runtime = seal(result.runtime, "runtime")
        jump(seal(result.fmc, "fmc"), result.table, arguments, vault=memory.descriptor, runtime=runtime)
    except EndocarpError as error:
        control.failed(error)
        sys.exit(1)


def _read_device(path: Path) -> Device:
    try:
        return Device.from_json(path.read_text())
    except OSError as error:
        hint = "make one with: endocarp rot manufacture"
        raise Refused("device", f"{path}: {error.strerror}", hint) from None
    except (UnicodeDecodeError, DecodeError, UsageError) as error:
        hint = "put back a copy of it; without it, this server's keys are lost, and --state makes another one"
        raise Refused("device", f"{path}: {error}", hint) from None


def _serve(rom: Rom, pl0: socket.socket, control: Channel) -> Loaded:
    """Answer the mailbox until firmware has been accepted; end where it is refused, once that has been answered."""
    core = MailboxConnection(rom, PL0_CALLER)
    while rom.result is None:
        try:
            data = pl0.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        events = core.receive(data, time.monotonic())
        if rom.fault is not None:
            control.failed(rom.fault)
        with contextlib.suppress(
            BrokenPipeError
        ):  # box is gone: the next stage ends, or this one at the next piece
            for message in core.outgoing():
                pl0.sendall(message)
        if rom.fault is not None or any(isinstance(event, Close) for event in events):
            sys.exit(1)
    pl0.detach()
    return rom.result


def _short(digest: bytes) -> str:
    return f"{digest.hex()[:16]}…"
