"""The mailbox as a stream of frames: one core a connection, whatever boot stage answers behind it."""

from endocarp.core import Close, Event, Note
from endocarp.errors import EndocarpError, PeerError
from endocarp.rot.dispatch import Call, Responder, name_of
from endocarp.rot.refusals import CheckRefused
from endocarp.wire.mailbox import FRAME_HEADER_SIZE, PL0_CALLER, FrameHeader, MailboxError, frame

FRAME_TIME = 30.0
"""How long one frame may take to arrive, in seconds."""


class MailboxConnection:
    """One caller of the mailbox.

    `caller` is the number that the connection stands for, not anything that the caller says. A frame that breaks
    the framing closes the connection; a command that is refused is answered by its number, and, where box sent it, told
    with its reason as a Note.
    """

    def __init__(self, responder: Responder, caller: int) -> None:
        self._responder, self._caller = responder, caller
        self._received = bytearray()
        self._outgoing: list[bytes] = []
        self._attached: memoryview | None = None
        self._channel = False
        self._deadline: float | None = None

    def attach(self, image: memoryview) -> None:
        """Take the memory that came with the octets that `receive` is given next, for the frame they belong to.

        It must be sealed: what is hashed here is what runs later.
        """
        self._attached = image

    def attach_channel(self) -> None:
        """Take notice that a channel came with the octets that `receive` is given next, for the frame they belong to."""
        self._channel = True

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take a piece of the stream; run every command that is complete."""
        if not data:
            return [Close("the caller closed the connection")]
        self._received += data
        events: list[Event] = []
        while (header := self._header()) is not None:
            limit = self._responder.limit(header.code)
            if header.length > limit:
                reason = f"{name_of(header.code)}: a frame of {header.length} octets, at most {limit}"
                return [*events, Close(reason)]
            end = FRAME_HEADER_SIZE + header.length
            if len(self._received) < end:
                break
            octets = bytes(self._received[FRAME_HEADER_SIZE:end])
            del self._received[:end]
            self._deadline = None
            events += self._run(header.code, octets)
        if self._received and self._deadline is None:
            self._deadline = now + FRAME_TIME
        return events

    def outgoing(self) -> list[bytes]:
        """Return the frames to send, oldest first, and forget them."""
        frames, self._outgoing = self._outgoing, []
        return frames

    def due(self) -> float | None:
        """Return when the frame that has begun to arrive must be complete."""
        return self._deadline

    def expire(self, now: float) -> list[Event]:
        """Close the connection where a frame took too long."""
        if self._deadline is None or now < self._deadline:
            return []
        return [Close(f"a frame took longer than {FRAME_TIME:.0f} s")]

    def _header(self) -> FrameHeader | None:
        if len(self._received) < FRAME_HEADER_SIZE:
            return None
        return FrameHeader.decode(bytes(self._received[:FRAME_HEADER_SIZE]))

    def _run(self, command: int, octets: bytes) -> list[Event]:
        call = Call(self._caller, command, octets, self._attached, channel=self._channel)
        self._attached, self._channel = None, False
        try:
            reply = self._responder.execute(call)
        except EndocarpError as error:
            self._outgoing.append(frame(number_of(error), b""))
            # Box gets a number only; the reason is for whoever runs this server. Others could fill the screen with it.
            told = f"{name_of(command)} was refused: {error}; {error.advice()}".rstrip("; ")
            return [Note(told)] if self._caller == PL0_CALLER else []
        self._outgoing.append(frame(0, reply))
        return call.events


def number_of(error: EndocarpError) -> int:
    """Return the number that the mailbox answers for an error."""
    match error:
        case PeerError() | CheckRefused():
            return error.number
        case _:
            return MailboxError.RUNTIME_INTERNAL
