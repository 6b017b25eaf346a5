"""The sessions of one application, and the operations under way in them."""

import contextlib
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from endocarp.errors import PeerError
from endocarp.hsm.mechanisms import DIGEST_SIZES, DIGESTS, CipherRule, Hash, SignRule
from endocarp.hsm.token_objects import P11Object
from endocarp.wire.cryptoki import CKR, CKS, SessionFlags
from endocarp.wire.hsm import DATA_LIMIT, Decrypt, Encrypt, Sign, Verify, encode_request
from endocarp.wire.suites import GCM_TAG_SIZE, SIGNATURE_SIZE, Cipher

SESSION_LIMIT = 1024
"""How many sessions one application has at once."""


class Signing:
    """Signs and checks with one key by one mechanism.

    It keeps nothing of the data, so one serves every signature of that key. Where the mechanism hashes, `begin` returns
    a `HashSigning` for each. `size` is that of a signature, in octets.
    """

    __slots__ = ("_handle", "_head", "_prefix", "_public", "_scheme", "_start", "size")

    multi_part = False

    def __init__(self, key: P11Object, rule: SignRule) -> None:
        self.size = SIGNATURE_SIZE[key.suite]
        self._handle, self._public = key.handle, key.description.public
        self._scheme, self._prefix, self._start = rule.scheme, rule.prefix, rule.start
        # A request to sign ends with the data: what stands before is always the same.
        self._head = encode_request(Sign(key.handle, rule.scheme, b"")) + rule.prefix

    def begin(self) -> "Signing | HashSigning":
        """Return what takes the data of a signature."""
        return self if self._start is None else HashSigning(self, self._start(self._public))

    def update(self, data: bytes) -> None:
        """Refuse a part of the data."""
        raise PeerError(CKR.FUNCTION_NOT_SUPPORTED, "this mechanism takes its data in one part")

    def sign(self, data: bytes) -> bytes:
        """Return what asks the vault for a signature."""
        if len(data) > DATA_LIMIT:
            raise _too_long()
        return self._head + data

    def verify(self, signature: bytes, data: bytes) -> bytes:
        """Return what asks the vault to check a signature."""
        if len(signature) != self.size:
            raise PeerError(CKR.SIGNATURE_LEN_RANGE, f"a signature of this key has {self.size} octets")
        if len(data) > DATA_LIMIT:
            raise _too_long()
        return encode_request(Verify(self._handle, self._scheme, signature, self._prefix + data))


def _too_long() -> PeerError:
    return PeerError(CKR.DATA_LEN_RANGE, f"at most {DATA_LIMIT} octets are signed as they are")


class HashSigning:
    """One signature over a hash of the data, into which the parts go as they come."""

    __slots__ = ("_hash", "_signing", "multi_part", "size")

    def __init__(self, signing: Signing, started: Hash) -> None:
        self.multi_part = False
        self.size = signing.size
        self._signing, self._hash = signing, started

    def update(self, data: bytes) -> None:
        """Take a part of the data."""
        self.multi_part = True
        self._hash.update(data)

    def sign(self, data: bytes) -> bytes:
        """Return what asks the vault for a signature over the parts so far and `data`."""
        self._hash.update(data)
        return self._signing.sign(self._hash.digest())

    def verify(self, signature: bytes, data: bytes) -> bytes:
        """Return what asks the vault to check a signature over the parts so far and `data`."""
        self._hash.update(data)
        return self._signing.verify(signature, self._hash.digest())


class Ciphering:
    """An encryption or decryption: the parts are collected, and all of the result comes at the end."""

    __slots__ = ("_data", "_request", "_rule", "key", "multi_part")

    def __init__(self, request: type[Encrypt] | type[Decrypt], key: P11Object, rule: CipherRule) -> None:
        self.key = key
        self.multi_part = False
        self._request = request
        self._rule = rule
        self._data = bytearray()

    def update(self, data: bytes) -> None:
        """Take a part of the data."""
        self._check_size(data)
        self.multi_part = True
        self._data += data

    def size(self, data: bytes) -> int:
        """Return how much room the result over the parts so far and `data` takes at most, in octets."""
        if self._rule.cipher is not Cipher.AES_GCM:
            return SIGNATURE_SIZE[self.key.suite]
        size = len(self._data) + len(data)
        return size + GCM_TAG_SIZE if self._request is Encrypt else max(size - GCM_TAG_SIZE, 0)

    def finish(self, data: bytes) -> Encrypt | Decrypt:
        """Return what asks the vault for the result over the parts so far and `data`."""
        self._check_size(data)
        rule = self._rule
        return self._request(
            self.key.handle, rule.cipher, rule.nonce, rule.associated, bytes(self._data) + data
        )

    def _check_size(self, more: bytes) -> None:
        size = len(self._data) + len(more)
        if self._request is Encrypt and size > DATA_LIMIT:
            raise PeerError(CKR.DATA_LEN_RANGE, f"at most {DATA_LIMIT} octets are encrypted at once")
        if size > DATA_LIMIT + GCM_TAG_SIZE:
            raise PeerError(
                CKR.ENCRYPTED_DATA_LEN_RANGE, f"at most {DATA_LIMIT} octets are decrypted at once"
            )


