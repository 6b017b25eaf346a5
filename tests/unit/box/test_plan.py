"""What a box runs: its tables."""

import pytest

from endocarp.box.plan import FIRMWARE, ON_DEATH, PARTITIONS, Remedy, kind_of, vault_name
from endocarp.wire.manifest import FirmwareId


def test_each_process_but_the_box_has_a_remedy() -> None:
    assert set(ON_DEATH) == {"rot", *FIRMWARE} - {"box"}


def test_only_the_death_of_the_root_of_trust_resets_the_server() -> None:
    assert [kind for kind, remedy in ON_DEATH.items() if remedy is Remedy.RESET] == ["rot"]


def test_the_box_is_measured_first() -> None:
    assert list(FIRMWARE) == ["box", "front", "vault"]
    assert set(FIRMWARE.values()) == set(FirmwareId)


@pytest.mark.parametrize("partition", [*PARTITIONS, 7, 4096])
def test_a_vault_is_a_vault_whatever_its_partition(partition: int) -> None:
    assert vault_name(partition) == f"vault-{partition}"
    assert kind_of(vault_name(partition)) == "vault"


@pytest.mark.parametrize("name", ["rot", "front"])
def test_a_process_of_which_there_is_one_is_named_by_its_kind(name: str) -> None:
    assert kind_of(name) == name
