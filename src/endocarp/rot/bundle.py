"""The verifier of firmware bundles: what the ROM checks before it lets anything run, in the ROM's own order.

Each refusal is one `Check`: the number that Caliptra leaves in its error register, or one of our own. The octets that
were checked are a copy of this module's own, and what it returns comes from that copy.

Source: Caliptra ROM, "Firmware Image Validation Process"; caliptra-sw, image/verify/src/verifier.rs, which holds
where the document differs. Cold boot only; the equalities of update reset come with update reset.
"""

from dataclasses import dataclass

from endocarp.crypto.digest import Buffer, sha384
from endocarp.crypto.keys import PublicKey
from endocarp.errors import DecodeError
from endocarp.rot.dice import Validity
from endocarp.rot.fuses import NO_HASH, Fuses, Lifecycle
from endocarp.rot.profile import Profile
from endocarp.rot.refusals import ImageRefused
from endocarp.wire.checks import Check
from endocarp.wire.handoff import PublicKeyPair
from endocarp.wire.image import (
    ECC_KEY_HASHES,
    KEY_DESCRIPTOR_VERSION,
    MANIFEST_MARKER,
    MANIFEST_SIZE,
    TOC_ENTRIES,
    ImageBundle,
    ImageHeader,
    ImageManifest,
    ImagePreamble,
    ImagePubKeys,
    ImageSignatures,
    ImageTocEntry,
    PqcKeyType,
)
from endocarp.wire.suites import Scheme, Suite

_ADDRESS_END = 1 << 32
_NO_SCALAR = bytes(48)
_PQC_KEY_TYPES = frozenset(map(int, PqcKeyType))


@dataclass(frozen=True)
class VerifiedImage:
    """A bundle that passed every check; its parts are those that were checked.

    Digests and hashes have 48 octets in standard order.
    """

    manifest: ImageManifest
    fmc: bytes
    runtime: bytes
    vendor_pk_hash: bytes
    owner_pk_hash: bytes
    owner_pk_hash_in_fuses: bool
    effective_fuse_svn: int
    validity: Validity
    """The dates of the alias certificates."""

    @property
    def header(self) -> ImageHeader:
        """What vendor and owner signed."""
        return self.manifest.header

    @property
    def svn(self) -> int:
        """The security version number of the firmware."""
        return self.header.svn

    @property
    def fmc_digest(self) -> bytes:
        """SHA-384 of `fmc`: the FMC TCI."""
        return self.manifest.fmc.digest

    @property
    def runtime_digest(self) -> bytes:
        """SHA-384 of `runtime`: the RT TCI."""
        return self.manifest.runtime.digest

    @property
    def vendor_keys(self) -> PublicKeyPair:
        """The keys of the vendor that signed this bundle."""
        return key_pair(self.manifest.preamble.vendor_pub_keys)

    @property
    def owner_keys(self) -> PublicKeyPair:
        """The keys of the owner."""
        return key_pair(self.manifest.preamble.owner_pub_keys)


def key_pair(keys: ImagePubKeys) -> PublicKeyPair:
    """Return the keys of a bundle or a manifest as those that check signatures: a point and an octet string."""
    return PublicKeyPair(ecc=keys.ecc_pub_key.point, mldsa=keys.pqc_pub_key)


def verify_bundle(bundle: Buffer, fuses: Fuses, profile: Profile) -> VerifiedImage:
    """Check a whole bundle against the fuses, and return the copy that was checked.

    Raises ImageRefused with the first rule that is broken.
    """
    image = _read(bytes(bundle), profile)
    manifest = image.manifest
    _verify_manifest_head(manifest, fuses)
    _verify_vendor_keys(manifest.preamble, fuses, profile)
    owner_pk_hash = _verify_owner_keys(manifest.preamble, fuses)
    _verify_key_indices(manifest.preamble, fuses)
    _verify_header(manifest)
    _verify_toc(manifest, bundle_size=len(image.octets))
    fmc = _verify_image(image, manifest.fmc, _FMC, profile)
    runtime = _verify_image(image, manifest.runtime, _RUNTIME, profile)
    _verify_svn(manifest.header.svn, fuses, profile)
    validity = _verify_validity(manifest.header)
    _verify_unsigned(image, profile)
    return VerifiedImage(
        manifest=manifest,
        fmc=fmc,
        runtime=runtime,
        vendor_pk_hash=sha384(manifest.preamble.vendor_pub_key_info.encode()),
        owner_pk_hash=owner_pk_hash,
        owner_pk_hash_in_fuses=fuses.owner_pk_hash != NO_HASH,
        effective_fuse_svn=fuses.effective_fw_svn,
        validity=validity,
    )


