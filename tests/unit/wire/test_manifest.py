"""The layout of the SoC manifest, octet by octet as the specification counts them."""

import dataclasses
import random
from typing import Any

import pytest

from endocarp.errors import DecodeError
from endocarp.wire import manifest
from endocarp.wire.manifest import (
    AuthManifestImageMetadata,
    AuthManifestImageMetadataCollection,
    AuthManifestPreamble,
    AuthorizationManifest,
    FirmwareId,
)

EMPTY = AuthManifestPreamble.decode(bytes(24292))
KEYS, SIGNATURES = 2688, 4724


def noise(size: int) -> bytes:
    return random.Random(2).randbytes(size)


def entry(fw_id: int = 1) -> AuthManifestImageMetadata:
    octets = fw_id.to_bytes(4, "little") + noise(76)
    return AuthManifestImageMetadata.decode(octets)


def whole(count: int, entries: int, surplus: bytes = b"") -> AuthorizationManifest:
    octets = bytes(24292) + count.to_bytes(4, "little")
    octets += b"".join(entry(number).encode() for number in range(entries))
    return AuthorizationManifest.decode(octets + surplus)


def test_sizes_are_those_of_the_specification() -> None:
    assert AuthManifestPreamble.SIZE == manifest.PREAMBLE_SIZE == 24292
    assert AuthManifestImageMetadata.SIZE == 80


@pytest.mark.parametrize("size", [24292])
def test_any_octets_survive_a_round_trip_since_signatures_are_over_what_is_encoded(size: int) -> None:
    octets = noise(size)

    assert AuthManifestPreamble.decode(octets).encode() == octets


@pytest.mark.parametrize(
    ("field", "offset"), [("marker", 0), ("size", 4), ("version", 8), ("svn", 12), ("flags", 16)]
)
def test_a_number_of_the_preamble_stands_where_the_specification_says(field: str, offset: int) -> None:
    changes: dict[str, Any] = {field: 1}

    octets = dataclasses.replace(EMPTY, **changes).encode()

    assert octets[offset] == 1
    assert sum(octets) == 1


@pytest.mark.parametrize(
    ("field", "offset", "size"),
    [
        ("vendor_pub_keys", 20, KEYS),
        ("vendor_pub_keys_signatures", 20 + KEYS, SIGNATURES),
        ("owner_pub_keys", 20 + KEYS + SIGNATURES, KEYS),
        ("owner_pub_keys_signatures", 20 + 2 * KEYS + SIGNATURES, SIGNATURES),
        ("vendor_image_metadata_signatures", 20 + 2 * (KEYS + SIGNATURES), SIGNATURES),
        ("owner_image_metadata_signatures", 20 + 2 * KEYS + 3 * SIGNATURES, SIGNATURES),
    ],
)
def test_keys_and_signatures_stand_where_the_specification_says(field: str, offset: int, size: int) -> None:
    octets = noise(24292)

    read = AuthManifestPreamble.decode(octets)

    assert getattr(read, field).encode() == octets[offset : offset + size]


def test_a_preamble_begins_with_the_letters_of_its_marker() -> None:
    octets = dataclasses.replace(EMPTY, marker=manifest.AUTH_MANIFEST_MARKER).encode()

    assert octets[:4] == b"ATM2"


def test_the_vendor_endorses_everything_from_the_version_to_its_own_keys() -> None:
    octets = noise(24292)

    assert AuthManifestPreamble.decode(octets).vendor_endorsed() == octets[8 : 20 + KEYS]


def test_the_owner_endorses_its_own_keys_only() -> None:
    octets = noise(24292)

    assert AuthManifestPreamble.decode(octets).owner_endorsed() == octets[20 + KEYS + SIGNATURES :][:KEYS]


def test_only_bit_0_of_the_flags_asks_for_the_signature_of_the_vendor() -> None:
    assert dataclasses.replace(EMPTY, flags=1).vendor_signature_required
    assert not dataclasses.replace(EMPTY, flags=0xFFFFFFFE).vendor_signature_required


def test_the_images_of_this_server_are_named_by_four_letters() -> None:
    names = [fw_id.to_bytes(4, "little") for fw_id in (FirmwareId.BOX, FirmwareId.FRONT, FirmwareId.VAULT)]

    assert names == [b"EBOX", b"EFRT", b"EVLT"]


def test_an_entry_stands_as_the_specification_says() -> None:
    octets = b"EBOX" + bytes(range(4, 80))

    read = AuthManifestImageMetadata.decode(octets)

    assert read.fw_id is FirmwareId.BOX
    assert read.component_id == 0x07060504
    assert read.classification == 0x0B0A0908
    assert read.flags == 0x0F0E0D0C
    assert read.image_load_address == 0x1716151413121110
    assert read.image_staging_address == 0x1F1E1D1C1B1A1918
    assert read.digest == bytes(range(32, 80))
    assert read.encode() == octets


@pytest.mark.parametrize(
    ("flags", "ignored"), [(0, False), (0b011, False), (0b100, True), (0xFFFFFFFB, False)]
)
def test_only_bit_2_of_its_flags_lets_an_image_run_whatever_its_digest_is(flags: int, ignored: bool) -> None:
    assert dataclasses.replace(entry(), flags=flags).ignore_auth_check is ignored


def test_a_collection_counts_its_entries_by_itself() -> None:
    octets = AuthManifestImageMetadataCollection(image_metadata_list=(entry(1), entry(2))).encode()

    assert octets == b"\x02\0\0\0" + entry(1).encode() + entry(2).encode()


def test_a_manifest_gives_the_entries_that_it_counts_and_keeps_the_octets_that_are_signed() -> None:
    read = whole(count=1, entries=2)

    assert read.entry_count() == 1
    assert read.images() == (entry(0),)
    assert len(read.collection) == 4 + 2 * 80
    assert read.surplus == b""


def test_what_stands_behind_the_largest_collection_is_told_apart() -> None:
    read = whole(count=80, entries=80, surplus=b"more")

    assert len(read.images()) == 80
    assert read.surplus == b"more"
    assert read.encode()[-4:] == b"more"


def test_a_manifest_survives_a_round_trip() -> None:
    octets = noise(24292 + 300)

    assert AuthorizationManifest.decode(octets).encode() == octets


def test_a_manifest_that_is_shorter_than_its_preamble_is_refused() -> None:
    with pytest.raises(DecodeError, match="cut short"):
        AuthorizationManifest.decode(bytes(24291))


def test_a_collection_that_does_not_say_how_many_it_holds_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"entry_count: cut short"):
        AuthorizationManifest.decode(bytes(24292 + 3)).entry_count()


@pytest.mark.parametrize(
    ("count", "reason"), [(3, "cut short"), (81, "at most 80"), (2**32 - 1, "at most 80")]
)
def test_a_count_that_lies_is_refused(count: int, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        whole(count=count, entries=2).images()
