"""The firmware bundle of Caliptra 2.x: a manifest of 16,956 octets, then the images of FMC and runtime.

Integers are little-endian. Digests, coordinates and ECDSA signatures are `u32[]` in Caliptra: their words stand
byte-swapped on the wire and in standard order here; ML-DSA keys and signatures are octet strings in both.
Octets that nobody interprets are kept as they are, so that what is encoded again is what was hashed and signed.

Source: caliptra-sw, image/types and the README of the ROM.
"""

import enum
from dataclasses import dataclass
from typing import Annotated, Self

from endocarp.wire import p384
from endocarp.wire.codec import U8, U16, U32, U64, Nested, Octets, Struct, Words

MANIFEST_MARKER = 0x324E4D43
"""`CMN2`, read as a little-endian number."""
KEY_DESCRIPTOR_VERSION = 1
TOC_ENTRIES = 2
ECC_KEY_HASHES = 4
PQC_KEY_HASHES = 32
ML_DSA_PADDING = 1
"""Octets behind the 4,627 of an ML-DSA-87 signature, which fill its last word."""

PL0_PAUSER_FLAG = 1
"""Flag of the header: the caller named by `pl0_pauser` has privilege level 0."""
DIGEST_SIZE = 48

_PQC_KEY_SIZE = 2592
_PQC_SIGNATURE_SIZE = 4628


class PqcKeyType(enum.IntEnum):
    """The second signature scheme of a bundle, as manifest, key descriptor and fuse number it."""

    MLDSA = 1
    LMS = 3


class TocEntryId(enum.IntEnum):
    """What an entry of the table of contents describes."""

    FMC = 1
    RUNTIME = 2


class TocEntryType(enum.IntEnum):
    """The only type of entry that there is."""

    EXECUTABLE = 1


class ImageEccPubKey(Struct):
    """A P-384 public key: two coordinates of 48 octets, big-endian."""

    x: Annotated[bytes, Words(p384.NUMBER_SIZE)]
    y: Annotated[bytes, Words(p384.NUMBER_SIZE)]

    @property
    def point(self) -> bytes:
        """The key as the uncompressed point 04‖X‖Y."""
        return p384.point(self.x, self.y)

    @classmethod
    def from_point(cls, point: bytes) -> Self:
        """Take the 97 octets 04‖X‖Y apart; DecodeError where they have another form."""
        return cls(*p384.coordinates(point))


class ImageEccSignature(Struct):
    """An ECDSA P-384 signature: r and s of 48 octets, big-endian."""

    r: Annotated[bytes, Words(p384.NUMBER_SIZE)]
    s: Annotated[bytes, Words(p384.NUMBER_SIZE)]

    @property
    def raw(self) -> bytes:
        """The signature as r‖s."""
        return self.r + self.s

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """Take the 96 octets r‖s apart; DecodeError where there are not so many."""
        return cls(*p384.halves(raw))


class ImagePubKeys(Struct):
    """One party's two public keys; an LMS key is padded with zero octets."""

    ecc_pub_key: Annotated[ImageEccPubKey, Nested(ImageEccPubKey)]
    pqc_pub_key: Annotated[bytes, Octets(_PQC_KEY_SIZE)]


class ImageSignatures(Struct):
    """One party's two signatures over the same octets; an ML-DSA signature has one octet of padding."""

    ecc_sig: Annotated[ImageEccSignature, Nested(ImageEccSignature)]
    pqc_sig: Annotated[bytes, Octets(_PQC_SIGNATURE_SIZE)]

    @classmethod
    def from_raw(cls, ecc: bytes, ml_dsa: bytes) -> Self:
        """Put r‖s of 96 octets and an ML-DSA-87 signature of 4,627 octets into their places."""
        return cls(ecc_sig=ImageEccSignature.from_raw(ecc), pqc_sig=ml_dsa + bytes(ML_DSA_PADDING))

    @property
    def ml_dsa(self) -> bytes:
        """The 4,627 octets of an ML-DSA-87 signature."""
        return self.pqc_sig[:-ML_DSA_PADDING]

    @property
    def padding(self) -> bytes:
        """What stands behind the ML-DSA-87 signature."""
        return self.pqc_sig[-ML_DSA_PADDING:]


NO_SIGNATURES = ImageSignatures.from_raw(
    bytes(2 * p384.NUMBER_SIZE), bytes(_PQC_SIGNATURE_SIZE - ML_DSA_PADDING)
)


class ImageEccKeyDescriptor(Struct):
    """The vendor's ECC keys: SHA-384 of each, taken over its octets on the wire."""

    version: U16
    reserved: U8
    key_hash_count: U8
    key_hashes: Annotated[bytes, Words(ECC_KEY_HASHES * DIGEST_SIZE)]

    def key_hash(self, index: int) -> bytes:
        """Return the digest of one key, 48 octets; `index` is at most 3."""
        return self.key_hashes[index * DIGEST_SIZE :][:DIGEST_SIZE]


class ImagePqcKeyDescriptor(Struct):
    """The vendor's ML-DSA or LMS keys: SHA-384 of each, taken over its octets on the wire."""

    version: U16
    key_type: U8
    key_hash_count: U8
    key_hashes: Annotated[bytes, Words(PQC_KEY_HASHES * DIGEST_SIZE)]

    def key_hash(self, index: int) -> bytes:
        """Return the digest of one key, 48 octets; `index` is at most 31."""
        return self.key_hashes[index * DIGEST_SIZE :][:DIGEST_SIZE]


