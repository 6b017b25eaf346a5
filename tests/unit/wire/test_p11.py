import struct
from typing import Any

import pytest

from endocarp.errors import DecodeError
from endocarp.wire.cryptoki import CKA, CKM
from endocarp.wire.p11 import (
    ATTRIBUTE_COUNT_LIMIT,
    DEPTH_LIMIT,
    FRAME_LEAST,
    FRAME_LIMIT,
    Attribute,
    AttributeRoom,
    Mechanism,
    Reader,
    Size,
    Version,
    Writer,
    choose_dialect,
    decode_frame,
    decode_frame_end,
    encode_frame,
    split_frame,
)
from endocarp.wire.p11_forms import GcmParameters, OaepParameters, PssParameters

NULL = b"\xff\xff\xff\xff"
WRAP_TEMPLATE, ALLOWED_MECHANISMS = 0x40000211, 0x40000600


def u32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def u64(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}Q", *numbers)


def reader(data: bytes, dialect: int = 2) -> Reader:
    return Reader(data, 0, dialect, "C_Test")


def written(method: str, value: Any, dialect: int = 2) -> bytes:
    octets = getattr(Writer(dialect), method)(value)
    assert isinstance(octets, bytes)
    return octets


def taken(method: str, data: bytes, dialect: int = 2) -> Any:
    source = reader(data, dialect)
    value = getattr(source, method)()
    source.end()
    return value


# --- frames ---------------------------------------------------------------------------------------------------


FRAME = u32(0x10, 6, 4) + b"client" + b"body"


def test_where_a_frame_ends_is_known_once_its_header_is_there() -> None:
    assert {decode_frame_end(FRAME[:size]) for size in range(12)} == {FRAME_LEAST}
    assert {decode_frame_end(FRAME[:size]) for size in range(12, len(FRAME))} == {len(FRAME)}
    assert decode_frame_end(bytearray(FRAME + b"next")) == len(FRAME)


def test_a_frame_holds_a_code_and_a_body() -> None:
    assert decode_frame(FRAME) == (0x10, b"body")


@pytest.mark.parametrize("octets", [b"", FRAME[:11], FRAME[:12], FRAME[:-1], FRAME + b"n", u32(1, 50, 0)])
def test_a_frame_that_is_not_whole_or_has_more_behind_it_is_refused(octets: bytes) -> None:
    with pytest.raises(DecodeError, match="Frame"):
        decode_frame(octets)


def test_what_stands_behind_a_frame_is_parted_from_it() -> None:
    assert split_frame(bytearray(FRAME + b"next")) == (FRAME, b"next")
    assert split_frame(FRAME) == (FRAME, b"")
    with pytest.raises(DecodeError, match="Frame"):
        split_frame(FRAME[:-1])


def test_a_reply_is_a_frame_without_options() -> None:
    assert encode_frame(7, b"ab") == u32(7, 0, 2) + b"ab"
    assert decode_frame(encode_frame(7, b"ab")) == (7, b"ab")


@pytest.mark.parametrize(
    ("options", "size"),
    [(0, 0), (0, 7), (0, 0xFFFFFFFF), (0xFFFFFFFF, 0), (0, FRAME_LIMIT - 11), (FRAME_LIMIT, FRAME_LIMIT)],
)
def test_a_frame_beyond_its_limits_is_refused_before_it_arrives(options: int, size: int) -> None:
    with pytest.raises(DecodeError, match="at most"):
        decode_frame_end(u32(1, options, size))


def test_a_frame_at_the_limit_is_waited_for() -> None:
    assert decode_frame_end(u32(1, 0, FRAME_LIMIT - 12)) == FRAME_LIMIT


@pytest.mark.parametrize(("offered", "answered"), [(0, 0), (1, 1), (2, 2), (3, 2), (255, 2)])
def test_the_dialect_is_the_clients_or_the_newest_here(offered: int, answered: int) -> None:
    assert choose_dialect(offered) == answered


# --- plain values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "value", "octets"),
    [
        ("ulong", 1 << 63, u64(1 << 63)),
        ("byte", 255, b"\xff"),
        ("version", Version(2, 40), b"\x02\x28"),
        ("octets", b"abc", u32(3) + b"abc"),
        ("byte_array", b"abc", b"\1" + u32(3) + b"abc"),
        ("byte_array", b"", b"\1" + u32(0)),
        ("byte_array", 4096, b"\0" + u32(4096)),
        ("ulong_array", (1, 2), b"\1" + u32(2) + u64(1, 2)),
        ("ulong_array", 7, b"\0" + u32(7)),
        ("byte_room", 64, u32(64)),
        ("byte_room", None, u32(0)),
        ("byte_room", 0, NULL),
        ("ulong_room", 3, u32(3)),
        ("ulong_room", None, u32(0)),
    ],
)
def test_values_are_written_as_the_protocol_says_and_read_back(
    method: str, value: object, octets: bytes
) -> None:
    assert written(method, value) == octets
    assert taken(method, octets) == value


