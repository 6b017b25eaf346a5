"""The mailbox on the wire: layouts, checksums, frames, and the client."""

import struct
from typing import Any

import pytest

from endocarp.errors import DecodeError, DeviceError, UsageError
from endocarp.wire import mailbox
from endocarp.wire.codec import Struct
from endocarp.wire.mailbox import (
    REQUESTS,
    Command,
    FrameHeader,
    MailboxClient,
    MailboxError,
    PcrLogEntry,
    PcrLogId,
    Request,
    checksum,
    decode_body,
    decode_pcr_log,
    decode_reply,
    error_name,
    frame,
    frame_limit,
    with_checksum,
    with_headers,
    without_checksum,
)

HEADER, REPLY_HEADER = 4, 8

# Caliptra, api/src/mailbox.rs: sizes in octets, headers included; a buffer at the end counts at its largest.
REQUEST_SIZES = {
    Command.VERSION: 4,
    Command.FW_INFO: 4,
    Command.STASH_MEASUREMENT: 108,
    Command.QUOTE_PCRS_ECC384: 36,
    Command.QUOTE_PCRS_MLDSA87: 36,
    Command.SET_AUTH_MANIFEST: 34824,
    Command.AUTHORIZE_AND_STASH: 120,
    Command.INVOKE_DPE_ECC384: 520,
    Command.INVOKE_DPE_MLDSA87: 536,
    Command.POPULATE_IDEV_ECC384_CERT: 1032,
    Command.POPULATE_IDEV_MLDSA87_CERT: 8200,
}
REPLY_SIZES = {
    Command.VERSION: 36,
    Command.CAPABILITIES: 24,
    Command.FW_INFO: 392,
    Command.GET_IDEV_ECC384_INFO: 104,
    Command.GET_IDEV_MLDSA87_INFO: 2600,
    Command.STASH_MEASUREMENT: 12,
    Command.QUOTE_PCRS_ECC384: 1848,
    Command.QUOTE_PCRS_MLDSA87: 6396,
    Command.AUTHORIZE_AND_STASH: 12,
    Command.SET_AUTH_MANIFEST: 8,
}


@pytest.mark.parametrize("command", REQUEST_SIZES)
def test_a_request_is_as_large_as_the_specification_says(command: Command) -> None:
    assert REQUEST_SIZES[command] == REQUESTS[command].LIMIT + HEADER


@pytest.mark.parametrize("command", REPLY_SIZES)
def test_a_reply_is_as_large_as_the_specification_says(command: Command) -> None:
    size = REQUESTS[command].REPLY.SIZE
    assert size is not None
    assert size + REPLY_HEADER == REPLY_SIZES[command]


def test_every_command_has_a_request_class() -> None:
    assert set(REQUESTS) == set(Command)
    assert all(command == kind.COMMAND for command, kind in REQUESTS.items())


def test_command_codes_spell_their_names() -> None:
    spelt = {
        Command.FIRMWARE_LOAD: b"FWLD",
        Command.STASH_MEASUREMENT: b"MEAS",
        Command.ATTACH_CUSTODY: b"ECUS",
    }
    for command, letters in spelt.items():
        assert command.to_bytes(4, "big") == letters


def test_the_checksum_is_that_of_the_specification() -> None:
    assert checksum(0xE8DC3994, bytes.fromhex("83e725")) == 0xFFFFFBE0


def test_a_request_travels_behind_its_checksum() -> None:
    request = mailbox.StashMeasurement(7, b"m" * 48, b"c" * 48, 3)
    octets = with_checksum(request)
    assert len(octets) == 108
    body = without_checksum(Command.STASH_MEASUREMENT, octets)
    assert decode_body(mailbox.StashMeasurement, body) == request


def test_a_firmware_bundle_travels_bare() -> None:
    assert with_checksum(mailbox.FirmwareLoad(b"bundle")) == b"bundle"
    assert decode_reply(mailbox.FirmwareLoad, b"") == mailbox.EmptyReply()


