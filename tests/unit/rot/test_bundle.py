"""The image verifier: every rule is broken once, in a bundle that is otherwise signed and right."""

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from endocarp.crypto.digest import sha384
from endocarp.rot.builder import SigningKeys, build_bundle, public_key_hashes
from endocarp.rot.bundle import VerifiedImage, verify_bundle
from endocarp.rot.dice import Validity
from endocarp.rot.fuses import NO_HASH, Fuses, Lifecycle, svn_bitmap
from endocarp.rot.profile import CALIPTRA_2_1_2 as PROFILE
from endocarp.rot.refusals import ImageRefused
from endocarp.wire.checks import Check, ManifestCheck
from endocarp.wire.image import MANIFEST_SIZE, ImageManifest, ImageTocEntry, SignedData

FMC, RUNTIME = b"first mutable code" * 4, b"runtime" * 101
KEYS = SigningKeys.generate()
BUNDLE = build_bundle(FMC, RUNTIME, KEYS, svn=7)
MANIFEST = ImageManifest.decode(BUNDLE[:MANIFEST_SIZE])
IMAGES = BUNDLE[MANIFEST_SIZE:]
END = MANIFEST_SIZE + len(FMC + RUNTIME)
VENDOR_HASH, OWNER_HASH = public_key_hashes(KEYS)
ICCM = PROFILE.iccm

Path = tuple[str, ...]
Changes = Mapping[Path, object]

ECC_DESCRIPTOR = ("preamble", "vendor_pub_key_info", "ecc_key_descriptor")
PQC_DESCRIPTOR = ("preamble", "vendor_pub_key_info", "pqc_key_descriptor")
VENDOR_KEY = ("preamble", "vendor_ecc_active_pub_key")
OWNER_KEY = ("preamble", "owner_pub_keys", "ecc_pub_key")
VENDOR_SIGS = ("preamble", "vendor_sigs")
OWNER_SIGS = ("preamble", "owner_sigs")


def fuses(**changes: Any) -> Fuses:
    values: dict[str, Any] = {
        "uds_seed": bytes(64),
        "field_entropy": bytes(32),
        "vendor_pk_hash": VENDOR_HASH,
        "owner_pk_hash": OWNER_HASH,
    }
    return Fuses(**(values | changes))


def replaced(value: Any, path: Path, new: object) -> Any:
    name, *rest = path
    inner = replaced(getattr(value, name), tuple(rest), new) if rest else new
    return dataclasses.replace(value, **{name: inner})


def changed(manifest: ImageManifest, changes: Changes) -> ImageManifest:
    for path, new in changes.items():
        manifest = replaced(manifest, path, new)
    return manifest


def signed_again(manifest: ImageManifest, changes: Changes) -> ImageManifest:
    """Make the change, then digest and signatures anew, and then the change again, where it concerns those."""
    manifest = changed(manifest, changes)
    manifest = replaced(manifest, ("header", "toc_digest"), sha384(manifest.toc()))
    manifest = changed(manifest, changes)
    manifest = replaced(manifest, VENDOR_SIGS, KEYS.vendor.sign(manifest.header.vendor_signed()))
    manifest = replaced(manifest, OWNER_SIGS, KEYS.owner.sign(manifest.header.encode()))
    return changed(manifest, changes)


@dataclass(frozen=True)
class Case:
    """How one rule is broken: by changes of the manifest, of the octets as a whole, of the fuses."""

    changes: Changes = field(default_factory=dict)
    octets: Any = None
    fuses: Mapping[str, Any] = field(default_factory=dict)

    def bundle(self) -> bytes:
        octets = signed_again(MANIFEST, self.changes).encode() + IMAGES
        return self.octets(octets) if self.octets else octets

    def device(self) -> Fuses:
        manifest = changed(MANIFEST, self.changes)
        burnt = {
            "vendor_pk_hash": sha384(manifest.preamble.vendor_pub_key_info.encode()),
            "owner_pk_hash": sha384(manifest.preamble.owner_pub_keys.encode()),
        }
        return fuses(**{**burnt, **self.fuses})


