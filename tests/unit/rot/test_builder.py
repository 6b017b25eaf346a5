"""The builder, against an independent reading of what it builds."""

import base64
import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from endocarp.crypto.digest import sha384
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, UsageError
from endocarp.rot import builder
from endocarp.rot.builder import SigningKeys, build_bundle, build_manifest, public_key_hashes, references
from endocarp.rot.profile import CALIPTRA_2_1_2 as PROFILE
from endocarp.wire.image import (
    MANIFEST_SIZE,
    ImageEccKeyDescriptor,
    ImageEccPubKey,
    ImageManifest,
    ImagePqcKeyDescriptor,
    ImagePubKeys,
    ImageVendorPubKeyInfo,
    PqcKeyType,
    SignedData,
)
from endocarp.wire.manifest import AuthorizationManifest, FirmwareId

FAKE_KEYS = Path("../shared/vectors/caliptra/fake-keys")
KEYS = SigningKeys.generate()
FMC, RUNTIME = b"fmc" * 33, b"runtime" * 50
BUNDLE = build_bundle(FMC, RUNTIME, KEYS, svn=3)
IMAGES = {FirmwareId.VAULT: b"vault", FirmwareId.BOX: b"box"}


def turned(octets: bytes) -> bytes:
    """Turn each word round, as Caliptra stores digests and coordinates."""
    return b"".join(octets[at : at + 4][::-1] for at in range(0, len(octets), 4))


def ecdsa_key(octets: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), b"\4" + turned(octets))


def ecdsa_verify(key: bytes, signature: bytes, signed: bytes) -> None:
    r, s = (int.from_bytes(turned(signature[at : at + 48]), "big") for at in (0, 48))
    ecdsa_key(key).verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))


def mldsa_verify(key: bytes, signature: bytes, signed: bytes) -> None:
    assert signature[4627:] == b"\0"
    mldsa.MLDSA87PublicKey.from_public_bytes(key).verify(signature[:4627], signed)


# --- the bundle ----------------------------------------------------------------------------------------------


def test_a_bundle_reads_as_the_specification_counts_its_octets() -> None:
    marker, size, kind = struct.unpack_from("<4sIB", BUNDLE)
    assert (marker, size, kind) == (b"CMN2", 16956, 1)
    header = BUNDLE[16588:16748]
    revision, ecc_index, pqc_index, flags, toc_len, pl0 = struct.unpack_from("<QIIIII", header)
    assert (revision, ecc_index, pqc_index, flags, toc_len, pl0) == (0, 0, 0, 1, 2, 1)
    assert header[28:76] == turned(hashlib.sha384(BUNDLE[16748:16956]).digest())
    assert struct.unpack_from("<I", header, 76) == (3,)
    assert header[80:] == bytes(80)


@pytest.mark.parametrize(
    ("at", "number", "image", "load", "offset", "version"),
    [
        (16748, 1, FMC, 0x40000000, 16956, PROFILE.fmc_version),
        (16852, 2, RUNTIME, 0x40000000 + 100, 16956 + 99, PROFILE.runtime_version),
    ],
    ids=["FMC", "runtime"],
)
def test_an_image_stands_where_its_entry_says_and_is_loaded_on_a_word(
    at: int, number: int, image: bytes, load: int, offset: int, version: int
) -> None:
    digest = hashlib.sha384(image).digest()
    entry = BUNDLE[at : at + 104]

    assert struct.unpack_from("<II20sI8sIIII", entry) == (
        *(number, 1, digest[:20], version, bytes(8)),
        *(load, load, offset, len(image)),
    )
    assert entry[56:] == turned(digest)
    assert BUNDLE[offset : offset + len(image)] == image


