"""Wrong PINs are counted on disk before they are compared, delayed from the fourth on, and lock at the tenth."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest
from tests.process.server import Home, Server, eventually, short_directory

from endocarp.crypto.primitives import kdf_sha512
from endocarp.crypto.secret import Secret
from endocarp.errors import DeviceError
from endocarp.hsm.partition import open_partition
from endocarp.rot.custody import SEAL_LABEL
from endocarp.rot.dice import idevid_cdi, stable_root_idev, unique_device_secret
from endocarp.rot.fuses import Device
from endocarp.shell.answers import resident
from endocarp.shell.storage import FileStorage
from endocarp.wire import hsm
from endocarp.wire.hsm import PIN_ATTEMPTS, Operation, Status


@pytest.fixture(scope="module")
def server(prepared: Home) -> Iterator[Server]:
    """A server whose count of wrong PINs these tests share; each of them leaves it at none."""
    with short_directory() as root, Server.start(prepared.copy(root)) as server:
        yield server


def wrong(home: Home) -> str:
    """Return a PIN that is not the partition's."""
    return "11111111" if home.pin != "11111111" else "22222222"


def refusal(server: Server, pin: str) -> Status:
    """Try to log in with a PIN that is to be refused."""
    with server.connect() as partition, pytest.raises(DeviceError) as caught:
        partition.session(pin)
    return Status(caught.value.number)


def attempts_left(server: Server) -> int:
    with server.connect() as partition:
        return partition.info().pin_attempts


@contextlib.contextmanager
def trying(server: Server, pin: str, times: int) -> Iterator[None]:
    """Ask for a login this many times, each on a connection of its own, and do not wait for the answers."""
    with contextlib.ExitStack() as stack:
        for _ in range(times):
            partition = stack.enter_context(server.connect())
            request = hsm.encode_message(Operation.LOGIN, 1, hsm.Login(pin.encode()).encode())
            partition._connection._line.send(request)
        yield


def test_three_wrong_pins_are_counted_the_fourth_attempt_waits_and_the_right_one_takes_the_count_back(
    server: Server,
) -> None:
    assert attempts_left(server) == PIN_ATTEMPTS
    for count in (1, 2, 3):
        assert refusal(server, wrong(server.home)) is Status.PIN_INCORRECT
        assert attempts_left(server) == PIN_ATTEMPTS - count
    began = time.monotonic()
    with server.session():
        assert time.monotonic() - began >= 1.0
        assert attempts_left(server) == PIN_ATTEMPTS


def test_the_count_of_wrong_pins_survives_the_death_of_the_vault(server: Server) -> None:
    pid = server.pids()["vault-0"]
    assert refusal(server, wrong(server.home)) is Status.PIN_INCORRECT
    with trying(server, wrong(server.home), 2):
        eventually(lambda: attempts_left(server) == PIN_ATTEMPTS - 3)
        server.kill("vault-0")
    eventually(lambda: server.pids().get("vault-0", pid) != pid)
    eventually(lambda: attempts_left(server) == PIN_ATTEMPTS - 3)
    with server.session():
        assert attempts_left(server) == PIN_ATTEMPTS


def seal_key(home: Home) -> Secret:
    """Return the key that the sealed store of partition 0 opens with, as the root of trust derives it."""
    device = Device.from_json(home.state.device.read_text())
    with unique_device_secret(device) as uds, idevid_cdi(uds) as cdi, stable_root_idev(cdi) as root:
        return Secret(kdf_sha512(root, SEAL_LABEL, (0).to_bytes(4, "big")).view[:32])


def test_a_partition_with_ten_wrong_attempts_is_locked_for_the_right_pin_too(home: Home) -> None:
    # To wait for ten wrong ones takes two minutes: they are counted as the vault counts them, and not compared.
    with seal_key(home) as key:
        partition, _ = open_partition(0, FileStorage(home.state.store(0)), key, os.urandom)
        for _ in range(PIN_ATTEMPTS):
            partition.begin_attempt()
    with Server.start(home) as server:
        assert attempts_left(server) == 0
        assert refusal(server, home.pin) is Status.PIN_LOCKED
        assert refusal(server, wrong(home)) is Status.PIN_LOCKED


def test_many_applications_with_the_right_pin_log_in_at_the_same_moment(running: Server) -> None:
    faults: list[BaseException] = []

    def log_in() -> None:
        try:
            with running.session():
                pass
        except BaseException as fault:  # noqa: BLE001 - told in the thread of the test
            faults.append(fault)

    vault = running.pids()["vault-0"]
    before = resident(vault)
    threads = [threading.Thread(target=log_in) for _ in range(2 * PIN_ATTEMPTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert attempts_left(running) == PIN_ATTEMPTS
    # What a comparison takes, 16 MiB, is not kept.
    assert resident(vault) - before < 8 << 10


def test_a_pin_that_was_changed_opens_and_the_old_one_does_not(server: Server) -> None:
    with server.session() as session:
        session.set_pin(server.home.pin, "correct horse battery")
        assert refusal(server, server.home.pin) is Status.PIN_INCORRECT
        with server.connect() as partition, partition.session("correct horse battery") as other:
            assert other.find(label="first").public
        session.set_pin("correct horse battery", server.home.pin)
