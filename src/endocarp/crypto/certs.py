"""Certificates and requests: written by our own DER templates, read by a strict reader.

The templates give Caliptra's octets exactly: every date is a GeneralizedTime (the library would write years before
2050 as UTCTime), P-384 signs with the nonce of RFC 6979. ML-DSA signatures are hedged, so an ML-DSA certificate is
another one each time it is made: never pin one by its digest.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from endocarp.crypto.digest import sha256
from endocarp.crypto.keys import PrivateKey, PublicKey
from endocarp.errors import UsageError
from endocarp.wire import der, oids
from endocarp.wire.der import SEQUENCE, Reader, context_tag
from endocarp.wire.suites import SIGNATURE_SIZE, Scheme, Suite

NOT_BEFORE: Final = "20230101000000Z"
NOT_AFTER: Final = "99991231235959Z"
"""RFC 5280, 4.1.2.5: no well-defined end."""

ROOT_PATH_LENGTH: Final = 8
"""Room below a root for Caliptra's chain: IDevID asks for 7."""

_COMMON_NAME, _SERIAL_NUMBER = "2.5.4.3", "2.5.4.5"
_EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
_ECDSA_SHA256, _ECDSA_SHA384 = "1.2.840.10045.4.3.2", "1.2.840.10045.4.3.3"

# RFC 5758, 3.2 and RFC 9881, 2: no parameters.
_SIGNATURE_ALGORITHMS: Final[Mapping[Suite, bytes]] = {
    Suite.P256: der.sequence(der.oid(_ECDSA_SHA256)),
    Suite.P384: der.sequence(der.oid(_ECDSA_SHA384)),
    Suite.ML_DSA_65: der.sequence(der.oid(oids.ML_DSA_65)),
    Suite.ML_DSA_87: der.sequence(der.oid(oids.ML_DSA_87)),
}
_SCHEMES: Final[Mapping[Suite, Scheme]] = {
    Suite.P256: Scheme.ECDSA_SHA256,
    Suite.P384: Scheme.ECDSA_SHA384,
    Suite.ML_DSA_65: Scheme.ML_DSA,
    Suite.ML_DSA_87: Scheme.ML_DSA,
}
_EC: Final = frozenset({Suite.P256, Suite.P384})

SUBJECT_KEY_ID = "2.5.29.14"
KEY_USAGE = "2.5.29.15"
BASIC_CONSTRAINTS = "2.5.29.19"
AUTHORITY_KEY_ID = "2.5.29.35"
EXTENDED_KEY_USAGE = "2.5.29.37"
TCG_UEID = "2.23.133.5.4.4"


class KeyUsage(enum.IntEnum):
    """The number of the bit that a usage has (RFC 5280, 4.2.1.3)."""

    DIGITAL_SIGNATURE = 0
    CONTENT_COMMITMENT = 1
    KEY_ENCIPHERMENT = 2
    DATA_ENCIPHERMENT = 3
    KEY_AGREEMENT = 4
    KEY_CERT_SIGN = 5
    CRL_SIGN = 6
    ENCIPHER_ONLY = 7
    DECIPHER_ONLY = 8


@dataclass(frozen=True)
class Name:
    """A distinguished name of a common name and, where it is not empty, a serial number.

    `printable` writes the common name as PrintableString in place of UTF8String; the serial number always is one.
    """

    common_name: str
    serial_number: str = ""
    printable: bool = False

    def der(self) -> bytes:
        """Return the Name, DER."""
        write = der.printable if self.printable else der.utf8
        parts = [_attribute(_COMMON_NAME, write(self.common_name))]
        if self.serial_number:
            parts.append(_attribute(_SERIAL_NUMBER, der.printable(self.serial_number)))
        return der.sequence(*parts)


def _attribute(oid: str, value: bytes) -> bytes:
    return der.set_(der.sequence(der.oid(oid), value))


def serial_of(public: PublicKey) -> bytes:
    """Return the 20 octets of a certificate's serial number by Caliptra's rule.

    SHA-256 of the raw key, cut; of the first octet the top bit is cleared and bit 2 set, so that the number is
    positive and has 20 octets always.
    """
    digest = key_id(public)
    return bytes((digest[0] & 0x7F | 0x04,)) + digest[1:]


