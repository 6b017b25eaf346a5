"""The maker's part: IDevID certificates under the maker's root."""

import dataclasses

import pytest

from endocarp.crypto import keys
from endocarp.crypto.certs import Certificate
from endocarp.rot import dice
from endocarp.rot.fuses import Device
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.rot.provision import idevid_keys, provision, root_authority, root_certificates

NAME = "MODEL test root"


@pytest.fixture(scope="module")
def root_keys() -> dice.KeyPair:
    return {suite: keys.generate(suite) for suite in dice.SUITES}


@pytest.mark.parametrize("algorithm", [0, 1])
def test_the_root_certifies_the_keys_that_the_rom_will_derive(
    device: Device, root_keys: dice.KeyPair, algorithm: int
) -> None:
    attributes = (algorithm | algorithm << 3, *device.fuses.idevid_cert_attributes[1:])
    fuses = dataclasses.replace(device.fuses, idevid_cert_attributes=attributes)
    blank = dataclasses.replace(device, fuses=fuses)
    made = provision(blank, root_authority(NAME, root_keys), CALIPTRA_2_1_2)
    roots = root_certificates(NAME, root_keys)
    public = dice.public_keys(idevid_keys(device))
    for suite, octets in zip(
        dice.SUITES, (made.idevid_ecc_certificate, made.idevid_mldsa_certificate), strict=True
    ):
        root, certificate = Certificate.parse(roots[suite]), Certificate.parse(octets)
        assert certificate.signed_by(root.public)
        assert certificate.issuer == root.subject
        assert certificate.authority_key_id == root.key_id
        assert certificate.key_id == dice.idevid_key_id(certificate.public, fuses)
        assert certificate.public.raw == public[suite]
        assert root.common_name == NAME