def _read(octets: bytes, profile: Profile) -> ImageBundle:
    # Caliptra ROM, firmware processor: the size is looked at before the mailbox is read.
    if not 0 < len(octets) <= profile.image_limit:
        raise ImageRefused(Check.FW_PROC_INVALID_IMAGE_SIZE, len(octets), f"at most {profile.image_limit}")
    try:
        return ImageBundle.decode(octets)
    except DecodeError:
        raise ImageRefused(
            Check.FW_PROC_MANIFEST_READ_FAILURE, len(octets), f"at least {MANIFEST_SIZE}"
        ) from None


def _verify_manifest_head(manifest: ImageManifest, fuses: Fuses) -> None:
    if manifest.marker != MANIFEST_MARKER:
        raise ImageRefused(Check.MANIFEST_MARKER_MISMATCH, f"{manifest.marker:#x}", f"{MANIFEST_MARKER:#x}")
    if manifest.size != MANIFEST_SIZE:
        raise ImageRefused(Check.MANIFEST_SIZE_MISMATCH, manifest.size, MANIFEST_SIZE)
    if manifest.pqc_key_type not in _PQC_KEY_TYPES:
        raise ImageRefused(Check.PQC_KEY_TYPE_INVALID, manifest.pqc_key_type)
    if fuses.lifecycle is not Lifecycle.UNPROVISIONED:
        if fuses.pqc_key_type not in _PQC_KEY_TYPES:
            raise ImageRefused(Check.INVALID_PQC_KEY_TYPE_IN_FUSE, fuses.pqc_key_type)
        if manifest.pqc_key_type != fuses.pqc_key_type:
            raise ImageRefused(Check.PQC_KEY_TYPE_MISMATCH, manifest.pqc_key_type, fuses.pqc_key_type)
    # deviation: there is no LMS engine yet. Such a bundle is answered here as by an engine that fails, not after
    # the checks of its keys.
    if manifest.pqc_key_type == PqcKeyType.LMS:
        raise ImageRefused(Check.VENDOR_LMS_VERIFY_FAILURE, "LMS", "ML-DSA-87")


# --- keys ----------------------------------------------------------------------------------------------------


def _verify_vendor_keys(preamble: ImagePreamble, fuses: Fuses, profile: Profile) -> None:
    # Caliptra ROM, "Preamble validation": an unprovisioned device knows no vendor.
    if fuses.lifecycle is Lifecycle.UNPROVISIONED:
        return
    if fuses.vendor_pk_hash == NO_HASH:
        raise ImageRefused(Check.VENDOR_PUB_KEY_DIGEST_INVALID, fuses.vendor_pk_hash)
    _verify_ecc_descriptor(preamble, profile)
    _verify_pqc_descriptor(preamble, profile)
    found = sha384(preamble.vendor_pub_key_info.encode())
    if found != fuses.vendor_pk_hash:
        raise ImageRefused(Check.VENDOR_PUB_KEY_DIGEST_MISMATCH, found, fuses.vendor_pk_hash)
    _verify_active_keys(preamble, profile)


def _verify_ecc_descriptor(preamble: ImagePreamble, profile: Profile) -> None:
    descriptor = preamble.vendor_pub_key_info.ecc_key_descriptor
    if descriptor.version != KEY_DESCRIPTOR_VERSION:
        raise ImageRefused(
            Check.ECC_KEY_DESCRIPTOR_VERSION_MISMATCH, descriptor.version, KEY_DESCRIPTOR_VERSION
        )
    if descriptor.key_hash_count == 0:
        raise ImageRefused(Check.ECC_KEY_DESCRIPTOR_INVALID_HASH_COUNT, 0)
    if descriptor.key_hash_count > profile.vendor_ecc_keys:
        raise ImageRefused(
            Check.ECC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX,
            descriptor.key_hash_count,
            f"at most {profile.vendor_ecc_keys}",
        )


def _verify_pqc_descriptor(preamble: ImagePreamble, profile: Profile) -> None:
    descriptor = preamble.vendor_pub_key_info.pqc_key_descriptor
    if descriptor.version != KEY_DESCRIPTOR_VERSION:
        raise ImageRefused(
            Check.PQC_KEY_DESCRIPTOR_VERSION_MISMATCH, descriptor.version, KEY_DESCRIPTOR_VERSION
        )
    if descriptor.key_type != PqcKeyType.MLDSA:
        raise ImageRefused(Check.PQC_KEY_DESCRIPTOR_TYPE_MISMATCH, descriptor.key_type, int(PqcKeyType.MLDSA))
    if descriptor.key_hash_count == 0:
        raise ImageRefused(Check.PQC_KEY_DESCRIPTOR_INVALID_HASH_COUNT, 0)
    if descriptor.key_hash_count > profile.vendor_mldsa_keys:
        raise ImageRefused(
            Check.PQC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX,
            descriptor.key_hash_count,
            f"at most {profile.vendor_mldsa_keys}",
        )


