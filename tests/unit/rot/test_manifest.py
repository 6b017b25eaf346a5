"""The verifier of SoC manifests: every rule is broken once, in a manifest that is otherwise signed and right."""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from endocarp.crypto.digest import sha384
from endocarp.rot.builder import SigningKeys, build_manifest
from endocarp.rot.manifest import AuthorizedImages, ManifestAnchors, verify_manifest
from endocarp.rot.refusals import ManifestRefused
from endocarp.wire.checks import Check, ManifestCheck
from endocarp.wire.handoff import PublicKeyPair
from endocarp.wire.image import NO_SIGNATURES, ImageEccSignature, ImageSignatures
from endocarp.wire.mailbox import AuthResult
from endocarp.wire.manifest import (
    PREAMBLE_SIZE,
    AuthManifestImageMetadata,
    AuthManifestImageMetadataCollection,
    AuthManifestPreamble,
    FirmwareId,
)

FIRMWARE_KEYS, MANIFEST_KEYS = SigningKeys.generate(), SigningKeys.generate()
IMAGES = {FirmwareId.BOX: b"box", FirmwareId.FRONT: b"front", FirmwareId.VAULT: b"vault"}
MANIFEST = build_manifest(IMAGES, FIRMWARE_KEYS, svn=5, manifest_signing=MANIFEST_KEYS)
PREAMBLE = AuthManifestPreamble.decode(MANIFEST[:PREAMBLE_SIZE])
COLLECTION = MANIFEST[PREAMBLE_SIZE:]
ENTRIES = AuthManifestImageMetadataCollection.decode(COLLECTION).image_metadata_list

Edit = Callable[[AuthManifestPreamble], AuthManifestPreamble]


def pair(keys: Any) -> PublicKeyPair:
    return PublicKeyPair(ecc=keys.ecc.public.raw, mldsa=keys.mldsa.public.raw)


def anchors(**changes: Any) -> ManifestAnchors:
    values: dict[str, Any] = {"vendor": pair(FIRMWARE_KEYS.vendor), "owner": pair(FIRMWARE_KEYS.owner)}
    values |= {"svn_checked": True, "min_svn": 0, "max_svn": 128}
    return ManifestAnchors(**(values | changes))


def signed(*, collection: bytes = COLLECTION, surplus: bytes = b"", **changes: Any) -> bytes:
    """Make the change, then all signatures anew, and then the change again, where it concerns those."""
    preamble = dataclasses.replace(PREAMBLE, **changes)
    covered = collection[: 4 + 80 * 80]
    preamble = dataclasses.replace(
        preamble,
        vendor_pub_keys_signatures=FIRMWARE_KEYS.vendor.sign(preamble.vendor_endorsed()),
        owner_pub_keys_signatures=FIRMWARE_KEYS.owner.sign(preamble.owner_endorsed()),
        vendor_image_metadata_signatures=MANIFEST_KEYS.vendor.sign(covered),
        owner_image_metadata_signatures=MANIFEST_KEYS.owner.sign(covered),
    )
    return dataclasses.replace(preamble, **changes).encode() + collection + surplus


def collection_of(*entries: AuthManifestImageMetadata) -> bytes:
    return AuthManifestImageMetadataCollection(image_metadata_list=entries).encode()


def spoilt(signatures: ImageSignatures, *, ecc: bool) -> ImageSignatures:
    if ecc:
        return dataclasses.replace(signatures, ecc_sig=ImageEccSignature(r=b"\1" * 48, s=b"\1" * 48))
    return dataclasses.replace(signatures, pqc_sig=bytes(4628))


def without_point(name: str) -> dict[str, Any]:
    keys = getattr(PREAMBLE, name)
    return {name: dataclasses.replace(keys, ecc_pub_key=dataclasses.replace(keys.ecc_pub_key, y=b"\1" * 48))}


