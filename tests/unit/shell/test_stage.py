"""What the stages of the root of trust share: the key vault behind a descriptor, the hand-off, the jump."""

import json
import os
import socket
import sys
from collections.abc import Iterator

import pytest
from tests.simulators.program import left
from tests.simulators.root_of_trust import Server, manufacture_server
from tests.simulators.stages import left_by_rom

from endocarp.crypto import secret
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, Refused, UsageError
from endocarp.rot import kv
from endocarp.shell.archive import build, read_sealed, seal, source_tree
from endocarp.shell.channel import start
from endocarp.shell.stage import StageMemory, jump, read_table
from endocarp.wire.control import MemoryMode, Progress, Stop
from endocarp.wire.handoff import Handoff


@pytest.fixture(scope="module")
def server() -> Server:
    return manufacture_server()


@pytest.fixture
def table(server: Server) -> Iterator[int]:
    """Return the descriptor of a hand-off table."""
    with left_by_rom(server) as descriptors:
        yield descriptors["handoff"]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the memory of secrets be chosen, and be forgotten afterwards."""
    monkeypatch.setattr(secret, "_memory", secret._Heap())


@pytest.mark.usefixtures("fresh")
def test_what_one_stage_puts_into_the_key_vault_the_next_finds_there(monkeypatch: pytest.MonkeyPatch) -> None:
    first = StageMemory()
    first.vault.put(kv.FIELD_ENTROPY, Secret(bytes(range(32))))
    monkeypatch.setattr(secret, "_memory", secret._Heap())  # as in the program that follows
    second = StageMemory(first.descriptor)
    with second.vault.take(kv.FIELD_ENTROPY, Secret) as found:
        assert bytes(found.view) == bytes(range(32))
    assert second.descriptor == first.descriptor
    os.close(first.descriptor)


@pytest.mark.usefixtures("fresh")
def test_a_stage_keeps_its_own_secrets_in_memory_for_secrets_too() -> None:
    memory = StageMemory()
    os.close(memory.descriptor)
    assert memory.mode in MemoryMode
    with pytest.raises(UsageError, match="chosen already"):
        StageMemory()


def test_a_hand_off_table_is_read_from_sealed_memory_only(table: int) -> None:
    assert read_table({"handoff": str(table)}).encode() == read_sealed(table)
    loose = os.memfd_create("loose", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(loose, read_sealed(table))
    with pytest.raises(Refused, match=r"image\.seal"):
        read_table({"handoff": str(loose)})
    os.close(loose)
    damaged = seal(read_sealed(table)[:-1], "table")
    with pytest.raises(DecodeError, match="cut short"):
        read_table({"handoff": str(damaged)})
    os.close(damaged)


def test_a_jump_that_fails_has_left_nothing_inheritable_but_what_is_named(
    table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/python")
    image, vault, stray = (seal(b"", name) for name in ("next", "vault", "stray"))
    os.set_inheritable(stray, True)
    with socket.socket() as control, socket.socket() as pl0, socket.socket() as mailbox:
        named = {"control": control.fileno(), "pl0": pl0.fileno(), "mailbox": mailbox.fileno()}
        arguments = {name: str(fd) for name, fd in named.items()} | {"device": "/d", "image": str(stray)}
        with pytest.raises(FileNotFoundError):
            jump(image, read_table({"handoff": str(table)}), arguments, vault=vault)
        (written,) = left("handoff")
        assert read_sealed(written) == read_sealed(table)
        assert all(os.get_inheritable(fd) for fd in (*named.values(), image, vault, written))
        assert not os.get_inheritable(stray)
    for fd in (image, vault, stray, written):
        os.close(fd)


JUMPS = """
import os, sys
from endocarp.shell.process import parse_arguments
from endocarp.shell.stage import jump
from endocarp.wire.handoff import Handoff

def main():
    arguments = parse_arguments(sys.argv[1:])
    for fd in (0, 1, 2):
        os.set_inheritable(os.dup(fd), True)
    table = Handoff.decode(bytes.fromhex("TABLE"))
    jump(int(arguments["next"]), table, arguments, vault=int(arguments["secrets"]))
"""

TELLS = """
import json, os, sys
import socket
from endocarp.shell.channel import Channel
from endocarp.shell.process import parse_arguments
from endocarp.shell.stage import read_table

def main():
    arguments = parse_arguments(sys.argv[1:])
    control = Channel(socket.socket(fileno=int(arguments["control"])))
    held = [int(name) for name in os.listdir("/proc/self/fd")]
    held = [fd for fd in held if os.path.exists(f"/proc/self/fd/{fd}")]
    control.progress(json.dumps([arguments, sorted(held), read_table(arguments).fmc_digest.hex(), os.getpid()]))
    control.receive()
"""


def _program(name: str, source: str) -> int:
    tree = source_tree() | {f"endocarp.{name}": (f"endocarp/{name}.py", source.encode())}
    return seal(build(f"endocarp.{name}", tree), name)


@pytest.mark.parametrize("required", [[], ["--require-sandbox", "yes"]], ids=["", "sandbox required"])
def test_the_next_stage_is_the_same_process_with_what_was_named_and_no_more(
    table: int, required: list[str]
) -> None:
    first, second = (
        _program("jumps", JUMPS.replace("TABLE", read_sealed(table).hex())),
        _program("tells", TELLS),
    )
    with socket.socket() as pl0, socket.socket() as mailbox:
        given = {"next": second, "secrets": table, "pl0": pl0.fileno(), "mailbox": mailbox.fileno()}
        child = start("jumps", first, ["--device", "/secret", *required], given)
        with child.channel.socket:
            received = child.channel.receive()
            assert received is not None
            assert isinstance(received[0].body, Progress)
            arguments, held, digest, pid = json.loads(received[0].body.text)
            child.channel.send(Stop())
            assert child.process.wait(10) == 0
    named = {"control", "pl0", "mailbox", "handoff", "vault", "image"}
    assert set(arguments) == named | {word.removeprefix("--") for word in required[:1]}
    assert held == sorted({0, 1, 2, *(int(arguments[name]) for name in named)})
    assert digest == Handoff.decode(read_sealed(table)).fmc_digest.hex()
    assert pid == child.process.pid
    for fd in (first, second):
        os.close(fd)
