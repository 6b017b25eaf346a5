"""The DICE layers: from the device's secrets through four compound device identities to keys and certificates.

    UDS -> IDevID -> LDevID -> FMC alias -> RT alias

Each layer's CDI is derived from the one before it and from what was measured; its keys, P-384 and ML-DSA-87, come
from its CDI alone; the keys of the layer before it certify them. Labels, order and octets are Caliptra's.

Source: caliptra-sw, rom/dev/README.md, "DICE flow", and fmc/README.md; test/src/derive.rs; x509/src.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from endocarp.crypto import certs
from endocarp.crypto.certs import KeyUsage, Name
from endocarp.crypto.digest import sha1, sha256, sha384, sha512
from endocarp.crypto.keys import PrivateKey, PublicKey, mldsa87_from_seed, p384_from_scalar
from endocarp.crypto.primitives import doe_decrypt, hmac_sha512, kdf_sha512, mldsa_seed, p384_scalar
from endocarp.crypto.secret import Secret
from endocarp.crypto.selftest import Algorithm
from endocarp.errors import DecodeError
from endocarp.rot import kv
from endocarp.rot.fuses import Device, Fuses
from endocarp.rot.kv import KeyVault, Slot
from endocarp.rot.profile import Profile
from endocarp.wire.handoff import CertificatePair, PublicKeyPair
from endocarp.wire.suites import Suite

SUITES = (Suite.P384, Suite.ML_DSA_87)
"""Every identity has a key in each."""

ALGORITHMS = (
    Algorithm.DIGESTS,
    Algorithm.HMAC,
    Algorithm.KDF,
    Algorithm.DRBG,
    Algorithm.AES_CBC,
    Algorithm.P384,
    Algorithm.ML_DSA_87,
)
"""What every boot stage uses, and so tests before anything else."""

KeyPair = Mapping[Suite, PrivateKey]
"""The private keys of one identity, by suite."""

PublicPair = Mapping[Suite, PublicKey]
"""The public keys of one identity, by suite."""

_TCG_KP = "2.23.133.5.4.100."
IDENTITY_INIT, IDENTITY_LOC, ATTEST_LOC, ECA = (f"{_TCG_KP}{last}" for last in (6, 7, 9, 12))
_SUITE_NAMES = {Suite.P384: "Ecc384", Suite.ML_DSA_87: "MlDsa87"}


class Cdi(Secret):
    """A compound device identity, 64 octets."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What is fixed about one layer: its label in key derivation, where its keys lie, and how its certificate looks."""

    label: bytes
    slots: Mapping[Suite, Slot]
    title: str
    path_length: int
    usages: tuple[KeyUsage, ...]
    purposes: tuple[str, ...]


IDEVID = Layer(
    label=b"idevid",
    slots={Suite.P384: kv.IDEV_ECC, Suite.ML_DSA_87: kv.IDEV_MLDSA},
    title="IDevID",
    path_length=7,
    usages=(KeyUsage.KEY_CERT_SIGN,),
    purposes=(IDENTITY_INIT, ECA),
)
LDEVID = Layer(
    label=b"ldevid",
    slots={Suite.P384: kv.LDEV_ECC, Suite.ML_DSA_87: kv.LDEV_MLDSA},
    title="LDevID",
    path_length=6,
    usages=(KeyUsage.KEY_CERT_SIGN,),
    purposes=(IDENTITY_LOC, ECA),
)
FMC_ALIAS = Layer(
    label=b"alias_fmc",
    slots={Suite.P384: kv.FMC_ECC, Suite.ML_DSA_87: kv.FMC_MLDSA},
    title="FMC Alias",
    path_length=5,
    usages=(KeyUsage.KEY_CERT_SIGN,),
    purposes=(ECA, ATTEST_LOC),
)
RT_ALIAS = Layer(
    label=b"alias_rt",
    slots={Suite.P384: kv.RT_ECC, Suite.ML_DSA_87: kv.RT_MLDSA},
    title="Rt Alias",
    path_length=4,
    usages=(KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_CERT_SIGN),
    purposes=(ECA,),
)


# --- secrets ---------------------------------------------------------------------------------------------------


def unique_device_secret(device: Device) -> Secret:
    """Return the UDS, 64 octets, out of its fuses; all ones where debug is not locked."""
    return _deobfuscate(device, device.fuses.uds_seed)


def field_entropy(device: Device) -> Secret:
    """Return the field entropy, 32 octets, out of its fuses; all ones where debug is not locked."""
    return _deobfuscate(device, device.fuses.field_entropy)


