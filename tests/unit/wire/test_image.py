"""The layout of the firmware bundle, octet by octet as the specification counts them."""

import dataclasses
import random
from typing import Any

import pytest

from endocarp.errors import DecodeError
from endocarp.wire import image
from endocarp.wire.codec import Struct
from endocarp.wire.image import (
    ImageBundle,
    ImageEccKeyDescriptor,
    ImageEccPubKey,
    ImageEccSignature,
    ImageHeader,
    ImageManifest,
    ImagePqcKeyDescriptor,
    ImagePreamble,
    ImagePubKeys,
    ImageSignatures,
    ImageTocEntry,
    ImageVendorPubKeyInfo,
    SignedData,
)

SIZES = {
    ImageEccPubKey: 96,
    ImageEccSignature: 96,
    ImagePubKeys: 96 + 2592,
    ImageSignatures: 96 + 4628,
    ImageEccKeyDescriptor: 196,
    ImagePqcKeyDescriptor: 1540,
    ImageVendorPubKeyInfo: 196 + 1540,
    ImagePreamble: 16576,
    SignedData: 40,
    ImageHeader: 160,
    ImageTocEntry: 104,
    ImageManifest: 16956,
}

# caliptra.md 1.7, from the beginning of the manifest
OFFSETS = {
    ("marker",): 0,
    ("size",): 4,
    ("pqc_key_type",): 8,
    ("preamble", "vendor_pub_key_info", "ecc_key_descriptor", "version"): 12,
    ("preamble", "vendor_pub_key_info", "ecc_key_descriptor", "key_hash_count"): 15,
    ("preamble", "vendor_pub_key_info", "pqc_key_descriptor", "version"): 208,
    ("preamble", "vendor_pub_key_info", "pqc_key_descriptor", "key_type"): 210,
    ("preamble", "vendor_ecc_pub_key_idx"): 1748,
    ("preamble", "vendor_pqc_pub_key_idx"): 1848,
    ("header", "vendor_ecc_pub_key_idx"): 16588 + 8,
    ("header", "vendor_pqc_pub_key_idx"): 16588 + 12,
    ("header", "flags"): 16588 + 16,
    ("header", "toc_len"): 16588 + 20,
    ("header", "pl0_pauser"): 16588 + 24,
    ("header", "svn"): 16588 + 76,
    ("fmc", "id"): 16748,
    ("fmc", "load_addr"): 16748 + 40,
    ("fmc", "entry_point"): 16748 + 44,
    ("fmc", "offset"): 16748 + 48,
    ("fmc", "size"): 16748 + 52,
    ("runtime", "id"): 16852,
}


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def replaced(value: Any, path: tuple[str, ...], new: object) -> Any:
    name, *rest = path
    inner = replaced(getattr(value, name), tuple(rest), new) if rest else new
    return dataclasses.replace(value, **{name: inner})


@pytest.mark.parametrize(("struct", "size"), SIZES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_struct_has_the_size_of_the_specification(struct: type[Struct], size: int) -> None:
    assert size == struct.SIZE


@pytest.mark.parametrize("struct", SIZES, ids=lambda struct: struct.__name__)
def test_any_octets_survive_a_round_trip_since_digests_are_taken_over_what_is_encoded(
    struct: type[Struct],
) -> None:
    octets = noise(SIZES[struct])

    assert struct.decode(octets).encode() == octets


@pytest.mark.parametrize(("path", "offset"), OFFSETS.items(), ids=str)
def test_a_field_stands_where_the_specification_says(path: tuple[str, ...], offset: int) -> None:
    manifest = ImageManifest.decode(bytes(16956))

    octets = replaced(manifest, path, 1).encode()

    assert octets[offset] == 1
    assert sum(octets) == 1


def test_a_manifest_begins_with_the_letters_of_its_marker() -> None:
    manifest = replaced(ImageManifest.decode(bytes(16956)), ("marker",), image.MANIFEST_MARKER)

    assert manifest.encode()[:4] == b"CMN2"


def test_the_constants_agree_with_the_structs() -> None:
    assert ImageManifest.SIZE == image.MANIFEST_SIZE
    assert image.NO_SIGNED_DATA.encode() == bytes(40)
    assert image.NO_SIGNATURES.encode() == bytes(4724)


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        (("preamble", "vendor_ecc_active_pub_key", "x"), 1752),
        (("preamble", "vendor_ecc_active_pub_key", "y"), 1800),
        (("preamble", "vendor_sigs", "ecc_sig", "r"), 4444),
        (("preamble", "owner_pub_keys", "ecc_pub_key", "x"), 9168),
        (("preamble", "owner_sigs", "ecc_sig", "s"), 11904),
        (("header", "toc_digest"), 16588 + 28),
        (("fmc", "digest"), 16748 + 56),
    ],
    ids=str,
)
def test_what_caliptra_keeps_as_words_stands_with_each_word_reversed(
    path: tuple[str, ...], offset: int
) -> None:
    manifest = ImageManifest.decode(bytes(16956))

    octets = replaced(manifest, path, bytes(range(48))).encode()

    assert octets[offset:][:8] == bytes([3, 2, 1, 0, 7, 6, 5, 4])
    assert octets[offset:][44:48] == bytes([47, 46, 45, 44])


