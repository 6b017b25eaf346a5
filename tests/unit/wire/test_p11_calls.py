import contextlib
import random
import struct
from typing import Any

import pytest

from endocarp.errors import DecodeError
from endocarp.wire import p11_calls
from endocarp.wire.cryptoki import CKA, CKM, CKR
from endocarp.wire.p11 import Attribute, AttributeRoom, Mechanism, Reader, Version, Writer
from endocarp.wire.p11_calls import (
    Call,
    decode_reply,
    decode_request,
    encode_failure,
    encode_reply,
    encode_request,
)

# A value of each type, as it stands in a signature.
VALUES: dict[str, Any] = {
    "y": 1,
    "u": 0x1122334455667788,
    "v": Version(2, 40),
    "s": b"text".ljust(32),
    "z": b"text",
    "ay": b"octets",
    "au": (1, 2, 3),
    "fy": 256,
    "fu": 8,
    "aA": [Attribute(CKA.LABEL, b"web"), Attribute(CKA.TOKEN, 1)],
    "fA": [AttributeRoom(CKA.LABEL, 0)],
    "M": Mechanism(CKM.ECDSA),
    "P": 0,
}


def example(signature: str) -> tuple[Any, ...]:
    values: list[Any] = []
    while signature:
        name = next(
            name for name in ("ay", "au", "fy", "fu", "aA", "fA", *VALUES) if signature.startswith(name)
        )
        values.append(VALUES[name])
        signature = signature[len(name) :]
    return tuple(values)


def plain(values: Any) -> list[Any]:
    return [list(value) if isinstance(value, list | tuple) else value for value in values]


@pytest.mark.parametrize("dialect", [0, 1, 2])
@pytest.mark.parametrize("call", Call)
def test_every_call_survives_a_round_trip(call: Call, dialect: int) -> None:
    request = encode_request(call, example(call.request), dialect)
    decoded_call, values = decode_request(request, dialect)
    assert decoded_call is call
    assert plain(values) == plain(example(call.request))
    reply = encode_reply(call, example(call.reply), dialect)
    decoded = decode_reply(call, reply, dialect)
    assert not isinstance(decoded, int)
    assert plain(decoded) == plain(example(call.reply))


def test_numbers_run_from_1_to_89_without_a_hole() -> None:
    assert list(Call) == list(range(1, 90))


def test_a_call_for_a_signature_is_the_octets_that_p11_kit_sends() -> None:
    octets = (
        struct.pack(">II", 43, 5) + b"uayfy" + struct.pack(">QBI", 7, 1, 2) + b"ab" + struct.pack(">I", 64)
    )
    assert encode_request(Call.C_Sign, (7, b"ab", 64), 0) == octets
    assert decode_request(octets, 0) == (Call.C_Sign, (7, b"ab", 64))


def test_a_failure_is_a_reply_with_number_0() -> None:
    octets = encode_failure(CKR.PIN_INCORRECT, 0)
    assert octets == struct.pack(">II", 0, 1) + b"u" + struct.pack(">Q", 0xA0)
    assert decode_reply(Call.C_Login, octets, 0) == CKR.PIN_INCORRECT


@pytest.mark.parametrize("number", [0, 90, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_number_out_of_range_is_no_call(number: int) -> None:
    assert decode_request(struct.pack(">II", number, 0), 0) == (None, ())


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"\0\0\0", "cut short"), (b"\0\0\0\xff\0\0\0", "cut short"), (b"\0\0\0\x01\0\0\0", "signature")],
)
def test_a_body_too_short_for_a_number_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_request(body, 0)


def read_field_by_field(body: bytes) -> tuple[Any, ...]:
    reader = Reader(body, 13, 0, "C_Sign")
    values = reader.ulong(), reader.byte_array(), reader.byte_room()
    reader.end()
    return values


def test_a_call_with_data_is_read_as_its_fields_one_by_one_would_be() -> None:
    chance = random.Random(43)
    outcomes = set()
    for _ in range(20_000):
        data = chance.choice((b"", b"digest", 0, 6, 0xFFFFFFFF))
        room = chance.choice((None, 0, 1, 64))
        body = bytearray(
            encode_request(Call.C_Sign, (chance.getrandbits(64), data, room), chance.randrange(3))
        )
        match chance.randrange(4):
            case 0:
                body[chance.randrange(13, len(body))] = chance.choice((0, 1, 6, 0xFF))
            case 1:
                del body[chance.randrange(13, len(body)) :]
            case 2:
                body += chance.randbytes(chance.randrange(1, 5))
            case _:
                body[22:26] = chance.choice((b"\xff" * 4, b"\0\0\0\7", b"\x80\0\0\0"))
        try:
            expected = read_field_by_field(bytes(body))
        except DecodeError:
            outcomes.add("refused")
            with pytest.raises(DecodeError):
                decode_request(bytes(body), 0)
        else:
            outcomes.add("read")
            assert decode_request(bytes(body), 0) == (Call.C_Sign, expected)
    assert outcomes == {"refused", "read"}