def test_the_oldest_dialect_cannot_tell_a_buffer_of_size_0() -> None:
    assert written("byte_room", 0, dialect=0) == u32(0)


def test_a_null_pointer_with_a_size_of_all_ones_is_no_octets() -> None:
    assert taken("byte_array", b"\1" + NULL) == b""


@pytest.mark.parametrize(
    ("method", "octets"),
    [
        ("u32", b"\0\0\0"),
        ("ulong", b"\0" * 7),
        ("byte", b""),
        ("version", b"\2"),
        ("octets", u32(4) + b"abc"),
        ("octets", u32(0xFFFFFFFE)),
        ("byte_array", b"\1" + u32(0x7FFFFFFF) + b"abc"),
        ("byte_array", b"\0"),
        ("ulong_array", b"\1" + u32(0xFFFFFFFF)),
        ("ulong_array", b"\1" + u32(2) + u64(1)),
        ("ulong_array", b"\1" + u32(ATTRIBUTE_COUNT_LIMIT + 1) + bytes(8 * (ATTRIBUTE_COUNT_LIMIT + 1))),
        ("attributes", u32(0xFFFFFFFF)),
        ("attributes", u32(1)),
        ("attributes", u32(ATTRIBUTE_COUNT_LIMIT + 1) + bytes(5 * (ATTRIBUTE_COUNT_LIMIT + 1))),
        ("attribute_rooms", u32(0xFFFFFFFF)),
        ("attribute_rooms", u32(2) + u32(0, 0)),
        ("mechanism", u32(CKM.RSA_PKCS_PSS) + b"\1" + u64(1, 2)),
        ("mechanism", u32(CKM.AES_GCM) + b"\1" + u32(0xFFFFFFF0)),
    ],
)
def test_sizes_and_counts_are_held_against_what_has_arrived(method: str, octets: bytes) -> None:
    with pytest.raises(DecodeError, match="C_Test"):
        taken(method, octets)


def test_what_is_left_over_is_refused() -> None:
    with pytest.raises(DecodeError, match="1 octets left over"):
        taken("byte", b"ab")


# --- attributes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "octets"),
    [
        (Attribute(CKA.TOKEN, 1), u32(CKA.TOKEN) + b"\1" + u32(1) + b"\1"),
        (Attribute(CKA.CLASS, 3), u32(CKA.CLASS) + b"\1" + u32(8) + u64(3)),
        (Attribute(CKA.LABEL, b"web"), u32(CKA.LABEL) + b"\1" + u32(3, 3) + b"web"),
        (Attribute(CKA.LABEL, None), u32(CKA.LABEL) + b"\0"),
        (Attribute(CKA.DESTROYABLE, 1), u32(CKA.DESTROYABLE) + b"\1" + u32(1, 1) + b"\1"),
        (Attribute(CKA.PARAMETER_SET, 2), u32(CKA.PARAMETER_SET) + b"\1" + u32(8, 8) + b"\2" + bytes(7)),
        (Attribute(ALLOWED_MECHANISMS, (1, 2)), u32(ALLOWED_MECHANISMS) + b"\1" + u32(16, 2) + u64(1, 2)),
        (
            Attribute(WRAP_TEMPLATE, (Attribute(CKA.TOKEN, 0),)),
            u32(WRAP_TEMPLATE) + b"\1" + u32(24, 1) + u32(CKA.TOKEN) + b"\1" + u32(1) + b"\0",
        ),
    ],
)
def test_attributes_are_written_by_the_form_of_their_type(attribute: Attribute, octets: bytes) -> None:
    assert written("attributes", (attribute,)) == u32(1) + octets
    assert taken("attributes", u32(1) + octets) == (attribute,)


def test_the_size_of_an_attribute_is_told_without_its_octets() -> None:
    assert written("attribute", Attribute(CKA.ID, Size(20))) == u32(CKA.ID) + b"\1" + u32(20) + NULL


@pytest.mark.parametrize(
    ("number", "value"),
    [(CKA.TOKEN, u32(0) + b"\0"), (CKA.CLASS, u32(3) + u64(0)), (CKA.PARAMETER_SET, u32(3, 3) + b"abc")],
)
def test_a_number_of_a_size_that_no_number_has_is_no_value(number: int, value: bytes) -> None:
    assert taken("attributes", u32(1) + u32(number) + b"\1" + value) == (Attribute(number, None),)


def test_a_client_of_32_bits_sends_numbers_of_four_octets() -> None:
    assert taken("attributes", u32(1, CKA.CLASS) + b"\1" + u32(4) + u64(2)) == (Attribute(CKA.CLASS, 2),)


def nested_template(depth: int) -> bytes:
    octets = u32(0)
    for _ in range(depth):
        octets = u32(1, WRAP_TEMPLATE) + b"\1" + u32(24) + octets
    return octets


