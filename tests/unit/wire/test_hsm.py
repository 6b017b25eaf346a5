"""The native protocol: its messages and their bounds. That every struct survives the wire is told elsewhere."""

import random
import struct
from typing import Annotated

import pytest

from endocarp.errors import DecodeError, UsageError
from endocarp.wire import hsm
from endocarp.wire.codec import U64, Bytes, Struct, u16
from endocarp.wire.hsm import (
    Attribute,
    Description,
    ObjectClass,
    Operation,
    Policy,
    Reply,
    Status,
    Template,
    encode_reply,
)
from endocarp.wire.suites import Scheme, Suite


def test_every_operation_has_its_request() -> None:
    assert set(hsm.REQUESTS) == set(Operation)
    assert all(request.OPERATION is operation for operation, request in hsm.REQUESTS.items())


def test_a_request_is_told_by_its_header() -> None:
    request = hsm.Sign(5, Scheme.ECDSA_DIGEST, bytes(32))
    message = hsm.encode_request(request, 7)
    assert message == bytes.fromhex("0b00 0000 07000000 0500000000000000 0100") + bytes(32)
    assert hsm.decode_header(message) == (Operation.SIGN, 7)
    assert hsm.read_body(hsm.Sign, message) == request


def test_a_number_that_is_no_operation_is_told_with_its_tag() -> None:
    assert hsm.decode_header(bytes.fromhex("ffff 0000 07000000")) == (0xFFFF, 7)


def test_a_request_shorter_than_its_header_is_refused() -> None:
    with pytest.raises(DecodeError, match="Request: cut short"):
        hsm.decode_header(bytes(7))


def test_a_header_whose_zero_is_none_is_refused() -> None:
    assert hsm.decode_header(bytes.fromhex("0b00 0000 07000000")) == (11, 7)
    with pytest.raises(DecodeError, match="Request: 0x100 where zero stands"):
        hsm.decode_header(bytes.fromhex("0b00 0001 07000000"))


def test_octets_behind_a_request_are_refused() -> None:
    with pytest.raises(DecodeError, match="Ping: 1 octets left over"):
        hsm.read_body(hsm.Ping, hsm.encode_request(hsm.Ping()) + b"\x00")


def test_data_beyond_its_limit_is_refused() -> None:
    message = hsm.encode_message(
        Operation.SIGN, 0, hsm.Sign(1, Scheme.ML_DSA, b"").encode() + bytes(hsm.DATA_LIMIT + 1)
    )
    assert len(message) < hsm.MESSAGE_LIMIT
    with pytest.raises(DecodeError, match=r"Sign\.data"):
        hsm.read_body(hsm.Sign, message)


def test_a_request_to_sign_is_read_as_the_codec_reads_its_fields() -> None:
    class Sign(Struct):
        handle: U64
        scheme: Annotated[Scheme, u16]
        data: Annotated[bytes, Bytes(None, limit=hsm.DATA_LIMIT)]

    def outcome(form: type[Struct], octets: bytes, at: int) -> object:
        try:
            request, end = form.decode_from(octets, at)
        except DecodeError as error:
            return str(error)
        return vars(request), end

    chance = random.Random(11)
    schemes = [*Scheme, 0, 99, 0xFFFF]
    sizes = [0, 1, 32, 200, hsm.DATA_LIMIT, hsm.DATA_LIMIT + 1]
    seen = set()
    for _ in range(3_000):
        fields = struct.pack("<QH", chance.getrandbits(64), chance.choice(schemes))
        octets = fields[: chance.choice((10, 10, 10, 9, 4, 0))] + bytes(chance.choice(sizes))
        at = chance.choice((0, 0, 3, len(octets)))
        expected = outcome(Sign, octets, at)
        assert outcome(hsm.Sign, octets, at) == expected
        seen.add(expected.split(" ")[0] if isinstance(expected, str) else "read")
    assert seen == {"read", "Sign.handle:", "Sign.scheme:", "Sign.data:"}


def test_hello_begins_with_the_four_letters() -> None:
    hello = hsm.Hello(hsm.MAGIC, 1).encode()
    assert hello == b"ENDO\x01\x00"
    with pytest.raises(DecodeError, match=r"Hello\.magic"):
        hsm.Hello.decode(b"ENDI" + hello[4:])


@pytest.mark.parametrize("flags", [1 << 13, 1 << 19, 1 << 31])
def test_a_policy_that_nobody_knows_is_refused(flags: int) -> None:
    octets = bytearray(Template(Policy.SIGN).encode())
    octets[:4] = flags.to_bytes(4, "little")
    with pytest.raises(DecodeError, match=r"Template\.policy"):
        Template.decode(bytes(octets))


def test_attributes_are_limited_in_number_size_and_sum() -> None:
    value = bytes(hsm.ATTRIBUTE_LIMIT)
    most = Template(Policy.SIGN, attributes=(Attribute(1, value),) * 4)
    assert Template.decode(most.encode()) == most
    over = Template(Policy.SIGN, attributes=(*most.attributes, Attribute(1, b"x")))
    with pytest.raises(
        DecodeError, match=f"{hsm.ATTRIBUTES_LIMIT + 1} octets, at most {hsm.ATTRIBUTES_LIMIT}"
    ):
        Template.decode(over.encode())
    with pytest.raises(UsageError):
        Template(Policy.SIGN, attributes=(Attribute(1, value + b"x"),)).encode()
    with pytest.raises(UsageError):
        Template(Policy.SIGN, attributes=(Attribute(1, b""),) * (hsm.ATTRIBUTE_COUNT + 1)).encode()


def test_the_largest_pair_fits_one_message() -> None:
    template = Template(
        Policy.TOKEN,
        "l" * hsm.LABEL_LIMIT,
        b"i" * hsm.ID_LIMIT,
        (Attribute(1, bytes(hsm.ATTRIBUTE_LIMIT)),) * 4,
    )
    one = Description(1, ObjectClass.PUBLIC_KEY, Suite.ML_DSA_87, template, bytes(2592))
    reply = encode_reply(Status.OK, 1, 1, hsm.Objects(0, (one, one)).encode())
    assert len(reply) <= hsm.MESSAGE_LIMIT


def test_a_reply_keeps_its_status_tag_generation_and_body() -> None:
    message = encode_reply(Status.OK, 7, 1 << 40, b"body")
    assert message == bytes.fromhex("00000000 07000000 0000000000010000") + b"body"
    assert Reply.decode(message) == Reply(Status.OK, 7, 1 << 40, b"body")


def test_a_reply_shorter_than_its_header_is_refused() -> None:
    with pytest.raises(DecodeError, match="Reply: cut short"):
        Reply.decode(bytes(15))


def test_a_status_that_nobody_knows_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"Reply\.status: unknown value 0xff"):
        Reply.decode(b"\xff" + bytes(15))


def test_a_reason_is_text_of_bounded_size() -> None:
    assert Reply(Status.FAILED, 1, 2, ("ä" * 200).encode()).reason == "ä" * 100
    assert Reply(Status.FAILED, 1, 2, b"\xff").reason == "\ufffd"
