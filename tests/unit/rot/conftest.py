"""One device and its firmware for all tests of the root of trust; each test boots it from a copy of its memory."""

import hashlib

import pytest

from endocarp.rot import kv
from endocarp.rot.builder import SigningKeys, build_bundle, public_key_hashes
from endocarp.rot.dispatch import Call
from endocarp.rot.fmc import run_fmc
from endocarp.rot.fuses import Device, manufacture
from endocarp.rot.kv import KeyVault
from endocarp.rot.rom import Rom
from endocarp.rot.runtime import Runtime
from endocarp.wire.handoff import Handoff
from endocarp.wire.mailbox import PL0_CALLER, Command

FMC, RUNTIME = b"first mutable code" * 4, b"runtime" * 101


@pytest.fixture(scope="session")
def signing() -> SigningKeys:
    return SigningKeys.generate()


@pytest.fixture(scope="session")
def device(signing: SigningKeys) -> Device:
    vendor, owner = public_key_hashes(signing)
    return manufacture(
        lambda size: hashlib.shake_128(bytes([size])).digest(size),
        model="MODEL test root",
        vendor_pk_hash=vendor,
        owner_pk_hash=owner,
    )


@pytest.fixture(scope="session")
def bundle(signing: SigningKeys) -> bytes:
    return build_bundle(FMC, RUNTIME, signing, svn=5)


@pytest.fixture(scope="session")
def runtime_image() -> bytes:
    return RUNTIME


@pytest.fixture(scope="session")
def left_by_rom(device: Device, bundle: bytes) -> tuple[Handoff, bytes]:
    """The table, and the octets of the key vault."""
    memory = bytearray(kv.SIZE)
    rom = Rom(device, KeyVault(memoryview(memory)), b"rom")
    rom.execute(Call(PL0_CALLER, Command.FIRMWARE_LOAD, bundle))
    assert rom.result is not None
    return rom.result.table, bytes(memory)


@pytest.fixture(scope="session")
def left_by_fmc(left_by_rom: tuple[Handoff, bytes]) -> tuple[Handoff, bytes]:
    """The table, and the octets of the key vault."""
    memory = bytearray(left_by_rom[1])
    return run_fmc(left_by_rom[0], KeyVault(memoryview(memory)), RUNTIME), bytes(memory)


@pytest.fixture
def memory(left_by_fmc: tuple[Handoff, bytes]) -> bytearray:
    """The memory of the key vault that the runtime of this test works on."""
    return bytearray(left_by_fmc[1])


@pytest.fixture
def runtime(left_by_fmc: tuple[Handoff, bytes], memory: bytearray) -> Runtime:
    return Runtime(left_by_fmc[0], KeyVault(memoryview(memory)))
