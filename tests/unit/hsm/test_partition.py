"""One partition: made once, opened as it was, changed only by what was stored."""

import errno
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from tests.simulators.disk import Disk

from endocarp.crypto.primitives import pin_digest
from endocarp.crypto.secret import Secret
from endocarp.errors import PeerError, Refused
from endocarp.hsm import partition as partitions
from endocarp.hsm.keys import Draft, KeyObject, make_key, public_octets
from endocarp.hsm.object_policy import default_policy, key_class
from endocarp.hsm.partition import Partition, open_partition
from endocarp.hsm.pin import digest_new
from endocarp.hsm.records import Birth, Failures, Pin, encode
from endocarp.hsm.store import Store
from endocarp.wire.hsm import Policy, Status, Template
from endocarp.wire.suites import Suite

entropy = Random("partition").randbytes
KEY = make_key(Suite.P256, entropy)


@pytest.fixture(scope="module")
def seal_key() -> Iterator[Secret]:
    with Secret(bytes(range(32))) as key:
        yield key


@pytest.fixture(scope="module")
def beginning(seal_key: Secret) -> tuple[bytes, bytes]:
    disk = Disk()
    _, pin = open_partition(1, disk, seal_key, entropy)
    assert pin is not None
    return disk.octets, pin


@pytest.fixture
def disk(beginning: tuple[bytes, bytes]) -> Disk:
    return Disk(beginning[0])


@pytest.fixture
def pin(beginning: tuple[bytes, bytes]) -> bytes:
    return beginning[1]


@pytest.fixture
def partition(disk: Disk, seal_key: Secret) -> Partition:
    return opened(disk, seal_key)


def opened(disk: Disk, seal_key: Secret) -> Partition:
    partition, pin = open_partition(1, disk, seal_key, entropy)
    assert pin is None
    return partition


def draft(label: str) -> Draft:
    template = Template(default_policy(Suite.P256, key_class(Suite.P256)) | Policy.TOKEN, label)
    return Draft(key_class(Suite.P256), Suite.P256, template, public_octets(KEY), KEY)


def labels(partition: Partition) -> dict[int, str]:
    return {handle: one.description.template.label for handle, one in partition.objects.items()}


def tried(pin: bytes, partition: Partition) -> Pin:
    salt = partition.begin_attempt()
    return Pin(salt, pin_digest(pin, salt))


def status(act: Callable[[], object]) -> Status:
    with pytest.raises(PeerError) as caught:
        act()
    return Status(caught.value.number)


def test_a_partition_is_made_once_and_its_pin_told_once(seal_key: Secret) -> None:
    disk = Disk()
    made, pin = open_partition(1, disk, seal_key, entropy)
    assert pin is not None
    assert len(pin) == 8
    again = opened(disk, seal_key)
    assert again.number == made.number == 1
    assert again.identity.ecc.public == made.identity.ecc.public
    assert again.identity.mldsa.public == made.identity.mldsa.public
    assert made.identity.ecc.suite is Suite.P384
    assert made.identity.mldsa.suite is Suite.ML_DSA_87


def test_a_partition_that_cannot_be_stored_is_not_made(seal_key: Secret) -> None:
    disk = Disk()
    disk.fault = OSError(errno.ENOSPC, "no space left on device")
    with pytest.raises(Refused) as caught:
        open_partition(1, disk, seal_key, entropy)
    assert caught.value.rule == "store-full"


def test_objects_get_handles_that_are_never_used_again(
    partition: Partition, disk: Disk, seal_key: Secret
) -> None:
    partition.add([draft("one"), draft("two")])
    partition.destroy(2)
    partition = opened(disk, seal_key)
    partition.add([draft("three")])
    assert labels(partition) == {1: "one", 3: "three"}
    assert labels(opened(disk, seal_key)) == {1: "one", 3: "three"}
    assert partition.generation == opened(disk, seal_key).generation == 3


def test_an_object_that_was_changed_stays_changed(partition: Partition, disk: Disk, seal_key: Secret) -> None:
    (one,) = partition.add([draft("one")])
    template = Template(one.description.template.policy, "other", b"id")
    changed = partition.change(one, template)
    assert changed.private_key is one.private_key
    assert opened(disk, seal_key).objects[1].description == changed.description


def test_keys_come_back_from_the_store(partition: Partition, disk: Disk, seal_key: Secret) -> None:
    partition.add([draft("one")])
    assert opened(disk, seal_key).objects[1].private_key.public.raw == public_octets(KEY)


def test_what_cannot_be_stored_does_not_happen(partition: Partition, disk: Disk, pin: bytes) -> None:
    (one,) = partition.add([draft("one")])
    right = tried(pin, partition)
    disk.fault = OSError(errno.ENOSPC, "no space left on device")
    before = [*partition.snapshot()]
    for change in (
        lambda: partition.add([draft("two")]),
        lambda: partition.change(one, Template(Policy.SIGN)),
        lambda: partition.destroy(1),
        partition.begin_attempt,
        lambda: partition.settle(right),
        lambda: partition.set_pin(right, digest_new(b"another", entropy)),
    ):
        with pytest.raises(Refused):
            change()
        assert [*partition.snapshot()] == before
    disk.fault = None
    partition.add([draft("two")])
    assert labels(partition) == {1: "one", 2: "two"}