def test_the_signatures_hold_for_someone_who_reads_them_by_offset() -> None:
    vendor_ecc, vendor_pqc = BUNDLE[1752:1848], BUNDLE[1852:4444]
    owner_ecc, owner_pqc = BUNDLE[9168:9264], BUNDLE[9264:11856]
    header = BUNDLE[16588:16748]

    ecdsa_verify(vendor_ecc, BUNDLE[4444:4540], header[:120])
    mldsa_verify(vendor_pqc, BUNDLE[4540:9168], header[:120])
    ecdsa_verify(owner_ecc, BUNDLE[11856:11952], header)
    mldsa_verify(owner_pqc, BUNDLE[11952:16580], header)


def test_the_hashes_for_the_fuses_are_taken_over_what_stands_in_the_bundle() -> None:
    vendor, owner = public_key_hashes(KEYS)

    assert vendor == hashlib.sha384(BUNDLE[12:1748]).digest()
    assert owner == hashlib.sha384(BUNDLE[9168:11856]).digest()
    assert BUNDLE[12:16] == b"\1\0\0\1"
    assert BUNDLE[16:64] == turned(hashlib.sha384(BUNDLE[1752:1848]).digest())
    assert BUNDLE[208:212] == b"\1\0\1\1"
    assert BUNDLE[212:260] == turned(hashlib.sha384(BUNDLE[1852:4444]).digest())


def test_a_bundle_is_filled_with_zero_up_to_a_multiple_of_256() -> None:
    assert len(BUNDLE) % 256 == 0
    assert not any(BUNDLE[MANIFEST_SIZE + len(FMC + RUNTIME) :])


def test_building_twice_changes_nothing_but_the_hedged_signatures() -> None:
    again = build_bundle(FMC, RUNTIME, KEYS, svn=3)

    def without_ml_dsa(bundle: bytes) -> bytes:
        return bundle[:4540] + bundle[9168:11952] + bundle[16580:]

    assert without_ml_dsa(again) == without_ml_dsa(BUNDLE)
    assert again != BUNDLE


def test_dates_and_the_privileged_caller_are_signed_where_they_are_given() -> None:
    dates = SignedData(not_before=b"20260101000000Z", not_after=b"20360101000000Z", reserved=bytes(10))

    built = build_bundle(FMC, RUNTIME, KEYS, pl0_caller=9, vendor_data=dates, owner_data=dates)

    header = ImageManifest.decode(built[:MANIFEST_SIZE]).header
    assert header.vendor_data == header.owner_data == dates
    assert header.pl0_pauser == 9
    assert built[16588 + 80 :][:30] == b"20260101000000Z20360101000000Z"


@pytest.mark.parametrize(("fmc", "runtime", "name"), [(b"", b"x", "fmc"), (b"x", b"", "runtime")])
def test_an_empty_image_is_the_callers_mistake(fmc: bytes, runtime: bytes, name: str) -> None:
    with pytest.raises(UsageError, match=f"the {name} image is empty"):
        build_bundle(fmc, runtime, KEYS)


def test_firmware_that_does_not_fit_the_instruction_memory_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match=f"the firmware has {PROFILE.iccm_size + 4} octets") as mistake:
        build_bundle(b"x", bytes(PROFILE.iccm_size), KEYS)
    assert f"at most {PROFILE.iccm_size}" in mistake.value.advice()


def test_a_bundle_that_is_larger_than_its_limit_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="the bundle has"):
        build_bundle(b"x", bytes(PROFILE.image_limit - MANIFEST_SIZE), KEYS)


def test_firmware_may_fill_the_instruction_memory_and_a_bundle_its_limit_exactly() -> None:
    filled = dataclasses.replace(PROFILE, iccm_size=100 + len(RUNTIME), image_limit=len(BUNDLE))

    built = build_bundle(FMC, RUNTIME, KEYS, profile=filled)

    assert len(built) == filled.image_limit


def test_what_is_not_said_to_be_newer_has_version_0() -> None:
    header = ImageManifest.decode(build_bundle(FMC, RUNTIME, KEYS)[:MANIFEST_SIZE]).header

    assert header.svn == 0
    assert AuthorizationManifest.decode(build_manifest(IMAGES, KEYS)).preamble.svn == 0


