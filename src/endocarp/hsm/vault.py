"""The vault's end of a connection: one process that holds the keys of one partition, and those who ask it.

`operations.Vault` is what all connections share; `VaultConnection` is the core of one of them. The lock is the vault's
own, held where something changes: the shell takes none around this core that another one has a part in, so what is
heavy is done where it is decided, and signing waits for nobody who writes the store. What must wait is a job.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from endocarp.core import Close, Event, Job
from endocarp.errors import DecodeError, EndocarpError, PeerError, Refused, UsageError
from endocarp.hsm.operations import OPERATIONS, Attempt, Caller, Carry, Vault
from endocarp.hsm.phases import PERMITS, Phase, refusal
from endocarp.hsm.session import Session
from endocarp.hsm.store import FAILED, FULL
from endocarp.wire import hsm
from endocarp.wire.codec import Struct
from endocarp.wire.hsm import Operation, Status

_REFUSALS: Mapping[str, Status] = MappingProxyType(
    {
        FULL: Status.STORE_FULL,
        FAILED: Status.STORE_FAILED,
        "aead": Status.CIPHERTEXT_INVALID,
        "decrypt": Status.CIPHERTEXT_INVALID,
    }
)


_KNOWN = frozenset(operation.value for operation in Operation)

_PERMITTED: Mapping[Phase, Mapping[int, tuple[type[hsm.Request[Any]], Carry[Any]]]] = MappingProxyType(
    {
        phase: {operation.value: (hsm.REQUESTS[operation], OPERATIONS[operation]) for operation in operations}
        for phase, operations in PERMITS.items()
    }
)
"""What a message of each number is and does, where the phase permits it."""


def status_of(error: EndocarpError) -> Status:
    """Return the status that a request is answered with when this error ended it."""
    match error:
        case PeerError():
            return Status(error.number)
        case DecodeError():
            return Status.MESSAGE_INVALID
        case UsageError():
            return Status.DATA_INVALID
        case Refused():
            return _REFUSALS.get(error.rule, Status.FAILED)
        case _:
            return Status.FAILED


class VaultConnection:
    """The core of one connection to a vault; see `endocarp.core.Core`. One message is one call of `receive`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._session = Session(vault.partition)
        self._caller = Caller(vault, self._session)
        self._outgoing: list[bytes] = []
        self._tag = 0

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take one message, the first of which is Hello; a job that comes back is finished before the next."""
        if not data:
            self._session.close()
            return []
        try:
            if self._session.phase is Phase.GREETING:
                return self._greet(hsm.Hello.decode(data))
            number, self._tag = hsm.decode_header(data)
        except DecodeError as error:
            return [Close(str(error))]
        # Taken before anything is looked at: an answer may show more than its generation says, never less.
        self._session.generation = self._vault.partition.generation
        try:
            permitted = _PERMITTED[self._session.phase].get(number)
            if permitted is None:
                raise self._refusal(number)
            kind, carry = permitted
            outcome = carry(self._caller, hsm.read_body(kind, data))
        except EndocarpError as error:
            return self._fail(error)
        if isinstance(outcome, Attempt):
            return [Job(outcome.make, now + outcome.delay if outcome.delay else 0.0)]
        return self._answer(outcome)

    def finish(self, result: Any) -> list[Event]:
        """Take the result of a job, or the EndocarpError that it raised."""
        return self._fail(result) if isinstance(result, EndocarpError) else self._answer(result)

    def outgoing(self) -> list[bytes]:
        """Return the messages to send, and forget them."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def due(self) -> float | None:
        """Nothing here waits for a moment."""
        return None

    def expire(self, now: float) -> list[Event]:
        """Nothing here waits for a moment."""
        return []

    def _greet(self, hello: hsm.Hello) -> list[Event]:
        held = self._vault.partition
        known = hello.version == hsm.VERSION
        status = Status.OK if known else Status.VERSION_UNSUPPORTED
        self._outgoing.append(hsm.Welcome(status, hsm.VERSION, held.number, held.generation).encode())
        if not known:
            return [Close(f"version {hello.version} of the protocol")]
        self._session.begin()
        return []

    def _refusal(self, number: int) -> PeerError:
        if number not in _KNOWN:
            return PeerError(Status.OPERATION_UNKNOWN, f"there is no operation {number}")
        return refusal(self._session.phase, Operation(number))

    def _answer(self, answer: Struct | bytes) -> list[Event]:
        body = answer if isinstance(answer, bytes) else answer.encode()
        self._outgoing.append(hsm.encode_reply(Status.OK, self._tag, self._session.generation, body))
        return []

    def _fail(self, error: EndocarpError) -> list[Event]:
        reason = _reason(error).encode()[: hsm.REASON_LIMIT]
        self._outgoing.append(hsm.encode_reply(status_of(error), self._tag, self._session.generation, reason))
        return []


def _reason(error: EndocarpError) -> str:
    return getattr(error, "reason", "") or str(error)
