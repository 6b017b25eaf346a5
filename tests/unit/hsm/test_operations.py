"""What the vault does for each operation, asked directly: no messages, no connection."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from threading import Lock
from typing import Any, TypeVar

import pytest
from tests.simulators.disk import Disk

from endocarp.crypto.keys import PublicKey
from endocarp.crypto.secret import Secret
from endocarp.errors import PeerError, Refused, UsageError
from endocarp.hsm.object_policy import default_policy
from endocarp.hsm.operations import OPERATIONS, Attempt, Caller, Outcome, Vault
from endocarp.hsm.partition import open_partition
from endocarp.hsm.pin import digest_new
from endocarp.hsm.records import Pin
from endocarp.hsm.report import Surroundings
from endocarp.hsm.session import Session
from endocarp.wire import hsm
from endocarp.wire.codec import Struct
from endocarp.wire.custody import CertifyIdentityReply
from endocarp.wire.evidence import PartitionEvidence
from endocarp.wire.hsm import Attribute, ObjectClass, Operation, Policy, Status, Template
from endocarp.wire.suites import SIGNATURE_SIZE, Cipher, Scheme, Suite

entropy = Random("operations").randbytes
Answer = TypeVar("Answer", bound=Struct)
PIN = b"secret pin"


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[bytes, Secret]]:
    disk = Disk()
    with Secret(bytes(32)) as key:
        partition, pin = open_partition(2, disk, key, entropy)
        assert pin is not None
        partition.set_pin(digest_of(pin, partition.begin_attempt()), digest_new(PIN, entropy))
        yield disk.octets, key


def digest_of(pin: bytes, salt: bytes) -> Pin:
    return digest_new(pin, lambda size: salt)


@pytest.fixture
def vault(made: tuple[bytes, Secret]) -> Vault:
    surroundings = Surroundings(CertifyIdentityReply(bytes(20), bytes(48), b"ecc", b"mldsa"), "ordinary", {})
    partition, _ = open_partition(2, Disk(made[0]), made[1], entropy)
    return Vault(partition, surroundings, entropy, Lock(), Lock())


@pytest.fixture
def stranger(vault: Vault) -> Caller:
    session = Session(vault.partition)
    session.begin()
    return Caller(vault, session)


@pytest.fixture
def user(vault: Vault) -> Caller:
    session = Session(vault.partition)
    session.begin()
    session.log_in()
    return Caller(vault, session)


def outcome(caller: Caller, request: hsm.Request[Any]) -> Outcome:
    return OPERATIONS[request.OPERATION](caller, request)


def asked(caller: Caller, request: hsm.Request[Answer]) -> Answer:
    """Return the answer; an attempt is made at once."""
    done = outcome(caller, request)
    if isinstance(done, Attempt):
        done = done.make()
    return request.read_reply(done if isinstance(done, bytes) else done.encode())


def refusal(caller: Caller, request: hsm.Request[Any]) -> Status:
    with pytest.raises(PeerError) as caught:
        asked(caller, request)
    return Status(caught.value.number)


def template(
    suite: Suite, object_class: ObjectClass, label: str = "", *, more: Policy = Policy.LOCAL
) -> Template:
    return Template(default_policy(suite, object_class) | more & ~Policy.LOCAL, label)


def generate(
    caller: Caller, suite: Suite, label: str = "", *, more: Policy = Policy.LOCAL
) -> list[hsm.Description]:
    if suite is Suite.AES256:
        request = hsm.Generate(suite, template(suite, ObjectClass.SECRET_KEY, label, more=more))
    else:
        own = template(suite, ObjectClass.PRIVATE_KEY, label, more=more)
        request = hsm.Generate(suite, own, template(suite, ObjectClass.PUBLIC_KEY, label, more=more))
    return list(asked(caller, request).objects)


def test_every_operation_is_done() -> None:
    assert set(OPERATIONS) == set(Operation)


def test_ping_is_answered(stranger: Caller) -> None:
    assert asked(stranger, hsm.Ping()) == hsm.Nothing()


def test_info_tells_the_state_of_partition_and_connection(stranger: Caller, user: Caller) -> None:
    generate(user, Suite.P256, more=Policy.TOKEN)
    generate(user, Suite.P256)
    assert asked(stranger, hsm.Info()) == hsm.InfoReply(2, False, 10, 2)
    assert asked(user, hsm.Info()) == hsm.InfoReply(2, True, 10, 2)


def test_login_with_the_right_pin(stranger: Caller) -> None:
    asked(stranger, hsm.Login(PIN))
    assert stranger.session.logged_in
    assert asked(stranger, hsm.Info()).pin_attempts == 10


class Watch:
    """A lock that notes how many attempts were left each time it was given back."""

    def __init__(self, vault: Vault) -> None:
        self.partition = vault.partition
        self.left: list[int] = []
        self.held = False

    def __enter__(self) -> None:
        self.held = True

    def __exit__(self, *_: object) -> None:
        self.held = False
        self.left.append(self.partition.pin_attempts)


def test_login_with_a_wrong_pin_is_counted_before_it_is_compared(stranger: Caller) -> None:
    watch = Watch(stranger.vault)
    watched = replace(stranger, vault=replace(stranger.vault, lock=watch))
    assert refusal(watched, hsm.Login(b"wrong")) is Status.PIN_INCORRECT
    assert watch.left == [9, 9]
    assert not stranger.session.logged_in
    asked(watched, hsm.Login(PIN))
    assert watch.left == [9, 9, 8, 10]


def test_the_digests_of_pins_are_made_while_others_may_change_the_partition(stranger: Caller) -> None:
    watch = Watch(stranger.vault)

    def entropy(size: int) -> bytes:
        assert not watch.held
        watch.left.append(-size)
        return bytes(size)

    watched = replace(stranger, vault=replace(stranger.vault, lock=watch, entropy=entropy))
    assert refusal(watched, hsm.SetPin(b"wrong", b"another")) is Status.PIN_INCORRECT
    assert watch.left == [9, 9]
    asked(watched, hsm.SetPin(PIN, b"another"))
    assert watch.left == [9, 9, 8, 8, -16, 10]


def test_login_waits_from_the_fourth_attempt_on(stranger: Caller) -> None:
    waits = []
    for _ in range(10):
        begun = outcome(stranger, hsm.Login(b"wrong"))
        assert isinstance(begun, Attempt)
        waits.append(begun.delay)
        with pytest.raises(PeerError):
            begun.make()
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60]
    assert refusal(stranger, hsm.Login(PIN)) is Status.PIN_LOCKED


def test_many_logins_that_are_under_way_at_once_count_one_after_the_other(stranger: Caller) -> None:
    begun = [outcome(stranger, hsm.Login(PIN)) for _ in range(20)]
    for attempt in begun:
        assert isinstance(attempt, Attempt)
        assert attempt.delay == 0
        attempt.make()
    assert stranger.vault.partition.pin_attempts == 10


def test_a_login_that_did_not_wait_for_the_wrong_ones_before_it_is_not_compared(stranger: Caller) -> None:
    begun = [outcome(stranger, hsm.Login(pin)) for pin in (*[b"wrong"] * 5, PIN)]
    answers = []
    for attempt in begun:
        assert isinstance(attempt, Attempt)
        with pytest.raises(PeerError) as caught:
            attempt.make()
        answers.append(caught.value.number)
    assert answers == [Status.PIN_INCORRECT] * 3 + [Status.FAILED] * 3
    assert stranger.vault.partition.pin_attempts == 7


def test_logout(user: Caller) -> None:
    assert asked(user, hsm.Logout()) == hsm.Nothing()
    assert not user.session.logged_in


def test_the_pin_is_changed_with_the_old_one(stranger: Caller) -> None:
    assert refusal(stranger, hsm.SetPin(PIN, b"short")) is Status.PIN_INVALID
    assert refusal(stranger, hsm.SetPin(b"wrong", b"another")) is Status.PIN_INCORRECT
    asked(stranger, hsm.SetPin(PIN, b"another"))
    asked(stranger, hsm.Login(b"another"))


def test_a_pin_that_was_changed_meanwhile_does_not_log_in(stranger: Caller) -> None:
    begun = outcome(stranger, hsm.Login(PIN))
    assert isinstance(begun, Attempt)
    asked(stranger, hsm.SetPin(PIN, b"another"))
    with pytest.raises(PeerError):
        begun.make()
    assert not stranger.session.logged_in


def test_random_octets_are_drawn_up_to_a_limit(stranger: Caller) -> None:
    assert len(asked(stranger, hsm.Random(hsm.DATA_LIMIT)).data) == hsm.DATA_LIMIT
    assert asked(stranger, hsm.Random(0)).data == b""
    assert refusal(stranger, hsm.Random(hsm.DATA_LIMIT + 1)) is Status.DATA_INVALID


def test_a_report_is_made(stranger: Caller) -> None:
    evidence = PartitionEvidence.decode(asked(stranger, hsm.Report(bytes(32))).data)
    assert evidence.certificates[Suite.P384] == b"ecc"


@pytest.mark.parametrize("suite", [Suite.P256, Suite.ML_DSA_65, Suite.AES256])
def test_a_new_key_is_local_sensitive_and_never_extractable(user: Caller, suite: Suite) -> None:
    own, *public = generate(user, suite, "web")
    assert own.template.policy & Policy.LOCAL
    assert own.template.policy & Policy.ALWAYS_SENSITIVE
    assert own.template.policy & Policy.NEVER_EXTRACTABLE
    assert [one.object_class for one in public] == [ObjectClass.PUBLIC_KEY] * (suite is not Suite.AES256)
    assert all(one.public == own.public and one.template.label == "web" for one in public)


@pytest.mark.parametrize("wrong", ["key", "public"])
def test_what_may_not_be_made_is_refused_before_it_is_made(user: Caller, wrong: str) -> None:
    own = template(Suite.P256, ObjectClass.PRIVATE_KEY)
    public = template(Suite.P256, ObjectClass.PUBLIC_KEY)
    if wrong == "key":
        own = Template(own.policy & ~Policy.PRIVATE)
    else:
        public = Template(public.policy | Policy.SIGN)
    assert refusal(user, hsm.Generate(Suite.P256, own, public)) is Status.TEMPLATE_INVALID


def test_objects_are_found_by_label_and_id(user: Caller) -> None:
    generate(user, Suite.P256, "web", more=Policy.TOKEN)
    (disk,) = generate(user, Suite.AES256, "disk")
    asked(user, hsm.SetAttributes(disk.handle, Template(disk.template.policy, "disk", b"\x01")))
    found = asked(user, hsm.Find())
    assert (found.after, len(found.objects)) == (0, 3)
    assert [one.handle for one in asked(user, hsm.Find(label="web")).objects] == [1, 2]
    assert [one.handle for one in asked(user, hsm.Find(id=b"\x01")).objects] == [disk.handle]
    assert [one.handle for one in asked(user, hsm.Find(1, "web")).objects] == [2]


def test_many_objects_are_found_page_by_page(user: Caller) -> None:
    handles = [generate(user, Suite.AES256)[0].handle for _ in range(9)]
    for handle in handles:
        policy = asked(user, hsm.GetObject(handle)).template.policy
        large = Template(policy, attributes=(Attribute(1, bytes(4096)),) * 4)
        asked(user, hsm.SetAttributes(handle, large))
    pages, after = [], 0
    while True:
        page = asked(user, hsm.Find(after))
        assert len(page.encode()) + 16 <= hsm.MESSAGE_LIMIT
        pages.append([one.handle for one in page.objects])
        after = page.after
        if not after:
            break
    assert pages == [handles[:3], handles[3:6], handles[6:]]


def test_an_object_is_changed_as_its_policy_allows(user: Caller) -> None:
    own, _ = generate(user, Suite.P256, more=Policy.TOKEN)
    changed = asked(user, hsm.SetAttributes(own.handle, Template(own.template.policy & ~Policy.SIGN, "new")))
    assert asked(user, hsm.GetObject(own.handle)) == changed
    assert changed.template.label == "new"
    loose = hsm.SetAttributes(own.handle, Template(own.template.policy))
    assert refusal(user, loose) is Status.NOT_PERMITTED
    assert refusal(user, hsm.Sign(own.handle, Scheme.ECDSA_SHA256, b"")) is Status.NOT_PERMITTED


@pytest.mark.parametrize("flag", [Policy.MODIFIABLE, Policy.DESTROYABLE])
def test_an_object_that_is_not_to_be_changed_or_destroyed_stays(user: Caller, flag: Policy) -> None:
    policy = default_policy(Suite.AES256, ObjectClass.SECRET_KEY) & ~flag
    (one,) = asked(user, hsm.Generate(Suite.AES256, Template(policy))).objects
    request: hsm.Request[Any] = (
        hsm.Destroy(one.handle)
        if flag is Policy.DESTROYABLE
        else hsm.SetAttributes(one.handle, Template(policy))
    )
    assert refusal(user, request) is Status.NOT_PERMITTED


def test_a_session_object_that_nobody_may_destroy_is_discarded_all_the_same(user: Caller) -> None:
    policy = default_policy(Suite.AES256, ObjectClass.SECRET_KEY) & ~Policy.DESTROYABLE
    (one,) = asked(user, hsm.Generate(Suite.AES256, Template(policy))).objects
    asked(user, hsm.Discard(one.handle))
    assert refusal(user, hsm.GetObject(one.handle)) is Status.NO_SUCH_OBJECT


def test_what_is_destroyed_is_gone(user: Caller) -> None:
    own, public = generate(user, Suite.P256, more=Policy.TOKEN)
    asked(user, hsm.Destroy(own.handle))
    assert refusal(user, hsm.GetObject(own.handle)) is Status.NO_SUCH_OBJECT
    assert refusal(user, hsm.Destroy(own.handle)) is Status.NO_SUCH_OBJECT
    assert asked(user, hsm.GetObject(public.handle)) == public


@pytest.mark.parametrize(
    ("suite", "scheme"),
    [
        (Suite.P256, Scheme.ECDSA_SHA256),
        (Suite.RSA2048, Scheme.RSA_PSS_SHA256),
        (Suite.ML_DSA_65, Scheme.ML_DSA),
    ],
)
def test_a_pair_signs_and_verifies(user: Caller, suite: Suite, scheme: Scheme) -> None:
    own, public = generate(user, suite)
    signature = b""
    for _ in range(2):  # once checked, once known
        signature = asked(user, hsm.Sign(own.handle, scheme, b"data")).data
        assert len(signature) == SIGNATURE_SIZE[suite]
        asked(user, hsm.Verify(public.handle, scheme, signature, b"data"))
        assert refusal(user, hsm.Verify(public.handle, scheme, signature, b"")) is Status.SIGNATURE_INVALID
    assert PublicKey.from_raw(suite, own.public).verify(scheme, signature, b"data")


def test_a_scheme_of_another_suite_is_refused(user: Caller) -> None:
    own, public = generate(user, Suite.P256)
    assert refusal(user, hsm.Sign(own.handle, Scheme.ML_DSA, b"")) is Status.MECHANISM_INVALID
    assert refusal(user, hsm.Verify(public.handle, Scheme.ML_DSA, b"", b"")) is Status.MECHANISM_INVALID
    assert refusal(user, hsm.Encrypt(public.handle, Cipher.AES_GCM, b"", b"", b"")) is Status.NOT_PERMITTED


def test_keys_do_only_what_their_class_does(user: Caller) -> None:
    own, public = generate(user, Suite.RSA2048)
    assert refusal(user, hsm.Sign(public.handle, Scheme.RSA_PKCS1, b"")) is Status.NOT_PERMITTED
    assert refusal(user, hsm.Verify(own.handle, Scheme.RSA_PKCS1, b"", b"")) is Status.NOT_PERMITTED
    assert refusal(user, hsm.Encrypt(own.handle, Cipher.RSA_PKCS1, b"", b"", b"")) is Status.NOT_PERMITTED
    assert refusal(user, hsm.Decrypt(public.handle, Cipher.RSA_PKCS1, b"", b"", b"")) is Status.NOT_PERMITTED


def test_data_that_a_scheme_does_not_take_is_refused(user: Caller) -> None:
    own, _ = generate(user, Suite.P256)
    with pytest.raises(UsageError):
        asked(user, hsm.Sign(own.handle, Scheme.ECDSA_DIGEST, bytes(19)))


def test_rsa_encrypts_and_decrypts_without_nonce_and_associated_data(user: Caller) -> None:
    own, public = generate(user, Suite.RSA2048)
    sealed = asked(user, hsm.Encrypt(public.handle, Cipher.RSA_OAEP_SHA256, b"", b"", b"data"))
    assert sealed.nonce == b""
    assert asked(user, hsm.Decrypt(own.handle, Cipher.RSA_OAEP_SHA256, b"", b"", sealed.data)).data == b"data"
    for nonce, associated in ((b"n", b""), (b"", b"a")):
        encrypt = hsm.Encrypt(public.handle, Cipher.RSA_OAEP_SHA256, nonce, associated, b"data")
        decrypt = hsm.Decrypt(own.handle, Cipher.RSA_OAEP_SHA256, nonce, associated, sealed.data)
        assert refusal(user, encrypt) is Status.DATA_INVALID
        assert refusal(user, decrypt) is Status.DATA_INVALID
    with pytest.raises(Refused):
        asked(user, hsm.Decrypt(own.handle, Cipher.RSA_OAEP_SHA1, b"", b"", sealed.data))


def test_aes_encrypts_with_a_nonce_of_its_own_or_the_callers(user: Caller) -> None:
    (key,) = generate(user, Suite.AES256)
    drawn = [asked(user, hsm.Encrypt(key.handle, Cipher.AES_GCM, b"", b"for you", b"data")) for _ in range(2)]
    assert drawn[0].nonce != drawn[1].nonce
    for sealed in drawn:
        decrypt = hsm.Decrypt(key.handle, Cipher.AES_GCM, sealed.nonce, b"for you", sealed.data)
        assert asked(user, decrypt).data == b"data"
    given = asked(user, hsm.Encrypt(key.handle, Cipher.AES_GCM, bytes(12), b"", b"data"))
    assert given.nonce == bytes(12)
    with pytest.raises(UsageError):
        asked(user, hsm.Encrypt(key.handle, Cipher.AES_GCM, bytes(13), b"", b"data"))
    with pytest.raises(Refused):
        asked(user, hsm.Decrypt(key.handle, Cipher.AES_GCM, bytes(12), b"for you", drawn[0].data))
