"""Processes of the server that were taken over: what they say to the box, and what comes of it."""

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.simulators.vault import VaultProcess

from endocarp.crypto.secret import Secret
from endocarp.errors import Refused
from endocarp.hsm.operations import Vault
from endocarp.shell.box import Box
from endocarp.shell.channel import Channel, Child, pair
from endocarp.shell.children import Event, Running
from endocarp.shell.machine import Machine, SealedImage
from endocarp.shell.vault import take_connections, wait_for_store
from endocarp.wire import hsm
from endocarp.wire.control import ControlMessage, MemoryMode, Progress, Ready, SandboxReport, Seccomp
from endocarp.wire.hsm import Hello

NOTHING = SandboxReport(0, 1, 1, 0, Seccomp.OFF, MemoryMode.ORDINARY)
EVERYTHING = SandboxReport(0, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET)


@pytest.fixture
def box() -> Iterator[Box]:
    """Return a box whose account of the boot nobody reads."""
    ours, theirs = pair()
    with ours, theirs:
        yield Box(cast("Machine", None), Channel(ours), require_sandbox=False)


@pytest.fixture
def front(box: Box) -> Iterator[Child]:
    """Return a front that the box has just started: a process of its own, at the end of a control channel."""
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        child = Child("front", process, Channel(ours))
        box.children.running = {"front": Running("front", SealedImage(-1, 0, bytes(48)), child, 0.0)}
        yield child
        process.kill()


@pytest.fixture
def vault() -> Iterator[Vault]:
    with Secret(bytes(range(32))) as key:
        yield VaultProcess(key).vault


def say(box: Box, child: Child, body: Progress | Ready) -> None:
    box._note(Event(child, ControlMessage(body=body)))


def test_a_process_says_once_what_its_sandbox_is(box: Box, front: Child) -> None:
    say(box, front, Ready(NOTHING))
    with pytest.raises(Refused, match="front sent what it may not") as refused:
        say(box, front, Ready(EVERYTHING))
    assert refused.value.rule == "process.control"
    assert box.running["front"].sandbox == NOTHING


def test_a_process_that_breaks_the_rules_of_its_channel_is_ended(box: Box, front: Child) -> None:
    say(box, front, Ready(NOTHING))
    with pytest.raises(Refused):
        say(box, front, Ready(EVERYTHING))
    assert front.process.wait(10) == -9


def test_only_a_vault_has_a_pin_to_tell(box: Box, front: Child) -> None:
    box.pin = "12345678"
    say(box, front, Ready(NOTHING, "87654321"))
    assert box.pin == "12345678"


# --- a vault that has outlived its box ------------------------------------------------------------------------------


def test_a_vault_waits_until_an_earlier_one_has_let_go_of_the_store(tmp_path: Path) -> None:
    earlier = wait_for_store(tmp_path)
    waited: list[int] = []
    later = threading.Thread(target=lambda: waited.append(wait_for_store(tmp_path)))
    later.start()
    later.join(0.1)
    assert waited == []
    os.close(earlier)
    later.join(10)
    os.close(waited.pop())


def test_a_store_that_is_not_there_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no/store: No such file"):
        wait_for_store(tmp_path / "no" / "store")


# --- a front that hands over more than there is room for ----------------------------------------------------------


def test_a_vault_holds_so_many_connections_and_no_more(vault: Vault) -> None:
    ours, theirs = pair()
    take_connections(theirs, vault, threading.BoundedSemaphore(2))
    with ours, contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(hand_over(ours)) for _ in range(3))
        assert (first.recv(64) != b"", second.recv(64) != b"", third.recv(64)) == (True, True, b"")
        first.close()
        assert eventually(lambda: stack.enter_context(hand_over(ours)).recv(64) != b"")


def hand_over(channel: socket.socket) -> socket.socket:
    """Hand a new connection over, and return the client's end of it."""
    client, server = pair()
    with server:
        hello = Hello(hsm.MAGIC, hsm.VERSION)
        socket.send_fds(channel, [hello.encode()], [server.fileno()])
    return client


def eventually(holds: Callable[[], bool]) -> bool:
    for _ in range(500):
        if holds():
            return True
        time.sleep(0.01)
    return False
