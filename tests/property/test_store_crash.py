"""A vault that is killed in the middle of a write: what was acknowledged is there, and nothing half-written is read.

The storage that the partition writes to dies at each of its writes, after each number of octets, with and without
the file system having made room for the rest. What is left on it is opened again, by a partition that knows nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import pytest
from tests.simulators.disk import Disk, KilledError

from endocarp.crypto.primitives import pin_digest
from endocarp.crypto.secret import Secret
from endocarp.hsm.keys import Draft, make_key, public_octets
from endocarp.hsm.object_policy import default_policy, granted_policy
from endocarp.hsm.partition import Partition, open_partition
from endocarp.hsm.pin import digest_new
from endocarp.hsm.records import Pin
from endocarp.hsm.store import GROWTH_LIMIT
from endocarp.wire.hsm import Attribute, ObjectClass, Policy, Template
from endocarp.wire.suites import Scheme, Suite

LENGTH, HEAD, TAG = 4, 20, 16
"""Where zeros that were never written begin: at the record, at the tag of its length, behind that, at its own tag."""

entropy = Random("crash").randbytes
SALT = bytes(16)
DIGEST = pin_digest(b"12345678", SALT)
NEW_PIN = digest_new(b"a new pin", entropy)
KEY = make_key(Suite.P256, entropy)


@dataclass(frozen=True)
class State:
    """What can be told of a partition from outside."""

    generation: int
    attempts: int
    objects: dict[int, tuple[str, bytes]]

    @classmethod
    def of(cls, partition: Partition) -> "State":
        described = [one.description for one in partition.objects.values()]
        return cls(
            partition.generation,
            partition.pin_attempts,
            {one.handle: (one.template.label, one.public) for one in described},
        )


def pair(label: str, size: int = 0) -> list[Draft]:
    attributes = tuple(Attribute(number, bytes(4096)) for number in range(size))
    return [
        Draft(
            object_class,
            Suite.P256,
            Template(
                granted_policy(object_class, default_policy(Suite.P256, object_class) | Policy.TOKEN),
                label,
                attributes=attributes,
            ),
            public_octets(KEY),
            KEY if object_class is ObjectClass.PRIVATE_KEY else None,
        )
        for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
    ]


def rename(partition: Partition) -> None:
    old = partition.objects[1]
    partition.change(old, Template(old.description.template.policy, "renamed"))


STEPS: list[Callable[[Partition], object]] = [
    lambda partition: partition.add(pair("first")),
    lambda partition: partition.begin_attempt(),
    lambda partition: partition.add(pair("second")),
    rename,
    lambda partition: partition.destroy(4),
    lambda partition: partition.set_pin(Pin(SALT, DIGEST), NEW_PIN),
    lambda partition: partition.destroy(2),
]


@pytest.fixture(scope="module")
def seal_key() -> Iterator[Secret]:
    with Secret(bytes(range(32))) as key:
        yield key


@pytest.fixture(scope="module")
def beginning(seal_key: Secret) -> bytes:
    """Return the file of a partition that has just been made, with a PIN that the steps know."""
    disk = Disk(b"")
    partition, pin = open_partition(0, disk, seal_key, entropy)
    assert pin is not None
    salt = partition.begin_attempt()
    partition.set_pin(Pin(salt, pin_digest(pin, salt)), Pin(SALT, DIGEST))
    return disk.octets


def live(disk: Disk, seal_key: Secret, steps: list[Callable[[Partition], object]]) -> list[State]:
    """Open the partition and take the steps until one is killed; return the state after each that was finished."""
    states: list[State] = []
    try:
        partition, _ = open_partition(0, disk, seal_key, entropy)
        states.append(State.of(partition))
        for step in steps:
            step(partition)
            states.append(State.of(partition))
    except KilledError:
        pass
    return states


def reopened(disk: Disk, seal_key: Secret) -> Partition:
    partition, pin = open_partition(0, Disk(disk.octets), seal_key, entropy)
    assert pin is None
    return partition


def test_what_was_acknowledged_survives_a_kill_at_each_octet_of_each_write(
    seal_key: Secret, beginning: bytes
) -> None:
    disk = Disk(beginning)
    whole = live(disk, seal_key, STEPS)
    assert len(whole) == len(STEPS) + 1 == len(disk.sizes)
    deaths = 0
    for write, size in enumerate(disk.sizes):
        for kept in range(size + 1):
            for zeros in (False, True) if kept in (0, LENGTH, HEAD, size - TAG) else (False,):
                dying = Disk(beginning)
                dying.dies_at, dying.kept, dying.zeros = write, kept, zeros
                acknowledged = live(dying, seal_key, STEPS[: write + 1])
                assert acknowledged == whole[:write]
                # The write was not acknowledged: it may be there as a whole or not at all.
                expected = whole[write if kept == size else max(write - 1, 0)]
                assert State.of(reopened(dying, seal_key)) == expected
                deaths += 1
    assert deaths > 1000


def test_keys_sign_after_a_kill(seal_key: Secret, beginning: bytes) -> None:
    disk = Disk(beginning)
    disk.dies_at, disk.kept = 3, 40
    live(disk, seal_key, STEPS)
    partition = reopened(disk, seal_key)
    private, public = partition.objects[1], partition.objects[2]
    signature = private.private_key.sign(Scheme.ECDSA_SHA256, b"data")
    assert public.public_key.verify(Scheme.ECDSA_SHA256, signature, b"data")


@pytest.mark.parametrize("kept", [0, 1])
def test_a_kill_while_the_log_is_begun_anew_loses_nothing(
    seal_key: Secret, beginning: bytes, kept: int
) -> None:
    steps: list[Callable[[Partition], object]] = [
        lambda partition: partition.add(pair("large", 4)) for _ in range(GROWTH_LIMIT // (2 * 4 * 4096) + 4)
    ]
    disk = Disk(beginning)
    whole = live(disk, seal_key, steps)
    renewals = [write for write, size in enumerate(disk.sizes) if size == 1 and write]
    assert renewals
    for write in renewals:
        dying = Disk(beginning)
        dying.dies_at, dying.kept = write, kept
        assert live(dying, seal_key, steps) == whole[:write]
        assert State.of(reopened(dying, seal_key)) == whole[write - 1 + kept]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_kill_while_a_partition_is_made_leaves_all_of_it_or_nothing(seal_key: Secret, kept: int) -> None:
    disk = Disk(b"")
    disk.dies_at, disk.kept = 0, kept
    with pytest.raises(KilledError):
        open_partition(0, disk, seal_key, entropy)
    partition, pin = open_partition(0, Disk(disk.octets), seal_key, entropy)
    assert (pin is None) == bool(kept)
    assert State.of(partition) == State(0, 10, {})
