"""The custody channel on the wire."""

import pytest

from endocarp.errors import DecodeError, DeviceError
from endocarp.wire import custody
from endocarp.wire.custody import Operation, Status


def test_every_operation_has_a_request_class() -> None:
    assert set(custody.REQUESTS) == set(Operation)


def test_a_request_travels_behind_its_operation() -> None:
    request = custody.CertifyIdentity(b"\4" * 97, b"m" * 2592)
    operation, fields = custody.split_request(custody.encode_request(request))
    assert operation == Operation.CERTIFY_IDENTITY
    assert custody.REQUESTS[operation].decode(fields) == request
    assert custody.encode_request(custody.SealKey()) == b"\1\0\0\0"


def test_a_message_without_an_operation_is_cut_short() -> None:
    with pytest.raises(DecodeError, match=r"Head\.number: cut short"):
        custody.split_request(b"\1")


def test_a_reply_gives_its_fields() -> None:
    reply = custody.CertifyIdentityReply(b"i" * 20, b"d" * 48, b"ecc", b"mldsa")
    assert custody.decode_reply(custody.CertifyIdentity, custody.encode_reply(reply)) == reply
    key = custody.SealKeyReply(b"k" * 32)
    assert custody.decode_reply(custody.SealKey(), custody.encode_reply(key)) == key


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (custody.encode_refusal(Status.KEY_INVALID), "CERTIFY_IDENTITY .* KEY_INVALID"),
        (b"\x63\0\0\0", "unknown status"),
    ],
)
def test_a_refusal_is_a_device_error(message: bytes, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason) as refused:
        custody.decode_reply(custody.CertifyIdentity, message)
    assert refused.value.number == message[0]


def test_a_reply_beyond_the_limit_is_refused() -> None:
    with pytest.raises(DecodeError, match="at most 32768"):
        custody.decode_reply(custody.SealKey, bytes(custody.MESSAGE_LIMIT + 1))


def test_the_largest_reply_fits_the_limit() -> None:
    reply = custody.CertifyIdentityReply(bytes(20), bytes(48), bytes(4096), bytes(12288))
    assert len(custody.encode_reply(reply)) <= custody.MESSAGE_LIMIT
