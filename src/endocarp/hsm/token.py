"""The token: what the front answers to one application that speaks p11-kit's RPC.

The core of one connection. The first octet chooses the dialect, then calls come in frames and are answered one
after another. A call that needs the vault becomes an `Ask`, and nothing else is taken until `resume` has its reply.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from endocarp.core import Ask, Close, Event
from endocarp.errors import DecodeError, PeerError
from endocarp.hsm import token_crypto, token_general, token_keys
from endocarp.hsm.token_view import Handler, Steps, TokenView
from endocarp.wire.cryptoki import CKR
from endocarp.wire.hsm import Reply, Status
from endocarp.wire.p11 import DIALECT_LIMIT, FRAME_LIMIT, encode_frame, missing, take_frame
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


UNSENT_LIMIT = 8 << 20
"""How many octets of answers wait to be sent, at most: calls are small and answers may be large."""


class Phase(enum.IntEnum):
    """How far a connection has come."""

    DIALECT = 0
    """Nothing has arrived; the octet that names the dialect is expected."""
    NEW = 1
    """C_Initialize is expected."""
    READY = 2
    CLOSED = 3


PERMITS: Mapping[Phase, frozenset[Call]] = MappingProxyType(
    {
        Phase.DIALECT: frozenset(),
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
    """The core of one connection to the token of `partition`; see `endocarp.core.Core`.

    What it asks is meant for a vault that has answered Hello on a connection of its own, so that login, session
    objects and all else that belongs to the application end with that connection.
    """

    def __init__(self, partition: int) -> None:
        self.phase = Phase.DIALECT
        self._view = TokenView(partition)
        self._dialect = 0
        self._buffer = bytearray()
        self._outgoing: list[bytes] = []
        self._unsent = 0
        self._code = 0
        self._call = Call.C_Initialize
        self._steps: Steps[Values] | None = None

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take some octets of the stream; see `Core.receive`.

        What arrives while an Ask is under way waits. It is better not read before: more than one frame of it
        ends the connection.
        """
        if not data:
            return self._close("the application has closed the connection")
        if self.phase is Phase.CLOSED:
            return [Close("the connection has ended")]
        self._buffer += data
        if self._steps is not None:
            # Two frames of the greatest size: one that is whole, one that is not.
            if len(self._buffer) > 2 * FRAME_LIMIT:
                return self._close("the application does not wait for its answers")
            return []
        return self._advance()

    def resume(self, reply: bytes) -> list[Event]:
        """Take the vault's answer to the Ask; empty where the vault is gone."""
        if self._steps is None:
            return []
        try:
            body = self._body(reply)
            event = self._step(body)
        except DecodeError as error:
            self._fail(CKR.DEVICE_REMOVED)
            return self._close(f"no answer of the vault: {error}")
        except PeerError as refusal:
            event = self._step(refusal)
        return self._advance() if event is None else [event]

    def missing(self) -> int:
        """Return how many more octets it takes at least before there is anything to do."""
        return 1 if self.phase is Phase.DIALECT else missing(self._buffer)

    def outgoing(self) -> list[bytes]:
        """Return the octets to send, and forget them."""
        messages, self._outgoing, self._unsent = self._outgoing, [], 0
        return messages

    def due(self) -> None:
        """Nothing here waits for a moment."""

    def expire(self, now: float) -> list[Event]:
        """Nothing here waits for a moment."""
        return []

    # --- frames -----------------------------------------------------------------------------------------------

    def _advance(self) -> list[Event]:
        """Take the frames that have arrived, until one needs the vault."""
        if self.phase is Phase.DIALECT:
            self._choose_dialect()
        while self._buffer:
            try:
                frame = take_frame(self._buffer)
            except DecodeError as error:
                return self._close(str(error))
            if frame is None:
                return []
            if self._unsent > UNSENT_LIMIT:
                return self._close("the application asks for more than it takes")
            self._code, body = frame
            event = self._begin(body)
            if event is not None:
                return [event]
            if self.phase is Phase.CLOSED:
                return self._close("C_Finalize")
        return []

    def _choose_dialect(self) -> None:
        # p11-kit, rpc-transport.c: the client says the newest that it knows, and follows the answer. A newer one
        # than ours is answered with ours.
        self._dialect = min(self._buffer[0], DIALECT_LIMIT)
        del self._buffer[:1]
        self._outgoing.append(bytes((self._dialect,)))
        self.phase = Phase.NEW

    def _close(self, reason: str) -> list[Event]:
        self.phase = Phase.CLOSED
        self._steps = None
        self._buffer.clear()
        return [Close(reason)]

    # --- calls ------------------------------------------------------------------------------------------------

    def _begin(self, body: bytes) -> Event | None:
        """Carry out a call, or its first step."""
        try:
            # Calls that are refused are held to their form too.
            call, values = decode_request(body, self._dialect)
            handler = _PERMITTED[self.phase].get(call)
            if call is None or handler is None:
                self._fail(self._refusal(call))
                return None
            self._call = call
            outcome = handler(self._view, *values)
        except DecodeError:
            self._fail(CKR.DEVICE_ERROR)
        except PeerError as refusal:
            self._fail(refusal.number)
        else:
            if isinstance(outcome, tuple):
                self._answer(outcome)
            else:
                self._steps = outcome
                return self._step(None)
        return None

    def _refusal(self, call: Call | None) -> CKR:
        if call not in CALLS:
            return CKR.FUNCTION_NOT_SUPPORTED
        started = self.phase is Phase.READY
        return CKR.CRYPTOKI_ALREADY_INITIALIZED if started else CKR.CRYPTOKI_NOT_INITIALIZED

    def _step(self, sent: bytes | PeerError | None) -> Event | None:
        """Go on with the call under way until it asks the vault again or ends."""
        steps = self._steps
        assert steps is not None
        try:
            if isinstance(sent, PeerError):
                return Ask(steps.throw(sent))
            return Ask(next(steps) if sent is None else steps.send(sent))
        except StopIteration as end:
            self._steps = None
            self._answer(end.value)
        except PeerError as refusal:
            self._steps = None
            self._fail(refusal.number)
        return None

    def _body(self, message: bytes) -> bytes:
        """Return the body of the vault's reply; PeerError with the CKR that stands for its refusal."""
        reply = Reply.decode(message)
        self._view.generation = reply.generation
        status = reply.status
        if status is Status.OK:
            return reply.body
        raise PeerError(CALL_REFUSALS.get((self._call, status), REFUSALS[status]), reply.reason)

    def _answer(self, values: Values) -> None:
        self.phase = NEXT.get(self._call, self.phase)
        self._send(encode_reply(self._call, values, self._dialect))

    def _fail(self, number: int) -> None:
        self._send(encode_failure(number, self._dialect))

    def _send(self, body: bytes) -> None:
        self._unsent += len(body)
        self._outgoing.append(encode_frame(self._code, body))
