"""One connection's view of a partition: whether it is logged in, what it may see, and its own session objects."""

from collections.abc import Iterator, Sequence

from endocarp.errors import PeerError
from endocarp.hsm.keys import Draft, KeyObject
from endocarp.hsm.partition import Partition
from endocarp.hsm.phases import Phase
from endocarp.hsm.records import StoredObject
from endocarp.wire.hsm import SESSION_HANDLE, Policy, Status, Template

OBJECT_LIMIT = 256
"""How many session objects one connection holds."""


class Session:
    """What one connection sees and holds. Session objects are known to it alone, and end with it."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.phase = Phase.GREETING
        self.generation = 0
        """The partition's, as the answer under way tells it: taken before its work, or with the change it made."""
        self._objects: dict[int, KeyObject] = {}
        self._next_handle = SESSION_HANDLE + 1

    @property
    def logged_in(self) -> bool:
        """Whether the PIN was given here."""
        return self.phase is Phase.USER

    def begin(self) -> None:
        """Take notice that the client has said Hello."""
        self.phase = Phase.PUBLIC

    def log_in(self) -> None:
        """Take notice that the PIN was right."""
        self.phase = Phase.USER

    def log_out(self) -> None:
        """Go back to what anybody may do; private session objects are gone."""
        self.phase = Phase.PUBLIC
        # PKCS#11 2.40 Base, 5.6: "In addition, all private session objects from sessions belonging to the
        # application are destroyed".
        self._objects = {handle: one for handle, one in self._objects.items() if not one.is_private}

    def close(self) -> None:
        """Forget everything: the connection is gone."""
        self.phase = Phase.CLOSED
        self._objects = {}

    def get(self, handle: int) -> KeyObject:
        """Return the object with this handle; NO_SUCH_OBJECT where this connection may not see it."""
        found = self.partition.objects.get(handle) or self._objects.get(handle)
        if found is None or (found.is_private and self.phase is not Phase.USER):
            raise _no_object(handle)
        return found

    def visible(self) -> Iterator[KeyObject]:
        """Give all objects that this connection may see, by handle."""
        yield from filter(self._sees, list(self.partition.objects.values()))
        yield from filter(self._sees, list(self._objects.values()))

    def _sees(self, found: KeyObject) -> bool:
        return not found.is_private or self.logged_in

    # Each change is made under the vault's lock: the generation read then is the one that it has made.

    def add(self, drafts: Sequence[Draft]) -> list[KeyObject]:
        """Keep these objects, all or none: those with TOKEN in the partition, the others here."""
        durable = [draft for draft in drafts if draft.template.policy & Policy.TOKEN]
        if len(self._objects) + len(drafts) - len(durable) > OBJECT_LIMIT:
            raise PeerError(Status.STORE_FULL, f"a connection holds {OBJECT_LIMIT} session objects")
        kept = iter(self.partition.add(durable) if durable else [])
        self.generation = self.partition.generation
        return [next(kept) if draft.template.policy & Policy.TOKEN else self._add(draft) for draft in drafts]

    def _add(self, draft: Draft) -> KeyObject:
        handle = self._next_handle
        made = KeyObject(StoredObject(draft.placed(handle)), self.partition.seal, draft.own)
        self._objects[handle] = made
        self._next_handle += 1
        return made

    def change(self, old: KeyObject, template: Template) -> KeyObject:
        """Give an object another template, durably where it is a token object."""
        handle = old.description.handle
        if handle not in self._objects:
            changed = self.partition.change(old, template)
            self.generation = self.partition.generation
            return changed
        self._objects[handle] = old.changed(template)
        return self._objects[handle]

    def destroy(self, handle: int) -> None:
        """Destroy an object, durably where it is a token object."""
        if self._objects.pop(handle, None) is None:
            self.partition.destroy(handle)
            self.generation = self.partition.generation

    def discard(self, handle: int) -> None:
        """Forget a session object: its policy is about who destroys it, not about when it ends."""
        if self._objects.pop(handle, None) is None:
            raise _no_object(handle)


def _no_object(handle: int) -> PeerError:
    return PeerError(Status.NO_SUCH_OBJECT, f"there is no object {handle:#x}")