def test_a_store_that_can_only_be_read_still_opens(
    partition: Partition, disk: Disk, seal_key: Secret
) -> None:
    partition.add([draft("one")])
    disk.fault = OSError(errno.EROFS, "read-only file system")
    assert labels(opened(disk, seal_key)) == {1: "one"}


def test_a_torn_record_is_told(partition: Partition, disk: Disk, seal_key: Secret) -> None:
    assert partition.torn == 0
    partition.add([draft("one")])
    disk.octets = disk.octets[:-1]
    again = opened(disk, seal_key)
    assert again.torn > 0
    assert labels(again) == {}
    assert opened(disk, seal_key).torn == 0


def test_a_partition_holds_a_bounded_number_of_objects(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "OBJECT_LIMIT", 2)
    partition.add([draft("one")])
    assert status(lambda: partition.add([draft("two"), draft("three")])) is Status.STORE_FULL
    partition.add([draft("two")])
    assert labels(partition) == {1: "one", 2: "two"}


def test_a_wrong_pin_is_on_the_disk_before_it_is_compared(
    partition: Partition, disk: Disk, seal_key: Secret
) -> None:
    assert partition.pin_attempts == 10
    partition.begin_attempt()
    assert opened(disk, seal_key).pin_attempts == 9


def test_a_right_pin_takes_the_count_back(
    partition: Partition, disk: Disk, seal_key: Secret, pin: bytes
) -> None:
    for _ in range(3):
        wrong = tried(b"wrong pin", partition)
        assert status(lambda wrong=wrong: partition.settle(wrong)) is Status.PIN_INCORRECT  # type: ignore[misc]
    assert partition.pin_attempts == 7
    partition.settle(tried(pin, partition))
    assert partition.pin_attempts == opened(disk, seal_key).pin_attempts == 10


def test_the_tenth_wrong_pin_locks_for_good(
    partition: Partition, disk: Disk, seal_key: Secret, pin: bytes
) -> None:
    waits = []
    for _ in range(9):
        waits.append(partition.pin_delay)
        partition.begin_attempt()
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32]
    wrong = tried(b"wrong pin", partition)
    assert status(lambda: partition.settle(wrong)) is Status.PIN_LOCKED
    assert status(partition.begin_attempt) is Status.PIN_LOCKED
    assert status(opened(disk, seal_key).begin_attempt) is Status.PIN_LOCKED


def test_a_pin_is_changed_by_who_tried_the_right_one(
    partition: Partition, disk: Disk, seal_key: Secret, pin: bytes
) -> None:
    new = digest_new(b"another", entropy)
    wrong = tried(b"wrong pin", partition)
    assert status(lambda: partition.set_pin(wrong, new)) is Status.PIN_INCORRECT
    partition.set_pin(tried(pin, partition), new)
    partition = opened(disk, seal_key)
    assert partition.pin_attempts == 10
    partition.settle(tried(b"another", partition))


@pytest.mark.parametrize(
    "records",
    [
        [encode(Failures(0))],
        [encode(Birth(b"", b""))],
        [encode(Pin(bytes(16), bytes(32))), encode(Birth(b"", b""))],
    ],
)
def test_a_store_without_its_beginning_is_refused(seal_key: Secret, records: list[bytes]) -> None:
    disk = Disk()
    Store(disk, seal_key, 1, entropy).begin(lambda: records)
    with pytest.raises(Refused) as caught:
        open_partition(1, disk, seal_key, entropy)
    assert caught.value.rule == "store-content"


class Watched(dict[int, KeyObject]):
    """Objects that note which generation their partition told when one of them came or went."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition.objects)
        self.partition = partition
        self.told: list[int] = []

    def update(self, *others: Any) -> None:
        self.told.append(self.partition.generation)
        super().update(*others)

    def pop(self, *handle: Any) -> Any:
        self.told.append(self.partition.generation)
        return super().pop(*handle)


def test_whoever_reads_a_generation_finds_objects_that_are_as_new(partition: Partition) -> None:
    partition.objects = watched = Watched(partition)
    (one,) = partition.add([draft("one")])
    partition.change(one, Template(one.description.template.policy, "two"))
    partition.destroy(1)
    assert watched.told == [0, 1, 2]
    assert partition.generation == 3


def test_the_records_of_the_store_are_not_kept(partition: Partition, disk: Disk, seal_key: Secret) -> None:
    again = opened(disk, seal_key)
    assert again._store.take_records() == []


def test_a_partition_that_was_born_twice_is_refused(
    partition: Partition, disk: Disk, seal_key: Secret
) -> None:
    records = [*partition.snapshot()]
    Store(disk, seal_key, 1, entropy).begin(lambda: [*records, records[0]])
    with pytest.raises(Refused, match="born twice"):
        open_partition(1, disk, seal_key, entropy)