def hash_of(octets: bytes, room: int) -> bytes:
    return sha384(octets).ljust(room, b"\0")


def vendor_key(**coordinates: bytes) -> Changes:
    key = dataclasses.replace(MANIFEST.preamble.vendor_ecc_active_pub_key, **coordinates)
    return {VENDOR_KEY: key, (*ECC_DESCRIPTOR, "key_hashes"): hash_of(key.encode(), 192)}


def entry(name: str, **numbers: int) -> dict[Path, object]:
    return {(name, number): value for number, value in numbers.items()}


def dates(party: str, not_before: bytes, not_after: bytes) -> Changes:
    return {("header", party): SignedData(not_before, not_after, bytes(10))}


def last_of(name: str) -> int:
    toc: ImageTocEntry = getattr(MANIFEST, name)
    return toc.size - 1


TWO_KEYS: Changes = {
    (*ECC_DESCRIPTOR, "key_hash_count"): 2,
    (*PQC_DESCRIPTOR, "key_hash_count"): 2,
}
UNPROVISIONED = {"lifecycle": Lifecycle.UNPROVISIONED}

# In the order in which the verifier looks.
CASES: list[tuple[Check, Case]] = [
    (Check.FW_PROC_INVALID_IMAGE_SIZE, Case(octets=lambda octets: b"")),
    (
        Check.FW_PROC_INVALID_IMAGE_SIZE,
        Case(octets=lambda octets: octets.ljust(PROFILE.image_limit + 1, b"\0")),
    ),
    (Check.FW_PROC_MANIFEST_READ_FAILURE, Case(octets=lambda octets: octets[: MANIFEST_SIZE - 1])),
    (Check.FW_PROC_MANIFEST_READ_FAILURE, Case(octets=lambda octets: octets[:1])),
    (Check.MANIFEST_MARKER_MISMATCH, Case({("marker",): 0x434D4E32})),
    (Check.MANIFEST_SIZE_MISMATCH, Case({("size",): MANIFEST_SIZE + 4})),
    (Check.PQC_KEY_TYPE_INVALID, Case({("pqc_key_type",): 2})),
    (Check.INVALID_PQC_KEY_TYPE_IN_FUSE, Case(fuses={"pqc_key_type": 2})),
    (Check.PQC_KEY_TYPE_MISMATCH, Case({("pqc_key_type",): 3})),
    (Check.PQC_KEY_TYPE_MISMATCH, Case(fuses={"pqc_key_type": 3})),
    (Check.VENDOR_LMS_VERIFY_FAILURE, Case({("pqc_key_type",): 3}, fuses={"pqc_key_type": 3})),
    (Check.VENDOR_LMS_VERIFY_FAILURE, Case({("pqc_key_type",): 3}, fuses=UNPROVISIONED)),
    (Check.VENDOR_PUB_KEY_DIGEST_INVALID, Case(fuses={"vendor_pk_hash": NO_HASH})),
    (Check.ECC_KEY_DESCRIPTOR_VERSION_MISMATCH, Case({(*ECC_DESCRIPTOR, "version"): 2})),
    (Check.ECC_KEY_DESCRIPTOR_INVALID_HASH_COUNT, Case({(*ECC_DESCRIPTOR, "key_hash_count"): 0})),
    (Check.ECC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX, Case({(*ECC_DESCRIPTOR, "key_hash_count"): 5})),
    (Check.PQC_KEY_DESCRIPTOR_VERSION_MISMATCH, Case({(*PQC_DESCRIPTOR, "version"): 0})),
    (Check.PQC_KEY_DESCRIPTOR_TYPE_MISMATCH, Case({(*PQC_DESCRIPTOR, "key_type"): 3})),
    (Check.PQC_KEY_DESCRIPTOR_INVALID_HASH_COUNT, Case({(*PQC_DESCRIPTOR, "key_hash_count"): 0})),
    (Check.PQC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX, Case({(*PQC_DESCRIPTOR, "key_hash_count"): 5})),
    (Check.VENDOR_PUB_KEY_DIGEST_MISMATCH, Case(fuses={"vendor_pk_hash": b"\1" * 48})),
    (
        Check.VENDOR_ECC_PUB_KEY_INDEX_OUT_OF_BOUNDS,
        Case({("preamble", "vendor_ecc_pub_key_idx"): 4, (*ECC_DESCRIPTOR, "key_hash_count"): 4}),
    ),
    (Check.VENDOR_ECC_PUB_KEY_DIGEST_MISMATCH, Case({(*ECC_DESCRIPTOR, "key_hashes"): bytes(192)})),
    (
        Check.VENDOR_PQC_PUB_KEY_INDEX_OUT_OF_BOUNDS,
        Case({("preamble", "vendor_pqc_pub_key_idx"): 4, (*PQC_DESCRIPTOR, "key_hash_count"): 4}),
    ),
    (Check.VENDOR_PQC_PUB_KEY_DIGEST_MISMATCH, Case({(*PQC_DESCRIPTOR, "key_hashes"): bytes(1536)})),
    (Check.OWNER_PUB_KEY_DIGEST_MISMATCH, Case(fuses={"owner_pk_hash": b"\1" * 48})),
    (
        Check.VENDOR_ECC_PUB_KEY_INDEX_OUT_OF_BOUNDS,
        Case(
            {
                ("preamble", "vendor_ecc_pub_key_idx"): 1,
                (*ECC_DESCRIPTOR, "key_hashes"): (
                    bytes(48) + sha384(MANIFEST.preamble.vendor_ecc_active_pub_key.encode())
                ).ljust(192, b"\0"),
            }
        ),
    ),
    (Check.VENDOR_ECC_PUB_KEY_REVOKED, Case(TWO_KEYS, fuses={"ecc_revocation": 0b0001})),
    (
        Check.VENDOR_PQC_PUB_KEY_INDEX_OUT_OF_BOUNDS,
        Case(
            {
                ("preamble", "vendor_pqc_pub_key_idx"): 1,
                (*PQC_DESCRIPTOR, "key_hashes"): (
                    bytes(48) + sha384(MANIFEST.preamble.vendor_pqc_active_pub_key)
                ).ljust(1536, b"\0"),
            }
        ),
    ),
    (Check.VENDOR_PQC_PUB_KEY_REVOKED, Case(TWO_KEYS, fuses={"mldsa_revocation": 0b0001})),
    (Check.VENDOR_ECC_PUB_KEY_INVALID_ARG, Case(vendor_key(x=bytes(48)))),
    (Check.VENDOR_ECC_PUB_KEY_INVALID_ARG, Case(vendor_key(y=bytes(48)))),
    (Check.VENDOR_ECC_SIGNATURE_INVALID_ARG, Case({(*VENDOR_SIGS, "ecc_sig", "r"): bytes(48)})),
    (Check.VENDOR_ECC_SIGNATURE_INVALID_ARG, Case({(*VENDOR_SIGS, "ecc_sig", "s"): bytes(48)})),
    (Check.VENDOR_ECC_VERIFY_FAILURE, Case(vendor_key(y=b"\1" * 48))),
    (Check.VENDOR_ECC_SIGNATURE_INVALID, Case({(*VENDOR_SIGS, "ecc_sig", "s"): b"\1" * 48})),
    (Check.VENDOR_ECC_SIGNATURE_INVALID, Case({(*VENDOR_SIGS, "ecc_sig", "r"): b"\xff" * 48})),
    (Check.VENDOR_MLDSA_SIGNATURE_INVALID, Case({(*VENDOR_SIGS, "pqc_sig"): bytes(4628)})),
    (Check.VENDOR_ECC_PUB_KEY_INDEX_MISMATCH, Case({("header", "vendor_ecc_pub_key_idx"): 1})),
    (Check.VENDOR_PQC_PUB_KEY_INDEX_MISMATCH, Case({("header", "vendor_pqc_pub_key_idx"): 1})),
    (Check.OWNER_ECC_PUB_KEY_INVALID_ARG, Case({(*OWNER_KEY, "x"): bytes(48)})),
    (Check.OWNER_ECC_SIGNATURE_INVALID_ARG, Case({(*OWNER_SIGS, "ecc_sig", "s"): bytes(48)})),
    (Check.OWNER_ECC_VERIFY_FAILURE, Case({(*OWNER_KEY, "y"): b"\1" * 48})),
    (Check.OWNER_ECC_SIGNATURE_INVALID, Case({(*OWNER_SIGS, "ecc_sig", "r"): b"\1" * 48})),
    (Check.OWNER_MLDSA_SIGNATURE_INVALID, Case({(*OWNER_SIGS, "pqc_sig"): bytes(4628)})),
    (Check.TOC_ENTRY_COUNT_INVALID, Case({("header", "toc_len"): 3})),
    (Check.TOC_DIGEST_MISMATCH, Case({("header", "toc_digest"): bytes(48)})),
    (Check.FMC_SIZE_ZERO, Case(entry("fmc", size=0))),
    (Check.RUNTIME_SIZE_ZERO, Case(entry("runtime", size=0))),
    (Check.IMAGE_LEN_MORE_THAN_BUNDLE_SIZE, Case(entry("runtime", size=len(IMAGES) - len(FMC) + 1))),
    (Check.TOC_ENTRY_RANGE_ARITHMETIC_OVERFLOW, Case(entry("fmc", offset=2**32 - len(FMC)))),
    (Check.TOC_ENTRY_RANGE_ARITHMETIC_OVERFLOW, Case(entry("runtime", offset=2**32 - len(RUNTIME)))),
    (Check.FMC_RUNTIME_OVERLAP, Case(entry("runtime", offset=MANIFEST_SIZE + len(FMC) - 1))),
    (
        Check.FMC_RUNTIME_INCORRECT_ORDER,
        Case(entry("fmc", offset=MANIFEST_SIZE + len(RUNTIME)) | entry("runtime", offset=MANIFEST_SIZE)),
    ),
    (
        Check.FMC_LOAD_ADDRESS_IMAGE_SIZE_ARITHMETIC_OVERFLOW,
        Case(entry("fmc", load_addr=2**32 - last_of("fmc"))),
    ),
    (
        Check.RUNTIME_LOAD_ADDRESS_IMAGE_SIZE_ARITHMETIC_OVERFLOW,
        Case(entry("runtime", load_addr=2**32 - last_of("runtime"))),
    ),
    (Check.FMC_RUNTIME_LOAD_ADDR_OVERLAP, Case(entry("runtime", load_addr=ICCM.start + last_of("fmc")))),
    (Check.FMC_RUNTIME_LOAD_ADDR_OVERLAP, Case(entry("runtime", load_addr=ICCM.start - last_of("runtime")))),
    (Check.FMC_DIGEST_FAILURE, Case(entry("fmc", offset=2**31) | entry("runtime", offset=2**32 - 2000))),
    (Check.FMC_DIGEST_MISMATCH, Case({("fmc", "digest"): bytes(48)})),
    (Check.FMC_LOAD_ADDR_INVALID, Case(entry("fmc", load_addr=ICCM.start - 4))),
    (Check.FMC_LOAD_ADDR_INVALID, Case(entry("fmc", load_addr=2**32 - 1 - last_of("fmc")))),
    (Check.FMC_LOAD_ADDR_INVALID, Case(entry("fmc", load_addr=ICCM.stop - last_of("fmc")))),
    (
        Check.FMC_LOAD_ADDR_UNALIGNED,
        Case(entry("fmc", load_addr=ICCM.start + 2) | entry("runtime", load_addr=ICCM.start + 4096)),
    ),
    (Check.FMC_ENTRY_POINT_INVALID, Case(entry("fmc", entry_point=ICCM.stop))),
    (Check.FMC_ENTRY_POINT_UNALIGNED, Case(entry("fmc", entry_point=ICCM.start + 2))),
    (Check.RUNTIME_DIGEST_FAILURE, Case(entry("runtime", offset=2**31))),
    (Check.RUNTIME_DIGEST_MISMATCH, Case({("runtime", "digest"): bytes(48)})),
    (Check.RUNTIME_LOAD_ADDR_INVALID, Case(entry("runtime", load_addr=ICCM.start - 4096))),
    (Check.RUNTIME_LOAD_ADDR_INVALID, Case(entry("runtime", load_addr=2**32 - 1 - last_of("runtime")))),
    (Check.RUNTIME_LOAD_ADDR_INVALID, Case(entry("runtime", load_addr=ICCM.stop - last_of("runtime")))),
    (Check.RUNTIME_LOAD_ADDR_UNALIGNED, Case(entry("runtime", load_addr=ICCM.start + 4097))),
    (Check.RUNTIME_ENTRY_POINT_INVALID, Case(entry("runtime", entry_point=ICCM.start - 1))),
    (Check.RUNTIME_ENTRY_POINT_UNALIGNED, Case(entry("runtime", entry_point=ICCM.stop - 1))),
    (Check.FIRMWARE_SVN_GREATER_THAN_MAX_SUPPORTED, Case({("header", "svn"): 129})),
    (Check.FIRMWARE_SVN_LESS_THAN_FUSE, Case(fuses={"firmware_svn": svn_bitmap(8)})),
    (Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO, Case({("reserved",): b"\0\0\1"})),
    (Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO, Case({("preamble", "reserved"): b"\1" + bytes(7)})),
    (Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO, Case(octets=lambda octets: octets[:-1] + b"\1")),
    (Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO, Case(octets=lambda octets: octets[:END] + bytes(256))),
    (
        Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO,
        Case(octets=lambda octets: octets.ljust(PROFILE.image_limit, b"\0")),
    ),
    (Check.ENDOCARP_VALIDITY_INVALID, Case(dates("owner_data", b"\xff" * 15, b"20340101000000Z"))),
    (Check.ENDOCARP_VALIDITY_INVALID, Case(dates("vendor_data", b"20240101000000Z", b"20230101000000Z"))),
]


