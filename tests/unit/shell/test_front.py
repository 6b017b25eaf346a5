"""The front as a process: its doors, and the way from there to a real vault in this process."""

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.simulators.kernel import no_descriptor_leaks
from tests.simulators.program import Program, program
from tests.simulators.strangers import Token, knock, take
from tests.simulators.vault import PARTITION, VaultProcess

from endocarp.client import connect
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, DeviceError
from endocarp.hsm.token_general import HANDSHAKE
from endocarp.shell import front as shell
from endocarp.shell.channel import pair
from endocarp.shell.front import ApplicationLine, Front, is_own_user
from endocarp.shell.sockets import listen_at
from endocarp.shell.vault import take_connections
from endocarp.wire import hsm
from endocarp.wire.control import Pair, Progress
from endocarp.wire.cryptoki import CKR
from endocarp.wire.hsm import Hello, Status, Welcome
from endocarp.wire.p11 import FRAME_LIMIT, decode_frame, encode_frame
from endocarp.wire.p11_calls import Call, decode_reply, encode_request
from endocarp.wire.suites import Suite

HELLO = Hello(hsm.MAGIC, hsm.VERSION)


@pytest.fixture
def process() -> Iterator[VaultProcess]:
    """Return a vault in memory."""
    with Secret(bytes(32)) as key:
        yield VaultProcess(key)


class Doors:
    """A front that runs, and where its doors are."""

    def __init__(self, place: Path, running: Program) -> None:
        self.native, self.p11_kit, self.program = place / "native.sock", place / "p11-kit.sock", running

    @property
    def address(self) -> str:
        return f"unix:{self.native}"

    @contextlib.contextmanager
    def paired(self, process: VaultProcess) -> Iterator[None]:
        """Pair it with a vault, as box does."""
        ours, theirs = pair()
        take_connections(ours, process.vault, threading.BoundedSemaphore(16))
        with theirs:
            self.program.channel.send(Pair(PARTITION), [theirs.fileno()])
        yield


@pytest.fixture
def doors(place: Path) -> Iterator[Doors]:
    """Return a front that serves and is not yet paired."""
    with (
        listen_at(place / "native.sock", socket.SOCK_SEQPACKET) as native,
        listen_at(place / "p11-kit.sock", socket.SOCK_STREAM) as p11_kit,
    ):
        given = {f"native-{PARTITION}": native.fileno(), f"p11-kit-{PARTITION}": p11_kit.fileno()}
        with program(shell.main, given) as running:
            running.ready()
            yield Doors(place, running)


@contextlib.contextmanager
def application(doors: Doors) -> Iterator[Token]:
    """Yield an application that has agreed upon a dialect."""
    with knock(doors.p11_kit) as end:
        yield Token(end)


# --- the process ----------------------------------------------------------------------------------------------------


def test_a_native_client_reaches_the_vault_and_keeps_it_when_the_front_is_gone(
    doors: Doors, process: VaultProcess
) -> None:
    with doors.paired(process), connect(doors.address) as partition:
        assert partition.number == PARTITION
        with partition.session(process.pin) as session:
            key = session.generate(Suite.P256, label="web")
            assert doors.program.stop() == 0
            assert key.verify(key.sign(b"data"), b"data")


def test_an_application_speaks_pkcs11_and_its_questions_go_to_the_vault(
    doors: Doors, process: VaultProcess
) -> None:
    with doors.paired(process), application(doors) as app:
        session = app.start(process.pin)
        found = app.call(Call.C_GenerateRandom, session, 16)
        assert isinstance(found, tuple)
        (octets,) = found
        assert isinstance(octets, bytes)
        assert len(octets) == 16


@pytest.mark.parametrize("octets", [b"", b"\0" * 12, HELLO.encode() + b"more", b"x" * 100])
def test_who_begins_with_anything_but_a_hello_is_closed(
    doors: Doors, process: VaultProcess, octets: bytes
) -> None:
    with doors.paired(process), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(doors.native))
        stranger.send(octets)
        assert stranger.recv(1) == b""
        connect(doors.address).close()


def test_a_client_that_waits_with_its_hello_is_closed(
    doors: Doors, process: VaultProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "HELLO_TIME", 0.2)
    with doors.paired(process), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(doors.native))
        assert silent.recv(1) == b""