@pytest.mark.parametrize("octets", [b"", b"\0\0\0"])
def test_a_request_without_a_checksum_is_cut_short(octets: bytes) -> None:
    with pytest.raises(DecodeError, match=r"MailboxReqHeader\.chksum: cut short"):
        without_checksum(Command.VERSION, octets)


def test_a_request_with_another_checksum_does_not_match() -> None:
    octets = with_checksum(mailbox.Version())
    with pytest.raises(DecodeError, match="does not match"):
        without_checksum(Command.CAPABILITIES, octets)


def test_a_buffer_may_be_padded_with_zeros_up_to_the_limit() -> None:
    octets = mailbox.InvokeDpeEcc384(b"abc").encode()
    kind = mailbox.InvokeDpeEcc384
    assert decode_body(kind, octets.ljust(kind.LIMIT, b"\0")) == mailbox.InvokeDpeEcc384(b"abc")
    with pytest.raises(DecodeError, match="not zero"):
        decode_body(kind, octets + b"\1")
    with pytest.raises(DecodeError, match="at most 516"):
        decode_body(kind, octets.ljust(kind.LIMIT + 1, b"\0"))


def test_a_reply_has_checksum_and_status_in_front() -> None:
    octets = with_headers(mailbox.DpeResultReply(5), fips_status=0x55535244)
    assert struct.unpack("<II", octets[4:]) == (0x55535244, 5)
    assert decode_reply(mailbox.StashMeasurement, octets) == mailbox.DpeResultReply(5)


@pytest.mark.parametrize("octets", [b"", bytes(7)])
def test_a_reply_without_headers_is_cut_short(octets: bytes) -> None:
    with pytest.raises(DecodeError, match="MailboxRespHeader: cut short"):
        decode_reply(mailbox.Version(), octets)


def test_a_reply_with_another_checksum_does_not_match() -> None:
    octets = bytearray(with_headers(mailbox.DpeResultReply(5)))
    octets[-1] ^= 1
    with pytest.raises(DecodeError, match="does not match"):
        decode_reply(mailbox.StashMeasurement, bytes(octets))


def test_digests_of_fw_info_are_word_swapped_on_the_wire() -> None:
    values: dict[str, Any] = dict.fromkeys(mailbox.FwInfoReply.__annotations__, 0)
    sizes = {"revision": 20, "sha256": 32, "sha384": 48, "hash": 48}
    for name in values:
        for part, size in sizes.items():
            if part in name:
                values[name] = bytes(range(size))
    octets = mailbox.FwInfoReply(**values).encode()
    assert octets[80:84] == bytes((3, 2, 1, 0))
    assert mailbox.FwInfoReply.decode(octets).rom_sha256_digest == bytes(range(32))


def test_a_pcr_log_is_read_entry_by_entry() -> None:
    entries = (
        PcrLogEntry(PcrLogId.DEVICE_STATUS, pcr_mask=3, data=b"\1" * 48),
        PcrLogEntry(PcrLogId.RT_TCI, pcr_mask=12, data=b"\2" * 48),
    )
    octets = b"".join(entry.encode() for entry in entries)
    assert len(octets) == 2 * 56
    assert decode_pcr_log(octets) == entries
    assert decode_pcr_log(b"") == ()
    with pytest.raises(DecodeError):
        decode_pcr_log(octets[:-1])


def test_a_device_status_has_17_octets() -> None:
    status = mailbox.DeviceStatus(
        mailbox.FuseOwnerInfo(1, 0, 1, 2, 3, 4, 5, 128), mailbox.FuseVendorInfo(3, 3, 1, 6, 7, 8)
    )
    assert status.encode() == bytes((1, 0, 1, 2, 0, 0, 0, 3, 4, 5, 128, 3, 3, 1, 6, 7, 8))


def test_a_quote_gives_its_pcrs_one_by_one() -> None:
    pcrs = b"".join(bytes((index,)) * 48 for index in range(32))
    ecc = mailbox.QuotePcrsEcc384Reply.of(pcrs, bytes(32), bytes(48), b"r" * 48 + b"s" * 48)
    mldsa = mailbox.QuotePcrsMldsa87Reply.of(pcrs, bytes(32), bytes(64), b"s" * 4627)
    assert (ecc.signature_r, ecc.signature_s) == (b"r" * 48, b"s" * 48)
    assert mldsa.signature == b"s" * 4627 + b"\0"
    assert ecc.pcr(31) == mldsa.pcr(31) == b"\x1f" * 48