def refusal(bundle: bytes, device: Fuses) -> Check | ManifestCheck:
    with pytest.raises(ImageRefused) as refused:
        verify_bundle(bundle, device, PROFILE)
    return refused.value.check


# --- what is accepted ----------------------------------------------------------------------------------------


def test_a_bundle_that_was_built_for_the_device_is_accepted_and_described() -> None:
    image = verify_bundle(BUNDLE, fuses(), PROFILE)

    assert (image.fmc, image.runtime) == (FMC, RUNTIME)
    assert (image.fmc_digest, image.runtime_digest) == (sha384(FMC), sha384(RUNTIME))
    assert (image.vendor_pk_hash, image.owner_pk_hash) == (VENDOR_HASH, OWNER_HASH)
    assert image.owner_pk_hash_in_fuses
    assert image.svn == image.header.svn == 7
    assert image.manifest == MANIFEST
    assert image.validity == Validity("20230101000000Z", "99991231235959Z")
    assert image.vendor_keys.ecc == KEYS.vendor.ecc.public.raw
    assert image.vendor_keys.mldsa == KEYS.vendor.mldsa.public.raw
    assert image.owner_keys.ecc == KEYS.owner.ecc.public.raw
    assert image.owner_keys.mldsa == KEYS.owner.mldsa.public.raw


