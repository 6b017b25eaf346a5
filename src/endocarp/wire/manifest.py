"""The SoC authorization manifest of Caliptra 2.x: which images may run, signed by vendor and owner.

A preamble of 24,292 octets with keys and signatures, then the image metadata collection: a count and entries of 80
octets. Integers are little-endian; the digest of an entry is in standard order, unlike those of the bundle.

Source: caliptra-sw, auth-manifest/types.
"""

from dataclasses import dataclass
from typing import Annotated, Self

from endocarp.wire.codec import U32, U64, Items, Nested, Octets, OpenIntEnum, Struct, measured, u32
from endocarp.wire.image import ImagePubKeys, ImageSignatures

AUTH_MANIFEST_MARKER = 0x324D5441
"""`ATM2`, read as a little-endian number."""
VENDOR_SIGNATURE_REQUIRED = 1
"""Flag of the preamble: the vendor's signature over the collection is checked too."""
PREAMBLE_SIZE = 24292
MAX_IMAGES = 80

_ENTRY_SIZE = 80
_COUNT_SIZE = 4
_MAX_COLLECTION_SIZE = _COUNT_SIZE + MAX_IMAGES * _ENTRY_SIZE
_ENDORSED_FROM = 8
_VENDOR_ENDORSED_SIZE = 12 + 2688


class FirmwareId(OpenIntEnum):
    """The images of this server, by the number that names them in the manifest and in DPE contexts: ASCII."""

    BOX = int.from_bytes(b"EBOX", "little")
    FRONT = int.from_bytes(b"EFRT", "little")
    VAULT = int.from_bytes(b"EVLT", "little")


class AuthManifestPreamble(Struct):
    """Keys that sign the collection, endorsed by the keys of the firmware bundle, and their signatures."""

    marker: U32
    size: U32
    version: U32
    svn: U32
    flags: U32
    vendor_pub_keys: Annotated[ImagePubKeys, Nested(ImagePubKeys)]
    vendor_pub_keys_signatures: Annotated[ImageSignatures, Nested(ImageSignatures)]
    owner_pub_keys: Annotated[ImagePubKeys, Nested(ImagePubKeys)]
    owner_pub_keys_signatures: Annotated[ImageSignatures, Nested(ImageSignatures)]
    vendor_image_metadata_signatures: Annotated[ImageSignatures, Nested(ImageSignatures)]
    owner_image_metadata_signatures: Annotated[ImageSignatures, Nested(ImageSignatures)]

    @property
    def vendor_signature_required(self) -> bool:
        """Whether the vendor signs the collection too."""
        return bool(self.flags & VENDOR_SIGNATURE_REQUIRED)

    def vendor_endorsed(self) -> bytes:
        """Return what the vendor key of the bundle signs: version, svn, flags and the vendor's keys."""
        return self.encode()[_ENDORSED_FROM:][:_VENDOR_ENDORSED_SIZE]

    def owner_endorsed(self) -> bytes:
        """Return what the owner key of the bundle signs: the owner's keys, and nothing else."""
        return self.owner_pub_keys.encode()


class AuthManifestImageMetadata(Struct):
    """One image that may run."""

    fw_id: Annotated[FirmwareId, u32]
    component_id: U32
    classification: U32
    flags: U32
    image_load_address: U64
    image_staging_address: U64
    digest: Annotated[bytes, Octets(48)]

    @property
    def ignore_auth_check(self) -> bool:
        """Whether the image may run whatever its digest is (bit 2 of the flags)."""
        return bool(self.flags >> 2 & 1)


class AuthManifestImageMetadataCollection(Struct):
    """The images, counted."""

    entry_count: U32 = measured()
    image_metadata_list: Annotated[
        tuple[AuthManifestImageMetadata, ...],
        Items(AuthManifestImageMetadata, "entry_count", limit=MAX_IMAGES),
    ] = ()


class _EntryCount(Struct):
    """The number that a collection begins with."""

    entry_count: U32


@dataclass(frozen=True)
class AuthorizationManifest:
    """A whole manifest: the preamble, and the collection as the octets that are signed."""

    preamble: AuthManifestPreamble
    collection: bytes
    surplus: bytes = b""
    """What stands behind the largest possible collection; no signature covers it."""

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read the preamble; DecodeError where it is cut short. The collection is not looked at."""
        preamble, end = AuthManifestPreamble.decode_from(octets)
        rest = octets[end:]
        return cls(preamble, rest[:_MAX_COLLECTION_SIZE], rest[_MAX_COLLECTION_SIZE:])

    def encode(self) -> bytes:
        """Return the octets of the manifest."""
        return self.preamble.encode() + self.collection + self.surplus

    def entry_count(self) -> int:
        """Return how many entries the collection claims to have; DecodeError where it does not say."""
        return _EntryCount.decode_from(self.collection)[0].entry_count

    def images(self) -> tuple[AuthManifestImageMetadata, ...]:
        """Return the counted entries, in their order; DecodeError where they are not all there, or too many."""
        collection, _ = AuthManifestImageMetadataCollection.decode_from(self.collection)
        return collection.image_metadata_list
