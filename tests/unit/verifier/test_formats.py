"""Quotes, logs and TcbInfo, as the verifier reads them."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
from tests.simulators.device import NONCE, DeviceSimulator, sha384, tcb_info

from endocarp.crypto.certs import Certificate
from endocarp.errors import DecodeError
from endocarp.verifier import formats
from endocarp.verifier.formats import MULTI_TCB_INFO, TcbInfo
from endocarp.wire import der
from endocarp.wire.codec import Bytes, Struct
from endocarp.wire.mailbox import DataReply, PcrLogEntry, PcrLogId, seal_reply
from endocarp.wire.suites import Suite

GOLDEN = Path(__file__).parents[4] / "shared/vectors/attestation/caliptra/smoke_testdata"
SUITES = (Suite.P384, Suite.ML_DSA_87)


# --- quotes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_a_quote_is_read(suite: Suite) -> None:
    device = DeviceSimulator()
    quote = formats.read_quote(suite, device.quote(suite))
    assert quote.pcrs == tuple(device.pcrs())
    assert quote.nonce == NONCE
    assert quote.digest == quote.expected_digest
    assert device.key("fmc_alias", suite).public.verify(quote.scheme, quote.signature, quote.signed)


def test_ecc_signs_48_octets_of_the_digest_and_ml_dsa_all_of_it_reversed() -> None:
    device = DeviceSimulator()
    digest = hashlib.sha512(b"".join(device.pcrs()) + NONCE).digest()
    ecc, mldsa = (formats.read_quote(suite, device.quote(suite)) for suite in SUITES)
    assert ecc.expected_digest == ecc.signed == digest[:48]
    assert mldsa.expected_digest == digest
    assert mldsa.signed == digest[::-1]


def test_what_was_signed_is_computed_from_the_registers_and_not_taken_from_the_reply() -> None:
    quote = formats.read_quote(Suite.P384, DeviceSimulator().quote(Suite.P384))
    assert replace(quote, digest=bytes(48)).signed == quote.signed
    assert replace(quote, pcrs=(bytes(48),) * 32).signed != quote.signed


@pytest.mark.parametrize("suite", SUITES)
def test_a_damaged_quote_is_refused(suite: Suite) -> None:
    octets = DeviceSimulator().quote(suite)
    for damaged in (octets[:-1], octets + b"\0", b"", bytes([octets[0] ^ 1]) + octets[1:]):
        with pytest.raises(DecodeError):
            formats.read_quote(suite, damaged)


class Raw(Struct):
    """Octets that pretend to be the fields of a reply."""

    octets: Annotated[bytes, Bytes(None)]


def test_an_ml_dsa_signature_ends_in_one_zero_octet() -> None:
    reply = DeviceSimulator().quote(Suite.ML_DSA_87)[8:-1] + b"\1"
    with pytest.raises(DecodeError, match="zero"):
        formats.read_quote(Suite.ML_DSA_87, seal_reply(Raw(reply)))


# --- the log --------------------------------------------------------------------------------------------------


def entry(kind: PcrLogId, mask: int, data: bytes) -> PcrLogEntry:
    return PcrLogEntry(kind, None, mask, data.ljust(48, b"\0"))


def test_the_log_of_a_cold_boot_gives_the_registers_of_its_quote() -> None:
    device = DeviceSimulator()
    octets = seal_reply(DataReply(b"".join(one.encode() for one in device.log_entries())))
    entries = formats.read_log(octets)
    assert formats.is_cold_boot(entries)
    assert formats.replay(entries) == dict(enumerate(device.pcrs()[:4]))


def test_device_status_is_17_octets_long_and_everything_else_48() -> None:
    status = entry(PcrLogId.DEVICE_STATUS, 1, bytes(range(17)))
    assert formats.measured(status) == bytes(range(17))
    assert formats.measured(entry(PcrLogId.FMC_TCI, 1, b"x")) == b"x".ljust(48, b"\0")
    with pytest.raises(DecodeError, match="not zero"):
        formats.measured(entry(PcrLogId.DEVICE_STATUS, 1, bytes(range(18))))


def test_extending_is_sha_384_over_old_and_new() -> None:
    assert formats.extend(bytes(48), b"data") == hashlib.sha384(bytes(48) + b"data").digest()


def test_an_entry_extends_the_registers_of_its_mask() -> None:
    data = sha384(b"x")
    once = sha384(bytes(48), data)
    registers = formats.replay([entry(PcrLogId.FMC_TCI, 1 << 31 | 1, data), entry(PcrLogId.FMC_TCI, 1, data)])
    assert registers == {0: sha384(once, data), 31: once}


def test_stashed_digests_give_pcr_31_in_their_order() -> None:
    one, two = sha384(b"1"), sha384(b"2")
    assert formats.replay_stash([]) == bytes(48)
    assert formats.replay_stash([one, two]) == sha384(sha384(bytes(48), one), two)
    assert formats.replay_stash([one, two]) != formats.replay_stash([two, one])


def test_a_cold_boot_has_its_entries_in_one_order_and_for_their_registers() -> None:
    entries = DeviceSimulator().log_entries()
    assert not formats.is_cold_boot(entries[:-1])
    assert not formats.is_cold_boot([*entries, entries[-1]])
    assert not formats.is_cold_boot(reversed(entries))
    assert not formats.is_cold_boot([*entries[:-1], replace(entries[-1], pcr_mask=0b100)])


@pytest.mark.parametrize(
    "octets", [b"", bytes(11), seal_reply(DataReply(bytes(56))), seal_reply(DataReply(b"x"))]
)
def test_a_damaged_log_is_refused(octets: bytes) -> None:
    with pytest.raises(DecodeError):
        formats.read_log(octets)


# --- TcbInfo --------------------------------------------------------------------------------------------------

DIGEST = sha384(b"digest")
FWID = der.sequence(der.oid("2.16.840.1.101.3.4.2.2"), der.octet_string(DIGEST))
SHA256_FWID = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.octet_string(bytes(32)))


def test_a_tcb_info_is_read() -> None:
    octets = tcb_info(kind=b"KIND", fwid=DIGEST, svn=0x105, vendor_info=b"info", register=sha384(b"all"))
    expected = TcbInfo(0x105, (DIGEST,), b"info", b"KIND", {0: sha384(b"all")})
    assert formats.read_tcb_info(octets) == expected
    assert formats.read_multi_tcb_info(der.sequence(octets, octets)) == (expected, expected)
    assert expected.fwid == DIGEST


def test_everything_in_a_tcb_info_may_be_left_out() -> None:
    info = formats.read_tcb_info(der.sequence())
    assert info == TcbInfo()
    assert info.fwid == b""
    assert TcbInfo(fwids=(DIGEST, DIGEST)).fwid == b""
    assert formats.read_multi_tcb_info(der.sequence()) == ()


def test_fields_that_nobody_asks_for_are_passed_over() -> None:
    octets = der.sequence(
        der.context(0, b"vendor", constructed=False),
        der.context(4, b"\1", constructed=False),
        der.context(7, b"\0\x80", constructed=False),
        der.context(10, b"\0\x80", constructed=False),
    )
    assert formats.read_tcb_info(octets) == TcbInfo()


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
        formats.read_tcb_info(der.sequence(*fields))


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
        formats.read_tcb_info(octets)


def test_purposes_are_read() -> None:
    octets = der.sequence(der.oid("1.2.3"), der.oid("2.23.133.5.4.100.9"))
    assert formats.read_purposes(octets) == {"1.2.3", "2.23.133.5.4.100.9"}
    with pytest.raises(DecodeError):
        formats.read_purposes(der.sequence(der.null()))


@pytest.mark.parametrize(
    "read",
    [formats.read_tcb_info, formats.read_multi_tcb_info, formats.read_ueid, formats.read_purposes],
)
def test_nothing_may_follow(read: Callable[[bytes], object]) -> None:
    with pytest.raises(DecodeError, match="left over"):
        read(der.sequence() + b"\0")


def test_a_ueid_is_read() -> None:
    assert formats.read_ueid(bytes.fromhex("30060404") + b"\1abc") == b"\1abc"
    with pytest.raises(DecodeError):
        formats.read_ueid(der.sequence(der.octet_string(b"1"), der.octet_string(b"2")))


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden certificates at {GOLDEN}")
def test_the_golden_certificate_of_caliptra_is_read() -> None:
    certificate = Certificate.parse((GOLDEN / "fmc_alias_cert_ecc.der").read_bytes())
    device, fmc = formats.read_multi_tcb_info(certificate.extensions[MULTI_TCB_INFO].value)
    assert (device.kind, device.svn) == (b"DEVICE_INFO", 0x107)
    assert (fmc.kind, fmc.svn) == (b"FMC_INFO", 0x109)
    assert fmc.fwid.hex().startswith("83ffe184760328cf")
    assert formats.read_ueid(certificate.extensions[formats.UEID].value) == bytes(17)
