"""The builder: firmware bundles and SoC manifests, signed, and what a relying party is told about them.

It needs private keys, so it runs when a device is manufactured and when firmware is built anew, never at a boot.
All octets follow from what is given but the ML-DSA signatures, which the library hedges; ECDSA is RFC 6979.

Source: caliptra-sw, image/gen/src/generator.rs and auth-manifest/gen.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from endocarp.crypto import keys
from endocarp.crypto.digest import sha256, sha384
from endocarp.crypto.keys import PrivateKey
from endocarp.crypto.secret import Secret
from endocarp.errors import UsageError
from endocarp.rot.profile import CALIPTRA_2_1_2, Profile
from endocarp.wire.image import (
    DIGEST_SIZE,
    ECC_KEY_HASHES,
    KEY_DESCRIPTOR_VERSION,
    MANIFEST_MARKER,
    MANIFEST_SIZE,
    NO_SIGNATURES,
    NO_SIGNED_DATA,
    PL0_PAUSER_FLAG,
    PQC_KEY_HASHES,
    TOC_ENTRIES,
    ImageBundle,
    ImageEccKeyDescriptor,
    ImageEccPubKey,
    ImageHeader,
    ImageManifest,
    ImagePqcKeyDescriptor,
    ImagePreamble,
    ImagePubKeys,
    ImageSignatures,
    ImageTocEntry,
    ImageVendorPubKeyInfo,
    PqcKeyType,
    SignedData,
    TocEntryId,
    TocEntryType,
    encode_bundle,
)
from endocarp.wire.manifest import (
    AUTH_MANIFEST_MARKER,
    MAX_IMAGES,
    PREAMBLE_SIZE,
    VENDOR_SIGNATURE_REQUIRED,
    AuthManifestImageMetadata,
    AuthManifestImageMetadataCollection,
    AuthManifestPreamble,
    FirmwareId,
)
from endocarp.wire.suites import Scheme, Suite

_MANIFEST_VERSION = 1
_WORD = 4
_REVISION_SIZE = 20


@dataclass(frozen=True)
class PartyKeys:
    """The two keys of one party: P-384 and ML-DSA-87."""

    ecc: PrivateKey
    mldsa: PrivateKey

    @classmethod
    def generate(cls) -> "PartyKeys":
        """Make two new keys."""
        return cls(ecc=keys.generate(Suite.P384), mldsa=keys.generate(Suite.ML_DSA_87))

    def public(self) -> ImagePubKeys:
        """Return the public halves as a bundle and a manifest carry them."""
        return ImagePubKeys(
            ecc_pub_key=ImageEccPubKey.from_point(self.ecc.public.raw), pqc_pub_key=self.mldsa.public.raw
        )

    def sign(self, octets: bytes) -> ImageSignatures:
        """Return both signatures over the same octets: ECDSA over their SHA-384, ML-DSA over themselves."""
        return ImageSignatures.from_raw(
            ecc=self.ecc.sign_deterministic(octets), ml_dsa=self.mldsa.sign(Scheme.ML_DSA, octets)
        )


@dataclass(frozen=True)
class SigningKeys:
    """The keys of vendor and owner."""

    vendor: PartyKeys
    owner: PartyKeys

    @classmethod
    def generate(cls) -> "SigningKeys":
        """Make four new keys."""
        return cls(PartyKeys.generate(), PartyKeys.generate())

    @classmethod
    def load(cls, named: Mapping[str, Secret]) -> "SigningKeys":
        """Read the private keys of `KEY_NAMES`, each as `PrivateKey.export` gave it.

        Raises UsageError where a key is missing, DecodeError where one is none.
        """
        for name in KEY_NAMES:
            if name not in named:
                raise UsageError(
                    f"no signing key {name}", "build new keys, or restore the folder that holds them"
                )
        read = {name: keys.load(suite, named[name]) for name, suite in KEY_NAMES.items()}
        return cls(
            vendor=PartyKeys(ecc=read["vendor-ecc"], mldsa=read["vendor-mldsa"]),
            owner=PartyKeys(ecc=read["owner-ecc"], mldsa=read["owner-mldsa"]),
        )


KEY_NAMES = {
    "vendor-ecc": Suite.P384,
    "vendor-mldsa": Suite.ML_DSA_87,
    "owner-ecc": Suite.P384,
    "owner-mldsa": Suite.ML_DSA_87,
}
"""The names under which signing keys are kept, and their suites."""


# --- the firmware bundle ---------------------------------------------------------------------------------------


def public_key_hashes(signing: SigningKeys) -> tuple[bytes, bytes]:
    """Return the hashes of vendor and owner that belong into the fuses, 48 octets each, standard order."""
    return sha384(_vendor_info(signing.vendor).encode()), sha384(signing.owner.public().encode())


def build_bundle(
    fmc: bytes,
    runtime: bytes,
    signing: SigningKeys,
    *,
    svn: int = 0,
    pl0_caller: int = 1,
    vendor_data: SignedData = NO_SIGNED_DATA,
    owner_data: SignedData = NO_SIGNED_DATA,
    profile: Profile = CALIPTRA_2_1_2,
) -> bytes:
    """Return a signed bundle of these two images, loaded one behind the other.

    `pl0_caller` is the mailbox caller with privilege level 0; the signed data may date the alias certificates.
    Raises UsageError where the images do not fit the instruction memory or the bundle its limit.
    """
    fmc_entry, runtime_entry = _toc(fmc, runtime, profile)
    header = ImageHeader(
        revision=0,
        vendor_ecc_pub_key_idx=0,
        vendor_pqc_pub_key_idx=0,
        flags=PL0_PAUSER_FLAG,
        toc_len=TOC_ENTRIES,
        pl0_pauser=pl0_caller,
        toc_digest=sha384(fmc_entry.encode(), runtime_entry.encode()),
        svn=svn,
        vendor_data=vendor_data,
        owner_data=owner_data,
    )
    manifest = ImageManifest(
        marker=MANIFEST_MARKER,
        size=MANIFEST_SIZE,
        pqc_key_type=PqcKeyType.MLDSA,
        reserved=bytes(3),
        preamble=_preamble(header, signing),
        header=header,
        fmc=fmc_entry,
        runtime=runtime_entry,
    )
    bundle = encode_bundle(manifest, fmc, runtime, alignment=profile.image_alignment)
    if len(bundle) > profile.image_limit:
        raise _too_large("the bundle", len(bundle), profile.image_limit)
    return bundle


def _preamble(header: ImageHeader, signing: SigningKeys) -> ImagePreamble:
    vendor = signing.vendor.public()
    return ImagePreamble(
        vendor_pub_key_info=_vendor_info(signing.vendor),
        vendor_ecc_pub_key_idx=header.vendor_ecc_pub_key_idx,
        vendor_ecc_active_pub_key=vendor.ecc_pub_key,
        vendor_pqc_pub_key_idx=header.vendor_pqc_pub_key_idx,
        vendor_pqc_active_pub_key=vendor.pqc_pub_key,
        vendor_sigs=signing.vendor.sign(header.vendor_signed()),
        owner_pub_keys=signing.owner.public(),
        owner_sigs=signing.owner.sign(header.encode()),
        reserved=bytes(8),
    )


def _vendor_info(vendor: PartyKeys) -> ImageVendorPubKeyInfo:
    public = vendor.public()
    ecc_hash, mldsa_hash = sha384(public.ecc_pub_key.encode()), sha384(public.pqc_pub_key)
    return ImageVendorPubKeyInfo(
        ecc_key_descriptor=ImageEccKeyDescriptor(
            version=KEY_DESCRIPTOR_VERSION,
            reserved=0,
            key_hash_count=1,
            key_hashes=ecc_hash.ljust(ECC_KEY_HASHES * DIGEST_SIZE, b"\0"),
        ),
        pqc_key_descriptor=ImagePqcKeyDescriptor(
            version=KEY_DESCRIPTOR_VERSION,
            key_type=PqcKeyType.MLDSA,
            key_hash_count=1,
            key_hashes=mldsa_hash.ljust(PQC_KEY_HASHES * DIGEST_SIZE, b"\0"),
        ),
    )


def _toc(fmc: bytes, runtime: bytes, profile: Profile) -> tuple[ImageTocEntry, ImageTocEntry]:
    runtime_addr = profile.iccm_start + len(fmc) + -len(fmc) % _WORD
    end = runtime_addr + len(runtime)
    if end > profile.iccm.stop:
        raise _too_large("the firmware", end - profile.iccm_start, profile.iccm_size)
    return (
        _toc_entry(TocEntryId.FMC, fmc, profile.fmc_version, profile.iccm_start, MANIFEST_SIZE),
        _toc_entry(
            TocEntryId.RUNTIME, runtime, profile.runtime_version, runtime_addr, MANIFEST_SIZE + len(fmc)
        ),
    )


def _toc_entry(which: TocEntryId, image: bytes, version: int, load_addr: int, offset: int) -> ImageTocEntry:
    if not image:
        raise UsageError(f"the {which.name.lower()} image is empty", "give the octets of both images")
    digest = sha384(image)
    return ImageTocEntry(
        id=which,
        toc_type=TocEntryType.EXECUTABLE,
        # Caliptra puts the hash of a commit here; what names our source is the digest of what was built from it.
        revision=digest[:_REVISION_SIZE],
        version=version,
        reserved=bytes(8),
        load_addr=load_addr,
        entry_point=load_addr,
        offset=offset,
        size=len(image),
        digest=digest,
    )


def _too_large(what: str, size: int, limit: int) -> UsageError:
    return UsageError(f"{what} has {size} octets", f"this profile takes at most {limit}")


# --- the SoC manifest ------------------------------------------------------------------------------------------


def build_manifest(
    images: Mapping[FirmwareId, bytes],
    signing: SigningKeys,
    *,
    svn: int = 0,
    manifest_signing: SigningKeys | None = None,
) -> bytes:
    """Return a signed manifest that authorizes exactly these images, given by their octets.

    `signing` are the keys of the firmware bundle, which endorse those of `manifest_signing`, which sign the
    images; without the latter they are the same.
    """
    if not 0 < len(images) <= MAX_IMAGES:
        raise UsageError(f"{len(images)} images", f"a manifest holds 1 to {MAX_IMAGES}")
    signers = manifest_signing or signing
    collection = AuthManifestImageMetadataCollection(
        image_metadata_list=tuple(_metadata(fw_id, images[fw_id]) for fw_id in sorted(images))
    ).encode()
    vendor_keys, owner_keys = signers.vendor.public(), signers.owner.public()
    unsigned = AuthManifestPreamble(
        marker=AUTH_MANIFEST_MARKER,
        size=PREAMBLE_SIZE,
        version=_MANIFEST_VERSION,
        svn=svn,
        flags=VENDOR_SIGNATURE_REQUIRED,
        vendor_pub_keys=vendor_keys,
        vendor_pub_keys_signatures=NO_SIGNATURES,
        owner_pub_keys=owner_keys,
        owner_pub_keys_signatures=signing.owner.sign(owner_keys.encode()),
        vendor_image_metadata_signatures=signers.vendor.sign(collection),
        owner_image_metadata_signatures=signers.owner.sign(collection),
    )
    preamble = dataclasses.replace(
        unsigned, vendor_pub_keys_signatures=signing.vendor.sign(unsigned.vendor_endorsed())
    )
    return preamble.encode() + collection


def _metadata(fw_id: FirmwareId, image: bytes) -> AuthManifestImageMetadata:
    return AuthManifestImageMetadata(
        fw_id=fw_id,
        component_id=int(fw_id),
        classification=0,
        flags=0,
        image_load_address=0,
        image_staging_address=0,
        digest=sha384(image),
    )


# --- what a relying party is told --------------------------------------------------------------------------------


def references(
    *,
    model: str,
    bundle: bytes,
    manifest: bytes,
    images: Mapping[FirmwareId, bytes],
    rom: bytes,
) -> dict[str, object]:
    """Return the digests that evidence of this server must show, hexadecimal, ready to be written as JSON.

    `model` names the root of the model; `rom` is the code that runs before any bundle is read (SHA-256, as
    Caliptra gives it); everything else is SHA-384.
    """
    read = ImageBundle.decode(bundle).manifest
    vendor_info, owner_keys = read.preamble.vendor_pub_key_info, read.preamble.owner_pub_keys
    return {
        "model": model,
        "bundle": {
            "fmc_digest": read.fmc.digest.hex(),
            "runtime_digest": read.runtime.digest.hex(),
            "svn": read.header.svn,
            "vendor_pk_hash": sha384(vendor_info.encode()).hex(),
            "owner_pk_hash": sha384(owner_keys.encode()).hex(),
        },
        "rom_digest": sha256(rom).hex(),
        "manifest_digest": sha384(manifest).hex(),
        "images": {fw_id.name.lower(): sha384(images[fw_id]).hex() for fw_id in sorted(images)},
    }
