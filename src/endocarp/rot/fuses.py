"""What a device is born with: fuses, the key that obfuscates them, and the certificates of its maker.

A device is made once, by `manufacture`, and read at every boot from the text of `to_json`. That text holds secrets.

Source: Caliptra.md, tables of fuses and life cycle; caliptra-sw, drivers/src/fuse_bank.rs.
"""

import dataclasses
import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from endocarp.crypto.digest import sha384
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, UsageError
from endocarp.wire.image import PqcKeyType

Entropy = Callable[[int], bytes]
"""Gives that many random octets."""

NO_HASH = bytes(48)
ATTRIBUTE_WORDS = 24
_UEID_TYPE_RANDOM = 1
_UEID_TYPE_WORD = 11
_SERIAL_WORDS = range(12, 16)
_FORM = 2


class Lifecycle(enum.IntEnum):
    """Where in its life a device is; 2 is reserved."""

    UNPROVISIONED = 0
    MANUFACTURING = 1
    PRODUCTION = 3


@dataclass(frozen=True)
class Fuses:
    """The fuses that the model reads. Bitmaps are integers: bit 0 is the first fuse.

    Not modelled, and so not here: HEK seed, HSM id, stepping id, debug-unlock token, the deprecated FMC key-manifest SVN.
    """

    uds_seed: bytes = field(repr=False)
    """64 octets, obfuscated."""
    field_entropy: bytes = field(repr=False)
    """32 octets, obfuscated: two slots of 16."""
    vendor_pk_hash: bytes
    owner_pk_hash: bytes = NO_HASH
    """48 octets each, standard order; zero where none was burnt."""
    ecc_revocation: int = 0
    """4 bits, one a vendor ECC key."""
    lms_revocation: int = 0
    """32 bits."""
    mldsa_revocation: int = 0
    """4 bits."""
    pqc_key_type: int = int(PqcKeyType.MLDSA)
    """2 bits. Documents say one bit a type; the ROM compares the number with that of the manifest: 1 or 3."""
    firmware_svn: int = 0
    """A bitmap of 128 bits; see `fw_svn`."""
    soc_manifest_svn: int = 0
    """A bitmap of 128 bits; see `soc_manifest_min_svn`."""
    soc_manifest_max_svn: int = 128
    """A number of 8 bits."""
    anti_rollback_disable: bool = False
    idevid_cert_attributes: tuple[int, ...] = (0,) * ATTRIBUTE_WORDS
    """24 words of 32 bits: key id algorithms, key ids, UEID."""
    lifecycle: Lifecycle = Lifecycle.PRODUCTION
    debug_locked: bool = True
    """Not a fuse but a bit of the security state; it is fixed here all the same."""

    def __post_init__(self) -> None:
        for name, size in _SIZES.items():
            if len(getattr(self, name)) != size:
                raise UsageError(f"{name} has {len(getattr(self, name))} octets", f"it takes {size}")
        for name, bits in _BITS.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise UsageError(f"{name} = {getattr(self, name):#x}", f"it has {bits} bits")
        words = self.idevid_cert_attributes
        if len(words) != ATTRIBUTE_WORDS or not all(0 <= word < 1 << 32 for word in words):
            raise UsageError("idevid_cert_attributes", f"it takes {ATTRIBUTE_WORDS} words of 32 bits")

    # Caliptra.md, fuse map: the number is the place of the highest fuse that is blown, counted from one.
    @property
    def fw_svn(self) -> int:
        """The least SVN of firmware, 0 to 128."""
        return self.firmware_svn.bit_length()

    @property
    def soc_manifest_min_svn(self) -> int:
        """The least SVN of a SoC manifest, 0 to 128."""
        return self.soc_manifest_svn.bit_length()

    @property
    def svn_checked(self) -> bool:
        """Whether security version numbers count at all on this device."""
        return self.lifecycle is not Lifecycle.UNPROVISIONED and not self.anti_rollback_disable

    @property
    def effective_fw_svn(self) -> int:
        """The least SVN of firmware that is in force: 0 where anti-rollback is disabled."""
        return 0 if self.anti_rollback_disable else self.fw_svn

    @property
    def ueid(self) -> bytes:
        """The unique id of the device: a type and 16 octets, 17 in all."""
        words = self.idevid_cert_attributes
        serial = b"".join(words[at].to_bytes(4, "little") for at in _SERIAL_WORDS)
        return bytes([words[_UEID_TYPE_WORD] & 0xFF]) + serial


