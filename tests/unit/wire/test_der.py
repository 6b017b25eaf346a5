"""DER writers, and the reader that refuses what DER refuses."""

import random

import pytest

from endocarp.errors import DecodeError, UsageError
from endocarp.wire import der
from endocarp.wire.der import Reader


def reader(octets: bytes) -> Reader:
    return Reader(octets, "Test")


def element(hexadecimal: str) -> Reader:
    return reader(bytes.fromhex(hexadecimal))


# --- writing ---


@pytest.mark.parametrize(
    ("size", "header"),
    [(0, "0400"), (127, "047f"), (128, "048180"), (255, "0481ff"), (256, "04820100"), (65536, "0483010000")],
)
def test_a_length_takes_as_few_octets_as_it_can(size: int, header: str) -> None:
    octets = der.octet_string(bytes(size))
    assert octets[:-size] == bytes.fromhex(header) if size else octets == bytes.fromhex(header)
    assert reader(octets).octet_string() == bytes(size)


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (0, "020100"),
        (1, "020101"),
        (127, "02017f"),
        (128, "02020080"),
        (256, "02020100"),
        (-1, "0201ff"),
        (-128, "020180"),
        (-129, "0202ff7f"),
        (1 << 63, "0209008000000000000000"),
    ],
)
def test_an_integer_goes_there_and_back(value: int, octets: str) -> None:
    assert der.integer(value).hex() == octets
    assert element(octets).integer() == value


@pytest.mark.parametrize(
    ("dotted", "octets"),
    [
        ("1.2.840.113549.1.1.1", "06092a864886f70d010101"),
        ("2.5.4.3", "0603550403"),
        ("2.23.133.5.4.100.6", "060767810505046406"),
        ("2.999.3", "0603883703"),
        ("0.9", "060109"),
        ("1.3.6.1.4.1.42623.1.3", "060a2b0601040182cc7f0103"),
    ],
)
def test_an_object_identifier_goes_there_and_back(dotted: str, octets: str) -> None:
    assert der.oid(dotted).hex() == octets
    assert element(octets).oid() == dotted


def test_a_set_is_sorted_by_its_octets() -> None:
    assert der.set_(der.integer(5), der.boolean(value=True), der.integer(2)).hex() == "31090101ff020102020105"


def test_strings_times_and_small_types_go_there_and_back() -> None:
    octets = b"".join(
        (
            der.utf8("Kern é"),
            der.printable("Kern"),
            der.generalized_time("20230101000000Z"),
            der.boolean(value=True),
            der.boolean(value=False),
            der.null(),
            der.bit_string(b"\x01\x02"),
            der.set_(der.integer(7)),
        )
    )
    items = reader(octets)
    assert [items.text(), items.text(), items.time()] == ["Kern é", "Kern", "20230101000000Z"]
    assert [items.boolean(), items.boolean()] == [True, False]
    items.null()
    assert items.bit_string() == b"\x01\x02"
    assert items.set_().integer() == 7
    items.end()


@pytest.mark.parametrize("text", ["é", "a@b", "a_b", "a*", "\n", 'a"'])
def test_a_printable_string_has_characters_of_its_own(text: str) -> None:
    assert reader(der.printable("Aa0 '()+,-./:=?")).text() == "Aa0 '()+,-./:=?"
    with pytest.raises(UsageError, match="no PrintableString"):
        der.printable(text)
    with pytest.raises(DecodeError, match="other characters than it may have"):
        reader(der.tlv(der.PRINTABLE_STRING, text.encode())).text()


def test_context_tags_are_implicit_or_explicit() -> None:
    assert der.context(0, b"ab", constructed=False).hex() == "80026162"
    assert der.context(3, der.integer(1), constructed=True).hex() == "a303020101"


# --- walking ---


def test_elements_are_taken_whole_or_opened() -> None:
    octets = der.sequence(der.integer(1), der.context(0, b"x", constructed=False), der.octet_string(b"y"))
    items = Reader.of_sequence(octets, "Test")
    assert items.peek() == der.INTEGER
    assert items.element() == der.integer(1)
    assert items.content(der.context_tag(0, constructed=False)) == b"x"
    assert items
    assert items.element(der.OCTET_STRING) == der.octet_string(b"y")
    assert not items
    assert items.peek() == 0
    items.end()


def test_an_explicit_tag_is_entered() -> None:
    items = reader(der.context(3, der.sequence(der.integer(9)), constructed=True))
    assert items.enter(der.context_tag(3, constructed=True)).sequence().integer() == 9


def test_an_error_names_the_format_and_the_octet() -> None:
    items = reader(der.integer(1) + der.integer(2))
    items.integer()
    with pytest.raises(DecodeError, match=r"^Test: tag 0x02 where 0x04 is expected \(at octet 3\)$"):
        items.octet_string()


def test_what_is_left_over_is_told() -> None:
    with pytest.raises(DecodeError, match="3 octets left over"):
        Reader.of_sequence(der.sequence() + der.integer(1), "Test")


def test_more_than_the_limit_is_not_looked_at() -> None:
    with pytest.raises(DecodeError, match="at most 1048576"):
        reader(bytes(der.LIMIT + 1))


# --- what DER refuses ---


@pytest.mark.parametrize("octets", ["", "02"])
def test_an_element_has_a_tag_and_a_length(octets: str) -> None:
    with pytest.raises(DecodeError, match="cut short"):
        element(octets).integer()


def test_any_element_is_still_an_element() -> None:
    with pytest.raises(DecodeError, match="cut short"):
        element("").element()


def test_an_element_ends_inside_its_data() -> None:
    with pytest.raises(DecodeError, match="an element of 2 octets where 1 are left"):
        element("040261").octet_string()


