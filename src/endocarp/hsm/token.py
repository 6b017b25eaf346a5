"""The token: what the front answers to one application that speaks p11-kit's RPC.

The core of one connection, whose dialect has been agreed upon. Calls come in frames and are answered one after another.
A call that needs the vault becomes an `Ask`, and nothing else is taken until `resume` has its reply.
"""

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from endocarp.core import Ask, Close, Event
from endocarp.errors import DecodeError, PeerError
from endocarp.hsm import token_crypto, token_general, token_keys
from endocarp.hsm.token_view import Handler, Steps, TokenView
from endocarp.wire.cryptoki import CKR
from endocarp.wire.hsm import Reply, Status
from endocarp.wire.p11 import decode_frame, encode_frame
from endocarp.wire.p11_calls import (
    Call,
    Values,
    decode_request,
    encode_failure,
    encode_reply,
)

CALLS: Mapping[Call, Handler] = MappingProxyType(
    {**token_general.CALLS, **token_keys.CALLS, **token_crypto.CALLS}
)
"""The calls that the token carries out; all others are answered with CKR_FUNCTION_NOT_SUPPORTED."""


class Phase(enum.IntEnum):
    """How far a connection has come."""

    NEW = 0
    """C_Initialize is expected."""
    READY = 1
    CLOSED = 2


PERMITS: Mapping[Phase, frozenset[Call]] = MappingProxyType(
    {
        Phase.NEW: frozenset({Call.C_Initialize}),
        Phase.READY: frozenset(CALLS) - {Call.C_Initialize},
        Phase.CLOSED: frozenset(),
    }
)
"""The calls that each phase permits."""

_PERMITTED: Mapping[Phase, Mapping[Call | None, Handler]] = MappingProxyType(
    {phase: {call: CALLS[call] for call in calls} for phase, calls in PERMITS.items()}
)
"""What carries out a call, where the phase permits it."""

NEXT: Mapping[Call, Phase] = MappingProxyType({Call.C_Initialize: Phase.READY, Call.C_Finalize: Phase.CLOSED})
"""The calls that lead to another phase when they succeed."""

REFUSALS: Mapping[Status, CKR] = MappingProxyType(
    {
        Status.MESSAGE_INVALID: CKR.DEVICE_ERROR,
        Status.VERSION_UNSUPPORTED: CKR.DEVICE_ERROR,
        Status.OPERATION_UNKNOWN: CKR.FUNCTION_NOT_SUPPORTED,
        Status.NOT_LOGGED_IN: CKR.USER_NOT_LOGGED_IN,
        Status.ALREADY_LOGGED_IN: CKR.USER_ALREADY_LOGGED_IN,
        Status.PIN_INCORRECT: CKR.PIN_INCORRECT,
        Status.PIN_LOCKED: CKR.PIN_LOCKED,
        Status.PIN_INVALID: CKR.PIN_LEN_RANGE,
        Status.NO_SUCH_OBJECT: CKR.KEY_HANDLE_INVALID,
        Status.NOT_PERMITTED: CKR.KEY_FUNCTION_NOT_PERMITTED,
        Status.MECHANISM_INVALID: CKR.MECHANISM_INVALID,
        Status.TEMPLATE_INVALID: CKR.TEMPLATE_INCONSISTENT,
        Status.DATA_INVALID: CKR.DATA_LEN_RANGE,
        Status.SIGNATURE_INVALID: CKR.SIGNATURE_INVALID,
        Status.CIPHERTEXT_INVALID: CKR.ENCRYPTED_DATA_INVALID,
        Status.STORE_FULL: CKR.DEVICE_MEMORY,
        Status.STORE_FAILED: CKR.DEVICE_ERROR,
        Status.FAILED: CKR.FUNCTION_FAILED,
    }
)
"""What each refusal of the vault is in PKCS#11, where CALL_REFUSALS says nothing else."""

