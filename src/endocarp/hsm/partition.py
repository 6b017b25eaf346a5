"""One partition: its PIN, its identity, its token objects, and the store that keeps them.

Every change is a record: it is first put into the store, then applied, by the same function that applies the records
of the store when it is opened. So what was not stored did not happen. Callers hold the vault's lock for every method
that changes something; look-ups need none, since objects are replaced and never changed in place.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from endocarp.crypto.keys import PrivateKey, generate
from endocarp.crypto.secret import Secret
from endocarp.errors import PeerError, Refused
from endocarp.hsm import pin as pins
from endocarp.hsm import records
from endocarp.hsm.keys import Draft, KeyObject, KeySeal
from endocarp.hsm.records import Birth, Body, Failures, Pin, Put, Remove, StoredObject
from endocarp.hsm.store import Storage, Store
from endocarp.wire.hsm import Status, Template
from endocarp.wire.suites import Suite

OBJECT_LIMIT = 10_000
"""How many token objects one partition holds."""

_IDENTITY = 0
"""Under this handle, which no object has, the identity keys are sealed."""


@dataclass(frozen=True)
class Identity:
    """The two keys that sign a partition's reports, P-384 and ML-DSA-87: made with it, they never leave it."""

    ecc: PrivateKey
    mldsa: PrivateKey


class Partition:
    """The state of one partition; `open_partition` makes it."""

    def __init__(self, number: int, store: Store, seal: KeySeal, birth: Birth, pin: Pin) -> None:
        self.number = number
        self.generation = 0
        """Counts the changes of token objects: what `objects` holds is never older than this says."""
        self.seal = seal
        self.identity = Identity(
            _identity_key(seal, Suite.P384, birth.ecc), _identity_key(seal, Suite.ML_DSA_87, birth.mldsa)
        )
        self.objects: dict[int, KeyObject] = {}
        """The token objects by handle, in the order of their handles; for reading."""
        self._store, self._birth, self._pin = store, birth, pin
        self._next_handle = 1

    @property
    def torn(self) -> int:
        """How many octets of an unfinished record were cut from the store when it was opened."""
        return self._store.torn

    @property
    def pin_attempts(self) -> int:
        """How many more wrong PINs lock the partition; 0 where it is locked."""
        return pins.attempts_left(self._pin.failures)

    @property
    def pin_delay(self) -> float:
        """How many seconds the next attempt waits before it is counted; PIN_LOCKED where there is none."""
        return pins.delay(self._pin.failures)

    # --- records ----------------------------------------------------------------------------------------------

    def _commit(self, body: Body, made: Sequence[KeyObject] = ()) -> None:
        self._store.append(records.encode(body))
        self.apply(body, made)

    def apply(self, body: Body, made: Sequence[KeyObject] = ()) -> None:
        """Make the change that a record of the store describes; `made` are its objects where they are there already.

        Others look without a lock: whoever reads the new generation also sees the new objects.
        """
        match body:
            case Pin():
                self._pin = body
            case Failures():
                self._pin = Pin(self._pin.salt, self._pin.digest, body.failures)
            case Put():
                made = made or [KeyObject(one, self.seal) for one in body.objects]
                self.objects.update((one.description.handle, one) for one in made)
                self._next_handle = body.next_handle
                self.generation = body.generation
            case Remove():
                self.objects.pop(body.handle, None)
                self.generation = body.generation
            case Birth():
                raise Refused("store-content", "a partition that was born twice")
            case _:
                assert_never(body)

    def snapshot(self) -> Iterator[bytes]:
        """Give the records that make a partition of this state."""
        yield records.encode(self._birth)
        yield records.encode(self._pin)
        yield records.encode(Put(self.generation, self._next_handle, ()))
        for one in self.objects.values():
            yield records.encode(Put(self.generation, self._next_handle, (one.stored,)))

    # --- the PIN ----------------------------------------------------------------------------------------------

    def begin_attempt(self) -> bytes:
        """Count a wrong PIN, durably, and return the salt to try one with; PIN_LOCKED after too many."""
        pins.refuse_locked(self._pin.failures)
        self._commit(Failures(self._pin.failures + 1))
        return self._pin.salt

    def settle(self, tried: Pin) -> None:
        """Take the count back where the PIN was right; otherwise refuse it as `judge` does."""
        self.judge(tried)
        self._commit(Failures(0))

    def set_pin(self, tried: Pin, new: Pin) -> None:
        """Put a new PIN in place of the one that was tried, if that was right."""
        self.judge(tried)
        self._commit(new)

    def judge(self, tried: Pin) -> None:
        """Refuse a wrong PIN with PIN_INCORRECT or PIN_LOCKED; the count stays as it is."""
        if pins.is_right(self._pin, tried):
            return
        if not self.pin_attempts:
            raise PeerError(Status.PIN_LOCKED, "the PIN is wrong, and was wrong too often")
        raise PeerError(Status.PIN_INCORRECT, f"the PIN is wrong; {self.pin_attempts} attempts are left")

    # --- objects ----------------------------------------------------------------------------------------------

    def add(self, drafts: Sequence[Draft]) -> list[KeyObject]:
        """Keep these objects, all or none; they get the next handles in their order."""
        if len(self.objects) + len(drafts) > OBJECT_LIMIT:
            raise PeerError(Status.STORE_FULL, f"a partition holds {OBJECT_LIMIT} objects")
        made = [self._object(handle, draft) for handle, draft in enumerate(drafts, self._next_handle)]
        self._put(made, self._next_handle + len(made))
        return made

    def _object(self, handle: int, draft: Draft) -> KeyObject:
        sealed = self.seal.seal(handle, draft.own) if draft.own else b""
        return KeyObject(StoredObject(draft.placed(handle), sealed), self.seal, draft.own)

    def change(self, old: KeyObject, template: Template) -> KeyObject:
        """Give an object another template."""
        new = old.changed(template)
        self._put([new], self._next_handle)
        return new

    def _put(self, made: Sequence[KeyObject], next_handle: int) -> None:
        self._commit(Put(self.generation + 1, next_handle, tuple(one.stored for one in made)), made)

    def destroy(self, handle: int) -> None:
        """Forget an object. Its sealed key stays in the file until that is begun anew: at the next start, or before."""
        self._commit(Remove(self.generation + 1, handle))


