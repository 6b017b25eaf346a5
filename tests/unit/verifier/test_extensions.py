"""TcbInfo, UEID and purposes, as the verifier reads them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.simulators.device import sha384, tcb_info

from endocarp.crypto.certs import Certificate
from endocarp.errors import DecodeError
from endocarp.verifier import extensions
from endocarp.verifier.extensions import MULTI_TCB_INFO, TcbInfo
from endocarp.wire import der

GOLDEN = Path(__file__).parents[4] / "shared/vectors/attestation/caliptra/smoke_testdata"

DIGEST = sha384(b"digest")
FWID = der.sequence(der.oid("2.16.840.1.101.3.4.2.2"), der.octet_string(DIGEST))
SHA256_FWID = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.octet_string(bytes(32)))


def test_a_tcb_info_is_read() -> None:
    octets = tcb_info(kind=b"KIND", fwid=DIGEST, svn=0x105, vendor_info=b"info", register=sha384(b"all"))
    expected = TcbInfo(0x105, (DIGEST,), b"info", b"KIND", {0: sha384(b"all")})
    assert extensions.read_tcb_info(octets) == expected
    assert extensions.read_multi_tcb_info(der.sequence(octets, octets)) == (expected, expected)
    assert expected.fwid == DIGEST


def test_everything_in_a_tcb_info_may_be_left_out() -> None:
    info = extensions.read_tcb_info(der.sequence())
    assert info == TcbInfo()
    assert info.fwid == b""
    assert TcbInfo(fwids=(DIGEST, DIGEST)).fwid == b""
    assert extensions.read_multi_tcb_info(der.sequence()) == ()


def test_fields_that_nobody_asks_for_are_passed_over() -> None:
    octets = der.sequence(
        der.context(0, b"vendor", constructed=False),
        der.context(4, b"\1", constructed=False),
        der.context(7, b"\0\x80", constructed=False),
        der.context(10, b"\0\x80", constructed=False),
    )
    assert extensions.read_tcb_info(octets) == TcbInfo()


@pytest.mark.parametrize(
    "fields",
    [
        [der.context(6, SHA256_FWID, constructed=True)],
        [der.context(6, FWID[:-1], constructed=True)],
        [der.context(6, FWID, constructed=False)],
        [der.context(3, b"", constructed=False)],
        [der.context(3, b"\0\1", constructed=False)],
        [der.context(9, b"x", constructed=False), der.context(8, b"x", constructed=False)],
        [der.context(9, b"x", constructed=False)] * 2,
        [der.context(12, b"x", constructed=False)],
        [der.integer(1)],
        [der.context(11, der.sequence(), constructed=True)],
        [der.context(11, FWID, constructed=True)],
    ],
    ids=[
        "another hash",
        "digest cut short",
        "a list that is not constructed",
        "no integer",
        "a long integer",
        "fields out of order",
        "a field twice",
        "an unknown field",
        "an untagged field",
        "an empty register",
        "a register of another form",
    ],
)
def test_a_damaged_tcb_info_is_refused(fields: list[bytes]) -> None:
    with pytest.raises(DecodeError):
        extensions.read_tcb_info(der.sequence(*fields))


def register(number: int, *fwids: bytes) -> bytes:
    return der.sequence(
        der.context(1, bytes([number]), constructed=False), der.context(2, *fwids, constructed=True)
    )


@pytest.mark.parametrize(
    "registers", [[register(0)], [register(0, FWID, FWID)], [register(0, FWID), register(0, FWID)]]
)
def test_a_register_has_one_digest_and_stands_once(registers: list[bytes]) -> None:
    octets = der.sequence(der.context(11, *registers, constructed=True))
    with pytest.raises(DecodeError, match="one digest a register"):
        extensions.read_tcb_info(octets)


def test_purposes_are_read() -> None:
    octets = der.sequence(der.oid("1.2.3"), der.oid("2.23.133.5.4.100.9"))
    assert extensions.read_purposes(octets) == {"1.2.3", "2.23.133.5.4.100.9"}
    with pytest.raises(DecodeError):
        extensions.read_purposes(der.sequence(der.null()))


@pytest.mark.parametrize(
    "read",
    [
        extensions.read_tcb_info,
        extensions.read_multi_tcb_info,
        extensions.read_ueid,
        extensions.read_purposes,
    ],
)
def test_nothing_may_follow(read: Callable[[bytes], object]) -> None:
    with pytest.raises(DecodeError, match="left over"):
        read(der.sequence() + b"\0")


def test_a_ueid_is_read() -> None:
    assert extensions.read_ueid(bytes.fromhex("30060404") + b"\1abc") == b"\1abc"
    with pytest.raises(DecodeError):
        extensions.read_ueid(der.sequence(der.octet_string(b"1"), der.octet_string(b"2")))


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden certificates at {GOLDEN}")
def test_the_golden_certificate_of_caliptra_is_read() -> None:
    certificate = Certificate.parse((GOLDEN / "fmc_alias_cert_ecc.der").read_bytes())
    device, fmc = extensions.read_multi_tcb_info(certificate.extensions[MULTI_TCB_INFO].value)
    assert (device.kind, device.svn) == (b"DEVICE_INFO", 0x107)
    assert (fmc.kind, fmc.svn) == (b"FMC_INFO", 0x109)
    assert fmc.fwid.hex().startswith("83ffe184760328cf")
    assert extensions.read_ueid(certificate.extensions[extensions.UEID].value) == bytes(17)
