"""From a command on the mailbox to its handler: a typed registry, and the checks that come before every handler.

Source: caliptra-sw, runtime/src/lib.rs and rom/dev/src/flow/cold_reset/fw_processor.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from endocarp.core import Event
from endocarp.errors import DecodeError, PeerError
from endocarp.wire.codec import Struct
from endocarp.wire.mailbox import (
    REQUESTS,
    Command,
    MailboxError,
    Request,
    decode_body,
    frame_limit,
    with_headers,
    without_checksum,
)

RESERVED_CALLER = 0xFFFFFFFF
"""No caller: Caliptra runtime, "PAUSER"."""
UNKNOWN_LIMIT = 4096
"""The most octets that a command may carry which this stage does not know."""


@dataclass
class Call:
    """One command: who calls, what, and what came beside the frame: memory, or a channel, which the shell keeps.

    A handler may add to `events` what the shell has to do once the reply is on its way.
    """

    caller: int
    command: int
    octets: bytes
    attached: memoryview | None = None
    channel: bool = False
    events: list[Event] = field(default_factory=list)


class Responder(Protocol):
    """What answers commands at one boot stage."""

    def limit(self, command: int) -> int:
        """Return how many octets a frame with this command may carry."""

    def execute(self, call: Call) -> bytes:
        """Return the octets of the reply; raise an EndocarpError where the command is refused."""


class State(Protocol):
    """What handlers of a registry work on."""

    def admit(self, call: Call) -> None:
        """Raise PeerError where this caller may not have this command now."""


@dataclass(frozen=True)
class Faults:
    """The numbers that a stage answers before any handler is reached."""

    reserved_caller: MailboxError
    checksum: MailboxError
    unknown: MailboxError
    too_long: MailboxError
    malformed: MailboxError


S = TypeVar("S", bound=State)
Asked = TypeVar("Asked", bound=Request[Any])
Reply = TypeVar("Reply", bound=Struct)


class Registry(Generic[S]):
    """The commands of one boot stage and their handlers."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.handlers: dict[int, Callable[[S, Any, Call], Struct]] = {}

    def handles(
        self, kind: type[Request[Reply]]
    ) -> Callable[[Callable[[S, Asked, Call], Reply]], Callable[[S, Asked, Call], Reply]]:
        """Register the decorated function, which takes this request and returns its reply."""

        def register(handler: Callable[[S, Asked, Call], Reply]) -> Callable[[S, Asked, Call], Reply]:
            self.handlers[kind.COMMAND] = handler
            return handler

        return register

    def limit(self, command: int) -> int:
        """Return how many octets a frame with this command may carry."""
        return frame_limit(command) if command in self.handlers else UNKNOWN_LIMIT

    def execute(self, state: S, call: Call) -> bytes:
        """Check a command and run its handler; return the octets of the reply.

        The order is that of Caliptra: caller, checksum, command, privilege, length, then the handler.
        """
        faults = self.faults
        # Caliptra runtime, "PAUSER": 0xFFFFFFFF stands for no caller at all.
        if call.caller == RESERVED_CALLER:
            raise PeerError(faults.reserved_caller, f"caller {call.caller:#x} is reserved")
        kind = REQUESTS.get(call.command)
        checked = kind is None or kind.CHECKED
        body = self._open(call) if checked else call.octets
        if kind is None or call.command not in self.handlers:
            raise PeerError(faults.unknown, f"no command {call.command:#x} here")
        state.admit(call)
        reply = self.handlers[call.command](state, self._decode(kind, body), call)
        return with_headers(reply) if checked else reply.encode()

    def _open(self, call: Call) -> bytes:
        try:
            return without_checksum(call.command, call.octets)
        except DecodeError as error:
            raise PeerError(self.faults.checksum, str(error)) from None

    def _decode(self, kind: type[Request[Any]], body: bytes) -> Request[Any]:
        if len(body) > kind.LIMIT:
            raise PeerError(
                self.faults.too_long, f"{kind.__name__}: {len(body)} octets, at most {kind.LIMIT}"
            )
        try:
            return decode_body(kind, body)
        except DecodeError as error:
            raise PeerError(self.faults.malformed, str(error)) from None


def name_of(command: int) -> str:
    """Return the name of a command, or its number."""
    return Command(command).name if command in Command.__members__.values() else f"{command:#x}"
