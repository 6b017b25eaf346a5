from endocarp.rot.profile import CALIPTRA_2_1_2, PROFILES


def test_versions_are_packed_as_the_specification_packs_them() -> None:
    assert CALIPTRA_2_1_2.rom_version == 0b00010_00001_000010
    assert CALIPTRA_2_1_2.fmc_version == 0b00010_00001_000001
    assert CALIPTRA_2_1_2.runtime_version == 0x02010001


def test_the_instruction_memory_is_256_kib_from_its_origin() -> None:
    assert CALIPTRA_2_1_2.iccm == range(0x40000000, 0x40040000)


def test_the_device_status_of_this_version_has_17_octets() -> None:
    assert CALIPTRA_2_1_2.device_status_size == 17


def test_every_profile_is_found_by_its_own_name() -> None:
    assert {name: profile.name for name, profile in PROFILES.items()} == {"2.1.2": "2.1.2"}