@pytest.mark.parametrize(
    "octets",
    ["0480", "04817f61", "04820080", "048401000000", "04ff"],
    ids=["indefinite", "long form below 128", "leading zero", "four octets", "reserved"],
)
def test_a_length_is_definite_and_shortest(octets: str) -> None:
    with pytest.raises(DecodeError, match="a length that is not in its shortest form"):
        element(octets + "00" * 130).octet_string()


@pytest.mark.parametrize("octets", ["0481", "048201", "04830100"])
def test_a_length_is_there_whole(octets: str) -> None:
    with pytest.raises(DecodeError, match="a length that is not in its shortest form"):
        element(octets).octet_string()


def test_a_tag_is_one_octet() -> None:
    with pytest.raises(DecodeError, match="a tag of several octets"):
        element("1f8101").element()


@pytest.mark.parametrize("octets", ["0200", "02020001", "0202ff80"])
def test_an_integer_is_in_its_shortest_form(octets: str) -> None:
    with pytest.raises(DecodeError, match="an integer that is not in its shortest form"):
        element(octets).integer()


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("0600", "ends inside an arc"),
        ("060188", "ends inside an arc"),
        ("06028037", "a needless octet"),
        ("060b2a83ffffffffffffffff7f", "beyond 64 bits"),
    ],
)
def test_an_object_identifier_is_whole_short_and_bounded(octets: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        element(octets).oid()


@pytest.mark.parametrize("octets", ["0300", "03020101"])
def test_a_bit_string_of_octets_has_no_unused_bits(octets: str) -> None:
    with pytest.raises(DecodeError, match="not made of whole octets"):
        element(octets).bit_string()


@pytest.mark.parametrize(
    ("octets", "bits"),
    [("030100", ()), ("03020780", (0,)), ("03020204", (5,)), ("03020284", (0, 5)), ("0303070080", (8,))],
)
def test_named_bits_are_numbered_from_the_first(octets: str, bits: tuple[int, ...]) -> None:
    assert element(octets).bits() == bits


@pytest.mark.parametrize("octets", ["0300", "03020800", "030101", "03020002", "03020304"])
def test_named_bits_are_in_their_shortest_form(octets: str) -> None:
    with pytest.raises(DecodeError, match="named bits"):
        element(octets).bits()


def test_unused_bits_are_zero() -> None:
    with pytest.raises(DecodeError, match="unused bits that are not zero"):
        element("03020205").bits()


def test_text_is_text() -> None:
    with pytest.raises(DecodeError, match="tag 0x04 where text is expected"):
        reader(der.octet_string(b"a")).text()
    with pytest.raises(DecodeError, match="not in its encoding"):
        element("0c01ff").text()
    with pytest.raises(DecodeError, match="not in its encoding"):
        element("1301ff").text()


@pytest.mark.parametrize(
    ("text", "meaning"), [("230101000000Z", "20230101000000Z"), ("500101000000Z", "19500101000000Z")]
)
def test_two_digits_of_a_year_stand_for_1950_to_2049(text: str, meaning: str) -> None:
    # RFC 5280, 4.1.2.5.1
    assert reader(der.tlv(der.UTC_TIME, text.encode())).time() == meaning


@pytest.mark.parametrize(
    "text", ["", "2023010100000Z", "20230101000000", "20230101000000+", "2023010100000xZ"]
)
def test_a_time_has_one_form(text: str) -> None:
    with pytest.raises(DecodeError, match="not of the form"):
        reader(der.generalized_time(text)).time()


@pytest.mark.parametrize(
    "text",
    [
        "20231301000000Z",
        "20230229000000Z",
        "20230101240000Z",
        "20230101006000Z",
        "20230101000060Z",
        "0" * 14 + "Z",
    ],
)
def test_a_time_is_one_of_the_calendar_and_the_clock(text: str) -> None:
    assert reader(der.generalized_time("20240229235959Z")).time() == "20240229235959Z"
    with pytest.raises(DecodeError, match="no calendar and no clock"):
        reader(der.generalized_time(text)).time()


def test_a_time_is_a_time() -> None:
    with pytest.raises(DecodeError, match="tag 0x0c where a time is expected"):
        reader(der.utf8("20230101000000Z")).time()


def test_a_default_is_left_out() -> None:
    items = reader(der.boolean(value=True) + der.integer(1))
    assert [items.default_false(), items.default_false(), items.integer()] == [True, False, 1]
    with pytest.raises(DecodeError, match="a default that is written down"):
        reader(der.boolean(value=False)).default_false()


@pytest.mark.parametrize("octets", ["0100", "010101", "0102ffff"])
def test_a_boolean_is_0_or_255(octets: str) -> None:
    with pytest.raises(DecodeError, match="neither 0 nor 255"):
        element(octets).boolean()


def test_a_null_is_empty() -> None:
    with pytest.raises(DecodeError, match="a null with content"):
        element("050100").null()


def test_random_octets_raise_nothing_but_decode_errors() -> None:
    chance = random.Random(24)
    calls = [
        Reader.integer,
        Reader.oid,
        Reader.octet_string,
        Reader.bit_string,
        Reader.bits,
        Reader.text,
        Reader.time,
        Reader.boolean,
        Reader.null,
        Reader.sequence,
        Reader.set_,
        Reader.element,
    ]
    tags = bytes((1, 2, 3, 4, 5, 6, 0x0C, 0x13, 0x17, 0x18, 0x30, 0x31))
    taken = 0
    for _ in range(20_000):
        octets = bytes((chance.choice(tags), chance.randrange(6))) + chance.randbytes(chance.randrange(8))
        try:
            chance.choice(calls)(reader(octets))
        except DecodeError:
            continue
        taken += 1
    assert taken