_SIZES = {"uds_seed": 64, "field_entropy": 32, "vendor_pk_hash": 48, "owner_pk_hash": 48}
_BITS = {
    "ecc_revocation": 4,
    "lms_revocation": 32,
    "mldsa_revocation": 4,
    "pqc_key_type": 2,
    "firmware_svn": 128,
    "soc_manifest_svn": 128,
    "soc_manifest_max_svn": 8,
}


def svn_bitmap(svn: int) -> int:
    """Return the fuses that stand for an SVN of 0 to 128: that many bits, all set."""
    return (1 << svn) - 1


def ueid_words(serial: bytes, kind: int = _UEID_TYPE_RANDOM) -> tuple[int, ...]:
    """Return the IDevID attribute words for a UEID: `serial` of 16 octets, and everything else zero.

    Zero flags mean key ids by SHA-1, as Caliptra's default is.
    """
    if len(serial) != 4 * len(_SERIAL_WORDS):
        raise UsageError(f"a UEID of {len(serial)} octets", "it takes 16")
    words = [0] * ATTRIBUTE_WORDS
    words[_UEID_TYPE_WORD] = kind
    for at, word in enumerate(_SERIAL_WORDS):
        words[word] = int.from_bytes(serial[4 * at :][:4], "little")
    return tuple(words)