def test_clients_that_come_before_the_vault_wait_for_it(doors: Doors, process: VaultProcess) -> None:
    found: list[int] = []

    def client() -> None:
        with connect(doors.address) as partition:
            found.append(partition.number)

    waiting = threading.Thread(target=client)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    doors.program.channel.send(Progress("means nothing here"))
    with doors.paired(process):
        waiting.join(10)
    assert found == [PARTITION]


def test_without_a_vault_clients_are_closed_in_the_end(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "PAIRING_TIME", 0.05)
    with pytest.raises(DeviceError):
        connect(doors.address)
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(doors.p11_kit))
        end.sendall(b"\x02")
        assert end.recv(1) == b""


def test_the_end_of_box_is_the_end_of_the_front(doors: Doors) -> None:
    doors.program.channel.socket.close()
    assert doors.program.wait() == 0


def test_a_front_whose_door_nobody_opens_any_more_ends(place: Path) -> None:
    with (
        listen_at(place / "native.sock", socket.SOCK_SEQPACKET) as native,
        program(shell.main, {f"native-{PARTITION}": native.fileno()}) as running,
    ):
        running.ready()
        native.shutdown(socket.SHUT_RDWR)
        assert running.said() is None
        assert running.wait() == 0


def test_where_a_step_of_the_sandbox_is_missing_and_required_it_does_not_serve() -> None:
    with program(shell.main, {}, "--require-sandbox", "yes") as running:
        # The tests' own threads stand outside: there is always a step missing here.
        assert running.failed().rule == "sandbox.incomplete"


# --- the way to a vault ---------------------------------------------------------------------------------------------


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Front:
    monkeypatch.setattr(shell, "PAIRING_TIME", 0.05)
    return Front()


@contextlib.contextmanager
def served(
    serve: Callable[[int, socket.socket], None], kind: socket.SocketKind = socket.SOCK_SEQPACKET
) -> Iterator[socket.socket]:
    """Yield an application's end of a connection that is being served."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.settimeout(20)

    def work() -> None:
        with theirs, contextlib.suppress(OSError):
            serve(PARTITION, theirs)

    thread = threading.Thread(target=work)
    thread.start()
    with ours:
        yield ours
    thread.join(20)
    assert not thread.is_alive()


def test_of_two_channels_the_later_one_counts_and_the_earlier_one_is_closed(front: Front) -> None:
    first, second = pair(), pair()
    with no_descriptor_leaks(), first[1], second[0], second[1]:
        front.pair(PARTITION, first[0])
        front.pair(PARTITION, second[0])
        assert first[1].recv(1) == b""
        with served(front.serve_native) as client:
            client.send(HELLO.encode())
            message, descriptors, _, _ = socket.recv_fds(second[1], 100, 1)
        assert message == HELLO.encode()
        for fd in descriptors:
            os.close(fd)


@contextlib.contextmanager
def full(front: Front) -> Iterator[socket.socket]:
    """Pair a front with a vault that takes nothing, and whose channel is full; yield the vault's end."""
    ours, theirs = pair()
    with ours, theirs:
        front.pair(PARTITION, ours)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(HELLO.encode(), socket.MSG_DONTWAIT)
        yield theirs


def test_where_a_vault_takes_no_connections_clients_are_closed_in_the_end(
    front: Front, capfd: pytest.CaptureFixture[str]
) -> None:
    with full(front), served(front.serve_native) as client:
        client.send(HELLO.encode())
        assert client.recv(1) == b""
    assert capfd.readouterr().err == f"the vault of partition {PARTITION} takes no connections\n"


def test_who_waits_for_a_busy_vault_keeps_nobody_else_waiting_and_gets_there(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "PAIRING_TIME", 20.0)
    other = pair()
    with full(front) as busy, other[0], other[1], served(front.serve_native) as client:
        client.send(HELLO.encode())
        with served(lambda _, connection: front.serve_native(PARTITION + 1, connection)) as another:
            another.send(HELLO.encode())
            front.pair(PARTITION + 1, other[0])
            _, (fd,), _, _ = socket.recv_fds(other[1], 100, 1)
            os.close(fd)
        taken: list[int] = []
        while not taken:
            _, taken, _, _ = socket.recv_fds(busy, 100, 1)
        for fd in taken:
            os.close(fd)


