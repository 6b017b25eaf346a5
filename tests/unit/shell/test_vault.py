"""The vault as a process: what it asks of the root of trust, keeps on disk, and serves over pair channels."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.simulators.program import Program, program
from tests.simulators.root_of_trust import IMAGES, Server, authorize, manufacture_server
from tests.simulators.threads import all_threads_end
from tests.simulators.vault import VaultProcess

from endocarp.client import Connection, Session
from endocarp.crypto.digest import sha384
from endocarp.crypto.secret import Secret
from endocarp.hsm.operations import Vault
from endocarp.line import Line
from endocarp.shell import vault as shell
from endocarp.shell.channel import pair
from endocarp.shell.serve import Conversation
from endocarp.shell.vault import take_connections
from endocarp.wire import custody, hsm, mailbox
from endocarp.wire.control import Pair, Progress
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import PartitionEvidence, PartitionReport
from endocarp.wire.hsm import Hello, Status, Welcome
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Suite

NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def server() -> Server:
    """A root of trust that has authorized the vault."""
    server = manufacture_server()
    authorize(server, FirmwareId.VAULT)
    return server


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return the directory of a store that has never been used."""
    path = tmp_path / "store"
    path.mkdir(mode=0o700)
    return path


@contextlib.contextmanager
def custody_of(server: Server, partition: int) -> Iterator[socket.socket]:
    """Yield the vault's end of a custody channel, with the root of trust at the other."""
    server.box.execute(mailbox.AttachCustody(partition, FirmwareId.VAULT))
    core = server.runtime.custody(server.box.attached.pop())
    ours, theirs = pair()
    with ours, theirs:
        conversation = Conversation(Line(ours, custody.MESSAGE_LIMIT + 1), core)
        thread = threading.Thread(target=conversation.run)
        thread.start()
        yield theirs
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """Yield the vault's end of a custody channel, with somebody at the other who answers one question like this."""
    ours, theirs = pair()
    with ours, theirs:

        def serve() -> None:
            ours.recv(custody.MESSAGE_LIMIT)
            answer(ours)

        thread = threading.Thread(target=serve)
        thread.start()
        yield theirs
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def started(
    custody_end: socket.socket, store: Path, *words: str
) -> "contextlib.AbstractContextManager[Program]":
    """Run a vault on a store."""
    given = {"custody": custody_end.fileno()}
    return program(shell.main, given, "--partition", "0", "--store", str(store), *words)


