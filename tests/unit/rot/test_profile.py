from endocarp.rot.profile import CALIPTRA_2_1_2


def test_versions_are_packed_as_the_specification_packs_them() -> None:
    assert CALIPTRA_2_1_2.rom_version == 0b00010_00001_000010
    assert CALIPTRA_2_1_2.fmc_version == 0b00010_00001_000001
    assert CALIPTRA_2_1_2.runtime_version == 0x02010001


def test_the_instruction_memory_begins_where_caliptra_has_it() -> None:
    assert CALIPTRA_2_1_2.iccm.start == 0x40000000
    assert len(CALIPTRA_2_1_2.iccm) == CALIPTRA_2_1_2.iccm_size
