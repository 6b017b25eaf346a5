"""The rules that a firmware bundle and a SoC manifest can break, by Caliptra's error numbers.

Each has a name as Caliptra spells it; the number is what stands in the error register or the mailbox's answer.

Source: caliptra-sw, error/src/lib.rs.
"""

import enum

from endocarp.errors import Refused


class Check(enum.IntEnum):
    """A rule that a firmware bundle can break."""

    MANIFEST_MARKER_MISMATCH = 0x000B0001
    MANIFEST_SIZE_MISMATCH = 0x000B0002
    VENDOR_PUB_KEY_DIGEST_INVALID = 0x000B0003
    VENDOR_PUB_KEY_DIGEST_MISMATCH = 0x000B0005
    OWNER_PUB_KEY_DIGEST_MISMATCH = 0x000B0007
    VENDOR_ECC_PUB_KEY_INDEX_OUT_OF_BOUNDS = 0x000B0008
    VENDOR_ECC_PUB_KEY_REVOKED = 0x000B0009
    VENDOR_ECC_VERIFY_FAILURE = 0x000B000B
    VENDOR_ECC_SIGNATURE_INVALID = 0x000B000C
    VENDOR_ECC_PUB_KEY_INDEX_MISMATCH = 0x000B000D
    OWNER_ECC_VERIFY_FAILURE = 0x000B000E
    OWNER_ECC_SIGNATURE_INVALID = 0x000B000F
    TOC_ENTRY_COUNT_INVALID = 0x000B0010
    TOC_DIGEST_MISMATCH = 0x000B0012
    FMC_DIGEST_FAILURE = 0x000B0013
    FMC_DIGEST_MISMATCH = 0x000B0014
    RUNTIME_DIGEST_FAILURE = 0x000B0015
    RUNTIME_DIGEST_MISMATCH = 0x000B0016
    FMC_RUNTIME_OVERLAP = 0x000B0017
    FMC_RUNTIME_INCORRECT_ORDER = 0x000B0018
    OWNER_ECC_PUB_KEY_INVALID_ARG = 0x000B0019
    OWNER_ECC_SIGNATURE_INVALID_ARG = 0x000B001A
    VENDOR_ECC_PUB_KEY_INVALID_ARG = 0x000B001B
    VENDOR_ECC_SIGNATURE_INVALID_ARG = 0x000B001C
    FMC_LOAD_ADDR_INVALID = 0x000B0021
    FMC_LOAD_ADDR_UNALIGNED = 0x000B0022
    FMC_ENTRY_POINT_INVALID = 0x000B0023
    FMC_ENTRY_POINT_UNALIGNED = 0x000B0024
    RUNTIME_LOAD_ADDR_INVALID = 0x000B0028
    RUNTIME_LOAD_ADDR_UNALIGNED = 0x000B0029
    RUNTIME_ENTRY_POINT_INVALID = 0x000B002A
    RUNTIME_ENTRY_POINT_UNALIGNED = 0x000B002B
    FIRMWARE_SVN_GREATER_THAN_MAX_SUPPORTED = 0x000B002C
    FIRMWARE_SVN_LESS_THAN_FUSE = 0x000B002E
    IMAGE_LEN_MORE_THAN_BUNDLE_SIZE = 0x000B002F
    VENDOR_PQC_PUB_KEY_INDEX_MISMATCH = 0x000B0030
    VENDOR_LMS_VERIFY_FAILURE = 0x000B0031
    VENDOR_PQC_PUB_KEY_INDEX_OUT_OF_BOUNDS = 0x000B0032
    FMC_RUNTIME_LOAD_ADDR_OVERLAP = 0x000B0034
    VENDOR_PQC_PUB_KEY_REVOKED = 0x000B003A
    FMC_SIZE_ZERO = 0x000B003B
    RUNTIME_SIZE_ZERO = 0x000B003C
    FMC_LOAD_ADDRESS_IMAGE_SIZE_ARITHMETIC_OVERFLOW = 0x000B003E
    RUNTIME_LOAD_ADDRESS_IMAGE_SIZE_ARITHMETIC_OVERFLOW = 0x000B003F
    TOC_ENTRY_RANGE_ARITHMETIC_OVERFLOW = 0x000B0040
    ECC_KEY_DESCRIPTOR_VERSION_MISMATCH = 0x000B0042
    ECC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX = 0x000B0043
    PQC_KEY_DESCRIPTOR_VERSION_MISMATCH = 0x000B0044
    PQC_KEY_DESCRIPTOR_TYPE_MISMATCH = 0x000B0045
    PQC_KEY_DESCRIPTOR_HASH_COUNT_GT_MAX = 0x000B0046
    ECC_KEY_DESCRIPTOR_INVALID_HASH_COUNT = 0x000B0047
    PQC_KEY_DESCRIPTOR_INVALID_HASH_COUNT = 0x000B0048
    PQC_KEY_TYPE_INVALID = 0x000B0049
    VENDOR_MLDSA_SIGNATURE_INVALID = 0x000B0055
    OWNER_MLDSA_SIGNATURE_INVALID = 0x000B0057
    VENDOR_ECC_PUB_KEY_DIGEST_MISMATCH = 0x000B0059
    VENDOR_PQC_PUB_KEY_DIGEST_MISMATCH = 0x000B005A
    INVALID_PQC_KEY_TYPE_IN_FUSE = 0x000B005B
    PQC_KEY_TYPE_MISMATCH = 0x000B005C
    FW_PROC_MANIFEST_READ_FAILURE = 0x01020001
    FW_PROC_INVALID_IMAGE_SIZE = 0x01020002
    ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO = 0x454E0001
    """Ours: no octet may be changed unseen, so what nothing covers is zero."""

    @property
    def rule(self) -> str:
        """The name of the rule, with Caliptra's prefix."""
        return f"IMAGE_VERIFIER_ERR_{self.name}" if self >> 16 == 0x000B else self.name