class Front:
    """The front's end of a pair channel."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def hand_on(self, hello: bytes, *descriptors: int) -> None:
        socket.send_fds(self.end, [hello], descriptors)

    def connect(self) -> Connection:
        """Hand a connection on, and speak on it as a client does."""
        ours, theirs = pair()
        with theirs:
            self.hand_on(Hello(hsm.MAGIC, hsm.VERSION).encode(), theirs.fileno())
        return _Dialled(ours)


class _Dialled(Connection):
    """A connection whose Hello was said when it was handed on."""

    def _exchange(self, message: bytes) -> bytes:
        if message == Hello(hsm.MAGIC, hsm.VERSION).encode():
            reply = self._line.receive()
            assert reply
            return reply
        return super()._exchange(message)


@contextlib.contextmanager
def paired(vault: Program) -> Iterator[Front]:
    """Give a running vault one end of a pair channel, as box does; yield the front at the other."""
    ours, theirs = pair()
    with ours:
        with theirs:
            vault.channel.send(Pair(0), [theirs.fileno()])
        yield Front(ours)


# --- a life ---------------------------------------------------------------------------------------------------------


def test_a_vault_makes_its_partition_once_and_finds_its_keys_again(server: Server, store: Path) -> None:
    with custody_of(server, 0) as end, started(end, store) as vault:
        ready = vault.ready()
        assert re.fullmatch(r"\d{8}", ready.pin)
        with paired(vault) as front, Session(front.connect()) as session:
            session.log_in(ready.pin)
            public = session.generate(Suite.P256, label="web").public
        assert vault.stop() == 0
    with custody_of(server, 0) as end, started(end, store) as vault:
        again = vault.ready()
        assert again.pin == ""
        with paired(vault) as front, Session(front.connect()) as session:
            session.log_in(ready.pin)
            key = session.find(label="web")
            assert key.public == public
            assert key.verify(key.sign(b"data"), b"data")
        assert vault.stop() == 0


def test_a_vault_says_in_its_report_what_it_told_of_its_sandbox(server: Server, store: Path) -> None:
    with custody_of(server, 0) as end, started(end, store) as vault:
        sandbox = vault.ready().sandbox
        with paired(vault) as front, contextlib.closing(front.connect()) as connection:
            octets = connection.execute(hsm.Report(NONCE)).data
        assert vault.stop() == 0
    report = PartitionReport.decode(SignedMessage.decode(PartitionEvidence.decode(octets).report).payload)
    assert (report.partition_id, report.nonce) == (0, NONCE)
    assert report.image_digest == sha384(IMAGES[FirmwareId.VAULT])
    assert report.memory_mode == ("ordinary", "locked", "secret")[sandbox.memory]
    assert report.sandbox == {
        "no_new_privileges": "yes",
        "not_dumpable": "yes",
        "landlock": f"ABI {sandbox.landlock_abi}" if sandbox.landlock_abi else "no",
        "seccomp": "filter" if sandbox.seccomp else "no",
    }


def test_one_front_after_another_is_paired_and_each_connection_has_a_login_of_its_own(
    server: Server, store: Path
) -> None:
    with custody_of(server, 0) as end, started(end, store) as vault:
        pin = vault.ready().pin
        vault.channel.send(Progress("means nothing here"))
        for _ in range(2):
            with (
                paired(vault) as front,
                Session(front.connect()) as first,
                Session(front.connect()) as second,
            ):
                first.log_in(pin)
                first.generate(Suite.P256)
                assert len(first.keys()) > len(second.keys()) == 0
        assert vault.stop() == 0


def test_the_end_of_box_is_the_end_of_the_vault(server: Server, store: Path) -> None:
    with custody_of(server, 0) as end, started(end, store) as vault:
        vault.ready()
        vault.channel.socket.close()
        assert vault.wait() == 0


# --- what it is told ------------------------------------------------------------------------------------------------


def test_where_the_root_of_trust_is_gone_the_reason_says_so(store: Path) -> None:
    for answer in (lambda end: end.close(), lambda end: end.shutdown(socket.SHUT_RDWR)):
        with answering(answer) as end, started(end, store) as vault:
            failed = vault.failed()
            assert (failed.rule, failed.hint) == ("process.rot", "the server resets itself")
    ours, theirs = pair()
    ours.close()
    with theirs, started(theirs, store) as vault:
        assert vault.failed().rule == "process.rot"


def test_where_the_root_of_trust_refuses_custody_there_is_no_vault(store: Path) -> None:
    refusal = custody.encode_refusal(custody.Status(2))
    with answering(lambda end: end.sendall(refusal)) as end, started(end, store) as vault:
        assert vault.failed().rule == "0x2"
    assert list(store.iterdir()) == []


# --- the store ------------------------------------------------------------------------------------------------------


def test_octets_of_a_write_that_was_cut_short_are_told_and_gone(server: Server, store: Path) -> None:
    with custody_of(server, 0) as end, started(end, store) as vault:
        vault.ready()
    whole = (store / "records").stat().st_size
    with (store / "records").open("ab") as file:
        file.write(b"\0" * 7)
    with custody_of(server, 0) as end, started(end, store) as vault:
        assert "the store ended in 7 octets of a write that a crash cut short" in vault.progress()
        vault.ready()
    assert (store / "records").stat().st_size == whole


def test_a_changed_octet_of_the_store_is_refused_by_its_path(server: Server, store: Path) -> None:
    with custody_of(server, 0) as end, started(end, store) as vault:
        vault.ready()
    octets = bytearray((store / "records").read_bytes())
    octets[len(octets) // 2] ^= 1
    (store / "records").write_bytes(octets)
    with custody_of(server, 0) as end, started(end, store) as vault:
        failed = vault.failed()
        assert failed.reason.startswith(f"{store / 'records'}: ")
        assert failed.hint
    assert (store / "records").read_bytes() == octets


def test_a_store_is_opened_with_the_seal_key_of_its_own_partition_only(server: Server, store: Path) -> None:
    with custody_of(server, 1) as end, started(end, store) as vault:
        vault.ready()
    with custody_of(server, 0) as end, started(end, store) as vault:
        assert vault.failed().reason.startswith(f"{store / 'records'}: ")


@pytest.mark.parametrize("left", [None, b""], ids=["no file", "an empty file"])
def test_a_partition_that_has_been_served_is_not_made_anew(
    server: Server, store: Path, left: bytes | None
) -> None:
    if left is not None:
        (store / "records").write_bytes(left)
    with custody_of(server, 0) as end, started(end, store, "--served", "yes") as vault:
        failed = vault.failed()
        assert (failed.rule, failed.reason) == ("store-gone", f"{store / 'records'} is gone")
        assert failed.hint.startswith("put back a copy of it")
    assert not (store / "records").exists() or (store / "records").read_bytes() == left
    with custody_of(server, 0) as end, started(end, store) as vault:
        assert vault.ready().pin
    with custody_of(server, 0) as end, started(end, store, "--served", "yes") as vault:
        assert vault.ready().pin == ""


def test_a_store_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    with custody_of(server, 0) as end, started(end, tmp_path / "none") as vault:
        failed = vault.failed()
        assert failed.reason == f"{tmp_path / 'none'}: No such file or directory"
        assert "--state" in failed.hint


def test_a_store_is_for_one_vault_at_a_time(server: Server, store: Path) -> None:
    before = shell.wait_for_store(store)
    with custody_of(server, 0) as end, started(end, store) as vault:
        vault.channel.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            vault.said()
        os.close(before)
        vault.channel.socket.settimeout(20)
        vault.ready()


def test_where_a_step_of_the_sandbox_is_missing_and_required_it_does_not_serve(
    server: Server, store: Path
) -> None:
    with custody_of(server, 0) as end, started(end, store, "--require-sandbox", "yes") as vault:
        # The tests' own threads stand outside: there is always a step missing here.
        assert vault.failed().rule == "sandbox.incomplete"
    assert list(store.iterdir()) == []


# --- connections ----------------------------------------------------------------------------------------------------


@pytest.fixture
def vault() -> Iterator[Vault]:
    """Return the cores of a vault, in memory."""
    with Secret(bytes(32)) as key:
        yield VaultProcess(key).vault


@contextlib.contextmanager
def front_of(vault: Vault, places: int) -> Iterator[Front]:
    """Yield the front's end of a channel over which a vault takes this many connections at once."""
    ours, theirs = pair()
    with all_threads_end(), ours:
        take_connections(theirs, vault, threading.BoundedSemaphore(places))
        yield Front(ours)