def test_an_idevid_point_is_split_into_coordinates() -> None:
    reply = mailbox.GetIdevEcc384InfoReply.of(b"\4" + b"x" * 48 + b"y" * 48)
    assert (reply.idev_pub_x, reply.idev_pub_y) == (b"x" * 48, b"y" * 48)


def test_a_frame_names_its_length() -> None:
    assert frame(7, b"abc") == b"\7\0\0\0\3\0\0\0abc"


def test_frames_are_limited_by_their_command() -> None:
    assert frame_limit(Command.FIRMWARE_LOAD) == mailbox.FIRMWARE_LIMIT
    assert frame_limit(Command.VERSION) == 4


def test_errors_have_names() -> None:
    assert error_name(MailboxError.RUNTIME_INVALID_CHECKSUM) == "RUNTIME_INVALID_CHECKSUM"
    assert error_name(0x000B0005) == "IMAGE_VERIFIER_ERR_VENDOR_PUB_KEY_DIGEST_MISMATCH"
    assert error_name(0x000E0045) == "RUNTIME_INVALID_AUTH_MANIFEST_MARKER"
    assert error_name(0x000BFFFF) == "0x000bffff"


# --- the client ------------------------------------------------------------------------------------------------


def answer(reply: Struct) -> bytes:
    return frame(0, with_headers(reply))


def test_the_client_gathers_a_reply_from_pieces() -> None:
    client = MailboxClient()
    assert client.request(mailbox.Capabilities()) == frame(
        Command.CAPABILITIES, with_checksum(mailbox.Capabilities())
    )
    reply = mailbox.CapabilitiesReply(bytes(16))
    octets = answer(reply)
    pieces = [client.receive(octets[at : at + 5]) for at in range(0, len(octets), 5)]
    assert pieces[:-1] == [None] * (len(pieces) - 1)
    whole = pieces[-1]
    assert whole is not None
    assert decode_reply(mailbox.Capabilities, whole) == reply
    client.request(mailbox.Capabilities())


def test_the_client_asks_one_thing_at_a_time() -> None:
    client = MailboxClient()
    with pytest.raises(UsageError, match="no reply is expected"):
        client.receive(b"x")
    client.request(mailbox.Version())
    with pytest.raises(UsageError, match="VERSION is not answered yet"):
        client.request(mailbox.Version())


@pytest.mark.parametrize("number", [MailboxError.RUNTIME_UNIMPLEMENTED_COMMAND, 0x000B0005])
def test_the_client_tells_the_error_of_the_mailbox(number: int) -> None:
    client = MailboxClient()
    client.request(mailbox.Version())
    with pytest.raises(DeviceError, match=f"VERSION was refused: {error_name(number)}") as refused:
        client.receive(frame(number, b""))
    assert refused.value.number == number
    client.request(mailbox.Version())


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "the stream ended before the reply"),
        (FrameHeader(0, mailbox.REPLY_LIMIT + 1).encode(), "at most"),
        (frame(0, b"abc") + b"d", "4 octets follow, not 3"),
    ],
)
def test_the_client_refuses_a_broken_stream(octets: bytes, reason: str) -> None:
    client = MailboxClient()
    client.request(mailbox.Version())
    with pytest.raises(DecodeError, match=reason):
        client.receive(octets)


def test_requests_of_every_class_survive_the_way() -> None:
    for kind in REQUESTS.values():
        body = kind.LIMIT if kind.SIZE is not None else 0
        zero: Request[Any] = kind.decode(bytes(body) if kind.SIZE is not None else _empty(kind))
        octets = with_checksum(zero)
        opened = without_checksum(kind.COMMAND, octets) if kind.CHECKED else octets
        assert decode_body(kind, opened) == zero


def _empty(kind: type[Request[Any]]) -> bytes:
    return b"" if kind is mailbox.FirmwareLoad else bytes(20 if kind is mailbox.InvokeDpeMldsa87 else 4)
