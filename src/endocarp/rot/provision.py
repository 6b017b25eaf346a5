"""What the maker does once: certify the IDevID of a new device under the maker's root.

Source: Caliptra.md, "Provisioning".
"""

import dataclasses

from endocarp.crypto import certs
from endocarp.crypto.certs import Name
from endocarp.rot import kv
from endocarp.rot.dice import (
    IDEVID,
    SUITES,
    Authority,
    KeyPair,
    authority,
    certify,
    derive_keys,
    idevid_cdi,
    idevid_key_id,
    public_halves,
    unique_device_secret,
)
from endocarp.rot.fuses import Device
from endocarp.rot.kv import KeyVault
from endocarp.rot.profile import Profile
from endocarp.wire.handoff import CertificatePair
from endocarp.wire.suites import Suite


def root_authority(name: str, keys: KeyPair) -> Authority:
    """Return the maker's root as an authority; `name` is its common name."""
    return authority(keys.__getitem__, lambda _: Name(name))


def root_certificates(name: str, keys: KeyPair) -> CertificatePair:
    """Return the root's own certificates, which relying parties take as anchors, DER."""
    return CertificatePair(
        ecc=certs.self_signed_ca(Name(name), keys[Suite.P384]),
        mldsa=certs.self_signed_ca(Name(name), keys[Suite.ML_DSA_87]),
    )


def idevid_keys(device: Device) -> KeyPair:
    """Return the IDevID keys of a device, outside of any boot: only its maker does this."""
    vault = KeyVault(memoryview(bytearray(kv.SIZE)))
    try:
        with unique_device_secret(device) as uds, idevid_cdi(uds) as cdi:
            return derive_keys(vault, cdi, IDEVID)
    finally:
        vault.erase_all()


def provision(device: Device, root: Authority, profile: Profile) -> Device:
    """Return the device with IDevID certificates by this root."""
    # deviation: a maker signs the requests that a device's ROM has made, and never sees its keys. Here the maker has
    # made the secrets too, so it derives the keys once more and certifies them.
    public = public_halves(idevid_keys(device))
    pair = certify(
        IDEVID,
        public,
        root,
        ueid=device.fuses.ueid,
        profile=profile,
        key_ids={suite: idevid_key_id(public[suite], device.fuses) for suite in SUITES},
    )
    return dataclasses.replace(device, idevid_ecc_certificate=pair.ecc, idevid_mldsa_certificate=pair.mldsa)
