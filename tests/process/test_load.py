"""Crowds, dawdlers and the dying: others are served meanwhile, and nothing of it stays behind."""

import contextlib
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.process.server import Bystander, Home, Server, eventually, short_directory
from tests.simulators.strangers import Token, knock

from endocarp.shell.answers import resident
from endocarp.wire import hsm
from endocarp.wire.hsm import Hello, Operation, Welcome
from endocarp.wire.mailbox import FRAME_HEADER_SIZE, FrameHeader, Version, frame, with_checksum
from endocarp.wire.p11 import encode_frame
from endocarp.wire.p11_calls import Call, encode_request

CROWD = 1000
GROWTH_LIMIT = 100 << 10
"""KiB that a process may grow by for a crowd at each of its doors."""
HELLO = Hello(hsm.MAGIC, hsm.VERSION).encode()


@pytest.fixture(scope="module")
def running(prepared: Home) -> Iterator[Server]:
    """A server that was started with the limit of open files that Debian gives to a user's shell."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = ["prlimit", f"--nofile=1024:{most}"] if shutil.which("prlimit") else []
    with short_directory() as root, Server.start(prepared.copy(root), wrapped_in=few) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def silent(running: Server) -> Iterator[socket.socket]:
    """A connection to the native door that says nothing from the start of these tests on."""
    with knock(running.home.state.native_socket(0), socket.SOCK_SEQPACKET) as connection:
        yield connection


@pytest.fixture(autouse=True)
def bystander(running: Server) -> Iterator[Bystander]:
    """Sign all through each test, and see that afterwards the same processes run, with no word of a fault."""
    pids, seen = running.pids(), len(running.lines)
    with Bystander(running) as bystander:
        yield bystander
        bystander.check()
    assert running.pids() == pids
    assert running.lines[seen:] == []


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process have as many descriptors as a crowd needs."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2 * CROWD:
        pytest.skip(f"no more than {most} descriptors are to be had here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def greet_native(home: Home) -> socket.socket:
    connection = knock(home.state.native_socket(0), socket.SOCK_SEQPACKET)
    connection.sendall(HELLO)
    return connection


def greet_token(home: Home) -> socket.socket:
    connection = knock(home.state.p11_kit_socket(0))
    connection.sendall(b"\0")
    return connection


def greet_mailbox(home: Home) -> socket.socket:
    connection = knock(home.state.mailbox_socket)
    connection.sendall(frame(Version.COMMAND, with_checksum(Version())))
    return connection


def greet_admin(home: Home) -> socket.socket:
    connection = knock(home.state.admin_socket)
    connection.sendall(b"\x01\0\0\0\x01")
    return connection


Greet = Callable[[Home], socket.socket]
GREETINGS: list[Greet] = [greet_native, greet_token, greet_mailbox, greet_admin]


def threads(server: Server) -> int:
    """Return how many threads all processes have together."""
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in server.pids().values())


# --- crowds -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("greet", GREETINGS)
def test_a_thousand_connections_at_one_door_are_all_answered_and_others_too(
    running: Server, bystander: Bystander, greet: Greet
) -> None:
    pids, before = running.pids(), threads(running)
    memory = {name: resident(pid) for name, pid in pids.items()}
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(greet(running.home)) for _ in range(CROWD)]
        assert all(connection.recv(1) for connection in crowd)
        bystander.check()
        with running.session() as session:
            assert session.find(label="second").public
        assert {one.name for one in running.status().processes} == {"box", "rot", "vault-0", "front"}
        for name, pid in pids.items():
            assert resident(pid) - memory[name] < GROWTH_LIMIT, name
    eventually(lambda: threads(running) <= before + 2)


def test_a_crowd_that_comes_and_goes_leaves_no_descriptor_behind(running: Server) -> None:
    def held() -> dict[str, int]:
        return {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in running.pids().items()}

    try:
        before = held()
    except PermissionError:
        pytest.skip("the descriptors of a process that cannot be dumped are for root to read")
    for _ in range(50):
        for greet in GREETINGS:
            # Descriptors that come along are nobody's wish.
            with greet(running.home) as connection, contextlib.suppress(OSError):
                socket.send_fds(connection, [b"\0"], [connection.fileno(), 0, 1, 2])
    eventually(lambda: all(count <= before[name] + 1 for name, count in held().items()))


# --- dawdlers ---------------------------------------------------------------------------------------------------


def test_who_sends_one_octet_at_a_time_is_answered_in_the_end(running: Server, bystander: Bystander) -> None:
    question = frame(Version.COMMAND, with_checksum(Version()))
    with knock(running.home.state.mailbox_socket) as connection:
        for octet in question:
            connection.sendall(bytes((octet,)))
            bystander.check()
        answer = connection.recv(1 << 16)
    assert FrameHeader.decode(answer[:FRAME_HEADER_SIZE]).code == 0


def test_who_stops_in_the_middle_of_a_frame_holds_up_nobody(running: Server, bystander: Bystander) -> None:
    with contextlib.ExitStack() as stack:
        for greet in GREETINGS:
            dawdler = stack.enter_context(greet(running.home))
            dawdler.recv(1 << 16)
            dawdler.sendall(b"\x01\0\0\0")
        for greet in GREETINGS:
            with greet(running.home) as connection:
                assert connection.recv(1 << 16)
        bystander.check()


def test_who_says_nothing_at_the_native_door_is_sent_away(silent: socket.socket) -> None:
    assert silent.recv(1) == b""


def flood(greedy: socket.socket, question: bytes, running: Server, bystander: Bystander) -> None:
    """Ask until there is no more room, taking no answer, and see that others are served."""
    greedy.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            greedy.sendall(question)
    bystander.check()
    with running.session() as session:
        assert session.random(16)


def test_who_takes_no_answers_holds_up_nobody(running: Server, bystander: Bystander) -> None:
    with greet_native(running.home) as greedy:
        assert Welcome.decode(greedy.recv(64)).status is hsm.Status.OK
        question = hsm.encode_message(Operation.RANDOM, 1, hsm.Random(hsm.DATA_LIMIT).encode())
        flood(greedy, question, running, bystander)


def test_who_takes_no_answers_at_the_p11_kit_door_holds_up_nobody(
    running: Server, bystander: Bystander
) -> None:
    with knock(running.home.state.p11_kit_socket(0)) as greedy:
        token = Token(greedy)
        session = token.start(running.home.pin)
        question = encode_frame(1, encode_request(Call.C_GenerateRandom, (session, hsm.DATA_LIMIT), 2))
        flood(greedy, question, running, bystander)


# --- the dying --------------------------------------------------------------------------------------------------

DYING = """
import os, signal, sys
from endocarp.client import connect
from endocarp.wire import hsm
from endocarp.wire.suites import Suite
address, pin = sys.argv[1:]
session = connect(address).session(pin)
template = hsm.Template(hsm.Policy.PRIVATE | hsm.Policy.SIGN, "orphan")
public = hsm.Template(hsm.Policy.VERIFY, "orphan")
request = hsm.Generate(Suite.RSA3072, template, public)
session._connection._line.send(hsm.encode_message(hsm.Operation.GENERATE, 7, request.encode()))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_application_that_is_killed_in_the_middle_of_a_request_takes_nothing_along(
    running: Server, bystander: Bystander
) -> None:
    before = threads(running)
    words = [sys.executable, "-c", DYING, running.address, running.home.pin]
    assert subprocess.run(words, check=False).returncode == -9
    bystander.check()
    eventually(lambda: threads(running) <= before)
    with running.session() as session:
        keys = session.keys(label="orphan")
    assert keys == []


@pytest.mark.parametrize("greet", GREETINGS)
def test_who_leaves_in_the_middle_of_a_frame_takes_nothing_along(running: Server, greet: Greet) -> None:
    before = threads(running)
    for _ in range(20):
        with greet(running.home) as connection:
            connection.recv(1)
            connection.sendall(b"\x01\0\0\0\x01")
    eventually(lambda: threads(running) <= before)