def test_a_device_without_an_owner_takes_any_owner_and_says_so() -> None:
    image = verify_bundle(BUNDLE, fuses(owner_pk_hash=NO_HASH), PROFILE)

    assert image.owner_pk_hash == OWNER_HASH
    assert not image.owner_pk_hash_in_fuses


def test_an_unprovisioned_device_takes_any_vendor_and_any_version() -> None:
    device = fuses(vendor_pk_hash=b"\1" * 48, firmware_svn=svn_bitmap(128), pqc_key_type=0, **UNPROVISIONED)

    assert verify_bundle(BUNDLE, device, PROFILE).svn == 7


@pytest.mark.parametrize("svn", [7, 128])
def test_the_least_and_the_greatest_version_are_accepted(svn: int) -> None:
    bundle = signed_again(MANIFEST, {("header", "svn"): svn}).encode() + IMAGES

    image = verify_bundle(bundle, fuses(firmware_svn=svn_bitmap(7)), PROFILE)

    assert (image.svn, image.effective_fuse_svn) == (svn, 7)


def test_no_version_is_too_old_or_too_new_where_anti_rollback_is_disabled() -> None:
    device = fuses(firmware_svn=svn_bitmap(8), anti_rollback_disable=True)
    newer = signed_again(MANIFEST, {("header", "svn"): 4000}).encode() + IMAGES

    assert verify_bundle(BUNDLE, device, PROFILE).effective_fuse_svn == 0
    assert verify_bundle(newer, device, PROFILE).svn == 4000


