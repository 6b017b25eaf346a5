"""The verifier of SoC manifests: which images may run, as SET_AUTH_MANIFEST takes it in.

Source: Caliptra runtime, "SET_AUTH_MANIFEST" and "AUTHORIZE_AND_STASH"; caliptra-sw,
runtime/src/set_auth_manifest.rs and authorize_and_stash.rs, which hold where the document differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from endocarp.crypto.digest import Buffer, equal, sha384
from endocarp.errors import DecodeError
from endocarp.rot.bundle import ecc_signed, key_pair, mldsa_signed
from endocarp.rot.refusals import ManifestRefused
from endocarp.wire.checks import ManifestCheck
from endocarp.wire.handoff import PublicKeyPair
from endocarp.wire.image import ImageSignatures
from endocarp.wire.mailbox import AuthResult
from endocarp.wire.manifest import (
    AUTH_MANIFEST_MARKER,
    MAX_IMAGES,
    PREAMBLE_SIZE,
    AuthManifestImageMetadata,
    AuthorizationManifest,
)


@dataclass(frozen=True)
class ManifestAnchors:
    """What a manifest is checked against: the keys of the firmware that runs, and the limits of the fuses."""

    vendor: PublicKeyPair
    owner: PublicKeyPair
    svn_checked: bool
    """False on an unprovisioned device, and where anti-rollback is disabled."""
    min_svn: int
    max_svn: int


@dataclass(frozen=True)
class AuthorizedImages:
    """The images of a manifest that passed every check, by the number of their firmware."""

    images: Mapping[int, AuthManifestImageMetadata]
    digest: bytes
    """SHA-384 of the whole manifest, 48 octets."""
    svn: int

    def lookup(self, fw_id: int) -> AuthManifestImageMetadata | None:
        """Return the entry of one image, or None."""
        return self.images.get(fw_id)

    def authorize(self, fw_id: int, digest: bytes) -> AuthResult:
        """Tell whether an image with this SHA-384 (48 octets) may run, as AUTHORIZE_AND_STASH answers."""
        entry = self.lookup(fw_id)
        if entry is None:
            return AuthResult.NOT_IN_MANIFEST
        # Caliptra runtime, "AUTHORIZE_AND_STASH": the signed flag lets an image run whatever its digest is.
        if entry.ignore_auth_check or equal(entry.digest, digest):
            return AuthResult.AUTHORIZED
        return AuthResult.DIGEST_MISMATCH


def verify_manifest(octets: Buffer, anchors: ManifestAnchors) -> AuthorizedImages:
    """Check a whole manifest, and return what it authorizes, from the copy that was checked.

    Raises ManifestRefused with the first rule that is broken.
    """
    copy = bytes(octets)
    manifest = _read(copy)
    preamble = manifest.preamble
    _verify_svn(preamble.svn, anchors)
    _verify_signatures(
        anchors.vendor, preamble.vendor_pub_keys_signatures, preamble.vendor_endorsed(), _VENDOR
    )
    _verify_signatures(anchors.owner, preamble.owner_pub_keys_signatures, preamble.owner_endorsed(), _OWNER)
    entries = _read_entries(manifest)
    _verify_collection(manifest)
    images = _by_number(entries)
    _verify_unsigned(manifest)
    return AuthorizedImages(MappingProxyType(images), sha384(copy), preamble.svn)


def _read(octets: bytes) -> AuthorizationManifest:
    try:
        manifest = AuthorizationManifest.decode(octets)
    except DecodeError:
        raise ManifestRefused(
            ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_LT_MIN, len(octets), f"at least {PREAMBLE_SIZE}"
        ) from None
    marker, size = manifest.preamble.marker, manifest.preamble.size
    if marker != AUTH_MANIFEST_MARKER:
        raise ManifestRefused(
            ManifestCheck.RUNTIME_INVALID_AUTH_MANIFEST_MARKER, f"{marker:#x}", f"{AUTH_MANIFEST_MARKER:#x}"
        )
    if size != PREAMBLE_SIZE:
        raise ManifestRefused(ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_MISMATCH, size, PREAMBLE_SIZE)
    return manifest


def _verify_svn(svn: int, anchors: ManifestAnchors) -> None:
    if not anchors.svn_checked:
        return
    if svn > anchors.max_svn:
        raise ManifestRefused(
            ManifestCheck.IMAGE_VERIFIER_ERR_FIRMWARE_SVN_GREATER_THAN_MAX_SUPPORTED,
            svn,
            f"at most {anchors.max_svn}",
        )
    if svn < anchors.min_svn:
        raise ManifestRefused(
            ManifestCheck.IMAGE_VERIFIER_ERR_FIRMWARE_SVN_LESS_THAN_FUSE, svn, f"at least {anchors.min_svn}"
        )


@dataclass(frozen=True)
class _PartyChecks:
    """The numbers of one party's signatures."""

    ecc: ManifestCheck
    mldsa: ManifestCheck


