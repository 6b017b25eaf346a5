"""The client of the native door, against a vault process in this process, and against servers that misbehave."""

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.vault import PARTITION, VaultProcess

from endocarp import client
from endocarp.client import Connection, Partition, Session, connect, default_address
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, DeviceError, UsageError
from endocarp.shell.config import state
from endocarp.wire import hsm
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import PartitionReport
from endocarp.wire.hsm import Status
from endocarp.wire.suites import Cipher, Scheme, Suite

WELCOME = hsm.Welcome(Status.OK, hsm.VERSION, PARTITION, 0).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[VaultProcess]:
    with Secret(bytes(range(32))) as key:
        server = VaultProcess(key)
        yield server
        server.join()


@pytest.fixture(scope="module")
def address(server: VaultProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return where the vault process listens."""
    path = tmp_path_factory.mktemp("door") / "native.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.serve(listener.accept()[0])

        threads = [threading.Thread(target=accept, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        yield f"unix:{path}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def partition(address: str) -> Iterator[Partition]:
    with connect(address) as partition:
        yield partition


@pytest.fixture
def session(partition: Partition, server: VaultProcess) -> Iterator[Session]:
    with partition.session(server.pin) as session:
        yield session
        left = session.keys()
        for key in left:
            key.destroy()


def scripted(*replies: bytes) -> Connection:
    """Return a connection to a server that says these messages, whatever it is asked, and then nothing more."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        for reply in replies:
            theirs.send(reply)
        return Connection(ours)


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """Listen at `native.sock`, where nobody answers until the test does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "native.sock"))
        listener.listen(0)
        yield listener


# --- keys -----------------------------------------------------------------------------------------------------


def test_a_partition_tells_its_state_and_its_report(partition: Partition, session: Session) -> None:
    assert partition.number == PARTITION
    assert partition.info() == hsm.InfoReply(PARTITION, False, 10, 0)
    evidence = partition.report(bytes(32))
    report = PartitionReport.decode(SignedMessage.decode(evidence.report).payload)
    assert report.partition_id == PARTITION


def test_a_pair_signs_and_verifies(session: Session) -> None:
    key = session.generate(Suite.P256, label="web", key_id=b"\x01")
    assert (key.suite, key.label, key.id, len(key.public)) == (Suite.P256, "web", b"\x01", 65)
    assert repr(key) == "<Key P256 'web'>"
    signature = b""
    for scheme in (None, Scheme.ECDSA_SHA512, None):
        signature = key.sign(b"data", scheme)
        assert key.verify(signature, b"data", scheme)
        assert not key.verify(signature, b"other", scheme)
    for wrong in (b"", signature + b"\0", bytes(hsm.MESSAGE_LIMIT)):
        assert not key.verify(wrong, b"data")
    with pytest.raises(DeviceError):
        key.verify(signature, b"data", Scheme.ML_DSA)


def test_a_key_is_found_with_its_public_half(session: Session) -> None:
    made = session.generate(Suite.P256, label="web", key_id=b"\x01")
    session.generate(Suite.P256, label="other")
    found = session.find(label="web")
    assert found.public == made.public
    assert found.verify(made.sign(b"x"), b"x")
    assert session.find(key_id=b"\x01").public == made.public
    with pytest.raises(UsageError, match="no key '02' here"):
        session.find(key_id=b"\x02")


def test_secret_keys_encrypt_and_decrypt(session: Session) -> None:
    key = session.generate(Suite.AES256, label="disk", durable=False)
    assert key.public == b""
    assert key.decrypt(key.encrypt(b"data", associated=b"x"), associated=b"x") == b"data"
    assert key.encrypt(b"data", nonce=bytes(12)).nonce == bytes(12)


def test_rsa_keys_encrypt_and_decrypt(session: Session) -> None:
    key = session.generate(Suite.RSA2048)
    assert key.decrypt(key.encrypt(b"data")) == b"data"
    assert key.decrypt(key.encrypt(b"data", Cipher.RSA_PKCS1), Cipher.RSA_PKCS1) == b"data"


def test_a_key_without_its_public_half_signs_and_does_not_verify(session: Session) -> None:
    key = session.generate(Suite.P256, label="half")
    assert key._public is not None
    session._connection.execute(hsm.Destroy(key._public.handle))
    half = session.find(label="half")
    signature = half.sign(b"x")
    with pytest.raises(UsageError, match="public half of 'half'"):
        half.verify(signature, b"x")
    half.destroy()
    assert session.keys() == []


def test_objects_come_in_pages(session: Session) -> None:
    for number in range(5):
        key = session.generate(Suite.AES256, label=str(number), durable=False)
        attributes = (hsm.Attribute(1, bytes(4096)),) * 4
        template = hsm.Template(key._own.template.policy, str(number), attributes=attributes)
        session._connection.execute(hsm.SetAttributes(key._own.handle, template))
    found = session.keys()
    assert [key.label for key in found] == ["0", "1", "2", "3", "4"]


def test_a_key_that_does_not_sign_says_so(session: Session) -> None:
    key = session.generate(Suite.AES256, durable=False)
    with pytest.raises(UsageError, match="an AES key does not sign"):
        key.sign(b"data")


def test_more_data_than_one_message_holds_is_not_sent(session: Session) -> None:
    key = session.generate(Suite.P256, durable=False)
    assert key.verify(key.sign(bytes(hsm.DATA_LIMIT)), bytes(hsm.DATA_LIMIT))
    with pytest.raises(UsageError, match=f"{hsm.DATA_LIMIT + 1} octets to sign") as caught:
        key.sign(bytes(hsm.DATA_LIMIT + 1))
    assert "DIGEST" in caught.value.advice()
    with pytest.raises(UsageError, match=f"at most {hsm.DATA_LIMIT}"):
        key.verify(b"", bytes(hsm.DATA_LIMIT + 1))


def test_who_looks_for_a_key_that_is_not_there_is_told_to_log_in_unless_he_has(
    partition: Partition, session: Session
) -> None:
    with partition.session() as stranger, pytest.raises(UsageError) as caught:
        stranger.find(label="none")
    assert caught.value.advice() == "log in to see private keys"
    with pytest.raises(UsageError) as caught:
        session.find(label="none")
    assert "log in" not in caught.value.advice()


def test_random_octets_are_drawn(session: Session) -> None:
    assert len(session.random(32)) == 32


def test_login_logout_and_another_pin(partition: Partition, server: VaultProcess) -> None:
    with pytest.raises(DeviceError) as caught:
        partition.session("not this")
    assert caught.value.number == Status.PIN_INCORRECT
    assert caught.value.advice()
    with partition.session() as session:
        with pytest.raises(DeviceError):
            session.generate(Suite.P256)
        session.set_pin(server.pin, "another pin")
        session.log_in("another pin")
        session.set_pin("another pin", server.pin)
        session.log_out()
        assert session.keys() == []


# --- what goes wrong ------------------------------------------------------------------------------------------


def test_what_was_closed_is_not_used_again(partition: Partition) -> None:
    session = partition.session()
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.random(1)
    with pytest.raises(UsageError):
        client._ClosedLine().receive()


@pytest.mark.parametrize("address", ["", "unix:", "tcp:localhost", "/path"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        connect(address)


def test_where_nothing_listens_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"nothing answers at unix:.*no\.sock: No such file") as caught:
        connect(f"unix:{tmp_path}/no.sock")
    assert "endocarp status" in caught.value.advice()
    with pytest.raises(DeviceError, match=r"nothing answers at unix:/a+: AF_UNIX path too long"):
        connect(f"unix:/{'a' * 200}")


@pytest.mark.parametrize("home", ["/state", "relative", ""])
def test_the_default_address_is_where_a_server_of_this_user_listens(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", home)
    monkeypatch.setenv("HOME", "/home/me")
    assert default_address() == f"unix:{state(None).native_socket(0)}"


def test_a_server_of_another_version_is_told() -> None:
    with pytest.raises(DeviceError, match="version 9 of the protocol, not 1"):
        scripted(hsm.Welcome(Status.VERSION_UNSUPPORTED, 9, 0, 0).encode())


def test_a_server_that_says_nonsense_is_told(tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        scripted(b"nonsense")
    with listening(tmp_path) as listener:

        def answer() -> None:
            with listener.accept()[0] as end:
                end.recv(100)
                end.send(b"nonsense")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DecodeError):
            connect(f"unix:{tmp_path}/native.sock")
        thread.join()


@pytest.mark.parametrize("waiting", [0, 1], ids=["asked", "in line"])
def test_a_server_that_does_not_answer_in_time_is_told(tmp_path: Path, waiting: int) -> None:
    with listening(tmp_path) as listener, contextlib.ExitStack() as stack:
        for _ in range(waiting):
            first = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            first.connect(listener.getsockname())
        with pytest.raises(DeviceError, match=r"no answer within 0\.05 s") as caught:
            connect(f"unix:{tmp_path}/native.sock", timeout=0.05)
    assert caught.value.number == errno.ETIMEDOUT
    assert "more time" in caught.value.advice()


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(UsageError, match="a timeout of"):
        connect(f"unix:{tmp_path}/native.sock", timeout=timeout)


@contextlib.contextmanager
def silent(timeout: float | None = None) -> Iterator[tuple[Connection, socket.socket]]:
    """Give a connection to a server that has greeted and says nothing more, and the server's end of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if timeout is not None:
        client._limit(ours, timeout)
    with theirs:
        theirs.send(WELCOME)
        yield Connection(ours, timeout), theirs


def is_closed(connection: Connection, theirs: socket.socket) -> None:
    """See that nothing said from now on is taken for an answer."""
    with pytest.raises(BrokenPipeError):
        theirs.send(hsm.encode_reply(Status.OK, 1, 0, b""))
    with pytest.raises(UsageError, match="closed"):
        connection.execute(hsm.Ping())


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next() -> None:
    with silent(timeout=0.01) as (connection, theirs):
        with pytest.raises(DeviceError, match=r"no answer within 0\.01 s"):
            connection.execute(hsm.Ping())
        is_closed(connection, theirs)


def test_an_answer_after_an_interrupt_is_not_taken_for_the_next() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with silent() as (connection, theirs):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                connection.execute(hsm.Ping())
            is_closed(connection, theirs)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reply", [hsm.encode_reply(Status.OK, 99, 0, b""), b"cut"])
def test_what_is_no_answer_to_the_question_ends_the_connection(reply: bytes) -> None:
    with silent() as (connection, theirs):
        theirs.send(reply)
        with pytest.raises(DecodeError, match=r"Reply\.tag: 99, asked with 1|cut short"):
            connection.execute(hsm.Ping())
        theirs.recv(100)
        is_closed(connection, theirs)


def test_a_server_that_goes_away_is_told() -> None:
    connection = scripted(WELCOME)
    with pytest.raises(DeviceError, match="went away"):
        connection.execute(hsm.Ping())


def test_a_server_that_closes_instead_of_an_answer_is_told() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(DeviceError, match="closed the connection"):
            Connection(ours)
