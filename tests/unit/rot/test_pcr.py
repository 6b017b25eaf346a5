"""PCRs and their log, with the vector of Caliptra's own test."""

import hashlib

import pytest

from endocarp.errors import PeerError, UsageError
from endocarp.rot.pcr import PcrBank
from endocarp.wire.mailbox import (
    PCR_LOG_LIMIT,
    DeviceStatus,
    FuseOwnerInfo,
    FuseVendorInfo,
    MailboxError,
    PcrLogId,
    decode_pcr_log,
)


def test_registers_start_at_zero() -> None:
    bank = PcrBank()
    assert bank.values == bytes(32 * 48)
    assert bank[31] == bytes(48)
    assert bank.log == b""


def test_extending_hashes_old_and_new() -> None:
    bank = PcrBank()
    bank.extend(4, b"data")
    assert bank[4] == hashlib.sha384(bytes(48) + b"data").digest()
    assert bank[3] == bank[5] == bytes(48)


@pytest.mark.parametrize(("size", "fits"), [(79, True), (80, False)])
def test_an_extension_takes_at_most_79_octets(size: int, fits: bool) -> None:
    bank = PcrBank()
    if fits:
        bank.extend(0, bytes(size))
        return
    with pytest.raises(UsageError, match="at most 79"):
        bank.extend(0, bytes(size))
    assert bank.values == bytes(32 * 48)


def test_a_measurement_is_logged_once_for_all_its_registers() -> None:
    bank = PcrBank()
    bank.measure(PcrLogId.RT_TCI, (2, 3), b"t" * 48)
    (entry,) = decode_pcr_log(bank.log)
    assert (entry.id, entry.pcr_mask, entry.data) == (PcrLogId.RT_TCI, 0b1100, b"t" * 48)
    assert bank[2] == bank[3] == hashlib.sha384(bytes(48) + b"t" * 48).digest()


def test_a_full_log_refuses_and_changes_nothing() -> None:
    # NCC 4DN: the region behind the log stays as it is.
    bank = PcrBank()
    for _ in range(PCR_LOG_LIMIT):
        bank.measure(PcrLogId.RT_TCI, (2,), b"t" * 48)
    before = (bank.values, bank.log)
    with pytest.raises(PeerError) as refused:
        bank.measure(PcrLogId.RT_TCI, (2,), b"t" * 48)
    assert refused.value.number == MailboxError.ROM_GLOBAL_PCR_LOG_EXHAUSTED
    assert (bank.values, bank.log) == before


def test_a_bank_goes_on_from_what_was_handed_off() -> None:
    first = PcrBank()
    first.measure(PcrLogId.FMC_TCI, (0, 1), b"f" * 48)
    second = PcrBank(first.values, first.log)
    second.extend(31, b"s" * 48)
    assert second[0] == first[0]
    assert second.log == first.log
    assert first[31] == bytes(48)


def test_another_number_of_registers_is_refused() -> None:
    with pytest.raises(UsageError, match="must be 1536"):
        PcrBank(bytes(1535))


def test_the_quote_covers_all_registers_and_the_nonce() -> None:
    bank = PcrBank()
    bank.extend(31, b"x")
    assert bank.quote_digest(b"n" * 32) == hashlib.sha512(bank.values + b"n" * 32).digest()


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def test_pcr0_is_that_of_the_real_rom() -> None:
    # caliptra-sw, test/src/derive.rs: inputs and result of ROM 2.1.0 to 2.1.2.
    bank = PcrBank()
    status = DeviceStatus(FuseOwnerInfo(1, 0, 1, 2, 3, 4, 5, 128), FuseVendorInfo(3, 3, 1, 6, 7, 8))
    vendor = words(
        0xED6DD78C, 0x131D69E2, 0x313B5D89, 0x0ACD8E4E, 0xE2A1DB67, 0x790721DE,
        0x01346B64, 0x1C5CF3C9, 0xCF284E7D, 0x0E114D50, 0xE894B381, 0xD874BA94,
    )  # fmt: skip
    owner = words(
        0xDC1A27EF, 0x0C08201A, 0x8B066094, 0x118C29FE, 0x0BC2270E, 0xBD965C43,
        0xF7B9A68D, 0x8EAF37FA, 0x968CA8D8, 0x13B2920B, 0x3B88B026, 0xF2F0EBB0,
    )  # fmt: skip
    fmc = words(
        0xE44EA855, 0x9FCF4063, 0xD3110A9A, 0xD60579DB, 0xE03E6DD7, 0x4556CD98,
        0xB2B941F5, 0x1BB5034B, 0x587EEA1F, 0xFCDD0E0F, 0x8E88D406, 0x3327A3FE,
    )  # fmt: skip
    for entry, data in (
        (PcrLogId.DEVICE_STATUS, status.encode()),
        (PcrLogId.VENDOR_PUB_KEY_INFO_HASH, vendor),
        (PcrLogId.OWNER_PUB_KEY_HASH, owner),
        (PcrLogId.FMC_TCI, fmc),
    ):
        bank.measure(entry, (0, 1), data)
    assert bank[0] == bank[1] == words(
        105088857, 944151149, 2604353809, 791137423, 1712852176, 1628755509,
        3990671566, 2052346331, 640093718, 3145303069, 2197324478, 520085314,
    )  # fmt: skip