def _verify_active_keys(preamble: ImagePreamble, profile: Profile) -> None:
    info, index = preamble.vendor_pub_key_info, preamble.vendor_ecc_pub_key_idx
    if index >= ECC_KEY_HASHES:
        raise ImageRefused(Check.VENDOR_ECC_PUB_KEY_INDEX_OUT_OF_BOUNDS, index, f"below {ECC_KEY_HASHES}")
    found, expected = (
        sha384(preamble.vendor_ecc_active_pub_key.encode()),
        info.ecc_key_descriptor.key_hash(index),
    )
    if found != expected:
        raise ImageRefused(Check.VENDOR_ECC_PUB_KEY_DIGEST_MISMATCH, found, expected)
    index = preamble.vendor_pqc_pub_key_idx
    if index >= profile.vendor_mldsa_keys:
        raise ImageRefused(
            Check.VENDOR_PQC_PUB_KEY_INDEX_OUT_OF_BOUNDS, index, f"below {profile.vendor_mldsa_keys}"
        )
    found, expected = sha384(preamble.vendor_pqc_active_pub_key), info.pqc_key_descriptor.key_hash(index)
    if found != expected:
        raise ImageRefused(Check.VENDOR_PQC_PUB_KEY_DIGEST_MISMATCH, found, expected)


def _verify_owner_keys(preamble: ImagePreamble, fuses: Fuses) -> bytes:
    """Return the hash of the owner's keys, which a device without one in its fuses takes as it comes."""
    found = sha384(preamble.owner_pub_keys.encode())
    if fuses.owner_pk_hash != NO_HASH and found != fuses.owner_pk_hash:
        raise ImageRefused(Check.OWNER_PUB_KEY_DIGEST_MISMATCH, found, fuses.owner_pk_hash)
    return found


def _verify_key_indices(preamble: ImagePreamble, fuses: Fuses) -> None:
    info = preamble.vendor_pub_key_info
    index, count = preamble.vendor_ecc_pub_key_idx, info.ecc_key_descriptor.key_hash_count
    if index >= count:
        raise ImageRefused(Check.VENDOR_ECC_PUB_KEY_INDEX_OUT_OF_BOUNDS, index, f"below {count}")
    if _revoked(index, count, fuses.ecc_revocation):
        raise ImageRefused(Check.VENDOR_ECC_PUB_KEY_REVOKED, index)
    index, count = preamble.vendor_pqc_pub_key_idx, info.pqc_key_descriptor.key_hash_count
    if index >= count:
        raise ImageRefused(Check.VENDOR_PQC_PUB_KEY_INDEX_OUT_OF_BOUNDS, index, f"below {count}")
    if _revoked(index, count, fuses.mldsa_revocation):
        raise ImageRefused(Check.VENDOR_PQC_PUB_KEY_REVOKED, index)


def _revoked(index: int, count: int, revocation: int) -> bool:
    # Caliptra ROM: the last key can never be revoked, or a device could be left with no key at all.
    return index != count - 1 and bool(revocation >> index & 1)


# --- signatures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PartyChecks:
    """The numbers of one party's signature checks, in their order."""

    no_key: Check
    no_signature: Check
    bad_key: Check
    ecc: Check
    mldsa: Check


_VENDOR = _PartyChecks(
    Check.VENDOR_ECC_PUB_KEY_INVALID_ARG,
    Check.VENDOR_ECC_SIGNATURE_INVALID_ARG,
    Check.VENDOR_ECC_VERIFY_FAILURE,
    Check.VENDOR_ECC_SIGNATURE_INVALID,
    Check.VENDOR_MLDSA_SIGNATURE_INVALID,
)
_OWNER = _PartyChecks(
    Check.OWNER_ECC_PUB_KEY_INVALID_ARG,
    Check.OWNER_ECC_SIGNATURE_INVALID_ARG,
    Check.OWNER_ECC_VERIFY_FAILURE,
    Check.OWNER_ECC_SIGNATURE_INVALID,
    Check.OWNER_MLDSA_SIGNATURE_INVALID,
)