# --- the manifest --------------------------------------------------------------------------------------------


def test_a_manifest_reads_as_the_specification_counts_its_octets() -> None:
    manifest = build_manifest(IMAGES, KEYS, svn=4)

    assert struct.unpack_from("<4sIIII", manifest) == (b"ATM2", 24292, 1, 4, 1)
    assert struct.unpack_from("<I", manifest, 24292) == (2,)
    first, second = manifest[24296:24376], manifest[24376:]
    assert (first[:4], second[:4]) == (b"EVLT", b"EBOX")
    assert first[8:32] == bytes(24)
    assert first[32:] == hashlib.sha384(b"vault").digest()
    assert second[32:] == hashlib.sha384(b"box").digest()


def test_the_signatures_of_a_manifest_hold_for_someone_who_reads_them_by_offset() -> None:
    signers = SigningKeys.generate()
    manifest = build_manifest(IMAGES, KEYS, manifest_signing=signers)
    keys, signatures = 2688, 4724
    vendor_keys, owner_keys = manifest[20:][:keys], manifest[20 + keys + signatures :][:keys]
    endorsed = manifest[20 + keys :][:signatures], manifest[20 + 2 * keys + signatures :][:signatures]
    signed = (
        manifest[20 + 2 * (keys + signatures) :][:signatures],
        manifest[20 + 2 * keys + 3 * signatures :][:signatures],
    )

    for key, signature, octets in (
        (BUNDLE[1752:1848] + BUNDLE[1852:4444], endorsed[0], manifest[8 : 20 + keys]),
        (BUNDLE[9168:11856], endorsed[1], owner_keys),
        (vendor_keys, signed[0], manifest[24292:]),
        (owner_keys, signed[1], manifest[24292:]),
    ):
        ecdsa_verify(key[:96], signature[:96], octets)
        mldsa_verify(key[96:], signature[96:], octets)


@pytest.mark.parametrize("count", [1, 80])
def test_a_manifest_holds_1_to_80_images(count: int) -> None:
    built = build_manifest({FirmwareId(number): b"x" for number in range(count)}, KEYS)

    assert AuthorizationManifest.decode(built).entry_count() == count


@pytest.mark.parametrize("count", [0, 81])
def test_a_manifest_of_no_or_too_many_images_is_the_callers_mistake(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} images"):
        build_manifest({FirmwareId(number): b"x" for number in range(count)}, KEYS)


# --- keys ----------------------------------------------------------------------------------------------------


def exported() -> dict[str, Secret]:
    named = (KEYS.vendor.ecc, KEYS.vendor.mldsa, KEYS.owner.ecc, KEYS.owner.mldsa)
    return {name: key.export() for name, key in zip(builder.KEY_NAMES, named, strict=True)}


def test_signing_keys_are_read_by_their_names() -> None:
    assert public_key_hashes(SigningKeys.load(exported())) == public_key_hashes(KEYS)


def test_a_signing_key_that_is_missing_is_named() -> None:
    kept = exported()
    del kept["owner-mldsa"]

    with pytest.raises(UsageError, match="no signing key owner-mldsa"):
        SigningKeys.load(kept)


def test_a_signing_key_that_is_none_is_refused() -> None:
    with pytest.raises(DecodeError):
        SigningKeys.load({**exported(), "vendor-ecc": Secret(b"no key")})


# --- references ----------------------------------------------------------------------------------------------