@pytest.mark.parametrize("unread", [False, True], ids=["at rest", "in the middle"])
def test_a_vault_that_has_died_is_no_vault(front: Front, *, unread: bool) -> None:
    ours, theirs = pair()
    if unread:
        ours.send(HELLO.encode())
    theirs.close()
    with ours:
        front.pair(PARTITION, ours)
        with served(front.serve_native) as client:
            client.send(HELLO.encode())
            assert client.recv(1) == b""


@contextlib.contextmanager
def vault_that_says(front: Front, welcome: bytes) -> Iterator[list[socket.socket]]:
    """Pair a front with a vault that answers the next Hello so; yield where its connection will stand."""
    ours, theirs = pair()
    connections: list[socket.socket] = []

    def answer() -> None:
        _, (fd,), _, _ = socket.recv_fds(theirs, 100, 1)
        connections.append(socket.socket(fileno=fd))
        if welcome:
            connections[0].send(welcome)
        else:
            connections[0].close()

    with ours, theirs:
        front.pair(PARTITION, ours)
        answering = threading.Thread(target=answer)
        answering.start()
        yield connections
        answering.join(20)
        connections[0].close()


@pytest.mark.parametrize(
    "welcome",
    [b"", Welcome(Status.VERSION_UNSUPPORTED, 9, PARTITION, 0).encode()],
    ids=["none", "refusal"],
)
def test_an_application_whom_the_vault_does_not_welcome_is_closed(front: Front, welcome: bytes) -> None:
    with vault_that_says(front, welcome), served(front.serve_token, socket.SOCK_STREAM) as app:
        app.sendall(b"\2")
        assert app.recv(1) == b""


@pytest.mark.parametrize("asked", [False, True], ids=["between two questions", "before it answers"])
def test_an_application_is_told_of_the_death_of_its_vault_and_then_closed(
    front: Front, *, asked: bool
) -> None:
    welcome = Welcome(Status.OK, hsm.VERSION, PARTITION, 0).encode()
    with (
        vault_that_says(front, welcome) as connections,
        served(front.serve_token, socket.SOCK_STREAM) as end,
    ):
        app = Token(end)
        assert app.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()
        (vault,) = connections

        def die() -> None:
            with vault:
                if asked:
                    vault.recv(hsm.MESSAGE_LIMIT)

        dying = threading.Thread(target=die)
        dying.start()
        if not asked:
            dying.join(20)
        assert app.call(Call.C_GetTokenInfo, 0) == CKR.DEVICE_REMOVED
        assert end.recv(1) == b""
        dying.join(20)


# --- who may come ---------------------------------------------------------------------------------------------------

CALLS = """
import os, socket, sys
os.setuid(65534)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
    end.connect(sys.argv[1])
    end.recv(1)
"""


@pytest.fixture
def stranger(place: Path) -> Iterator[socket.socket]:
    """Return a connection to a program that another user runs."""
    if os.getuid() != 0:
        pytest.skip("only root can start a program as somebody else")
    place.chmod(0o711)
    with listen_at(place / "open.sock", socket.SOCK_SEQPACKET) as listener:
        (place / "open.sock").chmod(0o777)
        with subprocess.Popen([sys.executable, "-c", CALLS, place / "open.sock"]) as process:
            connection, _ = listener.accept()
            with connection:
                yield connection
            assert process.wait(20) == 0


def test_another_user_is_not_served(stranger: socket.socket, front: Front) -> None:
    assert not is_own_user(stranger)
    front.serve_native(PARTITION, stranger)
    front.serve_token(PARTITION, stranger)


def test_the_user_of_this_server_is_served() -> None:
    ours, theirs = pair()
    with ours, theirs:
        assert is_own_user(ours)


# --- the line to an application --------------------------------------------------------------------------------

INITIALIZE = encode_frame(16, encode_request(Call.C_Initialize, (HANDSHAKE, 0, b"\0"), 0))

EACH = tuple(range(1, len(INITIALIZE)))


