"""What the front knows for one application: its sessions, and the partition's objects as last seen.

Calls are functions that take this view. One that passes on what the vault answers returns its Ask. One that does more
with it is a generator: it yields the octets of a request and gets the body of the reply, or a PeerError with the CKR that
stands for the vault's refusal.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from endocarp.core import Ask
from endocarp.errors import PeerError
from endocarp.hsm.token_objects import P11Object, p11_object
from endocarp.hsm.token_sessions import Sessions
from endocarp.wire.codec import Struct
from endocarp.wire.cryptoki import CKR
from endocarp.wire.hsm import Description, Discard, Find, Login, Logout, Ping, Request, encode_request
from endocarp.wire.p11 import ByteArray
from endocarp.wire.p11_calls import Values

Answer = TypeVar("Answer", bound=Struct)
Result = TypeVar("Result")

Steps = Generator[bytes, bytes, Result]
"""Yields requests to the vault, is sent the bodies of their replies, and returns a result."""
Handler = Callable[..., Values | Ask | Steps[Values]]
"""A call: takes the view and the values of its request, and gives those of its reply, or what leads there.

An Ask stands for a reply whose one value is the body of the vault's.
"""


def ask(request: Request[Answer]) -> Steps[Answer]:
    """Ask the vault, and return its answer."""
    body = yield encode_request(request)
    return request.read_reply(body)


def octets(value: ByteArray) -> bytes:
    """Return octets that a caller must have given; PeerError where he gave a size without them."""
    if isinstance(value, bytes):
        return value
    if value:
        raise PeerError(CKR.ARGUMENTS_BAD, "a pointer is NULL")
    return b""


class TokenView:
    """The state of the token for one application."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.sessions = Sessions()
        self.logged_in = False
        self.generation = 0
        """The vault's count of changes to token objects, from its last reply."""
        self._objects: dict[int, P11Object] = {}
        self._seen: int | None = None
        """The generation that `_objects` shows; None where more or less may be visible by now."""

    def key(self, handle: int) -> P11Object:
        """Return an object that is to be used; PeerError where there is none."""
        found = self._objects.get(handle)
        if found is None:
            raise PeerError(CKR.KEY_HANDLE_INVALID, f"there is no key {handle:#x}")
        return found

    def object(self, handle: int) -> P11Object:
        """Return an object that is to be looked at or changed; PeerError where there is none."""
        found = self._objects.get(handle)
        if found is None:
            raise PeerError(CKR.OBJECT_HANDLE_INVALID, f"there is no object {handle:#x}")
        return found

    def objects(self) -> Steps[list[P11Object]]:
        """Return all objects that the application may see now, asking for them only if any has changed."""
        yield from ask(Ping())
        if self._seen != self.generation:
            yield from self._load()
        return list(self._objects.values())

    def _load(self) -> Steps[None]:
        objects: dict[int, P11Object] = {}
        first = None
        after = 0
        while True:
            page = yield from ask(Find(after=after))
            # A change between two pages would show half of it: the next search then loads again.
            first = self.generation if first is None else first
            objects.update((description.handle, p11_object(description)) for description in page.objects)
            after = page.after
            if not after:
                break
        self._objects, self._seen = objects, first

    def put(self, description: Description) -> P11Object:
        """Take notice of an object that this application has just made or changed."""
        made = p11_object(description)
        self._objects[made.handle] = made
        self._mark_own_change(made)
        return made

    def drop(self, handle: int) -> None:
        """Take notice that this application has just destroyed an object."""
        known = self._objects.pop(handle, None)
        if known is not None:
            self._mark_own_change(known)

    def _mark_own_change(self, changed: P11Object) -> None:
        """Remember that the last change is known already, if it is the only one. Session objects do not count."""
        if changed.is_token_object and self._seen is not None and self.generation == self._seen + 1:
            self._seen = self.generation

    def end(self, handles: Iterable[int]) -> Steps[None]:
        """Discard session objects whose session has ended; those that are gone already do no harm."""
        for handle in handles:
            with contextlib.suppress(PeerError):
                yield from ask(Discard(handle))
            self.drop(handle)

    def log_in(self, pin: bytes) -> Steps[None]:
        """Log in."""
        yield from ask(Login(pin))
        self.logged_in = True
        self._seen = None

    def log_out(self) -> Steps[None]:
        """Log out; the keys are out of sight at once."""
        yield from ask(Logout())
        self.logged_in = False
        self._seen = None
        # PKCS#11 2.40 Base, 5.6: handles of private objects become invalid at once, before anything is searched again.
        # deviation: PKCS#11 wants them to stay so after the next login; here they are the vault's own, and hold again.
        self._objects = {handle: one for handle, one in self._objects.items() if not one.is_private}