CALL_REFUSALS: Mapping[tuple[Call, Status], CKR] = MappingProxyType(
    {
        (Call.C_SetAttributeValue, Status.NO_SUCH_OBJECT): CKR.OBJECT_HANDLE_INVALID,
        (Call.C_SetAttributeValue, Status.NOT_PERMITTED): CKR.ATTRIBUTE_READ_ONLY,
        (Call.C_DestroyObject, Status.NO_SUCH_OBJECT): CKR.OBJECT_HANDLE_INVALID,
        (Call.C_DestroyObject, Status.NOT_PERMITTED): CKR.ACTION_PROHIBITED,
        (Call.C_Decrypt, Status.DATA_INVALID): CKR.ENCRYPTED_DATA_LEN_RANGE,
        (Call.C_DecryptFinal, Status.DATA_INVALID): CKR.ENCRYPTED_DATA_LEN_RANGE,
    }
)
"""What a refusal of the vault is in one call."""


class TokenConnection:
    """The core of one connection to the token of `partition`; see `endocarp.core.Core`. One frame is one call of `receive`.

    What it asks is meant for a vault that has answered Hello on a connection of its own, so that login, session
    objects and all else that belongs to the application end with that connection.
    """

    def __init__(self, partition: int, dialect: int) -> None:
        self.phase = Phase.NEW
        self._view = TokenView(partition)
        self._dialect = dialect
        self._outgoing: list[bytes] = []
        self._code = 0
        self._call = Call.C_Initialize
        self._steps: Steps[Values] | None = None

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take one whole frame; an Ask that comes back is resumed before the next."""
        if not data:
            return self._close("the application has closed the connection")
        try:
            self._code, body = decode_frame(data)
        except DecodeError as error:
            return self._close(str(error))
        try:
            # Calls that are refused are held to their form too.
            call, values = decode_request(body, self._dialect)
            handler = _PERMITTED[self.phase].get(call)
            if call is None or handler is None:
                return self._fail(self._refusal(call))
            self._call = call
            outcome = handler(self._view, *values)
        except DecodeError:
            return self._fail(CKR.DEVICE_ERROR)
        except PeerError as refusal:
            return self._fail(refusal.number)
        if isinstance(outcome, tuple):
            return self._answer(outcome)
        if isinstance(outcome, Ask):
            return [outcome]
        self._steps = outcome
        return self._step(outcome.send, None)

    def resume(self, reply: bytes) -> list[Event]:
        """Take the vault's answer to the Ask; empty where the vault is gone."""
        steps = self._steps
        try:
            status, _, self._view.generation, body = answer = Reply.decode(reply)
            if status is Status.OK:
                return self._answer((body,)) if steps is None else self._step(steps.send, body)
            number = CALL_REFUSALS.get((self._call, status), REFUSALS[status])
            if steps is None:
                return self._fail(number)
            return self._step(steps.throw, PeerError(number, answer.reason))
        except DecodeError as error:
            self._fail(CKR.DEVICE_REMOVED)
            return self._close(f"no answer of the vault: {error}")

    def outgoing(self) -> list[bytes]:
        """Return the octets to send, and forget them."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def due(self) -> None:
        """Nothing here waits for a moment."""

    def expire(self, now: float) -> list[Event]:
        """Nothing here waits for a moment."""
        return []

    def _close(self, reason: str) -> list[Event]:
        self.phase = Phase.CLOSED
        self._steps = None
        return [Close(reason)]

    def _refusal(self, call: Call | None) -> CKR:
        if call not in CALLS:
            return CKR.FUNCTION_NOT_SUPPORTED
        started = self.phase is Phase.READY
        return CKR.CRYPTOKI_ALREADY_INITIALIZED if started else CKR.CRYPTOKI_NOT_INITIALIZED

    def _step(self, go_on: Callable[[Any], bytes], sent: object) -> list[Event]:
        """Go on with the call under way until it asks the vault again or ends."""
        try:
            return [Ask(go_on(sent))]
        except StopIteration as end:
            self._steps = None
            return self._answer(end.value)
        except PeerError as refusal:
            self._steps = None
            return self._fail(refusal.number)

    def _answer(self, values: Values) -> list[Event]:
        self._outgoing.append(encode_frame(self._code, encode_reply(self._call, values, self._dialect)))
        if self._call in NEXT:
            self.phase = NEXT[self._call]
            if self.phase is Phase.CLOSED:
                return self._close(self._call.name)
        return []

    def _fail(self, number: int) -> list[Event]:
        self._outgoing.append(encode_frame(self._code, encode_failure(number, self._dialect)))
        return []
