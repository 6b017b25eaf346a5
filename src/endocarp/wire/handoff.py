"""The hand-off table: the public values that ROM leaves for FMC, and FMC for the runtime.

Secrets do not stand here: they pass in the key vault. All integers are little-endian; digests and keys are in
standard byte order.

deviation: the marker is Caliptra's, 'CFHT', but the layout is our own, since our stages are processes and not one
address space.
"""

import enum
from typing import Annotated

from endocarp.wire.codec import U8, U16, U32, Bytes, Const, Items, Nested, Octets, Struct, u8, u16, u32
from endocarp.wire.mailbox import PCR_COUNT, PCR_LOG_LIMIT, PCR_SIZE, PcrLogEntry
from endocarp.wire.suites import Suite

MARKER = 0x54484643
VERSION = 2
STASH_LIMIT = 8
"""How many measurements the ROM takes before it has firmware: Caliptra, "Measurement log"."""


class Writer(enum.IntEnum):
    """The stage that wrote the table."""

    ROM = 1
    FMC = 2


class Measurement(Struct):
    """A measurement that was stashed before the runtime ran, which its DPE takes over."""

    metadata: U32
    measurement: Annotated[bytes, Octets(48)]
    context: Annotated[bytes, Octets(48)]
    svn: U32


class CertificatePair(Struct):
    """One identity's certificates in both suites, DER; empty where that stage has not run."""

    ecc: Annotated[bytes, Bytes(u32, limit=4096)] = b""
    mldsa: Annotated[bytes, Bytes(u32, limit=12288)] = b""

    def __getitem__(self, suite: Suite) -> bytes:
        return self.mldsa if suite is Suite.ML_DSA_87 else self.ecc


class PublicKeyPair(Struct):
    """One owner of keys in both suites: an uncompressed P-384 point and an ML-DSA-87 public key."""

    ecc: Annotated[bytes, Octets(97)]
    mldsa: Annotated[bytes, Octets(2592)]

    def __getitem__(self, suite: Suite) -> bytes:
        return self.mldsa if suite is Suite.ML_DSA_87 else self.ecc


class Handoff(Struct):
    """What one stage leaves for the next.

    `ueid` is the type octet and the manufacturer's serial. `svn_checked` and the `soc_manifest_…` fields repeat what
    later stages need of the fuses. `header_flags` and `pl0_pauser` come from the signed image header: bit 0 of the
    flags says that `pl0_pauser` is valid. `not_before` and `not_after` date the alias certificates
    (`YYYYMMDDHHMMSSZ`). `vendor_keys` and `owner_keys` are the active keys of the firmware image, which also sign the
    SoC manifest. `pcr_log` holds entries as `wire.mailbox.PcrLogEntry`.
    """

    marker: Annotated[int, Const(MARKER, u32)]
    version: Annotated[int, Const(VERSION, u16)]
    writer: Annotated[Writer, u8]
    svn_checked: U8
    soc_manifest_min_svn: U16
    soc_manifest_max_svn: U16
    ueid: Annotated[bytes, Octets(17)]
    fw_svn: U32
    min_fw_svn: U32
    cold_boot_fw_svn: U32
    header_flags: U32
    pl0_pauser: U32
    pqc_type: U32
    vendor_ecc_index: U32
    vendor_pqc_index: U32
    rom_digest: Annotated[bytes, Octets(32)]
    fmc_digest: Annotated[bytes, Octets(48)]
    runtime_digest: Annotated[bytes, Octets(48)]
    vendor_pk_hash: Annotated[bytes, Octets(48)]
    owner_pk_hash: Annotated[bytes, Octets(48)]
    fmc_revision: Annotated[bytes, Octets(20)]
    runtime_revision: Annotated[bytes, Octets(20)]
    not_before: Annotated[bytes, Octets(15)]
    not_after: Annotated[bytes, Octets(15)]
    vendor_keys: Annotated[PublicKeyPair, Nested(PublicKeyPair)]
    owner_keys: Annotated[PublicKeyPair, Nested(PublicKeyPair)]
    idev_keys: Annotated[PublicKeyPair, Nested(PublicKeyPair)]
    ldevid: Annotated[CertificatePair, Nested(CertificatePair)]
    fmc_alias: Annotated[CertificatePair, Nested(CertificatePair)]
    rt_alias: Annotated[CertificatePair, Nested(CertificatePair)]
    pcrs: Annotated[bytes, Octets(PCR_COUNT * PCR_SIZE)]
    pcr_log: Annotated[bytes, Bytes(u16, limit=PCR_LOG_LIMIT * PcrLogEntry.fixed_size())]
    measurements: Annotated[tuple[Measurement, ...], Items(Measurement, count=u8, limit=STASH_LIMIT)]