@pytest.mark.parametrize(
    ("path", "offset", "size"),
    [
        (("preamble", "vendor_pqc_active_pub_key"), 1852, 2592),
        (("preamble", "vendor_sigs", "pqc_sig"), 4540, 4628),
        (("preamble", "owner_pub_keys", "pqc_pub_key"), 9264, 2592),
    ],
    ids=str,
)
def test_ml_dsa_keys_and_signatures_stand_as_they_are(path: tuple[str, ...], offset: int, size: int) -> None:
    octets = noise(size)

    encoded = replaced(ImageManifest.decode(bytes(16956)), path, octets).encode()

    assert encoded[offset : offset + size] == octets


@pytest.mark.parametrize(("descriptor", "count"), [(ImageEccKeyDescriptor, 4), (ImagePqcKeyDescriptor, 32)])
def test_a_key_descriptor_gives_each_digest_in_standard_order(
    descriptor: type[ImageEccKeyDescriptor] | type[ImagePqcKeyDescriptor], count: int
) -> None:
    digests = [noise(48, seed) for seed in range(count)]
    swapped = b"".join(digest[at : at + 4][::-1] for digest in digests for at in range(0, 48, 4))

    read = descriptor.decode(bytes(4) + swapped)

    assert [read.key_hash(index) for index in range(count)] == digests


def test_an_ecc_key_is_taken_from_a_point_and_given_back_as_one() -> None:
    point = b"\x04" + noise(96)

    assert ImageEccPubKey.from_point(point).point == point


@pytest.mark.parametrize("point", [b"", b"\x04" + bytes(95), b"\x04" + bytes(97), b"\x02" + bytes(96)])
def test_an_ecc_key_of_another_form_is_refused(point: bytes) -> None:
    with pytest.raises(DecodeError, match="no uncompressed P-384 point"):
        ImageEccPubKey.from_point(point)


def test_signatures_are_taken_from_raw_octets_and_given_back() -> None:
    ecc, ml_dsa = noise(96), noise(4627)

    signatures = ImageSignatures.from_raw(ecc, ml_dsa)

    assert signatures.ecc_sig.raw == ecc
    assert signatures.ml_dsa == ml_dsa
    assert signatures.padding == b"\0"


def test_an_ecdsa_signature_of_another_size_is_refused() -> None:
    with pytest.raises(DecodeError, match="95 octets, must be 96"):
        ImageEccSignature.from_raw(bytes(95))


def test_the_vendor_signs_the_header_without_the_data_of_the_owner() -> None:
    octets = noise(160)

    assert ImageHeader.decode(octets).vendor_signed() == octets[:120]


def test_the_toc_is_both_entries_one_after_the_other() -> None:
    octets = noise(16956)

    assert ImageManifest.decode(octets).toc() == octets[16748:]


def test_the_active_keys_of_the_vendor_are_given_together() -> None:
    preamble = ImagePreamble.decode(noise(16576))

    assert preamble.vendor_pub_keys.ecc_pub_key == preamble.vendor_ecc_active_pub_key
    assert preamble.vendor_pub_keys.pqc_pub_key == preamble.vendor_pqc_active_pub_key


def bundle_of(fmc: bytes, runtime: bytes, *, gap: bytes = b"", alignment: int = 1) -> ImageBundle:
    manifest = ImageManifest.decode(bytes(16956))
    for name, offset, octets in (("fmc", 16956, fmc), ("runtime", 16956 + len(fmc + gap), runtime)):
        manifest = replaced(manifest, (name, "offset"), offset)
        manifest = replaced(manifest, (name, "size"), len(octets))
    return ImageBundle.decode(image.encode_bundle(manifest, fmc + gap, runtime, alignment=alignment))


def test_a_bundle_gives_its_images_and_what_stands_between_them() -> None:
    bundle = bundle_of(b"first", b"second", gap=b"gap", alignment=256)

    assert bundle.image(bundle.manifest.fmc) == b"first"
    assert bundle.image(bundle.manifest.runtime) == b"second"
    assert bundle.gaps() == b"gap" + bytes(-(16956 + 14) % 256)
    assert len(bundle.octets) % 256 == 0


def test_an_image_that_reaches_beyond_the_bundle_is_not_given() -> None:
    bundle = bundle_of(b"first", b"second")

    assert bundle.image(replaced(bundle.manifest.runtime, ("size",), 7)) is None
    assert bundle.image(replaced(bundle.manifest.runtime, ("offset",), 1 << 31)) is None


def test_a_bundle_that_is_shorter_than_a_manifest_is_refused() -> None:
    with pytest.raises(DecodeError, match="cut short"):
        ImageBundle.decode(bytes(16955))