def _verify_header(manifest: ImageManifest) -> None:
    preamble, header = manifest.preamble, manifest.header
    _verify_signatures(preamble.vendor_pub_keys, preamble.vendor_sigs, header.vendor_signed(), _VENDOR)
    # Caliptra ROM, "Header validation": the signed indices must be those by which the keys were found.
    if header.vendor_ecc_pub_key_idx != preamble.vendor_ecc_pub_key_idx:
        raise ImageRefused(
            Check.VENDOR_ECC_PUB_KEY_INDEX_MISMATCH,
            header.vendor_ecc_pub_key_idx,
            preamble.vendor_ecc_pub_key_idx,
        )
    if header.vendor_pqc_pub_key_idx != preamble.vendor_pqc_pub_key_idx:
        raise ImageRefused(
            Check.VENDOR_PQC_PUB_KEY_INDEX_MISMATCH,
            header.vendor_pqc_pub_key_idx,
            preamble.vendor_pqc_pub_key_idx,
        )
    _verify_signatures(preamble.owner_pub_keys, preamble.owner_sigs, header.encode(), _OWNER)


def _verify_signatures(
    keys: ImagePubKeys, signatures: ImageSignatures, signed: bytes, checks: _PartyChecks
) -> None:
    ecc_key, ecc_sig = keys.ecc_pub_key, signatures.ecc_sig
    if _NO_SCALAR in (ecc_key.x, ecc_key.y):
        raise ImageRefused(checks.no_key)
    if _NO_SCALAR in (ecc_sig.r, ecc_sig.s):
        raise ImageRefused(checks.no_signature)
    try:
        ecc_holds = ecc_signed(key_pair(keys), signatures, signed)
    except DecodeError as error:
        raise ImageRefused(checks.bad_key, error.reason) from None
    if not ecc_holds:
        raise ImageRefused(checks.ecc)
    if not mldsa_signed(key_pair(keys), signatures, signed):
        raise ImageRefused(checks.mldsa)


def ecc_signed(keys: PublicKeyPair, signatures: ImageSignatures, signed: bytes) -> bool:
    """Tell whether the P-384 signature is over SHA-384 of `signed`; DecodeError where the key is no point."""
    key = PublicKey.from_raw(Suite.P384, keys.ecc)
    return key.verify(Scheme.ECDSA_SHA384, signatures.ecc_sig.raw, signed)


def mldsa_signed(keys: PublicKeyPair, signatures: ImageSignatures, signed: bytes) -> bool:
    """Tell whether the ML-DSA-87 signature is over `signed` itself, and followed by zero."""
    key = PublicKey.from_raw(Suite.ML_DSA_87, keys.mldsa)
    return not any(signatures.padding) and key.verify(Scheme.ML_DSA, signatures.ml_dsa, signed)


# --- table of contents and images ----------------------------------------------------------------------------


def _verify_toc(manifest: ImageManifest, *, bundle_size: int) -> None:
    header, fmc, runtime = manifest.header, manifest.fmc, manifest.runtime
    if header.toc_len != TOC_ENTRIES:
        raise ImageRefused(Check.TOC_ENTRY_COUNT_INVALID, header.toc_len, TOC_ENTRIES)
    found = sha384(manifest.toc())
    if found != header.toc_digest:
        raise ImageRefused(Check.TOC_DIGEST_MISMATCH, found, header.toc_digest)
    if fmc.size == 0:
        raise ImageRefused(Check.FMC_SIZE_ZERO)
    if runtime.size == 0:
        raise ImageRefused(Check.RUNTIME_SIZE_ZERO)
    length = manifest.size + fmc.size + runtime.size
    if length > bundle_size:
        raise ImageRefused(Check.IMAGE_LEN_MORE_THAN_BUNDLE_SIZE, length, f"at most {bundle_size}")
    _verify_places(fmc, runtime)
    _verify_load_places(fmc, runtime)


def _verify_places(fmc: ImageTocEntry, runtime: ImageTocEntry) -> None:
    for entry in (fmc, runtime):
        if entry.offset + entry.size >= _ADDRESS_END:
            raise ImageRefused(Check.TOC_ENTRY_RANGE_ARITHMETIC_OVERFLOW, entry.offset)
    fmc_end, runtime_end = fmc.offset + fmc.size, runtime.offset + runtime.size
    if fmc.offset < runtime_end and fmc_end > runtime.offset:
        raise ImageRefused(Check.FMC_RUNTIME_OVERLAP, runtime.offset, f"{fmc_end} or more")
    if fmc_end > runtime.offset:
        raise ImageRefused(Check.FMC_RUNTIME_INCORRECT_ORDER, runtime.offset, f"{fmc_end} or more")