def test_the_references_are_the_digests_of_what_was_built_and_can_be_written_as_json() -> None:
    manifest = build_manifest(IMAGES, KEYS)
    vendor, owner = public_key_hashes(KEYS)

    told = references(model="MODEL x", bundle=BUNDLE, manifest=manifest, images=IMAGES, rom=b"rom")

    assert json.loads(json.dumps(told)) == {
        "model": "MODEL x",
        "bundle": {
            "fmc_digest": hashlib.sha384(FMC).hexdigest(),
            "runtime_digest": hashlib.sha384(RUNTIME).hexdigest(),
            "svn": 3,
            "vendor_pk_hash": vendor.hex(),
            "owner_pk_hash": owner.hex(),
        },
        "rom_digest": hashlib.sha256(b"rom").hexdigest(),
        "manifest_digest": hashlib.sha384(manifest).hexdigest(),
        "images": {
            "box": hashlib.sha384(b"box").hexdigest(),
            "vault": hashlib.sha384(b"vault").hexdigest(),
        },
    }


# --- Caliptra's own example keys -----------------------------------------------------------------------------


def fake_octets(name: str) -> bytes:
    lines = (FAKE_KEYS / name).read_text("ascii").splitlines()
    return base64.b64decode("".join(line for line in lines if "-" not in line))


def fake_ecc(name: str) -> ImageEccPubKey:
    key = load_pem_public_key((FAKE_KEYS / name).read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = key.public_numbers()
    return ImageEccPubKey(x=numbers.x.to_bytes(48, "big"), y=numbers.y.to_bytes(48, "big"))


def fake_vendor(kind: PqcKeyType, size: int, count: int) -> bytes:
    ecc = [fake_ecc(f"vendor_ecc_{number}_pub.pem").encode() for number in range(4)]
    # Where the object identifier is not the one that became the standard's, the key is what stands last.
    pqc = [fake_octets(f"vendor_{kind.name.lower()}_{number % 4}_pub.pem")[-size:] for number in range(count)]
    info = ImageVendorPubKeyInfo(
        ecc_key_descriptor=ImageEccKeyDescriptor(
            version=1, reserved=0, key_hash_count=4, key_hashes=b"".join(map(sha384, ecc))
        ),
        pqc_key_descriptor=ImagePqcKeyDescriptor(
            version=1,
            key_type=kind,
            key_hash_count=count,
            key_hashes=b"".join(map(sha384, pqc)).ljust(32 * 48, b"\0"),
        ),
    )
    return sha384(info.encode())


def fake_owner(kind: PqcKeyType, size: int) -> bytes:
    pqc = fake_octets(f"owner_{kind.name.lower()}_pub.pem")[-size:].ljust(2592, b"\0")
    return sha384(ImagePubKeys(ecc_pub_key=fake_ecc("owner_ecc_pub.pem"), pqc_pub_key=pqc).encode())


@pytest.mark.skipif(not FAKE_KEYS.exists(), reason=f"Caliptra's example keys are not here: {FAKE_KEYS}")
def test_the_hashes_of_caliptras_example_keys_are_those_that_it_publishes() -> None:
    hashes_of = {
        "vendor LMS": fake_vendor(PqcKeyType.LMS, 48, 32),
        "vendor ML-DSA": fake_vendor(PqcKeyType.MLDSA, 2592, 4),
        "owner LMS": fake_owner(PqcKeyType.LMS, 48),
        "owner ML-DSA": fake_owner(PqcKeyType.MLDSA, 2592),
    }

    assert {name: octets.hex() for name, octets in hashes_of.items()} == {
        "vendor LMS": "b17ca877666657ccd100e6926c7206b60c995cb68992c6c9"
        "baefce728af05441dee1ff415adfc187e1e4edb4d3b2d909",
        "vendor ML-DSA": "30399676a17e3e973677b3ff862f4bf2d1932d884778453c"
        "376fe00dc93fb8aa0770f3ebf3411a0853e9c57ece8a2980",
        "owner LMS": "1b179390e4e6c44422ed553e256c7d675cd93190cb49d88d"
        "485aa4ef3906cd492ab3ee3d3ba5f2c990ad13390fed4de5",
        "owner ML-DSA": "48afdb073c5e0d4ee46490468ef81f2cf57249b6e76a28f5"
        "fca4de696a7d3e2ed3efc4e6774318543e95307a54988bd7",
    }
