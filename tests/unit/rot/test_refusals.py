"""What a refusal of a bundle or a manifest says."""

import pytest

from endocarp.rot.refusals import ImageRefused, ManifestRefused
from endocarp.wire.checks import Check, ManifestCheck


def test_a_refused_bundle_carries_rule_number_values_and_what_to_do() -> None:
    refused = ImageRefused(Check.FIRMWARE_SVN_LESS_THAN_FUSE, 3, "at least 5")

    assert str(refused) == (
        "firmware bundle: firmware svn less than fuse: found 3, expected at least 5 "
        "[IMAGE_VERIFIER_ERR_FIRMWARE_SVN_LESS_THAN_FUSE]"
    )
    assert refused.code == "IMAGE_VERIFIER_ERR_FIRMWARE_SVN_LESS_THAN_FUSE"
    assert refused.check is Check.FIRMWARE_SVN_LESS_THAN_FUSE
    assert refused.number == 0x000B002E
    assert "--rebuild" in refused.advice()


def test_octets_are_told_as_hexadecimal_and_what_is_not_known_is_left_out() -> None:
    refused = ImageRefused(Check.FMC_DIGEST_MISMATCH, b"\x01\xab")

    assert refused.reason == "firmware bundle: fmc digest mismatch: found 01ab"
    assert ImageRefused(Check.FMC_SIZE_ZERO).reason == "firmware bundle: fmc size zero"


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (Check.FW_PROC_INVALID_IMAGE_SIZE, "firmware bundle: invalid image size"),
        (Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO, "firmware bundle: unsigned octets not zero"),
    ],
)
def test_the_prefix_of_a_rule_is_not_told_to_people(check: Check, reason: str) -> None:
    assert ImageRefused(check).reason == reason


def test_a_refused_manifest_carries_the_same() -> None:
    check = ManifestCheck.RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_ENTRY_COUNT

    refused = ManifestRefused(check, 81, "1 to 80")

    assert refused.reason == (
        "SoC manifest: image metadata list invalid entry count: found 81, expected 1 to 80"
    )
    assert refused.code == "RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_ENTRY_COUNT"
    assert (refused.check, refused.number) == (check, 0x000E004D)
    assert "SoC manifest" in refused.advice()
