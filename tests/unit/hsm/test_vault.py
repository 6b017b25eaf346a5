"""The core of one connection to a vault: messages in, messages and jobs out."""

import errno
from collections.abc import Callable, Iterator
from random import Random
from threading import Lock
from typing import Any

import pytest
from tests.simulators.disk import Disk

from endocarp.core import Close, Event, Job
from endocarp.crypto.secret import Secret
from endocarp.errors import (
    DecodeError,
    DeviceError,
    EndocarpError,
    PeerError,
    Refused,
    UsageError,
    VerificationError,
)
from endocarp.hsm.keys import KeyObject
from endocarp.hsm.object_policy import default_policy
from endocarp.hsm.operations import Vault
from endocarp.hsm.partition import open_partition
from endocarp.hsm.report import Surroundings
from endocarp.hsm.vault import VaultConnection, status_of
from endocarp.wire import hsm
from endocarp.wire.custody import CertifyIdentityReply
from endocarp.wire.hsm import ObjectClass, Operation, Policy, Reply, Status, Template
from endocarp.wire.suites import Cipher, Scheme, Suite

entropy = Random("vault").randbytes
HELLO = hsm.Hello(hsm.MAGIC, hsm.VERSION).encode()
NOW = 100.0


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[bytes, bytes, Secret]]:
    disk = Disk()
    with Secret(bytes(32)) as key:
        _, pin = open_partition(2, disk, key, entropy)
        assert pin is not None
        yield disk.octets, pin, key


@pytest.fixture
def disk(made: tuple[bytes, bytes, Secret]) -> Disk:
    return Disk(made[0])


@pytest.fixture
def pin(made: tuple[bytes, bytes, Secret]) -> bytes:
    return made[1]


@pytest.fixture
def vault(made: tuple[bytes, bytes, Secret], disk: Disk) -> Vault:
    surroundings = Surroundings(CertifyIdentityReply(bytes(20), bytes(48), b"ecc", b"mldsa"), "ordinary", {})
    return Vault(open_partition(2, disk, made[2], entropy)[0], surroundings, entropy, Lock(), Lock())


@pytest.fixture
def connection(vault: Vault) -> VaultConnection:
    connection = VaultConnection(vault)
    assert connection.receive(HELLO, NOW) == []
    connection.outgoing()
    return connection


@pytest.fixture
def user(connection: VaultConnection, pin: bytes) -> VaultConnection:
    assert asked(connection, hsm.Login(pin)).status is Status.OK
    return connection


def run(connection: VaultConnection, events: list[Event]) -> None:
    for event in events:
        assert isinstance(event, Job)
        try:
            result = event.run()
        except EndocarpError as error:
            result = error
        assert connection.finish(result) == []


def told(connection: VaultConnection, message: bytes) -> Reply:
    run(connection, connection.receive(message, NOW))
    (reply,) = connection.outgoing()
    return Reply.decode(reply)


def asked(connection: VaultConnection, request: hsm.Request[Any]) -> Reply:
    return told(connection, hsm.encode_request(request, 7))


def pair(connection: VaultConnection, policy: Policy) -> hsm.Description:
    templates = [
        Template(default_policy(Suite.P256, object_class) | policy)
        for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
    ]
    return hsm.Objects.decode(asked(connection, hsm.Generate(Suite.P256, *templates)).body).objects[0]


def test_hello_is_answered_with_welcome(vault: Vault) -> None:
    connection = VaultConnection(vault)
    assert connection.receive(HELLO, NOW) == []
    assert connection.outgoing() == [hsm.Welcome(Status.OK, 1, 2, 0).encode()]
    assert connection.outgoing() == []


def test_another_version_is_told_ours_and_closed(vault: Vault) -> None:
    connection = VaultConnection(vault)
    events = connection.receive(hsm.Hello(hsm.MAGIC, 9).encode(), NOW)
    assert events == [Close("version 9 of the protocol")]
    assert connection.outgoing() == [hsm.Welcome(Status.VERSION_UNSUPPORTED, 1, 2, 0).encode()]


@pytest.mark.parametrize("message", [b"x", HELLO[:-1], HELLO + b"x", hsm.encode_request(hsm.Ping())])
def test_what_begins_with_something_else_is_closed(vault: Vault, message: bytes) -> None:
    connection = VaultConnection(vault)
    (event,) = connection.receive(message, NOW)
    assert isinstance(event, Close)
    assert connection.outgoing() == []


def test_a_message_shorter_than_a_header_closes_the_connection(connection: VaultConnection) -> None:
    assert connection.receive(bytes(7), NOW) == [Close("Request: cut short")]
    assert connection.outgoing() == []


def test_a_reply_carries_the_tag_of_its_request(connection: VaultConnection) -> None:
    assert asked(connection, hsm.Ping()) == Reply(Status.OK, 7, 0, b"")


def test_an_unknown_operation_is_answered_and_disturbs_nothing(connection: VaultConnection) -> None:
    reply = told(connection, bytes.fromhex("ffff 0000 07000000"))
    assert reply == Reply(Status.OPERATION_UNKNOWN, 7, 0, b"there is no operation 65535")
    assert asked(connection, hsm.Ping()).status is Status.OK


@pytest.mark.parametrize("body", [b"", bytes(7), bytes(9)])
def test_a_body_of_another_form_is_answered_and_disturbs_nothing(
    connection: VaultConnection, body: bytes
) -> None:
    reply = told(connection, hsm.encode_message(Operation.GET_OBJECT, 7, body))
    assert reply.status is Status.MESSAGE_INVALID
    assert reply.tag == 7
    assert asked(connection, hsm.Ping()).status is Status.OK