class Digesting:
    """A digest, computed here."""

    __slots__ = ("_hash", "multi_part", "size")

    def __init__(self, mechanism: int) -> None:
        self.multi_part = False
        self.size = DIGEST_SIZES[mechanism]
        """The size of the digest, in octets."""
        self._hash = DIGESTS[mechanism]()

    def update(self, data: bytes) -> None:
        """Take a part of the data."""
        self.multi_part = True
        self._hash.update(data)

    def finish(self, data: bytes) -> bytes:
        """Return the digest of the parts so far and `data`."""
        self._hash.update(data)
        return self._hash.digest()


UnderWay = TypeVar("UnderWay")


class ActiveOperation(Generic[UnderWay]):
    """The one operation of a kind that is under way in a session, or none."""

    __slots__ = ("operation",)

    def __init__(self) -> None:
        self.operation: UnderWay | None = None

    def check_free(self) -> None:
        """Raise PeerError where an operation is under way."""
        if self.operation is not None:
            raise PeerError(CKR.OPERATION_ACTIVE, "an operation of this kind is under way")

    def begin(self, operation: UnderWay) -> None:
        """Put an operation here; PeerError where one is under way."""
        self.check_free()
        self.operation = operation

    def current(self) -> UnderWay:
        """Return the operation under way; PeerError where there is none."""
        if self.operation is None:
            raise PeerError(CKR.OPERATION_NOT_INITIALIZED, "no operation of this kind is under way")
        return self.operation

    @contextlib.contextmanager
    def ended_by_errors(self) -> Iterator[UnderWay]:
        """Give the operation under way; a PeerError in the block ends it."""
        operation = self.current()
        try:
            yield operation
        except PeerError:
            # PKCS#11 2.40 Base, 5.8 to 5.12: a call that gives a part of the data and "results in an error terminates
            # the current" operation.
            self.operation = None
            raise


class PartTaking(Protocol):
    """An operation that takes its data in a single part or in several."""

    multi_part: bool
    """Whether it has got a part."""


SinglePart = TypeVar("SinglePart", bound=PartTaking)


def single_part(active: ActiveOperation[SinglePart]) -> SinglePart:
    """Return an operation that takes all of its data now; one that got parts before is given up."""
    operation = active.current()
    if operation.multi_part:
        active.operation = None
        raise PeerError(CKR.OPERATION_ACTIVE, "the operation has begun in parts, and is given up")
    return operation


class Session:
    """One session: what it may do, and what is under way in it."""

    __slots__ = (
        "decrypt",
        "digest",
        "encrypt",
        "flags",
        "objects",
        "search",
        "sign",
        "verify",
    )

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.search: ActiveOperation[Iterator[int]] = ActiveOperation()
        self.sign: ActiveOperation[Signing | HashSigning] = ActiveOperation()
        self.verify: ActiveOperation[Signing | HashSigning] = ActiveOperation()
        self.encrypt: ActiveOperation[Ciphering] = ActiveOperation()
        self.decrypt: ActiveOperation[Ciphering] = ActiveOperation()
        self.digest: ActiveOperation[Digesting] = ActiveOperation()
        self.objects: set[int] = set()
        """The session objects that were made here: they end with it."""

    @property
    def may_write(self) -> bool:
        """Whether token objects may be made, changed and destroyed here."""
        return bool(self.flags & SessionFlags.RW_SESSION)

    def state(self, *, logged_in: bool) -> CKS:
        """Return the state that C_GetSessionInfo tells."""
        return _STATES[self.may_write, logged_in]


_STATES = {
    (False, False): CKS.RO_PUBLIC_SESSION,
    (False, True): CKS.RO_USER_FUNCTIONS,
    (True, False): CKS.RW_PUBLIC_SESSION,
    (True, True): CKS.RW_USER_FUNCTIONS,
}


class Sessions:
    """The sessions of one application, by handle."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def writing(self) -> int:
        """How many of them may write."""
        return sum(session.may_write for session in self._sessions.values())

    def open(self, flags: int) -> int:
        """Open a session; return its handle."""
        # PKCS#11 2.40 Base, 5.6: CKF_SERIAL_SESSION "must always be set".
        if not flags & SessionFlags.SERIAL_SESSION:
            raise PeerError(CKR.SESSION_PARALLEL_NOT_SUPPORTED, "sessions are serial")
        if len(self._sessions) >= SESSION_LIMIT:
            raise PeerError(CKR.SESSION_COUNT, f"an application has at most {SESSION_LIMIT} sessions")
        handle = self._next
        self._next += 1
        self._sessions[handle] = Session(flags)
        return handle

    def get(self, handle: int) -> Session:
        """Return a session; PeerError where there is none."""
        session = self._sessions.get(handle)
        if session is None:
            raise PeerError(CKR.SESSION_HANDLE_INVALID, f"there is no session {handle:#x}")
        return session

    def close(self, handle: int) -> Session:
        """Close a session and return it."""
        session = self.get(handle)
        del self._sessions[handle]
        return session

    def close_all(self) -> list[Session]:
        """Close all sessions and return them."""
        closed = list(self._sessions.values())
        self._sessions.clear()
        return closed