def test_the_last_key_of_a_descriptor_cannot_be_revoked() -> None:
    device = fuses(ecc_revocation=0b1111, mldsa_revocation=0b1111)

    assert verify_bundle(BUNDLE, device, PROFILE).svn == 7


def test_the_last_word_of_the_instruction_memory_may_be_used() -> None:
    changes = entry("runtime", load_addr=ICCM.stop - len(RUNTIME) - 1, entry_point=ICCM.stop - 4)
    assert (ICCM.stop - len(RUNTIME) - 1) % 4 == 0

    bundle = signed_again(MANIFEST, changes).encode() + IMAGES

    assert verify_bundle(bundle, fuses(), PROFILE).manifest.runtime.entry_point == ICCM.stop - 4


@pytest.mark.parametrize("filling", [0, 255])
def test_a_bundle_may_be_filled_with_less_than_the_alignment(filling: int) -> None:
    assert verify_bundle(BUNDLE[:END] + bytes(filling), fuses(), PROFILE).runtime == RUNTIME


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "case"), CASES, ids=[f"{at}-{check.name}" for at, (check, _) in enumerate(CASES)]
)
def test_a_broken_rule_is_refused_by_its_own_number(check: Check, case: Case) -> None:
    assert refusal(case.bundle(), case.device()) is check