def test_what_needs_login_is_refused_before_its_body_is_read(connection: VaultConnection) -> None:
    reply = told(connection, hsm.encode_message(Operation.SIGN, 7, b"nonsense"))
    assert reply == Reply(Status.NOT_LOGGED_IN, 7, 0, b"SIGN needs login")


def test_a_second_login_is_refused(user: VaultConnection, pin: bytes) -> None:
    assert asked(user, hsm.Login(pin)).status is Status.ALREADY_LOGGED_IN


def test_a_delayed_login_says_when_it_may_run(connection: VaultConnection) -> None:
    after = []
    for _ in range(5):
        (job,) = connection.receive(hsm.encode_request(hsm.Login(b"wrong")), NOW)
        assert isinstance(job, Job)
        after.append(job.after)
        run(connection, [job])
    assert after == [0.0, 0.0, 0.0, NOW + 1, NOW + 2]
    replies = [Reply.decode(message) for message in connection.outgoing()]
    assert {reply.status for reply in replies} == {Status.PIN_INCORRECT}
    assert replies[-1].reason == "the PIN is wrong; 5 attempts are left"


def test_a_signature_is_the_body_of_its_reply(user: VaultConnection) -> None:
    own = pair(user, Policy.TOKEN)
    reply = asked(user, hsm.Sign(own.handle, Scheme.ECDSA_SHA256, b"data"))
    assert (reply.status, reply.generation, len(reply.body)) == (Status.OK, 1, 64)


class Interrupted(dict[int, KeyObject]):
    """Objects that somebody changes as soon as they were looked through."""

    def __init__(self, objects: dict[int, KeyObject], change: Callable[[], object]) -> None:
        super().__init__(objects)
        self.change = change

    def values(self) -> Any:
        found = list(super().values())
        self.change()
        return found


def test_an_answer_tells_no_newer_generation_than_what_it_shows(
    connection: VaultConnection, vault: Vault, pin: bytes
) -> None:
    other = VaultConnection(vault)
    other.receive(HELLO, NOW)
    other.outgoing()
    asked(other, hsm.Login(pin))
    own = pair(other, Policy.TOKEN)
    partition = vault.partition
    plain = partition.objects

    def destroy() -> None:
        partition.objects = plain
        assert asked(other, hsm.Destroy(own.handle + 1)).generation == 2

    partition.objects = Interrupted(plain, destroy)
    before = asked(connection, hsm.Find())
    assert (before.generation, len(hsm.Objects.decode(before.body).objects)) == (1, 1)
    after = asked(connection, hsm.Find())
    assert (after.generation, len(hsm.Objects.decode(after.body).objects)) == (2, 0)


def test_a_job_that_fails_is_answered_with_its_error(user: VaultConnection) -> None:
    own = pair(user, Policy.TOKEN)
    reply = asked(user, hsm.Sign(own.handle, Scheme.ECDSA_DIGEST, b"short"))
    assert reply.status is Status.DATA_INVALID
    assert reply.reason == "a digest of 5 octets"


def test_a_full_disk_is_answered_and_leaves_no_trace(user: VaultConnection, disk: Disk, vault: Vault) -> None:
    disk.fault = OSError(errno.ENOSPC, "no space left on device")
    templates = [
        Template(default_policy(Suite.P256, object_class) | Policy.TOKEN)
        for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
    ]
    before = disk.octets
    reply = asked(user, hsm.Generate(Suite.P256, *templates))
    assert reply.status is Status.STORE_FULL
    assert disk.octets == before
    assert vault.partition.objects == {}
    assert vault.partition.generation == 0


def test_a_ciphertext_that_does_not_open_is_told(user: VaultConnection) -> None:
    policy = default_policy(Suite.AES256, ObjectClass.SECRET_KEY)
    (key,) = hsm.Objects.decode(asked(user, hsm.Generate(Suite.AES256, Template(policy))).body).objects
    reply = asked(user, hsm.Decrypt(key.handle, Cipher.AES_GCM, bytes(12), b"", bytes(20)))
    assert reply.status is Status.CIPHERTEXT_INVALID


def test_the_end_of_a_connection_ends_its_session(user: VaultConnection) -> None:
    pair(user, Policy(0))
    assert user.receive(b"", NOW) == []
    assert user.due() is None
    assert user.expire(NOW) == []
    reply = told(user, hsm.encode_request(hsm.Ping()))
    assert reply.status is Status.NOT_LOGGED_IN


def test_nobody_holds_the_lock_of_another(user: VaultConnection, vault: Vault) -> None:
    own = pair(user, Policy.TOKEN)
    with vault.lock:
        assert asked(user, hsm.Sign(own.handle, Scheme.ECDSA_SHA256, b"data")).status is Status.OK
        assert asked(user, hsm.Find()).status is Status.OK


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PeerError(Status.PIN_LOCKED, ""), Status.PIN_LOCKED),
        (DecodeError("", ""), Status.MESSAGE_INVALID),
        (UsageError(""), Status.DATA_INVALID),
        (Refused("store-full", ""), Status.STORE_FULL),
        (Refused("store-failed", ""), Status.STORE_FAILED),
        (Refused("aead", ""), Status.CIPHERTEXT_INVALID),
        (Refused("decrypt", ""), Status.CIPHERTEXT_INVALID),
        (Refused("store-key", ""), Status.FAILED),
        (DeviceError(1, ""), Status.FAILED),
        (VerificationError([]), Status.FAILED),
    ],
)
def test_every_error_has_its_status(error: EndocarpError, status: Status) -> None:
    assert status_of(error) is status