class ImageVendorPubKeyInfo(Struct):
    """All keys of the vendor by digest; the SHA-384 of these octets stands in the fuses."""

    ecc_key_descriptor: Annotated[ImageEccKeyDescriptor, Nested(ImageEccKeyDescriptor)]
    pqc_key_descriptor: Annotated[ImagePqcKeyDescriptor, Nested(ImagePqcKeyDescriptor)]


class ImagePreamble(Struct):
    """Keys and signatures of vendor and owner, 16,576 octets."""

    vendor_pub_key_info: Annotated[ImageVendorPubKeyInfo, Nested(ImageVendorPubKeyInfo)]
    vendor_ecc_pub_key_idx: U32
    vendor_ecc_active_pub_key: Annotated[ImageEccPubKey, Nested(ImageEccPubKey)]
    vendor_pqc_pub_key_idx: U32
    vendor_pqc_active_pub_key: Annotated[bytes, Octets(_PQC_KEY_SIZE)]
    vendor_sigs: Annotated[ImageSignatures, Nested(ImageSignatures)]
    owner_pub_keys: Annotated[ImagePubKeys, Nested(ImagePubKeys)]
    owner_sigs: Annotated[ImageSignatures, Nested(ImageSignatures)]
    reserved: Annotated[bytes, Octets(8)]

    @property
    def vendor_pub_keys(self) -> ImagePubKeys:
        """The two keys of the vendor that sign this bundle."""
        return ImagePubKeys(
            ecc_pub_key=self.vendor_ecc_active_pub_key, pqc_pub_key=self.vendor_pqc_active_pub_key
        )


class SignedData(Struct):
    """What one party adds to the header: the validity of the certificates, as 15 digits and `Z` of ASN.1 each."""

    not_before: Annotated[bytes, Octets(15)]
    not_after: Annotated[bytes, Octets(15)]
    reserved: Annotated[bytes, Octets(10)]


NO_SIGNED_DATA = SignedData(not_before=bytes(15), not_after=bytes(15), reserved=bytes(10))


class ImageHeader(Struct):
    """What the signatures are over, 160 octets."""

    revision: U64
    vendor_ecc_pub_key_idx: U32
    vendor_pqc_pub_key_idx: U32
    flags: U32
    toc_len: U32
    pl0_pauser: U32
    toc_digest: Annotated[bytes, Words(DIGEST_SIZE)]
    svn: U32
    vendor_data: Annotated[SignedData, Nested(SignedData)]
    owner_data: Annotated[SignedData, Nested(SignedData)]

    def vendor_signed(self) -> bytes:
        """Return what the vendor signs: the 120 octets before `owner_data`. The owner signs all 160."""
        return self.encode()[:_VENDOR_SIGNED_SIZE]


class ImageTocEntry(Struct):
    """One image: where it stands in the bundle, where it is loaded, and its SHA-384."""

    id: U32
    toc_type: U32
    revision: Annotated[bytes, Octets(20)]
    version: U32
    reserved: Annotated[bytes, Octets(8)]
    load_addr: U32
    entry_point: U32
    offset: U32
    size: U32
    digest: Annotated[bytes, Words(DIGEST_SIZE)]


class ImageManifest(Struct):
    """The head of a bundle, 16,956 octets."""

    marker: U32
    size: U32
    pqc_key_type: U8
    reserved: Annotated[bytes, Octets(3)]
    preamble: Annotated[ImagePreamble, Nested(ImagePreamble)]
    header: Annotated[ImageHeader, Nested(ImageHeader)]
    fmc: Annotated[ImageTocEntry, Nested(ImageTocEntry)]
    runtime: Annotated[ImageTocEntry, Nested(ImageTocEntry)]

    def toc(self) -> bytes:
        """Return the octets of both entries, which `header.toc_digest` covers."""
        return self.fmc.encode() + self.runtime.encode()


MANIFEST_SIZE = 16956
_VENDOR_SIGNED_SIZE = 120


@dataclass(frozen=True)
class ImageBundle:
    """A manifest and the octets that it stands in; offsets count from the first octet of the manifest."""

    manifest: ImageManifest
    octets: bytes

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read the manifest; DecodeError where there is not enough for one. The images are not looked at."""
        manifest, _ = ImageManifest.decode_from(octets)
        return cls(manifest, octets)

    def image(self, entry: ImageTocEntry) -> bytes | None:
        """Return the octets of one image, or None where they are not all there."""
        image = self.octets[entry.offset :][: entry.size]
        return image if len(image) == entry.size else None

    def gaps(self) -> bytes:
        """Return what stands between and behind manifest, FMC and runtime, for images in this order."""
        fmc, runtime = self.manifest.fmc, self.manifest.runtime
        return (
            self.octets[MANIFEST_SIZE : fmc.offset]
            + self.octets[fmc.offset + fmc.size : runtime.offset]
            + self.octets[runtime.offset + runtime.size :]
        )


def encode_bundle(manifest: ImageManifest, fmc: bytes, runtime: bytes, *, alignment: int) -> bytes:
    """Return a bundle: manifest, FMC, runtime, one after another, then zero octets up to the alignment."""
    octets = manifest.encode() + fmc + runtime
    return octets + bytes(-len(octets) % alignment)