def test_every_rule_of_the_verifier_is_broken_by_a_test() -> None:
    assert {check for check, _ in CASES} == set(Check)


def combined(first: Case, second: Case) -> Case | None:
    if first.octets or second.octets or first.changes.keys() & second.changes.keys():
        return None
    if first.fuses.keys() & second.fuses.keys():
        return None
    return Case({**second.changes, **first.changes}, fuses={**second.fuses, **first.fuses})


# Pairs in which what breaks the later rule mends the earlier one: they say nothing about the order.
ENTANGLED = {
    (Check.PQC_KEY_TYPE_MISMATCH, Check.VENDOR_LMS_VERIFY_FAILURE),
    (Check.VENDOR_ECC_PUB_KEY_INDEX_OUT_OF_BOUNDS, Check.VENDOR_ECC_PUB_KEY_REVOKED),
    (Check.VENDOR_PQC_PUB_KEY_INDEX_OUT_OF_BOUNDS, Check.VENDOR_PQC_PUB_KEY_REVOKED),
}


def pairs() -> Iterator[tuple[Check, Check, Case]]:
    """Neighbouring rules, and each rule with one that is looked at far later."""
    for distance in (1, 2, 9):
        for (earlier, first), (later, second) in zip(CASES, CASES[distance:], strict=False):
            case = combined(first, second)
            if case is not None and earlier is not later and (earlier, later) not in ENTANGLED:
                yield earlier, later, case