def test_templates_stand_in_templates_as_deep_as_allowed_and_no_deeper() -> None:
    taken("attributes", nested_template(DEPTH_LIMIT))
    with pytest.raises(DecodeError, match="too many templates"):
        taken("attributes", nested_template(DEPTH_LIMIT + 1))
    with pytest.raises(DecodeError, match="too many templates"):
        taken("attributes", nested_template(20_000))


# --- questions for attributes -----------------------------------------------------------------------------------

PLAIN_ROOMS = (AttributeRoom(CKA.LABEL, 0), AttributeRoom(CKA.ID, 20))
NESTED_ROOMS = (AttributeRoom(WRAP_TEMPLATE, 24, (AttributeRoom(CKA.LABEL, 8),)),)


@pytest.mark.parametrize("dialect", [0, 1, 2])
def test_questions_for_attributes_are_the_same_in_every_dialect(dialect: int) -> None:
    octets = u32(2) + u32(CKA.LABEL, 0) + u32(CKA.ID, 20)
    assert written("attribute_rooms", PLAIN_ROOMS, dialect) == octets
    assert taken("attribute_rooms", octets, dialect) == PLAIN_ROOMS


@pytest.mark.parametrize("dialect", [1, 2])
def test_questions_for_a_template_hold_questions_in_the_newer_dialects(dialect: int) -> None:
    octets = u32(1, WRAP_TEMPLATE, 24) + u32(1, CKA.LABEL, 8)
    assert written("attribute_rooms", NESTED_ROOMS, dialect) == octets
    assert taken("attribute_rooms", octets, dialect) == NESTED_ROOMS


@pytest.mark.parametrize("dialect", [0, 1])
def test_questions_for_a_template_hold_none_in_clients_before_0_25_4(dialect: int) -> None:
    octets = u32(2, WRAP_TEMPLATE, 24, CKA.LABEL, 8)
    assert taken("attribute_rooms", octets, dialect) == (
        AttributeRoom(WRAP_TEMPLATE, 24),
        AttributeRoom(CKA.LABEL, 8),
    )


@pytest.mark.parametrize("dialect", [1, 2])
def test_questions_in_questions_are_bounded(dialect: int) -> None:
    with pytest.raises(DecodeError):
        taken("attribute_rooms", u32(1, WRAP_TEMPLATE, 24) * 1000 + u32(0), dialect)


# --- mechanisms -----------------------------------------------------------------------------------------------

PSS = Mechanism(CKM.RSA_PKCS_PSS, PssParameters(CKM.SHA256, 2, 32))
OAEP = Mechanism(CKM.RSA_PKCS_OAEP, OaepParameters(CKM.SHA_1, 1, 1, b"label"))
GCM = Mechanism(CKM.AES_GCM, GcmParameters(bytes(12), 96, b"aad", 128))
PSS_OCTETS = u64(CKM.SHA256, 2, 32)
OAEP_OCTETS = u64(CKM.SHA_1, 1, 1) + u32(5) + b"label"
GCM_OCTETS = u32(12) + bytes(12) + u64(96) + u32(3) + b"aad" + u64(128)


@pytest.mark.parametrize(
    ("dialect", "mechanism", "octets"),
    [
        (0, Mechanism(CKM.ECDSA), u32(CKM.ECDSA) + NULL),
        (1, Mechanism(CKM.ECDSA), u32(CKM.ECDSA) + NULL),
        (2, Mechanism(CKM.ECDSA), u32(CKM.ECDSA)),
        (0, PSS, u32(CKM.RSA_PKCS_PSS) + PSS_OCTETS),
        (1, PSS, u32(CKM.RSA_PKCS_PSS) + PSS_OCTETS),
        (2, PSS, u32(CKM.RSA_PKCS_PSS) + b"\1" + PSS_OCTETS),
        (2, Mechanism(CKM.RSA_PKCS_PSS), u32(CKM.RSA_PKCS_PSS) + b"\0"),
        (0, OAEP, u32(CKM.RSA_PKCS_OAEP) + OAEP_OCTETS),
        (1, GCM, u32(CKM.AES_GCM) + GCM_OCTETS),
        (2, GCM, u32(CKM.AES_GCM) + b"\1" + GCM_OCTETS),
        (1, Mechanism(0x1082, (bytes(16),)), u32(0x1082, 16) + bytes(16)),
        (2, Mechanism(0x1050, (1, b"", b"point")), u32(0x1050) + b"\1" + u64(1) + u32(0, 5) + b"point"),
        (2, Mechanism(CKM.ML_DSA), u32(CKM.ML_DSA) + b"\0"),
        (0, None, NULL),
        (2, None, NULL),
    ],
)
def test_mechanisms_are_written_by_dialect_and_type(
    dialect: int, mechanism: Mechanism | None, octets: bytes
) -> None:
    assert written("mechanism", mechanism, dialect) == octets
    assert taken("mechanism", octets, dialect) == mechanism


def test_parameters_have_the_names_of_their_structures() -> None:
    mechanism = taken("mechanism", u32(CKM.RSA_PKCS_PSS) + PSS_OCTETS, 0)
    assert mechanism.parameter.salt_size == 32
