"""A client against a vault, in memory: a real socket pair, the client's own code, the vault's cores, and a small loop."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.simulators.vault import PARTITION, VaultProcess

from endocarp.client import Connection, Key, Session
from endocarp.crypto.certs import key_id
from endocarp.crypto.keys import PublicKey
from endocarp.crypto.secret import Secret
from endocarp.errors import DeviceError, EndocarpError, UsageError
from endocarp.wire import hsm
from endocarp.wire.cose import Algorithm, SignedMessage
from endocarp.wire.evidence import PartitionEvidence, PartitionReport
from endocarp.wire.hsm import Status
from endocarp.wire.suites import SCHEMES, SIGNATURE_SIZE, Cipher, Scheme, Suite

PAIRS = [Suite.P256, Suite.P384, Suite.RSA2048, Suite.RSA3072, Suite.ML_DSA_65]


class Server(VaultProcess):
    """A vault process with sessions of the client."""

    @contextlib.contextmanager
    def session(self, pin: str | None = None) -> Iterator[Session]:
        with self.stranger() as session:
            session.log_in(self.pin if pin is None else pin)
            yield session

    @contextlib.contextmanager
    def stranger(self) -> Iterator[Session]:
        """Open a session without login."""
        with Session(Connection(self.connect())) as session:
            yield session


@pytest.fixture
def server() -> Iterator[Server]:
    with Secret(bytes(range(32))) as key:
        server = Server(key)
        yield server
        server.join()


@contextlib.contextmanager
def refused(status: Status) -> Iterator[None]:
    with pytest.raises(DeviceError) as caught:
        yield
    assert Status(caught.value.number) is status
    assert caught.value.reason


def labels(session: Session) -> list[str]:
    found = session.keys()
    return [key.label for key in found]


@pytest.mark.parametrize("suite", PAIRS)
def test_a_pair_signs_and_verifies_in_every_scheme_of_its_suite(server: Server, suite: Suite) -> None:
    with server.session() as session:
        key = session.generate(suite, label="web", key_id=b"\x01")
        public = PublicKey.from_raw(suite, key.public)
        for scheme in SCHEMES[suite]:
            data = bytes(range(64)) if "MU" in scheme.name or "SHA512" in scheme.name else bytes(range(32))
            data = bytes(range(48)) if scheme.name.endswith("DIGEST_SHA384") else data
            signature = key.sign(data, scheme)
            assert len(signature) == SIGNATURE_SIZE[suite]
            assert public.verify(scheme, signature, data)
            assert key.verify(signature, data, scheme)
            assert not key.verify(signature, data[::-1], scheme)
        assert key.verify(key.sign(b"hello"), b"hello")


@pytest.mark.parametrize("cipher", [Cipher.RSA_OAEP_SHA1, Cipher.RSA_OAEP_SHA256, Cipher.RSA_PKCS1])
def test_an_rsa_key_decrypts_what_was_encrypted_for_it(server: Server, cipher: Cipher) -> None:
    with server.session() as session:
        key = session.generate(Suite.RSA2048, durable=False)
        assert key.decrypt(key.encrypt(b"hello", cipher), cipher) == b"hello"


def test_an_aes_key_encrypts_and_decrypts(server: Server) -> None:
    with server.session() as session:
        key = session.generate(Suite.AES256, label="disk")
        sealed = key.encrypt(b"hello", associated=b"for you")
        assert len(sealed.nonce) == 12
        assert key.decrypt(sealed, associated=b"for you") == b"hello"
        assert key.encrypt(b"hello", nonce=bytes(12)).nonce == bytes(12)
        with refused(Status.CIPHERTEXT_INVALID):
            key.decrypt(sealed, associated=b"for me")
        with refused(Status.DATA_INVALID):
            key.encrypt(b"hello", nonce=bytes(16))
        with refused(Status.MECHANISM_INVALID):
            key.encrypt(b"hello", Cipher.RSA_PKCS1)


def test_keys_are_there_after_the_vault_was_started_again(server: Server) -> None:
    with server.session() as session:
        signatures = {
            suite: session.generate(suite, label=suite.name).sign(b"before")
            for suite in (Suite.P256, Suite.ML_DSA_65)
        }
        sealed = session.generate(Suite.AES256, label="aes").encrypt(b"before")
    server.start()
    with server.session() as session:
        for suite, signature in signatures.items():
            key = session.find(label=suite.name)
            assert key.verify(signature, b"before")
            assert key.verify(key.sign(b"after"), b"after")
        assert session.find(label="aes").decrypt(sealed) == b"before"
        assert len(session.keys()) == 3


def test_session_keys_end_with_their_session_and_are_seen_by_no_other(server: Server) -> None:
    with server.session() as session:
        key = session.generate(Suite.P256, label="short", durable=False)
        assert labels(session) == ["short"]
        assert key.verify(key.sign(b"x"), b"x")
        with server.session() as other:
            assert other.keys() == []
            assert other._connection.execute(hsm.Info()).objects == 0
        key.destroy()
        assert session.keys() == []
    with server.session() as session:
        assert session.keys() == []


def test_without_login_private_keys_are_neither_seen_nor_used(server: Server) -> None:
    with server.session() as session:
        key = session.generate(Suite.P256, label="web")
        signature = key.sign(b"x")
        handle = key._own.handle
    with server.stranger() as stranger:
        assert stranger.keys() == []
        found = stranger._connection.execute(hsm.Find()).objects
        assert [one.object_class for one in found] == [hsm.ObjectClass.PUBLIC_KEY]
        verify = hsm.Verify(found[0].handle, Scheme.ECDSA_SHA256, signature, b"x")
        assert stranger._connection.execute(verify) == hsm.Nothing()
        with refused(Status.NOT_LOGGED_IN):
            stranger._connection.execute(hsm.Sign(handle, Scheme.ECDSA_SHA256, b"x"))
        with refused(Status.NO_SUCH_OBJECT):
            stranger._connection.execute(hsm.GetObject(handle))
        with refused(Status.NOT_LOGGED_IN):
            stranger.generate(Suite.P256)
        assert len(stranger.random(100)) == 100


def test_logout_takes_back_what_login_gave(server: Server) -> None:
    with server.session() as session:
        session.generate(Suite.P256, label="kept")
        key = session.generate(Suite.P256, label="lost", durable=False)
        connection = session._connection
        connection.execute(hsm.Logout())
        with refused(Status.NOT_LOGGED_IN):
            key.sign(b"x")
        with refused(Status.NOT_LOGGED_IN):
            connection.execute(hsm.Logout())
        connection.execute(hsm.Login(server.pin.encode()))
        with refused(Status.ALREADY_LOGGED_IN):
            connection.execute(hsm.Login(server.pin.encode()))
        assert labels(session) == ["kept"]
        with refused(Status.NO_SUCH_OBJECT):
            key.sign(b"x")


def test_wrong_pins_are_counted_delayed_from_the_fourth_and_locked_at_the_tenth(server: Server) -> None:
    for attempt in range(1, 11):
        with refused(Status.PIN_INCORRECT if attempt < 10 else Status.PIN_LOCKED), server.session("not this"):
            pass
        server.start()  # the count is on the disk
    assert server.waits == [0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    with refused(Status.PIN_LOCKED), server.session():
        pass
    with server.stranger() as stranger:
        assert stranger._connection.execute(hsm.Info()).pin_attempts == 0
    assert len(server.waits) == 10


def test_a_right_pin_clears_the_count(server: Server) -> None:
    for _ in range(3):
        with refused(Status.PIN_INCORRECT), server.session("not this"):
            pass
    with server.session() as session:
        assert session._connection.execute(hsm.Info()) == hsm.InfoReply(PARTITION, True, 10, 0)


def test_a_pin_is_changed_by_who_knows_the_old_one(server: Server) -> None:
    with server.stranger() as stranger:
        with refused(Status.PIN_INCORRECT):
            stranger.set_pin("not this", "new secret")
        with refused(Status.PIN_INVALID):
            stranger.set_pin(server.pin, "short")
        stranger.set_pin(server.pin, "new secret")
    server.start()
    with refused(Status.PIN_INCORRECT), server.session():
        pass
    with server.session("new secret") as session:
        assert session.keys() == []


def test_a_report_is_signed_by_both_identity_keys(server: Server) -> None:
    with server.session() as session:
        session.generate(Suite.P256)
        octets = session._connection.execute(hsm.Report(bytes(range(32)))).data
    evidence = PartitionEvidence.decode(octets)
    assert evidence.certificates == {Suite.P384: b"ecc certificate", Suite.ML_DSA_87: b"mldsa certificate"}
    message = SignedMessage.decode(evidence.report)
    identity = server.vault.partition.identity
    for algorithm, key, scheme in (
        (Algorithm.ESP384, identity.ecc, Scheme.ECDSA_SHA384),
        (Algorithm.ML_DSA_87, identity.mldsa, Scheme.ML_DSA),
    ):
        signature = message.signature(algorithm)
        assert signature is not None
        assert signature.key_id == key_id(key.public)
        assert key.public.verify(scheme, signature.signature, message.to_be_signed(signature))
    assert PartitionReport.decode(message.payload) == PartitionReport(
        bytes(range(32)), b"k" * 20, PARTITION, b"d" * 48, "ordinary", {"seccomp": "absent: a test"}, 1, 2
    )


def test_the_generation_tells_others_that_objects_changed(server: Server) -> None:
    with server.session() as session, server.session() as other:
        key = session.generate(Suite.P256)
        other._connection.execute(hsm.Ping())
        assert other._connection.generation == 1
        session.generate(Suite.P256, durable=False)
        key.destroy()
        other._connection.execute(hsm.Ping())
        assert other._connection.generation == 3


def test_many_objects_come_in_pages(server: Server) -> None:
    with server.session() as session:
        made = [session.generate(Suite.AES256, label=f"key {number}") for number in range(20)]
        large = hsm.Attribute(1, bytes(4096))
        for key in made:
            template = hsm.Template(key._own.template.policy, key.label, b"\x07", (large,) * 4)
            changed = session._connection.execute(hsm.SetAttributes(key._own.handle, template))
            assert changed.template == template
        first = session._connection.execute(hsm.Find())
        assert first.after
        assert len(first.objects) == 3
        assert labels(session) == [key.label for key in made]
        assert [key.label for key in session.keys(key_id=b"\x07", label="key 7")] == ["key 7"]
        assert session.keys(key_id=b"\x08") == []


def test_sessions_work_side_by_side(server: Server) -> None:
    with server.session() as session:
        session.generate(Suite.P256, label="shared")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with server.session() as session:
                key = session.find(label="shared")
                own = session.generate(Suite.P256, label=str(threading.get_ident()))
                for number in range(20):
                    data = number.to_bytes(4, "big")
                    assert key.verify(key.sign(data), data)
                    assert own.verify(own.sign(data), data)
        except (AssertionError, EndocarpError) as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with server.session() as session:
        assert len(session.keys()) == 9


def test_what_is_closed_refuses_to_be_used(server: Server) -> None:
    with server.session() as session:
        key = session.generate(Suite.P256)
    with pytest.raises(UsageError, match="closed"):
        key.sign(b"x")


def test_a_server_that_goes_away_is_told() -> None:
    def gone(answers: Callable[[socket.socket], object]) -> Connection:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            answers(theirs)
        with ours:
            return Connection(ours)

    with pytest.raises(DeviceError, match="went away"):
        gone(lambda end: None)


def test_a_key_without_its_public_half_does_not_verify(server: Server) -> None:
    with server.session() as session:
        key = session.generate(Suite.P256, label="half")
        assert key._public is not None
        session._connection.execute(hsm.Destroy(key._public.handle))
        found: Key = session.find(label="half")
        with pytest.raises(UsageError, match="public half"):
            found.verify(bytes(64), b"")
        assert len(found.sign(b"x")) == 64
