"""DPE on the wire: headers, layouts by profile, responses."""

import pytest

from endocarp.errors import DecodeError, DeviceError
from endocarp.wire import dpe
from endocarp.wire.dpe import Code, Format, Profile, Status

HANDLE = bytes(range(16))
LABEL = b"l" * 48

# DPE 0.13: octets behind the header.
REQUEST_SIZES = {
    (Profile.P384_SHA384, Code.GET_PROFILE): 0,
    (Profile.P384_SHA384, Code.CERTIFY_KEY): 72,
    (Profile.P384_SHA384, Code.SIGN): 116,
    (Profile.P384_SHA384, Code.GET_CERTIFICATE_CHAIN): 8,
    (Profile.MLDSA87, Code.GET_PROFILE): 0,
    (Profile.MLDSA87, Code.CERTIFY_KEY): 72,
    (Profile.MLDSA87, Code.SIGN): 132,
    (Profile.MLDSA87, Code.GET_CERTIFICATE_CHAIN): 8,
}


def test_a_command_is_as_large_as_the_specification_says() -> None:
    found = {
        (profile, code): kind.SIZE
        for profile, commands in dpe.COMMANDS.items()
        for code, kind in commands.items()
    }
    assert found == REQUEST_SIZES


def test_a_command_travels_behind_its_header() -> None:
    request = dpe.SignP384(HANDLE, LABEL, 0, b"d" * 48)
    octets = dpe.encode_command(Profile.P384_SHA384, request)
    assert octets[:12] == b"CEPD" + bytes((10, 0, 0, 0, 4, 0, 0, 0))
    command = dpe.split_command(octets)
    assert (command.code, command.profile) == (Code.SIGN, Profile.P384_SHA384)
    assert dpe.SignP384.decode(command.body) == request


@pytest.mark.parametrize("octets", [b"", b"CEPD", b"REPD" + bytes(8)])
def test_octets_without_the_header_are_no_command(octets: bytes) -> None:
    with pytest.raises(DecodeError, match="CommandHeader"):
        dpe.split_command(octets)


def test_a_response_gives_its_reply() -> None:
    reply = dpe.SignP384Reply.of(HANDLE, b"r" * 48 + b"s" * 48)
    octets = dpe.encode_response(Profile.P384_SHA384, Status.SUCCESS, reply)
    assert octets[:4] == b"REPD"
    assert dpe.decode_response(dpe.SignP384, octets) == reply
    assert reply.signature == b"r" * 48 + b"s" * 48


def test_a_refusal_of_the_dpe_is_a_device_error() -> None:
    octets = dpe.encode_response(Profile.MLDSA87, Status.INVALID_HANDLE)
    with pytest.raises(DeviceError, match="SIGN was refused by the DPE") as refused:
        dpe.decode_response(dpe.SignMldsa87, octets)
    assert refused.value.number == Status.INVALID_HANDLE


def test_a_certified_key_gives_its_public_key() -> None:
    point = b"\4" + b"x" * 48 + b"y" * 48
    ecc = dpe.CertifyKeyP384Reply.of(HANDLE, point, b"certificate")
    assert ecc.public_key == point
    assert ecc.encode()[16 + 96 :] == b"\x0b\0\0\0certificate"
    mldsa = dpe.CertifyKeyMldsa87Reply(HANDLE, b"k" * 2592, b"")
    assert mldsa.public_key == b"k" * 2592


def test_an_mldsa_signature_is_followed_by_one_octet() -> None:
    reply = dpe.SignMldsa87Reply(HANDLE, b"s" * 4627 + b"\0")
    assert reply.signature == b"s" * 4627


def test_a_piece_of_the_chain_lies_in_a_whole_buffer() -> None:
    reply = dpe.GetCertificateChainReply.of(b"abc")
    assert len(reply.encode()) == 4 + 2048
    assert dpe.GetCertificateChainReply.decode(reply.encode()).piece == b"abc"


def test_a_piece_beyond_its_buffer_is_refused() -> None:
    octets = (2049).to_bytes(4, "little") + bytes(2048)
    with pytest.raises(DecodeError, match="at most 2048"):
        dpe.GetCertificateChainReply.decode(octets)


@pytest.mark.parametrize("profile", Profile)
def test_a_wish_for_x509_is_seen(profile: Profile) -> None:
    kind = dpe.CertifyKeyP384 if profile is Profile.P384_SHA384 else dpe.CertifyKeyMldsa87
    for format_, expected in ((Format.X509, True), (Format.CSR, False)):
        octets = dpe.encode_command(profile, kind(HANDLE, 0, format_, LABEL))
        assert dpe.asks_for_x509(profile, octets) is expected
    assert not dpe.asks_for_x509(profile, dpe.encode_command(profile, dpe.GetProfile()))
    short = dpe.encode_command(profile, kind(HANDLE, 0, Format.X509, LABEL))[:-1]
    assert not dpe.asks_for_x509(profile, short)


def test_a_context_adds_108_octets_to_the_measurement() -> None:
    node = dpe.TciNodeData(1, b"u" * 48, b"c" * 48, 2, 3).encode()
    assert len(node) == 108
    assert node[4:5] == b"u"


def test_a_profile_reply_has_20_octets() -> None:
    assert dpe.GetProfileReply.SIZE == 20