SIZE = ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_SIZE
COUNT = ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_ENTRY_COUNT
VENDOR_ECC = ManifestCheck.RUNTIME_AUTH_MANIFEST_VENDOR_ECC_SIGNATURE_INVALID
VENDOR_MLDSA = ManifestCheck.RUNTIME_AUTH_MANIFEST_MLDSA_VENDOR_SIG_INVALID
OWNER_ECC = ManifestCheck.RUNTIME_AUTH_MANIFEST_OWNER_ECC_SIGNATURE_INVALID
OWNER_MLDSA = ManifestCheck.RUNTIME_AUTH_MANIFEST_MLDSA_OWNER_SIG_INVALID
TOO_NEW = ManifestCheck.IMAGE_VERIFIER_ERR_FIRMWARE_SVN_GREATER_THAN_MAX_SUPPORTED
TOO_OLD = ManifestCheck.IMAGE_VERIFIER_ERR_FIRMWARE_SVN_LESS_THAN_FUSE
UNSIGNED = ManifestCheck.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO

# In the order in which the verifier looks.
CASES: list[tuple[ManifestCheck, bytes, dict[str, Any]]] = [
    (ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_LT_MIN, MANIFEST[: PREAMBLE_SIZE - 1], {}),
    (ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_LT_MIN, b"", {}),
    (ManifestCheck.RUNTIME_INVALID_AUTH_MANIFEST_MARKER, signed(marker=0x4154324D), {}),
    (ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_MISMATCH, signed(size=PREAMBLE_SIZE - 4), {}),
    (TOO_NEW, signed(svn=129), {}),
    (TOO_NEW, MANIFEST, {"max_svn": 4}),
    (TOO_OLD, MANIFEST, {"min_svn": 6}),
    (VENDOR_ECC, signed(vendor_pub_keys_signatures=spoilt(PREAMBLE.vendor_pub_keys_signatures, ecc=True)), {}),
    (VENDOR_ECC, MANIFEST, {"vendor": pair(MANIFEST_KEYS.vendor)}),
    (VENDOR_MLDSA, signed(vendor_pub_keys_signatures=spoilt(FIRMWARE_KEYS.vendor.sign(PREAMBLE.vendor_endorsed()), ecc=False)), {}),
    (OWNER_ECC, signed(owner_pub_keys_signatures=spoilt(PREAMBLE.owner_pub_keys_signatures, ecc=True)), {}),
    (OWNER_MLDSA, signed(owner_pub_keys_signatures=spoilt(PREAMBLE.owner_pub_keys_signatures, ecc=False)), {}),
    (SIZE, signed(collection=b"\1\0\0"), {}),
    (SIZE, signed(collection=b""), {}),
    (COUNT, signed(collection=bytes(84)), {}),
    (COUNT, signed(collection=(81).to_bytes(4, "little") + bytes(81 * 80)), {}),
    (COUNT, signed(collection=b"\xff\xff\xff\xff"), {}),
    (SIZE, signed(collection=COLLECTION[:-1]), {}),
    (VENDOR_ECC, signed(vendor_image_metadata_signatures=spoilt(NO_SIGNATURES, ecc=True)), {}),
    (VENDOR_ECC, signed(**without_point("vendor_pub_keys")), {}),
    (VENDOR_MLDSA, signed(vendor_image_metadata_signatures=spoilt(MANIFEST_KEYS.vendor.sign(COLLECTION), ecc=False)), {}),
    (OWNER_ECC, signed(owner_image_metadata_signatures=spoilt(NO_SIGNATURES, ecc=True)), {}),
    (OWNER_ECC, signed(**without_point("owner_pub_keys")), {}),
    (OWNER_MLDSA, signed(owner_image_metadata_signatures=spoilt(MANIFEST_KEYS.owner.sign(COLLECTION), ecc=False)), {}),
    (
        ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_DUPLICATE_FIRMWARE_ID,
        signed(collection=collection_of(*ENTRIES, ENTRIES[0])),
        {},
    ),
    (UNSIGNED, signed(collection=collection_of(*ENTRIES).ljust(4 + 80 * 80, b"\0"), surplus=b"\0"), {}),
    (UNSIGNED, signed(flags=0), {}),
]  # fmt: skip


def refusal(manifest: bytes, expected: ManifestAnchors) -> Check | ManifestCheck:
    with pytest.raises(ManifestRefused) as refused:
        verify_manifest(manifest, expected)
    return refused.value.check


# --- what is accepted ----------------------------------------------------------------------------------------


