"""What a box runs: its tables."""

from importlib.util import find_spec

import pytest

from endocarp.box.plan import FIRMWARE, IMAGES, KINDS, PARTITIONS, Remedy, kind_of, vault_name
from endocarp.wire.manifest import FirmwareId


def test_each_process_but_the_box_is_of_a_kind_that_runs_an_image() -> None:
    assert set(KINDS) == {"rot", *FIRMWARE} - {"box"}
    assert {kind.image for kind in KINDS.values()} <= set(IMAGES)


def test_each_image_runs_a_module_that_is_there() -> None:
    for image in IMAGES.values():
        assert find_spec(image.entry) is not None


def test_only_the_death_of_the_root_of_trust_resets_the_server() -> None:
    assert [name for name, kind in KINDS.items() if kind.on_death is Remedy.RESET] == ["rot"]


def test_the_root_of_trust_is_there_before_the_vaults_and_these_before_the_front() -> None:
    assert list(KINDS) == ["rot", "vault", "front"]


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