def _deobfuscate(device: Device, fuse: bytes) -> Secret:
    # Caliptra, security states: with debug unlocked the real secrets never leave the fuses.
    if not device.fuses.debug_locked:
        return Secret(b"\xff" * len(fuse))
    return doe_decrypt(device.obfuscation_key, device.doe_iv, fuse)


def idevid_cdi(uds: Secret) -> Cdi:
    """Return the CDI of the IDevID."""
    return kdf_sha512(uds, b"idevid_cdi", kind=Cdi)


def ldevid_cdi(idevid: Cdi, entropy: Secret) -> Cdi:
    """Return the CDI of the LDevID: two plain HMACs, the second over the field entropy."""
    with hmac_sha512(idevid, b"ldevid_cdi") as mixed, hmac_sha512(mixed, entropy) as octets:
        return Cdi(octets.view)


def fmc_cdi(ldevid: Cdi, pcr0: bytes) -> Cdi:
    """Return the CDI of FMC: bound to what ROM measured."""
    return kdf_sha512(ldevid, b"alias_fmc_cdi", pcr0, kind=Cdi)


def runtime_cdi(fmc: Cdi, runtime_digest: bytes) -> Cdi:
    """Return the CDI of the runtime: bound to its image."""
    return kdf_sha512(fmc, b"alias_rt_cdi", runtime_digest, kind=Cdi)


def stable_root_idev(idevid: Cdi) -> Secret:
    """Return the root of keys that stay the same as long as the device does, 64 octets."""
    return kdf_sha512(idevid, b"stable_identity_root_idev")


def derive_keys(vault: KeyVault, cdi: Cdi, layer: Layer) -> KeyPair:
    """Derive the keys of a layer from its CDI, leave them in the vault, and return them ready for use."""
    with (
        kdf_sha512(cdi, layer.label + b"_ecc_key", kind=Secret) as output,
        Secret(output.view[:48]) as seed,
        p384_scalar(seed) as scalar,
    ):
        vault.put(layer.slots[Suite.P384], scalar)
    with kdf_sha512(cdi, layer.label + b"_mldsa_key", kind=Secret) as output, mldsa_seed(output) as seed:
        vault.put(layer.slots[Suite.ML_DSA_87], seed)
    return load_keys(vault, layer)


def load_key(vault: KeyVault, layer: Layer, suite: Suite) -> PrivateKey:
    """Return one key of a layer that an earlier stage left in the vault."""
    with vault.take(layer.slots[suite], Secret) as secret:
        return p384_from_scalar(secret) if suite is Suite.P384 else mldsa87_from_seed(secret)


def load_keys(vault: KeyVault, layer: Layer) -> KeyPair:
    """Return the keys of a layer that an earlier stage left in the vault."""
    return {suite: load_key(vault, layer, suite) for suite in SUITES}


def erase_keys(vault: KeyVault, layer: Layer) -> None:
    """Wipe the keys of a layer."""
    for slot in layer.slots.values():
        vault.erase(slot)


def public_halves(keys: KeyPair) -> PublicPair:
    """Return the public keys of an identity, by suite."""
    return {suite: keys[suite].public for suite in SUITES}


def public_keys(keys: KeyPair) -> PublicKeyPair:
    """Return the public keys of an identity, as they travel."""
    return PublicKeyPair(ecc=keys[Suite.P384].public.raw, mldsa=keys[Suite.ML_DSA_87].public.raw)


# --- certificates ----------------------------------------------------------------------------------------------


_DATE = "%Y%m%d%H%M%SZ"
_DATE_FORM = re.compile("[0-9]{14}Z")


@dataclass(frozen=True)
class Validity:
    """The dates of a certificate, YYYYMMDDHHMMSSZ."""

    not_before: str = certs.NOT_BEFORE
    not_after: str = certs.NOT_AFTER

    @classmethod
    def decode(cls, not_before: bytes, not_after: bytes) -> Self:
        """Read the dates of an image header or a hand-off table; DecodeError where one is no date, or the end comes first."""
        try:
            first, last = not_before.decode("ascii"), not_after.decode("ascii")
            dates = [datetime.strptime(text, _DATE).replace(tzinfo=UTC) for text in (first, last)]
        except ValueError:
            raise DecodeError("Validity", f"{not_before!r} to {not_after!r} are no dates") from None
        # A day of one digit may come with a space before it there; in a certificate it may not.
        if dates[0] > dates[1] or not all(map(_DATE_FORM.fullmatch, (first, last))):
            raise DecodeError("Validity", f"{first} to {last}")
        return cls(first, last)