@dataclass(frozen=True)
class Device:
    """One device: its model's name, its fuses, and what stands in its logic instead of in fuses."""

    model: str
    """The name of the model root that vouches for it; it always says MODEL."""
    fuses: Fuses
    obfuscation_key: Secret
    """32 octets: the AES-256 key under which seeds lie in the fuses."""
    doe_iv: bytes
    """16 octets, no secret."""
    idevid_ecc_certificate: bytes = field(default=b"", repr=False)
    idevid_mldsa_certificate: bytes = field(default=b"", repr=False)
    """DER; empty until the device has been certified."""

    def to_json(self) -> str:
        """Return the device as text, secrets included; octets and numbers are hexadecimal.

        A digest over all entries comes last: fuses have error detection, a file has this.
        """
        return json.dumps(self._plain() | {"digest": self._digest()}, indent=2)

    def _plain(self) -> dict[str, object]:
        fuses = {each.name: _shown(getattr(self.fuses, each.name)) for each in dataclasses.fields(Fuses)}
        return {
            "form": _FORM,
            "model": self.model,
            "fuses": fuses,
            "obfuscation_key": self.obfuscation_key.view.hex(),
            "doe_iv": self.doe_iv.hex(),
            "idevid_ecc_certificate": self.idevid_ecc_certificate.hex(),
            "idevid_mldsa_certificate": self.idevid_mldsa_certificate.hex(),
        }

    def _digest(self) -> str:
        return sha384(json.dumps(self._plain()).encode()).hex()

    @classmethod
    def from_json(cls, text: str) -> "Device":
        """Read what `to_json` wrote; DecodeError, which names the entry, where anything is missing, wrong, new or changed."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise DecodeError("Device", "not JSON") from None
        entries = _entries(
            "Device", value, {"form", "digest"} | {each.name for each in dataclasses.fields(cls)}
        )
        if entries["form"] != _FORM:
            raise DecodeError("Device.form", f"{entries['form']!r}, must be {_FORM}")
        device = cls(
            model=_text("Device.model", entries["model"]),
            fuses=_fuses(entries["fuses"]),
            obfuscation_key=Secret(_octets("Device.obfuscation_key", entries["obfuscation_key"], 32)),
            doe_iv=_octets("Device.doe_iv", entries["doe_iv"], 16),
            idevid_ecc_certificate=_octets(
                "Device.idevid_ecc_certificate", entries["idevid_ecc_certificate"]
            ),
            idevid_mldsa_certificate=_octets(
                "Device.idevid_mldsa_certificate", entries["idevid_mldsa_certificate"]
            ),
        )
        if entries["digest"] != device._digest():
            raise DecodeError("Device.digest", "does not fit the other entries: one of them was changed")
        return device


def manufacture(
    entropy: Entropy,
    *,
    model: str,
    vendor_pk_hash: bytes,
    owner_pk_hash: bytes = NO_HASH,
    lifecycle: Lifecycle = Lifecycle.PRODUCTION,
    debug_locked: bool = True,
) -> Device:
    """Make a device with secrets of its own, for firmware of this vendor and, where given, of this owner.

    The hashes have 48 octets. The IDevID certificates are added by `provision`.
    """
    return Device(
        model=model,
        fuses=Fuses(
            uds_seed=entropy(64),
            field_entropy=entropy(32),
            vendor_pk_hash=vendor_pk_hash,
            owner_pk_hash=owner_pk_hash,
            idevid_cert_attributes=ueid_words(entropy(16)),
            lifecycle=lifecycle,
            debug_locked=debug_locked,
        ),
        obfuscation_key=Secret(entropy(32)),
        doe_iv=entropy(16),
    )


# --- the text form ------------------------------------------------------------------------------------------


def _shown(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case Lifecycle():
            return value.name.lower()
        case bool() | tuple():
            return value
        case _:
            return f"{value:x}"


def _fuses(value: object) -> Fuses:
    entries = _entries("Fuses", value, {each.name for each in dataclasses.fields(Fuses)})
    read: dict[str, Any] = {}
    for name, entry in entries.items():
        where = f"Fuses.{name}"
        if name in _SIZES:
            read[name] = _octets(where, entry, _SIZES[name])
        elif name in _BITS:
            read[name] = _bits(where, entry, _BITS[name])
        elif name == "lifecycle":
            read[name] = _lifecycle(where, entry)
        elif name == "idevid_cert_attributes":
            read[name] = _words(where, entry)
        else:
            read[name] = _flag(where, entry)
    return Fuses(**read)


def _entries(where: str, value: object, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError(where, "not an object")
    for name in sorted(names ^ value.keys()):
        raise DecodeError(f"{where}.{name}", "missing" if name in names else "no such entry")
    return value


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise DecodeError(where, "not a text")
    return value


def _octets(where: str, value: object, size: int | None = None) -> bytes:
    try:
        octets = bytes.fromhex(_text(where, value))
    except ValueError:
        raise DecodeError(where, "not hexadecimal") from None
    if size is not None and len(octets) != size:
        raise DecodeError(where, f"{len(octets)} octets, must be {size}")
    return octets


def _bits(where: str, value: object, bits: int) -> int:
    try:
        number = int(_text(where, value), 16)
    except ValueError:
        raise DecodeError(where, "not hexadecimal") from None
    if not 0 <= number < 1 << bits:
        raise DecodeError(where, f"{number:#x} does not fit {bits} bits")
    return number


def _lifecycle(where: str, value: object) -> Lifecycle:
    try:
        return Lifecycle[_text(where, value).upper()]
    except KeyError:
        raise DecodeError(where, f"no such life cycle: {value!r}") from None


def _words(where: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != ATTRIBUTE_WORDS:
        raise DecodeError(where, f"not {ATTRIBUTE_WORDS} words")
    if not all(type(word) is int and 0 <= word < 1 << 32 for word in value):
        raise DecodeError(where, "a word does not fit 32 bits")
    return tuple(value)


def _flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise DecodeError(where, "neither true nor false")
    return value