def test_a_manifest_that_the_keys_of_the_firmware_endorse_is_accepted() -> None:
    images = verify_manifest(MANIFEST, anchors())

    assert set(images.images) == set(IMAGES)
    assert images.svn == 5
    assert images.digest == sha384(MANIFEST)


def test_the_same_keys_may_sign_firmware_and_manifest() -> None:
    manifest = build_manifest(IMAGES, FIRMWARE_KEYS)

    assert set(verify_manifest(manifest, anchors()).images) == set(IMAGES)


@pytest.mark.parametrize("limits", [{"min_svn": 5}, {"max_svn": 5}, {"min_svn": 6, "svn_checked": False}])
def test_a_version_within_the_fuses_or_one_that_is_not_looked_at_is_accepted(limits: dict[str, Any]) -> None:
    assert verify_manifest(MANIFEST, anchors(**limits)).svn == 5


def test_the_signature_of_the_vendor_over_the_images_may_be_left_out_where_the_vendor_says_so() -> None:
    manifest = signed(flags=0, vendor_image_metadata_signatures=NO_SIGNATURES)

    assert set(verify_manifest(manifest, anchors()).images) == set(IMAGES)


def test_signed_octets_behind_the_counted_entries_authorize_nothing() -> None:
    ignored = dataclasses.replace(ENTRIES[0], fw_id=FirmwareId(7))

    images = verify_manifest(signed(collection=COLLECTION + ignored.encode()), anchors())

    assert images.lookup(7) is None


def test_entries_may_stand_in_any_order() -> None:
    manifest = signed(collection=collection_of(*reversed(ENTRIES)))

    assert list(verify_manifest(manifest, anchors()).images) == sorted(IMAGES)


def test_eighty_images_are_accepted() -> None:
    many = [dataclasses.replace(ENTRIES[0], fw_id=FirmwareId(number)) for number in range(80)]

    assert len(verify_manifest(signed(collection=collection_of(*many)), anchors()).images) == 80


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "manifest", "limits"), CASES, ids=[f"{at}-{case[0].name}" for at, case in enumerate(CASES)]
)
def test_a_broken_rule_is_refused_by_its_own_number(
    check: ManifestCheck, manifest: bytes, limits: dict[str, Any]
) -> None:
    assert refusal(manifest, anchors(**limits)) is check


def test_every_rule_of_the_verifier_is_broken_by_a_test() -> None:
    assert {check for check, _, _ in CASES} == set(ManifestCheck)


# What breaks each rule without touching what the others look at, in the order of the verifier.
IN_ORDER: list[tuple[ManifestCheck, dict[str, Any]]] = [
    (ManifestCheck.RUNTIME_INVALID_AUTH_MANIFEST_MARKER, {"marker": 0}),
    (ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_MISMATCH, {"size": 0}),
    (TOO_NEW, {"svn": 200}),
    (VENDOR_ECC, {"vendor_pub_keys_signatures": NO_SIGNATURES}),
    (OWNER_ECC, {"owner_pub_keys_signatures": NO_SIGNATURES}),
    (COUNT, {"collection": bytes(4)}),
    (VENDOR_ECC, {"vendor_image_metadata_signatures": NO_SIGNATURES}),
    (OWNER_ECC, {"owner_image_metadata_signatures": NO_SIGNATURES}),
]


@pytest.mark.parametrize(
    ("first", "second"),
    [(first, second) for first, second in itertools.combinations(range(len(IN_ORDER)), 2)],
    ids=lambda at: IN_ORDER[at][0].name,
)
def test_of_two_broken_rules_the_one_is_named_that_caliptra_looks_at_first(first: int, second: int) -> None:
    manifest = signed(**IN_ORDER[second][1], **IN_ORDER[first][1])

    assert refusal(manifest, anchors()) is IN_ORDER[first][0]


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (OWNER_ECC, {"owner_image_metadata_signatures": NO_SIGNATURES}),
        (
            ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_DUPLICATE_FIRMWARE_ID,
            {"collection": collection_of(*ENTRIES, ENTRIES[0])},
        ),
    ],
)
def test_octets_that_nothing_covers_are_looked_at_last(check: ManifestCheck, changes: dict[str, Any]) -> None:
    assert refusal(signed(flags=0, **changes), anchors()) is check