@pytest.mark.parametrize("result", [b"", b"signature", 0, 64])
def test_a_result_is_written_as_its_field_alone_would_be(result: bytes | int) -> None:
    head = struct.pack(">II", Call.C_Sign, 2) + b"ay"
    assert encode_reply(Call.C_Sign, (result,), 2) == head + Writer(2).byte_array(result)


def test_a_reply_of_another_call_is_refused() -> None:
    with pytest.raises(DecodeError, match="signature"):
        decode_reply(Call.C_Login, encode_reply(Call.C_Logout, (), 0), 0)


@pytest.mark.parametrize("signature", [b"uayf", b"uayfyu", b"UAYFY", b"", b"uayay"])
def test_a_signature_other_than_the_calls_is_refused(signature: bytes) -> None:
    octets = struct.pack(">II", 43, len(signature)) + signature + bytes(64)
    with pytest.raises(DecodeError, match="signature"):
        decode_request(octets, 0)


def test_a_signature_that_says_it_is_longer_than_the_body_is_refused() -> None:
    with pytest.raises(DecodeError, match="signature"):
        decode_request(struct.pack(">II", 43, 0xFFFFFFFF) + b"uayfy", 0)


@pytest.mark.parametrize("dialect", [0, 1, 2])
@pytest.mark.parametrize("call", Call)
def test_every_cut_of_a_request_is_refused(call: Call, dialect: int) -> None:
    request = encode_request(call, example(call.request), dialect)
    for size in range(len(request)):
        with pytest.raises(DecodeError):
            decode_request(request[:size], dialect)
    with pytest.raises(DecodeError, match="left over"):
        decode_request(request + b"\0", dialect)


def test_random_octets_raise_nothing_but_decode_errors() -> None:
    chance = random.Random(11)
    calls = list(Call)
    for _ in range(40_000):
        call = chance.choice(calls)
        head = p11_calls._REQUESTS[call].head
        body = head + chance.randbytes(chance.choice((0, 4, 9, 16, 40, 80)))
        with contextlib.suppress(DecodeError):
            decode_request(body, chance.randrange(3))


def test_spoilt_requests_raise_nothing_but_decode_errors() -> None:
    chance = random.Random(12)
    requests = [encode_request(call, example(call.request), 2) for call in Call]
    for _ in range(40_000):
        spoilt = bytearray(chance.choice(requests))
        for _ in range(chance.randrange(1, 4)):
            spoilt[chance.randrange(len(spoilt))] = chance.choice((0, 1, 0x40, 0x7F, 0x80, 0xFF))
        with contextlib.suppress(DecodeError):
            decode_request(bytes(spoilt), chance.randrange(3))


def test_a_call_that_is_remembered_is_read_as_it_was_the_first_time() -> None:
    request = encode_request(Call.C_SignInit, (7, Mechanism(CKM.ECDSA), 5), 2)
    assert (
        decode_request(request, 2) == decode_request(request, 2) == (Call.C_SignInit, (7, (0x1041, None), 5))
    )
    with pytest.raises(DecodeError):
        decode_request(request, 0)  # another dialect has another form


@pytest.mark.parametrize("call", [Call.C_Login, Call.C_SetPIN, Call.C_Sign, Call.C_CreateObject])
def test_octets_of_the_caller_are_never_remembered(call: Call) -> None:
    assert p11_calls._REQUESTS[call].longest_remembered == 0


def test_nothing_long_is_remembered() -> None:
    label = bytes(1 << 16)
    request = encode_request(
        Call.C_EncryptInit, (7, Mechanism(CKM.AES_GCM, (bytes(12), 96, label, 128)), 5), 2
    )
    before = p11_calls._REQUESTS[Call.C_EncryptInit].remembered.cache_info()
    decode_request(request, 2)
    assert p11_calls._REQUESTS[Call.C_EncryptInit].remembered.cache_info() == before
