"""A request knows the struct of its reply."""

from typing import TypeVar

import pytest

from endocarp.errors import DecodeError
from endocarp.wire.codec import U16, Struct
from endocarp.wire.requests import TypedRequest

Reply = TypeVar("Reply", bound=Struct)


def test_a_request_reads_its_own_reply() -> None:
    class Sum(Struct):
        total: U16

    class Protocol(TypedRequest[Reply]):
        pass

    class Add(Protocol[Sum]):
        left: U16
        right: U16

    assert Add.REPLY is Sum
    assert not hasattr(Protocol, "REPLY")
    assert Add(1, 2).encode() == b"\1\0\2\0"
    assert Add.read_reply(b"\3\0").total == 3
    assert Add(1, 2).read_reply(b"\3\0") == Sum(3)
    with pytest.raises(DecodeError, match="Sum"):
        Add.read_reply(b"\3")
