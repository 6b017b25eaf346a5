"""What one stage of the root of trust leaves for the next, in the descriptors that it would be inherited in."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from tests.simulators.root_of_trust import ROM, Server

from endocarp.rot import kv
from endocarp.rot.fmc import run_fmc
from endocarp.rot.kv import KeyVault
from endocarp.rot.mailbox import MailboxConnection
from endocarp.rot.rom import Loaded, Rom
from endocarp.shell.archive import seal
from endocarp.shell.memory import map_secret, secret_descriptor
from endocarp.wire.mailbox import PL0_CALLER, FirmwareLoad, MailboxClient


@contextlib.contextmanager
def left_by_rom(server: Server) -> Iterator[Mapping[str, int]]:
    """Run the ROM of a device; yield the descriptors of the key vault, the hand-off table and the runtime."""
    with _key_vault() as (fd, vault), _sealed(_run_rom(server, vault)) as descriptors:
        yield {"vault": fd, **descriptors}


@contextlib.contextmanager
def left_by_fmc(server: Server) -> Iterator[Mapping[str, int]]:
    """Run ROM and FMC of a device; yield the descriptors of the key vault and the hand-off table."""
    with _key_vault() as (fd, vault):
        rom = _run_rom(server, vault)
        table = run_fmc(rom.table, vault, rom.runtime)
        with _sealed(Loaded(table, rom.fmc, rom.runtime)) as descriptors:
            yield {"vault": fd, "handoff": descriptors["handoff"]}


def vault_behind(fd: int) -> KeyVault:
    """Return the key vault that a descriptor leads to."""
    return KeyVault(memoryview(map_secret(fd, kv.SIZE)[0]))


@contextlib.contextmanager
def _key_vault() -> Iterator[tuple[int, KeyVault]]:
    fd = secret_descriptor(kv.SIZE)
    yield fd, vault_behind(fd)
    os.close(fd)


def _run_rom(server: Server, vault: KeyVault) -> Loaded:
    rom = Rom(server.device, vault, ROM)
    connection = MailboxConnection(rom, PL0_CALLER)
    connection.receive(MailboxClient().request(FirmwareLoad(server.bundle)), 0.0)
    assert rom.result is not None
    return rom.result


@contextlib.contextmanager
def _sealed(left: Loaded) -> Iterator[Mapping[str, int]]:
    descriptors = {"handoff": seal(left.table.encode(), "table"), "runtime": seal(left.runtime, "code")}
    yield descriptors
    for fd in descriptors.values():
        os.close(fd)
