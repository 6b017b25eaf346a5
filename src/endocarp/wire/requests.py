"""A request that names its reply: the base of the requests of every protocol in which an answer has a struct of its own.

class Version(Request[VersionReply], command=Command.VERSION): ...

Version.read_reply(octets)      # a VersionReply, for the type checker too
"""

from typing import Any, ClassVar, Generic, TypeVar, cast, get_args

from endocarp.wire.codec import Struct

Reply = TypeVar("Reply", bound=Struct)


class TypedRequest(Struct, Generic[Reply]):
    """The fields of a request; `REPLY` is the class in the brackets of its base."""

    REPLY: ClassVar[type[Struct]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        reply = get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]
        if isinstance(reply, type):  # else a type variable still: the base of one protocol
            cls.REPLY = reply

    @classmethod
    def read_reply(cls, octets: bytes) -> Reply:
        """Read the fields of the reply. Raises DecodeError."""
        return cast("Reply", cls.REPLY.decode(octets))