def key_id(public: PublicKey) -> bytes:
    """Return the 20 octets of the subject key identifier: SHA-256 of the raw key, cut."""
    return sha256(public.raw)[:20]


# --- extensions ----------------------------------------------------------------------------------------------


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    """Return an Extension around the DER `value`."""
    mark = der.boolean(value=True) if critical else b""  # the default, false, is left out
    return der.sequence(der.oid(oid), mark, der.octet_string(value))


def basic_constraints(path_length: int | None) -> bytes:
    """Return BasicConstraints, critical: an authority with this many authorities below it, or, for None, none."""
    inside = () if path_length is None else (der.boolean(value=True), der.integer(path_length))
    return extension(BASIC_CONSTRAINTS, der.sequence(*inside), critical=True)


def key_usage(usages: Iterable[KeyUsage]) -> bytes:
    """Return KeyUsage, critical; at least one usage."""
    bits = sum(1 << (15 - usage) for usage in set(usages))
    unused = (bits & -bits).bit_length() - 1
    octets = bits.to_bytes(2, "big")[: 2 - unused // 8]
    return extension(KEY_USAGE, der.bit_string(octets, unused % 8), critical=True)


def extended_key_usage(oids: Iterable[str], *, critical: bool = False) -> bytes:
    """Return ExtendedKeyUsage with these purposes, in this order."""
    purposes = der.sequence(*(der.oid(oid) for oid in oids))
    return extension(EXTENDED_KEY_USAGE, purposes, critical=critical)


def ueid(octets: bytes) -> bytes:
    """Return the TCG's UEID extension (DICE Attestation Architecture 1.1, 6.1.4)."""
    return extension(TCG_UEID, der.sequence(der.octet_string(octets)))


def subject_key_id(octets: bytes) -> bytes:
    """Return SubjectKeyIdentifier."""
    return extension(SUBJECT_KEY_ID, der.octet_string(octets))


def authority_key_id(octets: bytes) -> bytes:
    """Return AuthorityKeyIdentifier with the key's identifier alone."""
    return extension(AUTHORITY_KEY_ID, der.sequence(der.context(0, octets, constructed=False)))


# --- writing --------------------------------------------------------------------------------------------------


def tbs_certificate(
    *,
    issuer: Name | bytes,
    subject: Name,
    serial: bytes,
    public: PublicKey,
    signer: Suite,
    extensions: Sequence[bytes],
    not_before: str = NOT_BEFORE,
    not_after: str = NOT_AFTER,
) -> bytes:
    """Return the part of a version 3 certificate that is signed, DER.

    `issuer` may be the DER of a Name, as `Certificate.subject` gives it. `serial` is big-endian. Dates have the
    form YYYYMMDDHHMMSSZ. The extensions stand in the order given.
    """
    return der.sequence(
        der.context(0, der.integer(2), constructed=True),
        der.integer(int.from_bytes(serial, "big")),
        _algorithm(signer),
        issuer if isinstance(issuer, bytes) else issuer.der(),
        der.sequence(der.generalized_time(not_before), der.generalized_time(not_after)),
        subject.der(),
        public.spki(),
        der.context(3, der.sequence(*extensions), constructed=True),
    )


def tbs_request(*, subject: Name, public: PublicKey, extensions: Sequence[bytes]) -> bytes:
    """Return the part of a PKCS#10 request that is signed, DER; the extensions are those that it asks for."""
    asked = der.sequence(der.oid(_EXTENSION_REQUEST), der.set_(der.sequence(*extensions)))
    return der.sequence(der.integer(0), subject.der(), public.spki(), der.context(0, asked, constructed=True))


def certificate(tbs: bytes, signer: PrivateKey) -> bytes:
    """Return the certificate over `tbs`, signed by `signer`, DER."""
    return _signed(tbs, signer)


def request(tbs: bytes, signer: PrivateKey) -> bytes:
    """Return the request over `tbs`, signed by the key that it is about, DER."""
    return _signed(tbs, signer)


def self_signed_ca(name: Name, key: PrivateKey) -> bytes:
    """Return the certificate of a root authority, DER."""
    extensions = (
        basic_constraints(ROOT_PATH_LENGTH),
        key_usage((KeyUsage.KEY_CERT_SIGN,)),
        subject_key_id(key_id(key.public)),
    )
    tbs = tbs_certificate(
        issuer=name,
        subject=name,
        serial=serial_of(key.public),
        public=key.public,
        signer=key.suite,
        extensions=extensions,
    )
    return certificate(tbs, key)


def _signed(tbs: bytes, signer: PrivateKey) -> bytes:
    algorithm = _algorithm(signer.suite)
    if signer.suite in _EC:
        raw = signer.sign_deterministic(tbs)
        half = len(raw) // 2
        numbers = (int.from_bytes(part, "big") for part in (raw[:half], raw[half:]))
        signature = der.sequence(*(der.integer(number) for number in numbers))
    else:
        signature = signer.sign(_SCHEMES[signer.suite], tbs)
    return der.sequence(tbs, algorithm, der.bit_string(signature))


def _algorithm(suite: Suite) -> bytes:
    if suite not in _SIGNATURE_ALGORITHMS:
        raise UsageError(f"{suite.name} signs no certificates here", "use an EC or ML-DSA key")
    return _SIGNATURE_ALGORITHMS[suite]


# --- reading --------------------------------------------------------------------------------------------------


class Extension(NamedTuple):
    """What a certificate says under one identifier: whether it must be understood, and DER."""

    critical: bool
    value: bytes


@dataclass(frozen=True)
class Certificate:
    """A certificate, read; nothing is verified until `signed_by` says so."""

    der: bytes
    tbs: bytes
    serial: bytes
    """Big-endian, without a leading zero octet."""
    issuer: bytes
    """The Name, DER."""
    subject: bytes
    """The Name, DER."""
    not_before: str
    """YYYYMMDDHHMMSSZ, which sorts as text; so `not_after`."""
    not_after: str
    public: PublicKey
    extensions: Mapping[str, Extension]
    """By dotted identifier, in the order of the certificate."""
    suite: Suite
    """The suite that signed."""
    signature: bytes
    """As `PublicKey.verify` takes it: ECDSA raw r‖s."""

    @classmethod
    def parse(cls, octets: bytes) -> "Certificate":
        """Read a version 3 certificate, DER; DecodeError where anything in it is not as RFC 5280 says."""
        signed = Reader.of_sequence(octets, "Certificate")
        tbs = signed.element(SEQUENCE)
        suite = _suite(signed)
        signature = _raw_signature(signed, suite)
        signed.end()
        body = Reader.of_sequence(tbs, "Certificate.tbs")
        _check_version(body)
        serial = _serial(body)
        if _suite(body) is not suite:
            # RFC 5280, 4.1.1.2: the algorithm inside is the algorithm outside.
            raise body.error("two signature algorithms")
        issuer = body.element(SEQUENCE)
        validity = body.sequence()
        not_before, not_after = validity.time(), validity.time()
        validity.end()
        return cls(
            der=octets,
            tbs=tbs,
            serial=serial,
            issuer=issuer,
            not_before=not_before,
            not_after=not_after,
            subject=body.element(SEQUENCE),
            public=PublicKey.from_spki(body.element(SEQUENCE)),
            extensions=_extensions(body),
            suite=suite,
            signature=signature,
        )

    def signed_by(self, public: PublicKey) -> bool:
        """Tell whether this key signed this certificate; dates, names and usages are not looked at."""
        return public.suite is self.suite and public.verify(_SCHEMES[self.suite], self.signature, self.tbs)

    @property
    def common_name(self) -> str:
        """The common name of the subject, or an empty string."""
        return _attributes(self.subject).get(_COMMON_NAME, "")

    @property
    def serial_number(self) -> str:
        """The serial number in the subject's name, or an empty string; not the certificate's own."""
        return _attributes(self.subject).get(_SERIAL_NUMBER, "")

    @property
    def key_id(self) -> bytes | None:
        """The subject key identifier, where there is one."""
        reader = self._reader(SUBJECT_KEY_ID)
        if reader is None:
            return None
        found = reader.octet_string()
        reader.end()
        return found

    @property
    def authority_key_id(self) -> bytes | None:
        """The identifier of the issuer's key, where there is one."""
        reader = self._reader(AUTHORITY_KEY_ID)
        if reader is None:
            return None
        inside = reader.sequence()
        reader.end()
        found = inside.content(context_tag(0, constructed=False))
        inside.end()
        return found

    @property
    def is_authority(self) -> bool:
        """Whether BasicConstraints says that the key may sign certificates."""
        return self._constraints()[0]

    @property
    def path_length(self) -> int | None:
        """How many authorities may stand below this one; None without a limit, or without authority."""
        return self._constraints()[1]

    @property
    def key_usage(self) -> frozenset[KeyUsage]:
        """What the key may do; empty where the certificate does not say."""
        reader = self._reader(KEY_USAGE)
        if reader is None:
            return frozenset()
        bits = reader.bits()
        reader.end()
        try:
            return frozenset(KeyUsage(bit) for bit in bits)
        except ValueError:
            raise reader.error("a key usage without a name") from None

    def _constraints(self) -> tuple[bool, int | None]:
        reader = self._reader(BASIC_CONSTRAINTS)
        if reader is None:
            return False, None
        inside = reader.sequence()
        reader.end()
        authority = inside.default_false()
        length = inside.integer() if authority and inside else None
        inside.end()
        if length is not None and length < 0:
            raise inside.error("a negative path length")
        return authority, length

    def _reader(self, oid: str) -> Reader | None:
        found = self.extensions.get(oid)
        return None if found is None else Reader(found.value, f"Certificate.{oid}")


def _suite(reader: Reader) -> Suite:
    algorithm = reader.element(SEQUENCE)
    for suite, known in _SIGNATURE_ALGORITHMS.items():
        if algorithm == known:
            return suite
    raise reader.error("a signature algorithm that is not known here")


def _raw_signature(reader: Reader, suite: Suite) -> bytes:
    octets = reader.bit_string()
    if suite in _EC:
        numbers = Reader.of_sequence(octets, "Certificate.signature")
        r, s = numbers.integer(), numbers.integer()
        numbers.end()
        half = SIGNATURE_SIZE[suite] // 2
        if min(r, s) < 1 or max(r, s) >> 8 * half:
            raise reader.error("an ECDSA signature out of range")
        return r.to_bytes(half, "big") + s.to_bytes(half, "big")
    if len(octets) != SIGNATURE_SIZE[suite]:
        raise reader.error(f"a signature of {len(octets)} octets, {suite.name} has {SIGNATURE_SIZE[suite]}")
    return octets


def _check_version(body: Reader) -> None:
    version = body.enter(context_tag(0, constructed=True))
    # RFC 5280, 4.1.2.1: extensions make it version 3, which is written as 2.
    if version.integer() != 2:
        raise version.error("a certificate that is not of version 3")
    version.end()


def _serial(body: Reader) -> bytes:
    number = body.integer()
    # RFC 5280, 4.1.2.2: positive, at most 20 octets.
    if number <= 0 or number >> 160:
        raise body.error("a serial number out of range")
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _extensions(body: Reader) -> Mapping[str, Extension]:
    # Unique identifiers, [1] and [2], are of no use and refused here: the tag is not the one expected.
    wrapper = body.enter(context_tag(3, constructed=True))
    body.end()
    items = wrapper.sequence()
    wrapper.end()
    # RFC 5280, 4.1: where there are extensions, there is one at least.
    if not items:
        raise items.error("extensions without one")
    found: dict[str, Extension] = {}
    while items:
        item = items.sequence()
        oid = item.oid()
        critical = item.default_false()
        value = item.octet_string()
        item.end()
        # RFC 5280, 4.2: an extension stands at most once.
        if oid in found:
            raise items.error(f"extension {oid} twice")
        found[oid] = Extension(critical, value)
    return MappingProxyType(found)


def _attributes(name: bytes) -> dict[str, str]:
    reader = Reader.of_sequence(name, "Certificate.name")
    found: dict[str, str] = {}
    while reader:
        relative = reader.set_()
        while relative:
            attribute = relative.sequence()
            oid = attribute.oid()
            if oid in found:
                raise attribute.error(f"attribute {oid} twice")
            if oid in (_COMMON_NAME, _SERIAL_NUMBER):
                found[oid] = attribute.text()
            else:
                attribute.element()
            attribute.end()
    return found
