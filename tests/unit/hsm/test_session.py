"""One connection's view: what it sees before and after login, and what ends with it."""

from collections.abc import Iterator
from random import Random

import pytest
from tests.simulators.disk import Disk

from endocarp.crypto.secret import Secret
from endocarp.errors import PeerError
from endocarp.hsm import session as sessions
from endocarp.hsm.keys import Draft, make_key, public_octets
from endocarp.hsm.object_policy import default_policy
from endocarp.hsm.partition import Partition, open_partition
from endocarp.hsm.phases import Phase
from endocarp.hsm.session import Session
from endocarp.wire.hsm import SESSION_HANDLE, ObjectClass, Policy, Status, Template
from endocarp.wire.suites import Suite

entropy = Random("session").randbytes
NEITHER = Policy(0)
KEY = make_key(Suite.P256, entropy)


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[bytes, Secret]]:
    disk = Disk()
    with Secret(bytes(32)) as key:
        open_partition(0, disk, key, entropy)
        yield disk.octets, key


@pytest.fixture
def partition(made: tuple[bytes, Secret]) -> Partition:
    return open_partition(0, Disk(made[0]), made[1], entropy)[0]


@pytest.fixture
def session(partition: Partition) -> Session:
    session = Session(partition)
    session.begin()
    session.log_in()
    return session


def pair(label: str, policy: Policy = NEITHER) -> list[Draft]:
    return [
        Draft(
            object_class,
            Suite.P256,
            Template(default_policy(Suite.P256, object_class) | policy, label),
            public_octets(KEY),
            KEY if object_class is ObjectClass.PRIVATE_KEY else None,
        )
        for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
    ]


def seen(session: Session) -> list[tuple[str, ObjectClass]]:
    described = [one.description for one in session.visible()]
    return [(one.template.label, one.object_class) for one in described]


def test_a_session_begins_with_a_greeting_and_ends_closed(partition: Partition) -> None:
    session = Session(partition)
    phases = [session.phase]
    for step in (session.begin, session.log_in, session.log_out, session.log_in, session.close):
        step()
        phases.append(session.phase)
    assert phases == [Phase.GREETING, Phase.PUBLIC, Phase.USER, Phase.PUBLIC, Phase.USER, Phase.CLOSED]


def test_session_objects_are_numbered_apart_and_seen_by_their_session_only(
    session: Session, partition: Partition
) -> None:
    private, public = session.add(pair("mine"))
    assert private.description.handle == SESSION_HANDLE + 1
    assert public.description.handle == SESSION_HANDLE + 2
    assert session.get(SESSION_HANDLE + 1) is private
    assert partition.objects == {}
    other = Session(partition)
    other.begin()
    other.log_in()
    assert seen(other) == []
    with pytest.raises(PeerError) as caught:
        other.get(SESSION_HANDLE + 1)
    assert caught.value.number == Status.NO_SUCH_OBJECT


def test_token_objects_are_seen_by_every_session(session: Session, partition: Partition) -> None:
    session.add(pair("ours", Policy.TOKEN))
    session.add(pair("mine"))
    assert [label for label, _ in seen(session)] == ["ours", "ours", "mine", "mine"]
    other = Session(partition)
    other.begin()
    assert seen(other) == [("ours", ObjectClass.PUBLIC_KEY)]
    with pytest.raises(PeerError):
        other.get(1)
    assert other.get(2).description.template.label == "ours"


def test_a_pair_may_lie_half_in_the_store_and_half_in_the_session(
    session: Session, partition: Partition
) -> None:
    private, public = pair("half", Policy.TOKEN)[0], pair("half")[1]
    kept = session.add([private, public])
    assert [one.description.handle for one in kept] == [1, SESSION_HANDLE + 1]
    assert list(partition.objects) == [1]


def test_logout_forgets_private_session_objects(session: Session) -> None:
    session.add(pair("mine"))
    session.log_out()
    assert seen(session) == [("mine", ObjectClass.PUBLIC_KEY)]
    session.log_in()
    assert seen(session) == [("mine", ObjectClass.PUBLIC_KEY)]


def test_objects_are_changed_where_they_lie(session: Session, partition: Partition) -> None:
    for policy in (Policy.TOKEN, NEITHER):
        old = session.add(pair("old", policy))[0]
        new = session.change(old, Template(old.description.template.policy, "new"))
        assert session.get(old.description.handle) is new
        assert new.description.template.label == "new"
    assert partition.generation == 2


def test_the_answer_to_a_change_tells_the_generation_that_it_has_made(session: Session) -> None:
    made = session.add(pair("mine"))
    session.destroy(made[0].description.handle)
    assert session.generation == 0
    kept = session.add(pair("ours", Policy.TOKEN))
    assert session.generation == 1
    session.change(kept[0], Template(kept[0].description.template.policy, "other"))
    assert session.generation == 2
    session.destroy(kept[0].description.handle)
    assert session.generation == 3


def test_objects_are_destroyed_where_they_lie(session: Session, partition: Partition) -> None:
    for policy in (Policy.TOKEN, NEITHER):
        for one in session.add(pair("old", policy)):
            session.destroy(one.description.handle)
    assert seen(session) == []
    assert partition.objects == {}


def test_session_objects_are_discarded_and_no_others(session: Session, partition: Partition) -> None:
    (kept, _), (passing, _) = session.add(pair("kept", Policy.TOKEN)), session.add(pair("mine"))
    session.discard(passing.description.handle)
    for handle in (passing.description.handle, kept.description.handle):
        with pytest.raises(PeerError) as caught:
            session.discard(handle)
        assert caught.value.number == Status.NO_SUCH_OBJECT
    assert set(partition.objects) == {1, 2}


def test_a_session_holds_a_bounded_number_of_objects(
    session: Session, monkeypatch: pytest.MonkeyPatch, partition: Partition
) -> None:
    monkeypatch.setattr(sessions, "OBJECT_LIMIT", 3)
    session.add(pair("one"))
    with pytest.raises(PeerError) as caught:
        session.add([pair("kept", Policy.TOKEN)[0], *pair("two")])
    assert caught.value.number == Status.STORE_FULL
    assert partition.objects == {}
    session.add(pair("kept", Policy.TOKEN))


def test_what_is_closed_holds_nothing(session: Session) -> None:
    session.add(pair("mine"))
    session.close()
    assert seen(session) == []