def test_where_no_place_is_left_a_connection_is_closed_at_once_and_a_place_comes_back(vault: Vault) -> None:
    with front_of(vault, 1) as front:
        first = front.connect()
        ours, theirs = pair()
        with ours:
            with theirs:
                front.hand_on(Hello(hsm.MAGIC, hsm.VERSION).encode(), theirs.fileno())
            assert ours.recv(1) == b""
        first.close()
        for thread in threading.enumerate():
            if thread.name == "connection":
                thread.join(10)
        front.connect().close()


def test_a_hello_that_nobody_brought_a_connection_for_is_passed_over(vault: Vault) -> None:
    with front_of(vault, 1) as front:
        front.hand_on(b"hello")
        front.connect().close()


def test_a_hello_of_another_version_is_told_the_version_that_is_spoken(vault: Vault) -> None:
    ours, theirs = pair()
    with front_of(vault, 1) as front, ours:
        with theirs:
            front.hand_on(Hello(hsm.MAGIC, hsm.VERSION + 1).encode(), theirs.fileno())
        welcome = Welcome.decode(ours.recv(100))
        assert welcome.status is not Status.OK
        assert welcome.version == hsm.VERSION
        assert ours.recv(1) == b""


def test_what_is_no_message_costs_its_sender_the_connection_and_nobody_else(vault: Vault) -> None:
    with front_of(vault, 2) as front, contextlib.closing(front.connect()) as other:
        ours, theirs = pair()
        with ours:
            with theirs:
                front.hand_on(b"\xff" * 64, theirs.fileno())
            assert ours.recv(100) == b""
        assert other.execute(hsm.Info()).partition == other.partition
