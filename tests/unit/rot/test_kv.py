"""The key vault: slots, sizes, wiping."""

import pytest

from endocarp.crypto.secret import Secret
from endocarp.errors import Refused, UsageError
from endocarp.rot import kv
from endocarp.rot.dice import Cdi
from endocarp.rot.kv import KeyVault

SLOTS = [member for member in vars(kv).values() if isinstance(member, kv.Slot)]


@pytest.fixture
def octets() -> bytearray:
    return bytearray(kv.SIZE)


@pytest.fixture
def vault(octets: bytearray) -> KeyVault:
    return KeyVault(memoryview(octets))


def test_a_vault_has_24_slots_of_64_octets() -> None:
    assert kv.SIZE == 1536
    assert all(slot.number < kv.SLOT_COUNT and slot.size <= kv.SLOT_SIZE for slot in SLOTS)


@pytest.mark.parametrize("memory", [memoryview(bytearray(kv.SIZE - 1)), memoryview(bytes(kv.SIZE))])
def test_other_memory_is_refused(memory: memoryview) -> None:
    with pytest.raises(UsageError, match="1536 writable octets"):
        KeyVault(memory)


def test_a_key_is_taken_as_it_was_put(vault: KeyVault, octets: bytearray) -> None:
    with Secret(b"k" * 48) as secret:
        vault.put(kv.RT_ECC, secret)
        assert octets[5 * 64 : 6 * 64] == b"k" * 48 + bytes(16)
        with vault.take(kv.RT_ECC, Secret) as taken:
            assert taken == secret


def test_a_key_is_taken_as_the_kind_of_secret_that_it_is(vault: KeyVault) -> None:
    vault.put(kv.RT_CDI, Secret(b"c" * 64))
    assert type(vault.take(kv.RT_CDI, Cdi)) is Cdi


def test_slots_do_not_overlap(vault: KeyVault) -> None:
    slots = {slot.number: slot for slot in SLOTS}.values()
    for octet, slot in enumerate(slots, 1):
        vault.put(slot, Secret(bytes((octet,)) * slot.size))
    for octet, slot in enumerate(slots, 1):
        assert vault.take(slot, Secret) == Secret(bytes((octet,)) * slot.size)


def test_a_new_key_leaves_nothing_of_the_old_one(vault: KeyVault, octets: bytearray) -> None:
    vault.put(kv.RT_CDI, Secret(b"s" * 64))
    vault.put(kv.LDEV_MLDSA, Secret(b"f" * 32))
    assert octets[4 * 64 : 5 * 64] == b"f" * 32 + bytes(32)


def test_a_key_of_another_size_is_refused(vault: KeyVault) -> None:
    with pytest.raises(UsageError, match="47 octets, must be 48"):
        vault.put(kv.RT_ECC, Secret(bytes(47)))


def test_an_empty_slot_gives_nothing(vault: KeyVault) -> None:
    with pytest.raises(Refused, match="holds no runtime CDI") as refused:
        vault.take(kv.RT_CDI, Cdi)
    assert refused.value.rule == "kv.empty"
    assert not vault.holds(kv.RT_CDI)
    vault.put(kv.RT_CDI, Secret(b"c" * 64))
    assert vault.holds(kv.RT_CDI)


def test_erasing_wipes_one_slot_or_all(vault: KeyVault, octets: bytearray) -> None:
    for slot in SLOTS:
        vault.put(slot, Secret(b"x" * slot.size))
    vault.erase(kv.RT_CDI)
    assert not any(octets[4 * 64 : 5 * 64])
    assert any(octets)
    vault.erase_all()
    assert not any(octets)
