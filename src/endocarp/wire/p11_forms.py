"""Which form the values of attributes and the parameters of mechanisms have in p11-kit's RPC, by their numbers.

Sources: p11-kit 0.26.4, rpc-message.c, map_attribute_to_value_type, mechanism_has_no_parameters and the table of
serializers. The older clients know fewer numbers, none of them otherwise.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from endocarp.wire.cryptoki import CKA, CKM


def _numbers(text: str) -> frozenset[int]:
    """Read hexadecimal numbers and ranges, such as "1 86 103-10c"."""
    pairs = (part.split("-") for part in text.split())
    return frozenset(number for pair in pairs for number in range(int(pair[0], 16), int(pair[-1], 16) + 1))


class ValueForm(enum.Enum):
    """How the value of an attribute stands on the wire; which Python type it has here."""

    BYTE = enum.auto()
    """One octet: int."""
    ULONG = enum.auto()
    """Eight octets, big-endian: int."""
    OCTETS = enum.auto()
    """A size and octets: bytes."""
    TEMPLATE = enum.auto()
    """A count and attributes: a tuple of Attributes."""
    MECHANISMS = enum.auto()
    """A count and numbers of eight octets: a tuple of ints."""
    RAW_BYTE = enum.auto()
    """A number that clients do not know for one: a size and the one octet as it lies in memory. int."""
    RAW_ULONG = enum.auto()
    """The same for eight octets, little-endian: int."""


_ATTRIBUTES: Final = {
    ValueForm.BYTE: _numbers("1-2 86 103-10c 162-165 170-171 200 202 210 301-302 405")
    | _numbers("80010001-80010004 80010008 8001000c-8001000d"),
    ValueForm.ULONG: _numbers("0 80 87-88 100 121 133-134 160-161 166 201 300 400-404 406 500")
    | _numbers("80010005 8001000a 800d0001 800d0009 800d0101"),
    ValueForm.TEMPLATE: _numbers("40000211-40000213"),
    ValueForm.MECHANISMS: _numbers("40000600"),
    ValueForm.RAW_BYTE: frozenset({CKA.DESTROYABLE, CKA.ENCAPSULATE, CKA.DECAPSULATE}),
    ValueForm.RAW_ULONG: frozenset({CKA.PROFILE_ID, CKA.PARAMETER_SET}),
}

ATTRIBUTE_FORMS: Mapping[int, ValueForm] = MappingProxyType(
    {number: form for form, numbers in _ATTRIBUTES.items() for number in numbers}
)
"""The attributes whose values are not plain octets."""


class PssParameters(NamedTuple):
    """CK_RSA_PKCS_PSS_PARAMS; the size of the salt is in octets."""

    hash: int
    mgf: int
    salt_size: int


class OaepParameters(NamedTuple):
    """CK_RSA_PKCS_OAEP_PARAMS."""

    hash: int
    mgf: int
    source: int
    label: bytes


class GcmParameters(NamedTuple):
    """CK_GCM_PARAMS."""

    iv: bytes
    iv_bits: int
    associated: bytes
    tag_bits: int


NO_PARAMETER: Final = (
    _numbers(
        "0-8 a-c 10-12 20 30 40-42 46 48-49 4b-4d 4f-51 53 100-101 103 110-111 120-121 123 130-132 134 138"
    )
    | _numbers(
        "140-141 143 200-201 210-211 220-221 230-231 240-241 250-251 255-256 260-261 270-271 300-301 303"
    )
    | _numbers(
        "310-311 313 320-321 330-331 333 340-341 343 350 370 374 380-381 392-396 400 1000 1008 1010 1020"
    )
    | _numbers("1030 1036 1040-1046 1060 1065 1070 1080-1081 1083 108a 2000-2002")
    | _numbers("80010001-80010004 80010007 8001001c 8001001f 80010023 80010025-80010028")
)
"""The mechanisms that never have a parameter: from dialect 2 on, nothing stands in its place."""

# One letter a field: u a number of eight octets, y one of one octet, b octets with their size in front.
_PARAMETERS: Final = {
    "uuu": _numbers("d-e 43-45 47"),
    "uuub": _numbers("9"),
    "bubu": _numbers("1087"),
    "ubb": _numbers("1050 8001001b 8001001e"),
    "ub": _numbers("1086"),
    "u": _numbers("4a 4e 135 137 222 252 257 262 272 1084 108b 80010031 80020004"),
    "uubu": _numbers("80070001"),
    "uuuybbu": _numbers("80010024"),
}

PARAMETER_FIELDS: Mapping[int, str] = MappingProxyType(
    {number: fields for fields, numbers in _PARAMETERS.items() for number in numbers}
)
"""The fields of parameters that are more than octets."""

PARAMETER_TYPES: Mapping[int, type[PssParameters] | type[OaepParameters] | type[GcmParameters]] = (
    MappingProxyType(
        {
            **dict.fromkeys(_PARAMETERS["uuu"], PssParameters),
            CKM.RSA_PKCS_OAEP: OaepParameters,
            CKM.AES_GCM: GcmParameters,
        }
    )
)
"""The parameters that have names here; all others are plain tuples."""