@pytest.mark.parametrize(
    ("earlier", "later", "case"),
    [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].name}") for pair in pairs()],
)
def test_of_two_broken_rules_the_one_is_named_that_caliptra_looks_at_first(
    earlier: Check, later: Check, case: Case
) -> None:
    assert refusal(case.bundle(), case.device()) is earlier, f"{earlier.name} before {later.name}"


# caliptra.md 1.7: every region of a bundle, its size, and the rules that a flipped bit there can break.
REGIONS: list[tuple[str, int, set[Check]]] = [
    ("marker", 4, {Check.MANIFEST_MARKER_MISMATCH}),
    ("size", 4, {Check.MANIFEST_SIZE_MISMATCH}),
    ("type", 1, {Check.PQC_KEY_TYPE_INVALID, Check.PQC_KEY_TYPE_MISMATCH}),
    ("reserved", 3, {Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO}),
    ("ECC descriptor version", 2, {Check.ECC_KEY_DESCRIPTOR_VERSION_MISMATCH}),
    ("ECC descriptor reserved", 1, {Check.VENDOR_PUB_KEY_DIGEST_MISMATCH}),
    (
        "ECC descriptor count",
        1,
        {
            Check.ECC_KEY_DESCRIPTOR_INVALID_HASH_COUNT,
            Check.ECC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX,
            Check.VENDOR_PUB_KEY_DIGEST_MISMATCH,
        },
    ),
    ("ECC key hashes", 192, {Check.VENDOR_PUB_KEY_DIGEST_MISMATCH}),
    ("PQC descriptor version", 2, {Check.PQC_KEY_DESCRIPTOR_VERSION_MISMATCH}),
    ("PQC descriptor type", 1, {Check.PQC_KEY_DESCRIPTOR_TYPE_MISMATCH}),
    (
        "PQC descriptor count",
        1,
        {
            Check.PQC_KEY_DESCRIPTOR_INVALID_HASH_COUNT,
            Check.PQC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX,
            Check.VENDOR_PUB_KEY_DIGEST_MISMATCH,
        },
    ),
    ("PQC key hashes", 1536, {Check.VENDOR_PUB_KEY_DIGEST_MISMATCH}),
    (
        "ECC key index",
        4,
        {Check.VENDOR_ECC_PUB_KEY_INDEX_OUT_OF_BOUNDS, Check.VENDOR_ECC_PUB_KEY_DIGEST_MISMATCH},
    ),
    ("ECC key", 96, {Check.VENDOR_ECC_PUB_KEY_DIGEST_MISMATCH}),
    (
        "PQC key index",
        4,
        {Check.VENDOR_PQC_PUB_KEY_INDEX_OUT_OF_BOUNDS, Check.VENDOR_PQC_PUB_KEY_DIGEST_MISMATCH},
    ),
    ("PQC key", 2592, {Check.VENDOR_PQC_PUB_KEY_DIGEST_MISMATCH}),
    ("vendor ECC signature", 96, {Check.VENDOR_ECC_SIGNATURE_INVALID}),
    ("vendor PQC signature", 4627, {Check.VENDOR_MLDSA_SIGNATURE_INVALID}),
    ("padding of the vendor PQC signature", 1, {Check.VENDOR_MLDSA_SIGNATURE_INVALID}),
    ("owner keys", 2688, {Check.OWNER_PUB_KEY_DIGEST_MISMATCH}),
    ("owner ECC signature", 96, {Check.OWNER_ECC_SIGNATURE_INVALID}),
    ("owner PQC signature", 4627, {Check.OWNER_MLDSA_SIGNATURE_INVALID}),
    ("padding of the owner PQC signature", 1, {Check.OWNER_MLDSA_SIGNATURE_INVALID}),
    ("preamble reserved", 8, {Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO}),
    ("header", 120, {Check.VENDOR_ECC_SIGNATURE_INVALID}),
    ("owner data", 40, {Check.OWNER_ECC_SIGNATURE_INVALID}),
    ("table of contents", 208, {Check.TOC_DIGEST_MISMATCH}),
    ("FMC", len(FMC), {Check.FMC_DIGEST_MISMATCH}),
    ("runtime", len(RUNTIME), {Check.RUNTIME_DIGEST_MISMATCH}),
    ("filling", len(IMAGES) - len(FMC + RUNTIME), {Check.ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO}),
]


