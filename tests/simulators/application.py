"""An application that speaks p11-kit's RPC to a token core, and what stands behind that core, all in one process."""

from collections.abc import Callable
from typing import Any

from endocarp.core import Ask, Close, Event
from endocarp.hsm.token import TokenConnection
from endocarp.hsm.token_general import HANDSHAKE
from endocarp.wire.cryptoki import CKA, CKR, CKU, SessionFlags
from endocarp.wire.p11 import Attribute, AttributeRoom, Mechanism, decode_frame, encode_frame
from endocarp.wire.p11_calls import Call, decode_reply, encode_request

READ_ONLY = SessionFlags.SERIAL_SESSION
READ_WRITE = SessionFlags.SERIAL_SESSION | SessionFlags.RW_SESSION
ROOM = 8192
"""As much room as any answer takes."""


class CallError(Exception):
    """A call was answered with this CK_RV."""

    def __init__(self, number: int) -> None:
        super().__init__(CKR(number).name)
        self.number = CKR(number)


class Application:
    """One application. `vault` answers the messages that the token asks; `asked` keeps them."""

    def __init__(self, vault: Callable[[bytes], bytes], *, dialect: int = 2, partition: int = 0) -> None:
        self.token = TokenConnection(partition, dialect)
        self.dialect = dialect
        self.vault = vault
        self.asked: list[bytes] = []
        self.closed: str | None = None
        self._code = 0x10
        self._received: list[bytes] = []

    def send(self, octets: bytes) -> None:
        """Send a frame, and carry the token's questions to the vault until it asks no more."""
        self.carry_out(self.token.receive(octets, 0.0))

    def carry_out(self, events: list[Event]) -> None:
        """Carry out what the token asks of its shell."""
        while events:
            event = events.pop(0)
            if isinstance(event, Ask):
                self.asked.append(event.request)
                events += self.token.resume(self.vault(event.request))
            else:
                assert isinstance(event, Close)
                self.closed = event.reason
        self._received += self.token.outgoing()

    def reply(self, call: Call) -> Any:
        """Take the next reply, which must be that of `call`; its values, or CallError."""
        code, body = decode_frame(self._received.pop(0))
        assert code == self._code
        values = decode_reply(call, body, self.dialect)
        if isinstance(values, int):
            raise CallError(values)
        return values

    def call(self, call: Call, *values: Any) -> Any:
        """Make a call; return the values of its reply, or raise CallError."""
        self._code += 1
        self.send(encode_frame(self._code, encode_request(call, values, self.dialect)))
        return self.reply(call)

    def send_body(self, body: bytes) -> None:
        """Send a call of these octets."""
        self._code += 1
        self.send(encode_frame(self._code, body))

    # --- a few steps that every application takes ---------------------------------------------------------------

    def start(self, flags: int = READ_WRITE, pin: bytes | None = None) -> int:
        """Initialize, open a session, log in where a PIN is given; return the session."""
        self.call(Call.C_Initialize, HANDSHAKE, 0, b"\0")
        session = self.open_session(flags)
        if pin is not None:
            self.call(Call.C_Login, session, CKU.USER, pin)
        return session

    def open_session(self, flags: int = READ_WRITE) -> int:
        """Open a session."""
        (session,) = self.call(Call.C_OpenSession, 0, flags)
        return int(session)

    def find(self, session: int, **wanted: Any) -> list[int]:
        """Return the handles of the objects whose attributes, named as in CKA, have these values."""
        self.call(Call.C_FindObjectsInit, session, template(**wanted))
        found: list[int] = []
        while True:
            (some,) = self.call(Call.C_FindObjects, session, 4)
            if not some:
                break
            found += some
        self.call(Call.C_FindObjectsFinal, session)
        return found

    def read(self, session: int, handle: int, *attributes: CKA) -> list[Any]:
        """Return the values of attributes."""
        rooms = [AttributeRoom(attribute, ROOM) for attribute in attributes]
        values, result = self.call(Call.C_GetAttributeValue, session, handle, rooms)
        assert result == CKR.OK, CKR(result)
        return [attribute.value for attribute in values]

    def generate_pair(
        self, session: int, mechanism: int, public: list[Attribute], private: list[Attribute]
    ) -> tuple[int, int]:
        """Make a pair; return the handles of the public and the private key."""
        made_public, made_private = self.call(
            Call.C_GenerateKeyPair, session, Mechanism(mechanism), public, private
        )
        return int(made_public), int(made_private)

    def sign(self, session: int, mechanism: Mechanism, key: int, data: bytes) -> bytes:
        """Sign in one part."""
        self.call(Call.C_SignInit, session, mechanism, key)
        (signature,) = self.call(Call.C_Sign, session, data, ROOM)
        return bytes(signature)


def template(**values: Any) -> list[Attribute]:
    """Return a template of attributes named as in CKA."""
    return [Attribute(CKA[name], value) for name, value in values.items()]
