"""Against the files that the real Caliptra ROM made from its default test fuses."""

from pathlib import Path

import pytest

from endocarp.crypto.certs import Certificate, KeyUsage, key_id
from endocarp.crypto.digest import sha1
from endocarp.crypto.keys import PublicKey
from endocarp.wire import der
from endocarp.wire.suites import Suite

FOLDER = Path(__file__).parents[3] / "shared/vectors/attestation/caliptra/smoke_testdata"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no vectors at {FOLDER}")


def request_key(name: str) -> PublicKey:
    """Return the key that a PKCS#10 request is about."""
    body = der.Reader.of_sequence((FOLDER / name).read_bytes(), "Request").sequence()
    body.integer()
    body.element(der.SEQUENCE)
    return PublicKey.from_spki(body.element(der.SEQUENCE))


@pytest.mark.parametrize(
    ("name", "suite", "common_name"),
    [("ecc", Suite.P384, "Ecc384"), ("mldsa", Suite.ML_DSA_87, "MlDsa87")],
)
def test_the_ldevid_certificate_of_the_rom_is_read_and_verified(
    name: str, suite: Suite, common_name: str
) -> None:
    idevid = request_key(f"idevid_csr_{name}.der")
    read = Certificate.parse((FOLDER / f"ldevid_cert_{name}.der").read_bytes())
    assert read.suite is read.public.suite is suite
    assert read.common_name == f"Caliptra 2.1 {common_name} LDevID"
    assert read.signed_by(idevid)
    assert not read.signed_by(read.public)
    assert read.key_id == key_id(read.public)
    assert read.authority_key_id == sha1(idevid.raw)
    assert (read.is_authority, read.path_length) == (True, 6)
    assert read.key_usage == {KeyUsage.KEY_CERT_SIGN}


@pytest.mark.parametrize("name", ["ecc", "mldsa"])
def test_the_canned_fmc_certificates_are_read(name: str) -> None:
    read = Certificate.parse((FOLDER / f"fmc_alias_cert_{name}.der").read_bytes())
    assert "FMC" in read.common_name