_VENDOR = _PartyChecks(
    ManifestCheck.RUNTIME_AUTH_MANIFEST_VENDOR_ECC_SIGNATURE_INVALID,
    ManifestCheck.RUNTIME_AUTH_MANIFEST_MLDSA_VENDOR_SIG_INVALID,
)
_OWNER = _PartyChecks(
    ManifestCheck.RUNTIME_AUTH_MANIFEST_OWNER_ECC_SIGNATURE_INVALID,
    ManifestCheck.RUNTIME_AUTH_MANIFEST_MLDSA_OWNER_SIG_INVALID,
)


def _verify_signatures(
    keys: PublicKeyPair, signatures: ImageSignatures, signed: bytes, checks: _PartyChecks
) -> None:
    try:
        ecc_holds = ecc_signed(keys, signatures, signed)
    except DecodeError as error:
        raise ManifestRefused(checks.ecc, error.reason) from None
    if not ecc_holds:
        raise ManifestRefused(checks.ecc)
    if not mldsa_signed(keys, signatures, signed):
        raise ManifestRefused(checks.mldsa)


def _read_entries(manifest: AuthorizationManifest) -> tuple[AuthManifestImageMetadata, ...]:
    size = len(manifest.collection)
    try:
        count = manifest.entry_count()
    except DecodeError:
        raise ManifestRefused(
            ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_SIZE, size
        ) from None
    if not 0 < count <= MAX_IMAGES:
        raise ManifestRefused(
            ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_ENTRY_COUNT,
            count,
            f"1 to {MAX_IMAGES}",
        )
    try:
        return manifest.images()
    except DecodeError:
        raise ManifestRefused(
            ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_SIZE, size, f"{count} entries"
        ) from None


def _verify_collection(manifest: AuthorizationManifest) -> None:
    # Caliptra runtime: the keys that the preamble brings sign the octets of the collection as they were supplied,
    # not the entries that its count names.
    preamble, signed = manifest.preamble, manifest.collection
    if preamble.vendor_signature_required:
        _verify_signatures(
            key_pair(preamble.vendor_pub_keys), preamble.vendor_image_metadata_signatures, signed, _VENDOR
        )
    _verify_signatures(
        key_pair(preamble.owner_pub_keys), preamble.owner_image_metadata_signatures, signed, _OWNER
    )


def _by_number(entries: tuple[AuthManifestImageMetadata, ...]) -> dict[int, AuthManifestImageMetadata]:
    images: dict[int, AuthManifestImageMetadata] = {}
    for entry in sorted(entries, key=lambda entry: entry.fw_id):
        if entry.fw_id in images:
            raise ManifestRefused(
                ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_DUPLICATE_FIRMWARE_ID,
                f"{entry.fw_id:#x}",
            )
        images[entry.fw_id] = entry
    return images


def _verify_unsigned(manifest: AuthorizationManifest) -> None:
    # deviation: Caliptra ignores what stands behind the largest collection, and the vendor's signature over the
    # collection where none is required. Here the first is not there and the second is zero, so that no octet of a
    # manifest can be changed unseen.
    preamble = manifest.preamble
    unchecked = (
        b"" if preamble.vendor_signature_required else preamble.vendor_image_metadata_signatures.encode()
    )
    if manifest.surplus or any(unchecked):
        raise ManifestRefused(ManifestCheck.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO)
