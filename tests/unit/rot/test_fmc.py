"""The FMC: measures the runtime, derives its identity, and refuses anything else than what ROM verified."""

import dataclasses

import pytest

from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384
from endocarp.errors import Refused
from endocarp.rot import kv
from endocarp.rot.fmc import run_fmc
from endocarp.rot.kv import KeyVault
from endocarp.rot.pcr import PcrBank
from endocarp.wire.handoff import Handoff, Writer
from endocarp.wire.mailbox import PcrLogId, decode_pcr_log

Left = tuple[Handoff, bytes]


def test_the_runtime_is_measured_into_pcr_2_and_3(left_by_rom: Left, left_by_fmc: Left) -> None:
    before, after = (PcrBank(left[0].pcrs, left[0].pcr_log) for left in (left_by_rom, left_by_fmc))
    digest = left_by_rom[0].runtime_digest
    assert after[2] == after[3] == sha384(bytes(48), digest)
    assert (after[0], after[1]) == (before[0], before[1])
    *_, last = decode_pcr_log(after.log)
    assert (last.id, last.pcr_mask, last.data) == (PcrLogId.RT_TCI, 0b1100, digest)


def test_the_fmc_alias_certifies_the_runtime(left_by_fmc: Left) -> None:
    table = left_by_fmc[0]
    assert table.writer is Writer.FMC
    for upper, lower in (
        (table.fmc_alias.ecc, table.rt_alias.ecc),
        (table.fmc_alias.mldsa, table.rt_alias.mldsa),
    ):
        issuer, subject = Certificate.parse(upper), Certificate.parse(lower)
        assert subject.signed_by(issuer.public)
        assert subject.common_name.endswith("Rt Alias")
        info = subject.extensions["2.23.133.5.4.1"].value
        assert table.runtime_digest in info
        assert b"CALIPTRA_2_X_RT_FIRMWARE_INFO" in info
        assert b"\x83\x02\x01\x05" in info, "the SVN has its fixed width"


def test_the_cdi_of_the_fmc_does_not_outlive_it(left_by_rom: Left, left_by_fmc: Left) -> None:
    def held(octets: bytes) -> set[int]:
        return {number for number in range(kv.SLOT_COUNT) if any(octets[number * 64 : number * 64 + 64])}

    assert held(left_by_rom[1]) == {0, 6, 7, 8}
    assert held(left_by_fmc[1]) == {0, 4, 5, 7, 8, 9}


def test_another_runtime_has_another_identity(left_by_rom: Left, left_by_fmc: Left) -> None:
    other = b"another runtime"
    handoff = dataclasses.replace(left_by_rom[0], runtime_digest=sha384(other))
    table = run_fmc(handoff, KeyVault(memoryview(bytearray(left_by_rom[1]))), other)
    assert table.rt_alias.ecc != left_by_fmc[0].rt_alias.ecc


@pytest.mark.parametrize(
    ("changes", "image", "reason"),
    [
        ({"writer": Writer.FMC}, None, "written by FMC"),
        ({}, b"not the image that ROM verified", "not the one that ROM verified"),
    ],
)
def test_a_hand_off_that_does_not_fit_wipes_the_vault(
    left_by_rom: Left, runtime_image: bytes, changes: dict[str, Writer], image: bytes | None, reason: str
) -> None:
    memory = bytearray(left_by_rom[1])
    handoff = dataclasses.replace(left_by_rom[0], **changes)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=reason) as refused:
        run_fmc(handoff, KeyVault(memoryview(memory)), image or runtime_image)
    assert refused.value.rule == "FMC_HANDOFF_INVALID_PARAM"
    assert not any(memory)


def test_an_empty_vault_is_refused(left_by_rom: Left, runtime_image: bytes) -> None:
    with pytest.raises(Refused, match="holds no FMC CDI"):
        run_fmc(left_by_rom[0], KeyVault(memoryview(bytearray(kv.SIZE))), runtime_image)