def places(name: str, size: int) -> Iterator[tuple[int, int]]:
    """Octet and bit: everywhere in what is small, else both ends and some places between."""
    chance = random.Random(name)
    where = range(size) if size <= 8 else [0, size - 1, *(chance.randrange(size) for _ in range(6))]
    for octet in where:
        yield from ((octet, bit) for bit in (range(8) if size == 1 else [chance.randrange(8)]))


def test_the_regions_are_the_whole_bundle() -> None:
    assert sum(size for _, size, _ in REGIONS) == len(BUNDLE)


@pytest.mark.parametrize("region", range(len(REGIONS)), ids=[name for name, _, _ in REGIONS])
def test_a_bit_that_is_flipped_anywhere_is_refused(region: int) -> None:
    start = sum(size for _, size, _ in REGIONS[:region])
    name, size, expected = REGIONS[region]

    found = set()
    for octet, bit in places(name, size):
        spoilt = bytearray(BUNDLE)
        spoilt[start + octet] ^= 1 << bit
        found.add(refusal(bytes(spoilt), fuses()))

    assert found <= expected


def test_a_bundle_that_is_cut_anywhere_before_its_filling_is_refused() -> None:
    for size in (0, 1, 4, MANIFEST_SIZE - 1, MANIFEST_SIZE, MANIFEST_SIZE + len(FMC), END - 1):
        refusal(BUNDLE[:size], fuses())


def test_images_that_change_places_are_refused() -> None:
    swapped = BUNDLE[:MANIFEST_SIZE] + RUNTIME + FMC

    assert refusal(swapped, fuses()) is Check.FMC_DIGEST_MISMATCH


def test_signatures_of_one_party_do_not_serve_for_the_other() -> None:
    changes: Changes = {VENDOR_SIGS: MANIFEST.preamble.owner_sigs}

    assert (
        refusal(changed(MANIFEST, changes).encode() + IMAGES, fuses()) is Check.VENDOR_ECC_SIGNATURE_INVALID
    )


def test_a_bundle_of_another_vendor_is_refused() -> None:
    foreign = build_bundle(FMC, RUNTIME, SigningKeys.generate(), svn=7)

    assert refusal(foreign, fuses()) is Check.VENDOR_PUB_KEY_DIGEST_MISMATCH


@pytest.mark.parametrize("device", [fuses(), fuses(**UNPROVISIONED)], ids=["production", "unprovisioned"])
def test_noise_is_refused_and_nothing_else_happens(device: Fuses) -> None:
    chance = random.Random(3)
    for _ in range(300):
        spoilt = bytearray(BUNDLE)
        start = chance.randrange(len(spoilt))
        spoilt[start : start + 2000] = chance.randbytes(min(2000, len(spoilt) - start))
        refusal(bytes(spoilt), device)
        refusal(chance.randbytes(chance.randrange(20_000)), device)


# --- the copy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytearray, lambda octets: memoryview(bytearray(octets))])
def test_what_was_verified_is_a_copy_that_the_caller_cannot_change_any_more(kind: Any) -> None:
    lent = kind(BUNDLE)

    image = verify_bundle(lent, fuses(), PROFILE)
    expected: VerifiedImage = verify_bundle(BUNDLE, fuses(), PROFILE)
    lent[:] = bytes(len(BUNDLE))

    assert image == expected


def test_values_of_a_refusal_are_told() -> None:
    with pytest.raises(ImageRefused, match=r"found 7, expected at least 9 \[IMAGE_VERIFIER_ERR_FIRMWARE_SVN"):
        verify_bundle(BUNDLE, fuses(firmware_svn=svn_bitmap(9)), PROFILE)