@contextlib.contextmanager
def application_line() -> Iterator[tuple[ApplicationLine, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ApplicationLine(ours), theirs


@pytest.mark.parametrize("cuts", [(), (12,), (12, 18), (1, 2, 3), (12, 30), (19,), (20,), (21, 40), EACH])
@pytest.mark.parametrize("pause", [0.0, 0.002])
@pytest.mark.timeout(10)
def test_a_frame_in_pieces_of_any_size_is_given_whole(cuts: tuple[int, ...], pause: float) -> None:
    with application_line() as (line, theirs):

        def write() -> None:
            for start, end in itertools.pairwise((0, *cuts, len(INITIALIZE))):
                theirs.send(INITIALIZE[start:end])
                time.sleep(pause)

        for _ in range(2):
            writer = threading.Thread(target=write)
            writer.start()
            assert line.receive() == INITIALIZE
            writer.join()


def test_frames_that_arrive_at_once_are_given_one_by_one() -> None:
    frames = [encode_frame(code, bytes(code)) for code in range(8, 40)]
    with application_line() as (line, theirs):
        theirs.send(b"".join(frames)[:-1])
        assert [line.receive() for _ in frames[:-1]] == frames[:-1]
        theirs.send(frames[-1][-1:])
        assert line.receive() == frames[-1]


@pytest.mark.timeout(10)
def test_a_frame_of_many_pieces_ends_with_its_last_octet() -> None:
    big = encode_frame(17, bytes(200_001))
    with application_line() as (line, theirs):
        writer = threading.Thread(target=theirs.sendall, args=(big,))
        writer.start()
        assert line.receive() == big
        writer.join()


@pytest.mark.parametrize("octets", [b"", INITIALIZE[:3], INITIALIZE[:15], INITIALIZE[:-1]])
def test_what_was_cut_short_is_not_given(octets: bytes) -> None:
    with application_line() as (line, theirs):
        theirs.send(octets)
        theirs.shutdown(socket.SHUT_WR)
        assert line.receive() == b""


@pytest.mark.parametrize("cut", [12, 3])
def test_what_can_be_no_frame_is_given_as_it_came(cut: int) -> None:
    octets = struct.pack(">III", 1, 0, FRAME_LIMIT) + bytes(8)
    with application_line() as (line, theirs):
        theirs.send(octets[:cut])
        writer = threading.Timer(0.01, theirs.send, (octets[cut:],))
        writer.start()
        given = line.receive()
        assert given
        assert octets.startswith(given)
        with pytest.raises(DecodeError):
            decode_frame(given)
        writer.join()


def test_an_application_that_sends_without_end_is_held_back_by_the_kernel() -> None:
    with application_line() as (line, theirs):
        theirs.settimeout(0.2)
        with pytest.raises(TimeoutError):
            theirs.sendall(INITIALIZE * 100_000)
        assert line.receive() == INITIALIZE


@pytest.mark.parametrize("cut", [0, 3, 15, 40])
def test_what_does_not_come_in_time_is_given_when_it_is_whole(cut: int) -> None:
    with application_line() as (line, theirs):
        theirs.send(INITIALIZE[:cut])
        assert line.receive(0.001) is None
        assert line.receive(0.001) is None
        theirs.send(INITIALIZE[cut:])
        assert line.receive(0.001) == INITIALIZE


def test_calls_sent_before_the_answer_to_the_one_before_are_answered_in_their_order(
    doors: Doors, process: VaultProcess
) -> None:
    with doors.paired(process), application(doors) as app:
        session = app.start(process.pin)
        calls = [(Call.C_GenerateRandom, (session, 4)), (Call.C_GetInfo, ())] * 3
        frames = [encode_frame(code, encode_request(*call, 2)) for code, call in enumerate(calls)]
        app.connection.sendall(b"".join(frames))
        for code, (call, _) in enumerate(calls):
            told, _, size = struct.unpack(">III", take(app.connection, 12))
            assert told == code
            assert isinstance(decode_reply(call, take(app.connection, size), 2), tuple)


def test_an_application_that_breaks_the_framing_is_closed_and_no_other(
    doors: Doors, process: VaultProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    with doors.paired(process), application(doors) as app, application(doors) as other:
        app.connection.sendall(struct.pack(">III", 1, 0xFFFFFFFF, 0) + bytes(8))
        assert app.connection.recv(1) == b""
        assert other.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()
    assert capfd.readouterr().err == ""


def test_an_application_that_hangs_up_before_it_names_a_dialect_is_let_go(
    doors: Doors, process: VaultProcess
) -> None:
    with doors.paired(process):
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(doors.p11_kit))
        with application(doors) as app:
            assert app.call(Call.C_Initialize, HANDSHAKE, 0, b"\0") == ()