def _verify_load_places(fmc: ImageTocEntry, runtime: ImageTocEntry) -> None:
    fmc_last = fmc.load_addr + fmc.size - 1
    if fmc_last >= _ADDRESS_END:
        raise ImageRefused(Check.FMC_LOAD_ADDRESS_IMAGE_SIZE_ARITHMETIC_OVERFLOW, f"{fmc_last:#x}")
    runtime_last = runtime.load_addr + runtime.size - 1
    if runtime_last >= _ADDRESS_END:
        raise ImageRefused(Check.RUNTIME_LOAD_ADDRESS_IMAGE_SIZE_ARITHMETIC_OVERFLOW, f"{runtime_last:#x}")
    if fmc.load_addr <= runtime_last and fmc_last >= runtime.load_addr:
        raise ImageRefused(Check.FMC_RUNTIME_LOAD_ADDR_OVERLAP, f"{runtime.load_addr:#x}")


@dataclass(frozen=True)
class _ImageChecks:
    """The numbers of one image's checks, in their order."""

    unreadable: Check
    digest: Check
    load_addr: Check
    load_unaligned: Check
    entry_point: Check
    entry_unaligned: Check


_FMC = _ImageChecks(
    Check.FMC_DIGEST_FAILURE,
    Check.FMC_DIGEST_MISMATCH,
    Check.FMC_LOAD_ADDR_INVALID,
    Check.FMC_LOAD_ADDR_UNALIGNED,
    Check.FMC_ENTRY_POINT_INVALID,
    Check.FMC_ENTRY_POINT_UNALIGNED,
)
_RUNTIME = _ImageChecks(
    Check.RUNTIME_DIGEST_FAILURE,
    Check.RUNTIME_DIGEST_MISMATCH,
    Check.RUNTIME_LOAD_ADDR_INVALID,
    Check.RUNTIME_LOAD_ADDR_UNALIGNED,
    Check.RUNTIME_ENTRY_POINT_INVALID,
    Check.RUNTIME_ENTRY_POINT_UNALIGNED,
)


def _verify_image(bundle: ImageBundle, entry: ImageTocEntry, checks: _ImageChecks, profile: Profile) -> bytes:
    octets = bundle.image(entry)
    if octets is None:
        raise ImageRefused(checks.unreadable, entry.offset + entry.size)
    found = sha384(octets)
    if found != entry.digest:
        raise ImageRefused(checks.digest, found, entry.digest)
    if entry.load_addr not in profile.iccm or entry.load_addr + entry.size - 1 not in profile.iccm:
        raise ImageRefused(checks.load_addr, f"{entry.load_addr:#x}", profile.iccm)
    if entry.load_addr % 4:
        raise ImageRefused(checks.load_unaligned, f"{entry.load_addr:#x}")
    if entry.entry_point not in profile.iccm:
        raise ImageRefused(checks.entry_point, f"{entry.entry_point:#x}", profile.iccm)
    if entry.entry_point % 4:
        raise ImageRefused(checks.entry_unaligned, f"{entry.entry_point:#x}")
    return octets


def _verify_svn(svn: int, fuses: Fuses, profile: Profile) -> None:
    # Caliptra ROM, "Anti-rollback": neither limit holds where SVNs do not count.
    if not fuses.svn_checked:
        return
    if svn > profile.max_svn:
        raise ImageRefused(Check.FIRMWARE_SVN_GREATER_THAN_MAX_SUPPORTED, svn, f"at most {profile.max_svn}")
    if svn < fuses.fw_svn:
        raise ImageRefused(Check.FIRMWARE_SVN_LESS_THAN_FUSE, svn, f"at least {fuses.fw_svn}")


def _verify_validity(header: ImageHeader) -> Validity:
    # Caliptra ROM, "FMC alias": the owner's dates, else the vendor's, where both are given.
    for data in (header.owner_data, header.vendor_data):
        if any(data.not_before) and any(data.not_after):
            # deviation: Caliptra copies what is signed; here it must be dates, or the certificates could not be read.
            try:
                return Validity.decode(data.not_before, data.not_after)
            except DecodeError as error:
                raise ImageRefused(Check.ENDOCARP_VALIDITY_INVALID, error.reason) from None
    return Validity()


def _verify_unsigned(image: ImageBundle, profile: Profile) -> None:
    # deviation: Caliptra ignores the octets that neither digest nor signature covers. Here they are zero, and at
    # most the alignment stands behind the images, so that no octet of a bundle can be changed unseen.
    manifest, gaps = image.manifest, image.gaps()
    if any(manifest.reserved) or any(manifest.preamble.reserved) or any(gaps):
        raise ImageRefused(Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO)
    if len(gaps) >= profile.image_alignment:
        raise ImageRefused(
            Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO, len(gaps), f"less than {profile.image_alignment}"
        )