def name_of(layer: Layer, public: PublicKey, profile: Profile) -> Name:
    """Return the name of a layer: `Caliptra 2.1 Ecc384 LDevID`, and the SHA-256 of its key."""
    return Name(
        f"{profile.certificate_prefix} {_SUITE_NAMES[public.suite]} {layer.title}",
        serial_number=sha256(public.raw).hex().upper(),
    )


def request_idevid(keys: KeyPair, fuses: Fuses, profile: Profile) -> CertificatePair:
    """Return the certificate requests of the IDevID, PKCS#10 DER, for the maker's authority to sign."""
    requests = {}
    for suite in SUITES:
        public = keys[suite].public
        tbs = certs.tbs_request(
            subject=name_of(IDEVID, public, profile),
            public=public,
            extensions=_extensions(IDEVID, fuses.ueid),
        )
        requests[suite] = certs.request(tbs, keys[suite])
    return CertificatePair(ecc=requests[Suite.P384], mldsa=requests[Suite.ML_DSA_87])


@dataclass(frozen=True)
class Authority:
    """An identity that certifies others: its names and key ids, by suite.

    `key` gives a private key for one signature. Where the keys lie in a key vault, it takes them out anew each time, so
    that nothing is left of them once the vault is wiped.
    """

    key: Callable[[Suite], PrivateKey]
    names: Mapping[Suite, Name]
    key_ids: Mapping[Suite, bytes]

    def issue(
        self,
        public: PublicKey,
        subject: Name,
        extensions: Sequence[bytes],
        *,
        validity: Validity,
        serial: bytes = b"",
    ) -> bytes:
        """Return a certificate of this key, DER, in the key's own suite; the authority's key id comes last in it.

        `serial` is made from the key by Caliptra's rule where it is not given.
        """
        tbs = certs.tbs_certificate(
            issuer=self.names[public.suite],
            subject=subject,
            serial=serial or certs.serial_of(public),
            public=public,
            signer=public.suite,
            extensions=[*extensions, certs.authority_key_id(self.key_ids[public.suite])],
            not_before=validity.not_before,
            not_after=validity.not_after,
        )
        return certs.certificate(tbs, self.key(public.suite))


def authority(
    key: Callable[[Suite], PrivateKey],
    name: Callable[[PublicKey], Name],
    key_id: Callable[[PublicKey], bytes] = certs.key_id,
) -> Authority:
    """Return the owner of these keys as an authority."""
    public = {suite: key(suite).public for suite in SUITES}
    return Authority(
        key,
        {suite: name(public[suite]) for suite in SUITES},
        {suite: key_id(public[suite]) for suite in SUITES},
    )


def idevid_key_id(public: PublicKey, fuses: Fuses) -> bytes:
    """Return the key id of an IDevID key, 20 octets, by the algorithm that its fuses name."""
    flags, *words = fuses.idevid_cert_attributes
    # Caliptra fuses, IDevID attributes: 3 bits an algorithm, ECC first; then the words of both key ids, ECC first.
    place = 0 if public.suite is Suite.P384 else 1
    match flags >> 3 * place & 7:
        case 0:
            return sha1(public.raw)
        case 1:
            return sha256(public.raw)[:20]
        case 2:
            return sha384(public.raw)[:20]
        case 4:
            return sha512(public.raw)[:20]
        case _:
            return b"".join(word.to_bytes(4, "little") for word in words[5 * place : 5 * place + 5])


def certify(
    layer: Layer,
    public: PublicPair,
    issuer: Authority,
    *,
    ueid: bytes,
    profile: Profile,
    evidence: Sequence[bytes] = (),
    key_ids: Mapping[Suite, bytes] | None = None,
    validity: Validity = Validity(),
) -> CertificatePair:
    """Return the certificates of a layer in both suites, DER.

    `evidence` are the extensions that tell what was measured. `key_ids` are those of the subject, where they are
    not made from its keys in the usual way.
    """
    made = {}
    for suite in SUITES:
        key_id = key_ids[suite] if key_ids else certs.key_id(public[suite])
        made[suite] = issuer.issue(
            public[suite],
            name_of(layer, public[suite], profile),
            [*_extensions(layer, ueid), *evidence, certs.subject_key_id(key_id)],
            validity=validity,
        )
    return CertificatePair(ecc=made[Suite.P384], mldsa=made[Suite.ML_DSA_87])


def _extensions(layer: Layer, ueid: bytes) -> list[bytes]:
    return [
        certs.basic_constraints(layer.path_length),
        certs.key_usage(layer.usages),
        certs.ueid(ueid),
        certs.extended_key_usage(layer.purposes),
    ]
