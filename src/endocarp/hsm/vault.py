"""The vault's end of a connection: one process that holds the keys of one partition, and those who ask it.

`Vault` is what all connections share; `VaultConnection` is the core of one of them. Heavy work is given away as a
job, one at a time a connection: the shell runs it and hands the result to `finish`. The lock is the vault's own: the
shell takes none around this core, so that signing waits for nobody who writes the store.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from endocarp.core import Close, Event, Job
from endocarp.errors import DecodeError, EndocarpError, PeerError, Refused, UsageError
from endocarp.hsm.operations import OPERATIONS, Call, Vault, Work
from endocarp.hsm.policy import Phase, check_permit
from endocarp.hsm.session import Session
from endocarp.hsm.store import FAILED, FULL
from endocarp.wire import hsm
from endocarp.wire.codec import Struct
from endocarp.wire.hsm import Operation, Status

__all__ = ["Vault", "VaultConnection"]

_REFUSALS: Mapping[str, Status] = MappingProxyType(
    {
        FULL: Status.STORE_FULL,
        FAILED: Status.STORE_FAILED,
        "aead": Status.CIPHERTEXT_INVALID,
        "decrypt": Status.CIPHERTEXT_INVALID,
    }
)


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
        self._outgoing: list[bytes] = []
        self._tag = 0
        self._then: Callable[[Any], Struct] | None = None

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
        try:
            outcome = self._carry_out(number, data, now)
        except EndocarpError as error:
            return self._fail(error)
        if isinstance(outcome, Work):
            self._then = outcome.then
            return [Job(outcome.run, outcome.after)]
        return self._answer(outcome)

    def finish(self, result: object) -> list[Event]:
        """Take the result of a job, or the EndocarpError that it raised."""
        then, self._then = self._then, None
        assert then is not None
        if isinstance(result, EndocarpError):
            return self._fail(result)
        try:
            answer = then(result)
        except EndocarpError as error:
            return self._fail(error)
        return self._answer(answer)

    def outgoing(self) -> list[bytes]:
        """Return the messages to send, and forget them."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def due(self) -> None:
        """Nothing here waits for a moment."""

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

    def _carry_out(self, number: int, message: bytes, now: float) -> Struct | Work:
        try:
            operation = Operation(number)
        except ValueError:
            raise PeerError(Status.OPERATION_UNKNOWN, f"there is no operation {number}") from None
        check_permit(self._session.phase, operation)
        request = hsm.decode_request(operation, message)
        return OPERATIONS[operation](Call(self._vault, self._session, now), request)

    def _answer(self, body: Struct) -> list[Event]:
        generation = self._vault.partition.generation
        self._outgoing.append(hsm.encode_reply(self._tag, generation, body))
        return []

    def _fail(self, error: EndocarpError) -> list[Event]:
        generation = self._vault.partition.generation
        self._outgoing.append(hsm.encode_failure(status_of(error), self._tag, generation, _reason(error)))
        return []


def _reason(error: EndocarpError) -> str:
    return getattr(error, "reason", "") or str(error)
