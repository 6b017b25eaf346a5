"""Processes are killed with SIGKILL, under load, and what follows is what was settled."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
from tests.process.server import PATIENCE, Home, Server, eventually, short_directory
from tests.simulators.strangers import Token, knock

from endocarp.client import Session
from endocarp.errors import DeviceError
from endocarp.wire.cryptoki import CKR
from endocarp.wire.p11_calls import Call
from endocarp.wire.suites import Suite

MESSAGE = b"signed before, meanwhile and afterwards"


@pytest.fixture(scope="module")
def running(prepared: Home) -> Iterator[Server]:
    """A server that these tests share: whatever they kill, it comes back."""
    with short_directory() as root, Server.start(prepared.copy(root)) as server:
        yield server


class Maker:
    """An application that makes keys for as long as it is told to, and connects again where it is cut off."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.made: dict[str, bytes] = {}
        """The public keys of what was acknowledged, by label."""
        self.cut_off = 0
        self.fault: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    with self.server.session() as session:
                        self._make_keys(session)
                except (DeviceError, OSError):
                    self.cut_off += 1
                    self._stop.wait(0.01)
        except BaseException as fault:  # noqa: BLE001 - told by `check`, in the thread of the test
            self.fault = fault

    def _make_keys(self, session: Session) -> None:
        while not self._stop.is_set():
            label = f"key-{len(self.made)}-{self.cut_off}"
            self.made[label] = session.generate(Suite.P256, label=label).public
            self._stop.wait(0.01)

    def check(self) -> None:
        """Look after every key that was acknowledged: it is there, and signs."""
        assert self.fault is None, self.fault
        with self.server.session() as session:
            keys = session.keys()
            found = {key.label: key for key in keys}
            for label, public in self.made.items():
                assert found[label].public == public
                assert found[label].verify(found[label].sign(MESSAGE), MESSAGE)

    def __enter__(self) -> "Maker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "an application hangs"


def signs(server: Server) -> bool:
    """Tell whether a key that was there from the start signs, through a new connection."""
    with server.session() as session:
        key = session.find(label="first")
        return key.verify(key.sign(MESSAGE), MESSAGE)


def restarts(server: Server, name: str) -> int:
    return next(one.restarts for one in server.status().processes if one.name == name)


# --- front and vault: started again -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vault-0", "front"])
def test_front_or_vault_is_started_again_and_paired_and_the_others_stay(running: Server, name: str) -> None:
    before, count, seen = running.pids(), restarts(running, name), len(running.lines)
    running.kill(name)
    running.line(f"{name} +died, is started again", after=seen)
    eventually(lambda: signs(running))
    after = running.pids()
    assert {other for other in before if after[other] != before[other]} == {name}
    assert restarts(running, name) == count + 1


def test_a_session_dies_with_its_vault_and_says_so_and_a_new_one_works(running: Server) -> None:
    with running.session() as session:
        key = session.find(label="first")
        running.kill("vault-0")
        with pytest.raises(DeviceError, match="server"):
            key.sign(MESSAGE)
    eventually(lambda: signs(running))


def test_a_native_session_outlives_the_front_that_let_it_in(running: Server) -> None:
    with running.session() as session:
        key = session.find(label="first")
        running.kill("front")
        assert key.verify(key.sign(MESSAGE), MESSAGE)
        eventually(lambda: signs(running))
        assert key.verify(key.sign(MESSAGE), MESSAGE)


def test_an_application_at_the_p11_kit_door_is_told_that_its_vault_is_gone_and_the_next_is_served(
    running: Server,
) -> None:
    door = running.home.state.p11_kit_socket(0)
    with knock(door) as connection:
        token = Token(connection)
        session = token.start(running.home.pin)
        running.kill("vault-0")
        assert token.call(Call.C_Logout, session) == CKR.DEVICE_REMOVED
        assert connection.recv(1) == b""
    with knock(door) as connection:
        assert Token(connection).start(running.home.pin)


# --- rot: reset -------------------------------------------------------------------------------------------------


def test_the_death_of_rot_resets_the_whole_server_and_its_keys_are_there(running: Server) -> None:
    before, boots, seen = running.pids(), running.status().boots, len(running.lines)
    with Maker(running) as maker:
        eventually(lambda: len(maker.made) > 3)
        running.kill("rot")
        running.line("rot +died, the server is reset", after=seen)
        eventually(lambda: maker.cut_off and signs(running))
    after = running.pids()
    assert {name for name in before if after[name] == before[name]} == {"up", "box"}
    assert running.status().boots == boots + 1
    maker.check()


def test_rot_and_vault_may_die_in_the_same_moment(running: Server) -> None:
    pids, boots = running.pids(), running.status().boots
    for name in ("vault-0", "rot"):
        os.kill(pids[name], signal.SIGKILL)
    eventually(lambda: running.status().boots > boots and signs(running))


@pytest.mark.parametrize(("first", "second"), [("vault-0", "vault-0"), ("front", "rot"), ("rot", "rot")])
def test_what_dies_while_another_is_started_again_is_started_again_too(
    running: Server, first: str, second: str
) -> None:
    before = running.pids()[second]
    running.kill(first)
    # The box puts a process into its status before that serves.
    eventually(lambda: running.pids().get(second, before) != before or second != first)
    killed = running.kill(second)
    eventually(lambda: running.pids().get(second) != killed and signs(running))
    assert running.process.poll() is None


# --- box and `up`: everything ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code"), [("box", 1), ("up", -signal.SIGKILL)])
def test_the_death_of_the_box_or_of_up_is_the_end_of_every_process_and_no_loss(
    server: Server, name: str, code: int
) -> None:
    with Maker(server) as maker:
        eventually(lambda: len(maker.made) > 3)
        server.kill(name)
        assert server.await_end() == code
        eventually(lambda: maker.cut_off)
    # Nothing that is left stops the next one, which ends by SIGTERM, in order, with whoever is connected.
    with Server.start(server.home) as maker.server, maker.server.session() as session:
        maker.check()
        assert maker.server.stop() == 0
        with pytest.raises(DeviceError):
            session.random(1)
    assert not list(server.home.state.root.rglob("*.sock"))


# --- no acknowledged key is lost ------------------------------------------------------------------------------------


def test_no_acknowledged_key_is_lost_when_the_vault_is_killed_twenty_times(home: Home) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed: {seed}\n")  # shown where the test fails
    chosen, made = random.Random(seed), dict[str, bytes]()
    for _ in range(4):
        with Server.start(home) as server, Maker(server) as maker:
            maker.made = made
            for killed in range(1, 6):
                eventually(partial(exceeds, made, len(made)))
                time.sleep(chosen.random() / 10)
                server.kill("vault-0")
                eventually(lambda: restarts(server, "vault-0") == killed)  # noqa: B023 - called at once
            eventually(partial(exceeds, made, len(made)))
    with Server.start(home) as server:
        maker = Maker(server)
        maker.made = made
        maker.check()
    assert len(made) > 20


def exceeds(made: dict[str, bytes], count: int) -> bool:
    return len(made) > count
