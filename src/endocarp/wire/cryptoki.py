"""Numbers of PKCS#11 (OASIS, 2.40 to 3.2), named as there without their prefix: CKR_OK is `CKR.OK`.

All enums are open: applications may send vendors' numbers, which survive. Of return values, mechanisms and
attributes, those stand here that this project uses.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from endocarp.wire.forms import OpenIntEnum


class CKR(OpenIntEnum):
    """Return values."""

    OK = 0x0
    SLOT_ID_INVALID = 0x3
    FUNCTION_FAILED = 0x6
    ARGUMENTS_BAD = 0x7
    ATTRIBUTE_READ_ONLY = 0x10
    ATTRIBUTE_SENSITIVE = 0x11
    ATTRIBUTE_TYPE_INVALID = 0x12
    ATTRIBUTE_VALUE_INVALID = 0x13
    ACTION_PROHIBITED = 0x1B
    DATA_LEN_RANGE = 0x21
    DEVICE_ERROR = 0x30
    DEVICE_MEMORY = 0x31
    DEVICE_REMOVED = 0x32
    ENCRYPTED_DATA_INVALID = 0x40
    ENCRYPTED_DATA_LEN_RANGE = 0x41
    FUNCTION_NOT_SUPPORTED = 0x54
    KEY_HANDLE_INVALID = 0x60
    KEY_TYPE_INCONSISTENT = 0x63
    KEY_FUNCTION_NOT_PERMITTED = 0x68
    MECHANISM_INVALID = 0x70
    MECHANISM_PARAM_INVALID = 0x71
    OBJECT_HANDLE_INVALID = 0x82
    OPERATION_ACTIVE = 0x90
    OPERATION_NOT_INITIALIZED = 0x91
    PIN_INCORRECT = 0xA0
    PIN_LEN_RANGE = 0xA2
    PIN_LOCKED = 0xA4
    SESSION_COUNT = 0xB1
    SESSION_HANDLE_INVALID = 0xB3
    SESSION_PARALLEL_NOT_SUPPORTED = 0xB4
    SESSION_READ_ONLY = 0xB5
    SIGNATURE_INVALID = 0xC0
    SIGNATURE_LEN_RANGE = 0xC1
    TEMPLATE_INCOMPLETE = 0xD0
    TEMPLATE_INCONSISTENT = 0xD1
    USER_ALREADY_LOGGED_IN = 0x100
    USER_NOT_LOGGED_IN = 0x101
    USER_TYPE_INVALID = 0x103
    RANDOM_SEED_NOT_SUPPORTED = 0x120
    CURVE_NOT_SUPPORTED = 0x140
    BUFFER_TOO_SMALL = 0x150
    CRYPTOKI_NOT_INITIALIZED = 0x190
    CRYPTOKI_ALREADY_INITIALIZED = 0x191


class CKK(OpenIntEnum):
    """Key types."""

    RSA = 0x0
    EC = 0x3
    AES = 0x1F
    ML_DSA = 0x4A


class CKP(OpenIntEnum):
    """Parameter sets of ML-DSA."""

    ML_DSA_65 = 2
    ML_DSA_87 = 3


class CKU(OpenIntEnum):
    """Kinds of users."""

    SO = 0
    USER = 1
    CONTEXT_SPECIFIC = 2


class CKS(OpenIntEnum):
    """States of a session."""

    RO_PUBLIC_SESSION = 0
    RO_USER_FUNCTIONS = 1
    RW_PUBLIC_SESSION = 2
    RW_USER_FUNCTIONS = 3


class CKA(OpenIntEnum):
    """Attributes."""

    CLASS = 0x0
    TOKEN = 0x1
    PRIVATE = 0x2
    LABEL = 0x3
    VALUE = 0x11
    TRUSTED = 0x86
    KEY_TYPE = 0x100
    SUBJECT = 0x101
    ID = 0x102
    SENSITIVE = 0x103
    ENCRYPT = 0x104
    DECRYPT = 0x105
    WRAP = 0x106
    UNWRAP = 0x107
    SIGN = 0x108
    SIGN_RECOVER = 0x109
    VERIFY = 0x10A
    VERIFY_RECOVER = 0x10B
    DERIVE = 0x10C
    START_DATE = 0x110
    END_DATE = 0x111
    MODULUS = 0x120
    MODULUS_BITS = 0x121
    PUBLIC_EXPONENT = 0x122
    PRIVATE_EXPONENT = 0x123
    PRIME_1 = 0x124
    PRIME_2 = 0x125
    EXPONENT_1 = 0x126
    EXPONENT_2 = 0x127
    COEFFICIENT = 0x128
    VALUE_LEN = 0x161
    EXTRACTABLE = 0x162
    LOCAL = 0x163
    NEVER_EXTRACTABLE = 0x164
    ALWAYS_SENSITIVE = 0x165
    KEY_GEN_MECHANISM = 0x166
    MODIFIABLE = 0x170
    COPYABLE = 0x171
    DESTROYABLE = 0x172
    EC_PARAMS = 0x180
    EC_POINT = 0x181
    ALWAYS_AUTHENTICATE = 0x202
    WRAP_WITH_TRUSTED = 0x210
    PROFILE_ID = 0x601
    PARAMETER_SET = 0x61D
    ENCAPSULATE = 0x633
    DECAPSULATE = 0x634
    SEED = 0x637


class CKM(OpenIntEnum):
    """Mechanisms."""

    RSA_PKCS_KEY_PAIR_GEN = 0x0
    RSA_PKCS = 0x1
    RSA_PKCS_OAEP = 0x9
    RSA_PKCS_PSS = 0xD
    ML_DSA_KEY_PAIR_GEN = 0x1C
    ML_DSA = 0x1D
    SHA256_RSA_PKCS = 0x40
    SHA384_RSA_PKCS = 0x41
    SHA512_RSA_PKCS = 0x42
    SHA256_RSA_PKCS_PSS = 0x43
    SHA384_RSA_PKCS_PSS = 0x44
    SHA512_RSA_PKCS_PSS = 0x45
    SHA_1 = 0x220
    SHA256 = 0x250
    SHA224 = 0x255
    SHA384 = 0x260
    SHA512 = 0x270
    EC_KEY_PAIR_GEN = 0x1040
    ECDSA = 0x1041
    ECDSA_SHA256 = 0x1044
    ECDSA_SHA384 = 0x1045
    ECDSA_SHA512 = 0x1046
    AES_KEY_GEN = 0x1080
    AES_GCM = 0x1087


class MechanismFlags(enum.IntFlag):
    """What a mechanism can do."""

    ENCRYPT = 0x100
    DECRYPT = 0x200
    DIGEST = 0x400
    SIGN = 0x800
    VERIFY = 0x2000
    GENERATE = 0x8000
    GENERATE_KEY_PAIR = 0x10000
    EC_F_P = 0x100000
    EC_NAMEDCURVE = 0x800000
    EC_UNCOMPRESS = 0x1000000


class TokenFlags(enum.IntFlag):
    """What a token has, and how its PIN stands."""

    RNG = 0x1
    LOGIN_REQUIRED = 0x4
    USER_PIN_INITIALIZED = 0x8
    TOKEN_INITIALIZED = 0x400
    USER_PIN_COUNT_LOW = 0x10000
    USER_PIN_FINAL_TRY = 0x20000
    USER_PIN_LOCKED = 0x40000


class SlotFlags(enum.IntFlag):
    """What is in a slot."""

    TOKEN_PRESENT = 0x1


class SessionFlags(enum.IntFlag):
    """How a session was opened."""

    RW_SESSION = 0x2
    SERIAL_SESSION = 0x4


CKG_MGF1: Mapping[int, CKM] = MappingProxyType({1: CKM.SHA_1, 2: CKM.SHA256, 3: CKM.SHA384, 4: CKM.SHA512})
"""Mask generation functions: MGF1 with which hash."""

UNAVAILABLE_INFORMATION = (1 << 64) - 1
"""CK_UNAVAILABLE_INFORMATION, all bits set: a number that the token does not tell."""