KEYS, ECC, PQC = 2688, 96, 4628

# caliptra.md 1.8: every region of a manifest, its size, and the rules that a flipped bit there can break.
REGIONS: list[tuple[str, int, set[ManifestCheck]]] = [
    ("marker", 4, {ManifestCheck.RUNTIME_INVALID_AUTH_MANIFEST_MARKER}),
    ("size", 4, {ManifestCheck.RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_MISMATCH}),
    ("version", 4, {VENDOR_ECC}),
    ("svn", 4, {VENDOR_ECC, TOO_NEW}),
    ("flags", 4, {VENDOR_ECC}),
    ("vendor keys", KEYS, {VENDOR_ECC}),
    ("vendor endorsement ECC", ECC, {VENDOR_ECC}),
    ("vendor endorsement PQC", PQC, {VENDOR_MLDSA}),
    ("owner keys", KEYS, {OWNER_ECC}),
    ("owner endorsement ECC", ECC, {OWNER_ECC}),
    ("owner endorsement PQC", PQC, {OWNER_MLDSA}),
    ("vendor signature ECC", ECC, {VENDOR_ECC}),
    ("vendor signature PQC", PQC, {VENDOR_MLDSA}),
    ("owner signature ECC", ECC, {OWNER_ECC}),
    ("owner signature PQC", PQC, {OWNER_MLDSA}),
    ("count", 4, {COUNT, SIZE, VENDOR_ECC}),
    ("entries", 240, {VENDOR_ECC}),
]


def places(name: str, size: int) -> Iterator[tuple[int, int]]:
    chance = random.Random(name)
    for octet in range(size) if size <= 8 else [0, size - 1, *(chance.randrange(size) for _ in range(6))]:
        yield octet, chance.randrange(8)


def test_the_regions_are_the_whole_manifest() -> None:
    assert sum(size for _, size, _ in REGIONS) == len(MANIFEST)


@pytest.mark.parametrize("region", range(len(REGIONS)), ids=[name for name, _, _ in REGIONS])
def test_a_bit_that_is_flipped_anywhere_is_refused(region: int) -> None:
    start = sum(size for _, size, _ in REGIONS[:region])
    name, size, expected = REGIONS[region]

    found = set()
    for octet, bit in places(name, size):
        changed = bytearray(MANIFEST)
        changed[start + octet] ^= 1 << bit
        found.add(refusal(bytes(changed), anchors()))

    assert found <= expected


# --- authorizing ---------------------------------------------------------------------------------------------


def authorized(*entries: AuthManifestImageMetadata) -> AuthorizedImages:
    return verify_manifest(signed(collection=collection_of(*entries)), anchors())


def test_an_image_is_authorized_by_its_number_and_its_digest() -> None:
    images = verify_manifest(MANIFEST, anchors())

    assert images.authorize(FirmwareId.VAULT, sha384(b"vault")) is AuthResult.AUTHORIZED
    assert images.authorize(FirmwareId.VAULT, sha384(b"front")) is AuthResult.DIGEST_MISMATCH
    assert images.authorize(FirmwareId.VAULT, b"") is AuthResult.DIGEST_MISMATCH
    assert images.authorize(7, sha384(b"vault")) is AuthResult.NOT_IN_MANIFEST


def test_an_image_whose_signed_flag_says_so_is_authorized_whatever_its_digest_is() -> None:
    images = authorized(dataclasses.replace(ENTRIES[0], flags=0b100))

    assert images.authorize(ENTRIES[0].fw_id, bytes(48)) is AuthResult.AUTHORIZED


def test_an_entry_is_found_by_its_number() -> None:
    images = verify_manifest(MANIFEST, anchors())

    found = images.lookup(FirmwareId.BOX)

    assert found is not None
    assert found.digest == sha384(b"box")
    assert images.lookup(0) is None


def test_what_was_verified_is_a_copy_that_the_caller_cannot_change_any_more() -> None:
    lent = bytearray(MANIFEST)

    images = verify_manifest(lent, anchors())
    lent[:] = bytes(len(lent))

    assert images == verify_manifest(MANIFEST, anchors())
