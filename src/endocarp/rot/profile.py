"""Versions of Caliptra as data: one row a version, never an `if` elsewhere.

Source: caliptra-sw, builder/src/version.rs, drivers/src/memory_layout.rs, image/types; differences between the
versions are those of the ROM's change log.
"""

from dataclasses import dataclass

from endocarp.wire.handoff import STASH_LIMIT
from endocarp.wire.mailbox import FIRMWARE_LIMIT


@dataclass(frozen=True)
class Profile:
    """What differs from one version of Caliptra to the next."""

    hardware_revision: int
    rom_version: int
    """16 bits: major 5, minor 5, patch 6."""
    fmc_version: int
    """16 bits, as `rom_version`."""
    runtime_version: int
    """32 bits: major 8, minor 8, patch 16."""
    certificate_prefix: str
    """What the common names begin with: `Caliptra 2.1`, then `Ecc384 LDevID` and so on."""
    iccm_start: int
    iccm_size: int
    """Where FMC and runtime are loaded, and how much room there is, in octets."""
    image_limit: int
    """The largest bundle, in octets."""
    image_alignment: int
    """A bundle is filled with zero octets up to a multiple of this."""
    max_svn: int
    vendor_ecc_keys: int
    vendor_mldsa_keys: int
    rom_stash_limit: int
    """How many measurements the ROM takes before it has firmware."""
    fmc_tcb_type: str
    runtime_tcb_type: str
    owner_tcb_type: str
    vendor_tcb_type: str
    """The `type` of the entries of TcbInfo and MultiTcbInfo."""

    @property
    def iccm(self) -> range:
        """The addresses of the instruction memory."""
        return range(self.iccm_start, self.iccm_start + self.iccm_size)


def _short_version(major: int, minor: int, patch: int) -> int:
    return major << 11 | minor << 6 | patch


def _long_version(major: int, minor: int, patch: int) -> int:
    return major << 24 | minor << 16 | patch


CALIPTRA_2_1_2 = Profile(
    hardware_revision=_short_version(2, 1, 0),
    rom_version=_short_version(2, 1, 2),
    fmc_version=_short_version(2, 1, 1),
    runtime_version=_long_version(2, 1, 1),
    certificate_prefix="Caliptra 2.1",
    iccm_start=0x4000_0000,
    # deviation: 256 KiB each in Caliptra. Our images are archives of Python source.
    iccm_size=1 << 20,
    image_limit=FIRMWARE_LIMIT,
    image_alignment=256,
    max_svn=128,
    vendor_ecc_keys=4,
    vendor_mldsa_keys=4,
    rom_stash_limit=STASH_LIMIT,
    fmc_tcb_type="CALIPTRA_2_X_FMC_FIRMWARE_INFO",
    runtime_tcb_type="CALIPTRA_2_X_RT_FIRMWARE_INFO",
    owner_tcb_type="CALIPTRA_2_X_FUSE_OWNER_INFO",
    vendor_tcb_type="CALIPTRA_2_X_FUSE_VENDOR_INFO",
)
