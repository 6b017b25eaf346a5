"""The DICE layers: from the device's secrets through four compound device identities to keys and certificates.

    UDS -> IDevID -> LDevID -> FMC alias -> RT alias

Each layer's CDI is derived from the one before it and from what was measured; its keys, P-384 and ML-DSA-87, come
from its CDI alone; the keys of the layer before it certify them. Labels, order and octets are Caliptra's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from endocarp.crypto import certs
from endocarp.crypto.certs import KeyUsage, Name
from endocarp.crypto.digest import sha1, sha256, sha384, sha512
from endocarp.crypto.keys import PrivateKey, PublicKey, mldsa87_from_seed, p384_from_scalar
from endocarp.crypto.primitives import doe_decrypt, hmac_sha512, kdf_sha512, mldsa_seed, p384_scalar
from endocarp.crypto.secret import Secret
from endocarp.crypto.selftest import Algorithm
from endocarp.rot import kv
from endocarp.rot.fuses import Device, Fuses
from endocarp.rot.kv import Key, KeyVault
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

_TCG_KP = "2.23.133.5.4.100."
IDENTITY_INIT, IDENTITY_LOC, ATTEST_LOC, ECA = (f"{_TCG_KP}{last}" for last in (6, 7, 9, 12))
_SUITE_NAMES = {Suite.P384: "Ecc384", Suite.ML_DSA_87: "MlDsa87"}


class Cdi(Secret):
    """A compound device identity, 64 octets."""


@dataclass(frozen=True)
class Places:
    """Where the private keys of a layer lie in the key vault."""

    ecc: Key
    mldsa: Key


@dataclass(frozen=True)
class Layer:
    """What is fixed about one layer: its label in key derivation, its place, and how its certificate looks."""

    label: bytes
    places: Places
    title: str
    path_length: int
    usages: tuple[KeyUsage, ...]
    purposes: tuple[str, ...]


IDEVID = Layer(
    label=b"idevid",
    places=Places(kv.IDEV_ECC, kv.IDEV_MLDSA),
    title="IDevID",
    path_length=7,
    usages=(KeyUsage.KEY_CERT_SIGN,),
    purposes=(IDENTITY_INIT, ECA),
)
LDEVID = Layer(
    label=b"ldevid",
    places=Places(kv.LDEV_ECC, kv.LDEV_MLDSA),
    title="LDevID",
    path_length=6,
    usages=(KeyUsage.KEY_CERT_SIGN,),
    purposes=(IDENTITY_LOC, ECA),
)
FMC_ALIAS = Layer(
    label=b"alias_fmc",
    places=Places(kv.FMC_ECC, kv.FMC_MLDSA),
    title="FMC Alias",
    path_length=5,
    usages=(KeyUsage.KEY_CERT_SIGN,),
    purposes=(ECA, ATTEST_LOC),
)
RT_ALIAS = Layer(
    label=b"alias_rt",
    places=Places(kv.RT_ECC, kv.RT_MLDSA),
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


def stable_root_ldev(ldevid: Cdi) -> Secret:
    """Return the root of keys that stay the same as long as the field entropy does, 64 octets."""
    return kdf_sha512(ldevid, b"stable_identity_root_ldev")


def derive_keys(vault: KeyVault, cdi: Cdi, layer: Layer) -> KeyPair:
    """Derive the keys of a layer from its CDI, leave them in the vault, and return them ready for use."""
    with (
        kdf_sha512(cdi, layer.label + b"_ecc_key", kind=Secret) as output,
        Secret(output.view[:48]) as seed,
        p384_scalar(seed) as scalar,
    ):
        vault.put(layer.places.ecc, scalar)
    with kdf_sha512(cdi, layer.label + b"_mldsa_key", kind=Secret) as output, mldsa_seed(output) as seed:
        vault.put(layer.places.mldsa, seed)
    return load_keys(vault, layer)


def load_keys(vault: KeyVault, layer: Layer) -> KeyPair:
    """Return the keys of a layer that an earlier stage left in the vault."""
    with vault.take(layer.places.ecc, Secret) as scalar, vault.take(layer.places.mldsa, Secret) as seed:
        return {Suite.P384: p384_from_scalar(scalar), Suite.ML_DSA_87: mldsa87_from_seed(seed)}


def erase_keys(vault: KeyVault, layer: Layer) -> None:
    """Wipe the keys of a layer."""
    vault.erase(layer.places.ecc)
    vault.erase(layer.places.mldsa)


def public_keys(keys: KeyPair) -> PublicKeyPair:
    """Return the public keys of an identity, as they travel."""
    return PublicKeyPair(ecc=keys[Suite.P384].public.raw, mldsa=keys[Suite.ML_DSA_87].public.raw)


# --- certificates ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validity:
    """The dates of a certificate, YYYYMMDDHHMMSSZ."""

    not_before: str = certs.NOT_BEFORE
    not_after: str = certs.NOT_AFTER


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
    """An identity that certifies others: its keys, its names (as Name or DER) and its key ids, by suite."""

    keys: KeyPair
    names: Mapping[Suite, Name | bytes]
    key_ids: Mapping[Suite, bytes]


def authority(layer: Layer, keys: KeyPair, profile: Profile) -> Authority:
    """Return a layer as the authority of the next one."""
    return Authority(
        keys,
        {suite: name_of(layer, keys[suite].public, profile) for suite in SUITES},
        {suite: certs.key_id(keys[suite].public) for suite in SUITES},
    )


def idevid_authority(keys: KeyPair, fuses: Fuses, profile: Profile) -> Authority:
    """Return the IDevID as the authority of the LDevID: fuses say how its key ids are made."""
    return Authority(
        keys,
        {suite: name_of(IDEVID, keys[suite].public, profile) for suite in SUITES},
        {suite: idevid_key_id(keys[suite].public, fuses) for suite in SUITES},
    )


def idevid_key_id(public: PublicKey, fuses: Fuses) -> bytes:
    """Return the key id of an IDevID key, 20 octets, by the algorithm that its fuses name."""
    flags, *words = fuses.idevid_cert_attributes
    # Caliptra fuses: 3 bits an algorithm, ECC first; then the words of both key ids, ECC first.
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
    public: Mapping[Suite, PublicKey],
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
        tbs = certs.tbs_certificate(
            issuer=issuer.names[suite],
            subject=name_of(layer, public[suite], profile),
            serial=certs.serial_of(public[suite]),
            public=public[suite],
            signer=suite,
            extensions=[
                *_extensions(layer, ueid),
                *evidence,
                certs.subject_key_id(key_id),
                certs.authority_key_id(issuer.key_ids[suite]),
            ],
            not_before=validity.not_before,
            not_after=validity.not_after,
        )
        made[suite] = certs.certificate(tbs, issuer.keys[suite])
    return CertificatePair(ecc=made[Suite.P384], mldsa=made[Suite.ML_DSA_87])


def _extensions(layer: Layer, ueid: bytes) -> list[bytes]:
    return [
        certs.basic_constraints(layer.path_length),
        certs.key_usage(layer.usages),
        certs.ueid(ueid),
        certs.extended_key_usage(layer.purposes),
    ]
