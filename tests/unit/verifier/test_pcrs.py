"""Quotes, logs and their replay, as the verifier reads them."""

import hashlib
from dataclasses import replace
from typing import Annotated

import pytest
from tests.simulators.device import NONCE, DeviceSimulator, sha384

from endocarp.errors import DecodeError
from endocarp.verifier import pcrs
from endocarp.wire.codec import Bytes, Struct
from endocarp.wire.mailbox import DataReply, PcrLogEntry, PcrLogId, with_headers
from endocarp.wire.suites import Suite

SUITES = (Suite.P384, Suite.ML_DSA_87)


# --- quotes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_a_quote_is_read(suite: Suite) -> None:
    device = DeviceSimulator()
    quote = pcrs.read_quote(suite, device.quote(suite))
    assert quote.pcrs == tuple(device.pcrs())
    assert quote.nonce == NONCE
    assert quote.digest == quote.expected_digest
    assert device.key("fmc_alias", suite).public.verify(quote.scheme, quote.signature, quote.signed)


def test_ecc_signs_48_octets_of_the_digest_and_ml_dsa_all_of_it_reversed() -> None:
    device = DeviceSimulator()
    digest = hashlib.sha512(b"".join(device.pcrs()) + NONCE).digest()
    ecc, mldsa = (pcrs.read_quote(suite, device.quote(suite)) for suite in SUITES)
    assert ecc.expected_digest == ecc.signed == digest[:48]
    assert mldsa.expected_digest == digest
    assert mldsa.signed == digest[::-1]


def test_what_was_signed_is_computed_from_the_registers_and_not_taken_from_the_reply() -> None:
    quote = pcrs.read_quote(Suite.P384, DeviceSimulator().quote(Suite.P384))
    assert replace(quote, digest=bytes(48)).signed == quote.signed
    assert replace(quote, pcrs=(bytes(48),) * 32).signed != quote.signed


@pytest.mark.parametrize("suite", SUITES)
def test_a_damaged_quote_is_refused(suite: Suite) -> None:
    octets = DeviceSimulator().quote(suite)
    for damaged in (octets[:-1], octets + b"\0", b"", bytes([octets[0] ^ 1]) + octets[1:]):
        with pytest.raises(DecodeError):
            pcrs.read_quote(suite, damaged)


class Raw(Struct):
    """Octets that pretend to be the fields of a reply."""

    octets: Annotated[bytes, Bytes(None)]


def test_an_ml_dsa_signature_ends_in_one_zero_octet() -> None:
    reply = DeviceSimulator().quote(Suite.ML_DSA_87)[8:-1] + b"\1"
    with pytest.raises(DecodeError, match="zero"):
        pcrs.read_quote(Suite.ML_DSA_87, with_headers(Raw(reply)))


# --- the log --------------------------------------------------------------------------------------------------


def entry(kind: PcrLogId, mask: int, data: bytes) -> PcrLogEntry:
    return PcrLogEntry(kind, None, mask, data.ljust(48, b"\0"))


def test_the_log_of_a_cold_boot_gives_the_registers_of_its_quote() -> None:
    device = DeviceSimulator()
    octets = with_headers(DataReply(b"".join(one.encode() for one in device.log_entries())))
    entries = pcrs.read_log(octets)
    assert pcrs.is_cold_boot(entries)
    assert pcrs.replay(entries) == dict(enumerate(device.pcrs()[:4]))


def test_device_status_is_17_octets_long_and_everything_else_48() -> None:
    status = entry(PcrLogId.DEVICE_STATUS, 1, bytes(range(17)))
    assert pcrs.measured(status) == bytes(range(17))
    assert pcrs.measured(entry(PcrLogId.FMC_TCI, 1, b"x")) == b"x".ljust(48, b"\0")
    with pytest.raises(DecodeError, match="not zero"):
        pcrs.measured(entry(PcrLogId.DEVICE_STATUS, 1, bytes(range(18))))


def test_extending_is_sha_384_over_old_and_new() -> None:
    assert pcrs.extend(bytes(48), b"data") == hashlib.sha384(bytes(48) + b"data").digest()


def test_an_entry_extends_the_registers_of_its_mask() -> None:
    data = sha384(b"x")
    once = sha384(bytes(48), data)
    registers = pcrs.replay([entry(PcrLogId.FMC_TCI, 1 << 31 | 1, data), entry(PcrLogId.FMC_TCI, 1, data)])
    assert registers == {0: sha384(once, data), 31: once}


def test_stashed_digests_give_pcr_31_in_their_order() -> None:
    one, two = sha384(b"1"), sha384(b"2")
    assert pcrs.replay_stash([]) == bytes(48)
    assert pcrs.replay_stash([one, two]) == sha384(sha384(bytes(48), one), two)
    assert pcrs.replay_stash([one, two]) != pcrs.replay_stash([two, one])


def test_a_cold_boot_has_its_entries_in_one_order_and_for_their_registers() -> None:
    entries = DeviceSimulator().log_entries()
    assert not pcrs.is_cold_boot(entries[:-1])
    assert not pcrs.is_cold_boot([*entries, entries[-1]])
    assert not pcrs.is_cold_boot(reversed(entries))
    assert not pcrs.is_cold_boot([*entries[:-1], replace(entries[-1], pcr_mask=0b100)])


@pytest.mark.parametrize(
    "octets", [b"", bytes(11), with_headers(DataReply(bytes(56))), with_headers(DataReply(b"x"))]
)
def test_a_damaged_log_is_refused(octets: bytes) -> None:
    with pytest.raises(DecodeError):
        pcrs.read_log(octets)