class ManifestCheck(enum.IntEnum):
    """A rule that a SoC manifest can break."""

    # SET_AUTH_MANIFEST answers the image verifier's numbers for the SVN.
    IMAGE_VERIFIER_ERR_FIRMWARE_SVN_GREATER_THAN_MAX_SUPPORTED = 0x000B002C
    IMAGE_VERIFIER_ERR_FIRMWARE_SVN_LESS_THAN_FUSE = 0x000B002E
    RUNTIME_INVALID_AUTH_MANIFEST_MARKER = 0x000E0045
    RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_MISMATCH = 0x000E0046
    RUNTIME_AUTH_MANIFEST_VENDOR_ECC_SIGNATURE_INVALID = 0x000E0047
    RUNTIME_AUTH_MANIFEST_OWNER_ECC_SIGNATURE_INVALID = 0x000E0049
    RUNTIME_AUTH_MANIFEST_PREAMBLE_SIZE_LT_MIN = 0x000E004B
    RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_SIZE = 0x000E004C
    RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_INVALID_ENTRY_COUNT = 0x000E004D
    RUNTIME_AUTH_MANIFEST_IMAGE_METADATA_LIST_DUPLICATE_FIRMWARE_ID = 0x000E0053
    RUNTIME_AUTH_MANIFEST_MLDSA_VENDOR_SIG_INVALID = 0x000E0065
    RUNTIME_AUTH_MANIFEST_MLDSA_OWNER_SIG_INVALID = 0x000E0068
    ENDOCARP_UNSIGNED_OCTETS_NOT_ZERO = 0x454E0001
    """Ours, as for bundles."""

    @property
    def rule(self) -> str:
        """The name of the rule."""
        return self.name


class ImageRefused(Refused):
    """A bundle broke a rule: `check` says which, `found` and `expected` are the offending values."""

    def __init__(self, check: Check, found: object = None, expected: object = None) -> None:
        super().__init__(
            check.rule, _told("firmware bundle", check, found, expected), _hint("firmware bundle")
        )
        self.check = check
        self.number = int(check)
        self.found = found
        self.expected = expected


class ManifestRefused(Refused):
    """A SoC manifest broke a rule; the fields are those of `ImageRefused`."""

    def __init__(self, check: ManifestCheck, found: object = None, expected: object = None) -> None:
        super().__init__(check.rule, _told("SoC manifest", check, found, expected), _hint("SoC manifest"))
        self.check = check
        self.number = int(check)
        self.found = found
        self.expected = expected


def _told(what: str, check: Check | ManifestCheck, found: object, expected: object) -> str:
    values = [
        f"{word} {value.hex() if isinstance(value, bytes) else value}"
        for word, value in (("found", found), ("expected", expected))
        if value is not None
    ]
    return ": ".join([what, _words(check), ", ".join(values)] if values else [what, _words(check)])


def _words(check: Check | ManifestCheck) -> str:
    for prefix in ("IMAGE_VERIFIER_ERR_", "RUNTIME_AUTH_MANIFEST_", "RUNTIME_", "FW_PROC_", "ENDOCARP_"):
        if check.name.startswith(prefix):
            return check.name.removeprefix(prefix).lower().replace("_", " ")
    return check.name.lower().replace("_", " ")


def _hint(what: str) -> str:
    return f"this {what} is not what was built and signed for this device; build it again with --rebuild"