def open_partition(
    number: int, storage: Storage, seal_key: Secret, entropy: Callable[[int], bytes]
) -> tuple[Partition, bytes | None]:
    """Open the partition that `storage` holds, or make it where there is nothing; a new one's PIN is returned, once.

    `seal_key` has 32 octets and must live as long as the partition. Refused where the store was changed, or cannot
    be made; a store that can be read and not written opens, and refuses changes until it can.
    """
    store = Store(storage, seal_key, number, entropy)
    seal = KeySeal(seal_key, entropy)
    if store.is_new:
        return _make(number, store, seal, entropy)
    match [records.decode(record) for record in store.take_records()]:
        case [Birth() as birth, Pin() as pin, *changes]:
            partition = Partition(number, store, seal, birth, pin)
        case _:
            raise Refused(
                "store-content", "the store of a partition without its beginning", "put back a copy of it"
            )
    for change in changes:
        partition.apply(change)
    with contextlib.suppress(Refused):
        store.begin(partition.snapshot)
    return partition, None


def _make(
    number: int, store: Store, seal: KeySeal, entropy: Callable[[int], bytes]
) -> tuple[Partition, bytes]:
    pin = pins.make_pin(entropy)
    ecc, mldsa = generate(Suite.P384), generate(Suite.ML_DSA_87)
    birth = Birth(seal.seal(_IDENTITY, ecc), seal.seal(_IDENTITY, mldsa))
    partition = Partition(number, store, seal, birth, pins.digest_new(pin, entropy))
    store.begin(partition.snapshot)
    return partition, pin


def _identity_key(seal: KeySeal, suite: Suite, sealed: bytes) -> PrivateKey:
    key = seal.open(_IDENTITY, suite, sealed)
    assert isinstance(key, PrivateKey)
    return key
