"""The ROM as a process: reads the device, takes the firmware bundle on the PL0 channel, becomes the FMC."""

import contextlib
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from endocarp.errors import DecodeError, Refused, UsageError
from endocarp.line import Line
from endocarp.rot.fuses import Device
from endocarp.rot.mailbox import MailboxConnection
from endocarp.rot.rom import Loaded, Rom
from endocarp.shell.archive import read_sealed, seal
from endocarp.shell.channel import Channel
from endocarp.shell.process import PIECE, run_process
from endocarp.shell.serve import Conversation
from endocarp.shell.stage import StageMemory, jump
from endocarp.wire.mailbox import PL0_CALLER


class BoxLine(Line):
    """The line to box, which ends once ROM has taken firmware, or has refused it."""

    def __init__(self, connection: socket.socket, rom: Rom) -> None:
        super().__init__(connection, PIECE)
        self._rom = rom

    def receive(self, patience: float | None = None) -> bytes | None:
        """Return a piece of the stream, as `Line` does; nothing where there is nothing more to say."""
        if self._rom.result is not None or self._rom.fault is not None:
            return b""
        return super().receive(patience)


def main() -> None:
    """Run the first stage; arguments as `shell.channel.start` gives them, `--device PATH` among them."""
    run_process(_run)


def _run(arguments: Mapping[str, str], control: Channel) -> None:
    memory = StageMemory()
    device = _read_device(Path(arguments["device"]))
    rom = Rom(device, memory.vault, read_sealed(int(arguments["image"])))
    control.progress(f"identity of {device.model} derived, self-tests passed, waits for firmware")
    result = _take_firmware(rom, socket.socket(fileno=int(arguments["pl0"])))
    control.progress(
        f"firmware verified, vendor and owner signatures hold: FMC {result.table.fmc_digest.hex()[:16]}…"
    )
    runtime = seal(result.runtime, "runtime")
    jump(seal(result.fmc, "fmc"), result.table, arguments, vault=memory.descriptor, runtime=runtime)


def _read_device(path: Path) -> Device:
    try:
        return Device.from_json(path.read_text())
    except OSError as error:
        hint = "make one with: endocarp rot manufacture"
        raise Refused("device", f"{path}: {error.strerror}", hint) from None
    except (UnicodeDecodeError, DecodeError, UsageError) as error:
        hint = "put back a copy of it; without it, this server's keys are lost, and --state makes another one"
        raise Refused("device", f"{path}: {error}", hint) from None


def _take_firmware(rom: Rom, pl0: socket.socket) -> Loaded:
    """Answer the mailbox until firmware was accepted. Raises what it was refused for, once that has been answered.

    Ends the process where box is gone before, or breaks the framing.
    """
    # Where box is gone, the next stage ends at its first piece, or this one now.
    with contextlib.suppress(ConnectionError):
        Conversation(BoxLine(pl0, rom), MailboxConnection(rom, PL0_CALLER)).run()
    if rom.fault is not None:
        raise rom.fault
    if rom.result is None:
        sys.exit(1)
    pl0.detach()
    return rom.result
