"""The FMC as a process: what it makes of what ROM left, and what it leaves."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator

import pytest
from tests.simulators.program import Program, left, program
from tests.simulators.root_of_trust import NONCE, RUNTIME, Server, manufacture_server
from tests.simulators.stages import left_by_rom, vault_behind

from endocarp.crypto.digest import sha384
from endocarp.rot import kv
from endocarp.rot.runtime import Runtime
from endocarp.shell import fmc
from endocarp.shell.archive import read_sealed, seal
from endocarp.shell.memory import map_secret
from endocarp.wire.handoff import Handoff
from endocarp.wire.suites import Suite


@pytest.fixture(scope="module")
def server() -> Server:
    return manufacture_server()


@contextlib.contextmanager
def jumped_to(server: Server, *words: str, **others: int) -> Iterator[tuple[Program, int]]:
    """Run the FMC on what ROM left, `others` in place of some of it; yield it and the descriptor of the key vault."""
    ours, theirs = socket.socketpair()
    with left_by_rom(server) as descriptors, ours, theirs, socket.socket(socket.AF_UNIX) as mailbox:
        channels = {"pl0": theirs.fileno(), "mailbox": mailbox.fileno()}
        with program(fmc.main, {**descriptors, **channels, **others}, *words) as running:
            yield running, descriptors["vault"]


def test_the_fmc_measures_the_runtime_and_leaves_what_the_runtime_serves_from(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/python")  # the jump fails in its last step
    with jumped_to(server, "--require-sandbox", "yes") as (running, vault):
        assert running.progress().startswith(f"runtime measured {sha384(RUNTIME).hex()[:16]}…")
        assert running.wait() == 1
        assert isinstance(running.fault, FileNotFoundError)
        (table,) = left("handoff")
        runtime = Runtime(Handoff.decode(read_sealed(table)), vault_behind(vault))
        assert runtime.quote(Suite.P384, NONCE)
        assert runtime.handoff.rt_alias.ecc


def test_a_runtime_that_is_not_the_one_rom_has_verified_is_refused_and_the_key_vault_wiped(
    server: Server,
) -> None:
    other = seal(RUNTIME + b"!", "runtime")
    with jumped_to(server, runtime=other) as (running, vault):
        failed = running.failed()
        assert failed.rule == "FMC_HANDOFF_INVALID_PARAM"
        assert "not the one that ROM verified" in failed.reason
        assert bytes(map_secret(vault, kv.SIZE)[0]) == bytes(kv.SIZE)
    os.close(other)
