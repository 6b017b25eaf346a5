"""Key ladder and certificates, with the vectors of Caliptra's own tests."""

import hashlib
import hmac

import pytest

from endocarp.crypto import certs
from endocarp.crypto.certs import Certificate, Name
from endocarp.crypto.keys import PublicKey
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, Refused
from endocarp.rot import dice, kv
from endocarp.rot.dice import Cdi, Validity
from endocarp.rot.fuses import Device, Fuses
from endocarp.rot.kv import KeyVault
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.wire.suites import Suite

UEID = b"\x01" + bytes(range(16))


def words(*values: int) -> Secret:
    return Secret(b"".join(value.to_bytes(4, "big") for value in values))


# caliptra-sw, test/src/derive.rs, from the default test fuses.
IDEVID_CDI = words(
    1595302429, 2693222204, 2700750034, 2341068947, 1086336218, 1015077934, 3439704633, 2756110496,
    670106478, 1965056064, 3175014961, 1018544412, 1086626027, 1869434586, 2638089882, 3209973098,
)  # fmt: skip
LDEVID_CDI = words(
    2646856615, 2999180291, 4071428836, 3246385254, 3302857457, 919578714, 2458268004, 291060689,
    3979116117, 4017638804, 3557014009, 2639554114, 2914235687, 3521247795, 1993163061, 3092908117,
)  # fmt: skip


def fuses(**changes: object) -> Fuses:
    values: dict[str, object] = {
        "uds_seed": bytes(range(0x40)),
        "field_entropy": bytes(range(0x80, 0xA0)),
        "vendor_pk_hash": bytes(48),
    }
    return Fuses(**(values | changes))  # type: ignore[arg-type]


def default_device(**changes: object) -> Device:
    key = bytes.fromhex("a0a1a2a3b0b1b2b3c0c1c2c3d0d1d2d3e0e1e2e3f0f1f2f3a4a5a6a7b4b5b6b7")
    return Device("MODEL", fuses(**changes), Secret(key), bytes.fromhex("fb10365ba1179741fba193a10f406d7e"))


def new_keys(octet: int, layer: dice.Layer = dice.LDEVID) -> dice.KeyPair:
    vault = KeyVault(memoryview(bytearray(kv.SIZE)))
    return dice.derive_keys(vault, Cdi(bytes((octet,)) * 64), layer)


def public(keys: dice.KeyPair) -> dict[Suite, PublicKey]:
    return {suite: keys[suite].public for suite in dice.SUITES}


def test_the_idevid_cdi_is_that_of_the_real_rom() -> None:
    with dice.unique_device_secret(default_device()) as uds, dice.idevid_cdi(uds) as cdi:
        assert type(cdi) is Cdi
        assert cdi == IDEVID_CDI


def test_the_ldevid_cdi_is_that_of_the_real_rom() -> None:
    with dice.field_entropy(default_device()) as entropy:
        assert len(entropy) == 32
        with dice.ldevid_cdi(Cdi(IDEVID_CDI.view), entropy) as cdi:
            assert cdi == LDEVID_CDI


def test_an_unlocked_device_has_no_secrets_of_its_own() -> None:
    device = default_device(debug_locked=False)
    assert dice.unique_device_secret(device) == Secret(b"\xff" * 64)
    assert dice.field_entropy(device) == Secret(b"\xff" * 32)


@pytest.mark.parametrize(
    ("derived", "message"),
    [
        (dice.fmc_cdi(Cdi(b"k" * 64), b"p" * 48), b"alias_fmc_cdi\0" + b"p" * 48),
        (dice.runtime_cdi(Cdi(b"k" * 64), b"t" * 48), b"alias_rt_cdi\0" + b"t" * 48),
        (dice.stable_root_idev(Cdi(b"k" * 64)), b"stable_identity_root_idev"),
    ],
)
def test_each_secret_has_its_own_label(derived: Secret, message: bytes) -> None:
    assert derived == Secret(hmac.digest(b"k" * 64, b"\0\0\0\1" + message, "sha512"))


def test_keys_are_left_in_the_vault_for_the_next_stage() -> None:
    vault = KeyVault(memoryview(bytearray(kv.SIZE)))
    derived = dice.derive_keys(vault, Cdi(b"c" * 64), dice.FMC_ALIAS)
    loaded = dice.load_keys(vault, dice.FMC_ALIAS)
    assert dice.public_keys(derived) == dice.public_keys(loaded)
    dice.erase_keys(vault, dice.FMC_ALIAS)
    for slot in (kv.FMC_ECC, kv.FMC_MLDSA):
        with pytest.raises(Refused, match="holds no"):
            vault.take(slot, Secret)


def test_layers_with_one_cdi_have_different_keys() -> None:
    layers = (dice.IDEVID, dice.LDEVID, dice.FMC_ALIAS, dice.RT_ALIAS)
    assert len({dice.public_keys(new_keys(1, layer)).ecc for layer in layers}) == 4


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [(0, hashlib.sha1), (1, hashlib.sha256), (2, hashlib.sha384), (4, hashlib.sha512)],
)
def test_fuses_choose_the_key_id_of_the_idevid(algorithm: int, digest: object) -> None:
    keys = new_keys(1)
    for suite, shift in ((Suite.P384, 0), (Suite.ML_DSA_87, 3)):
        attributes = (algorithm << shift, *range(100, 123))
        expected = digest(keys[suite].public.raw).digest()[:20]  # type: ignore[operator]
        found = dice.idevid_key_id(keys[suite].public, fuses(idevid_cert_attributes=attributes))
        assert found == expected


def test_fuses_may_hold_the_key_ids_themselves() -> None:
    keys = new_keys(1)
    chosen = fuses(idevid_cert_attributes=(7 | 7 << 3, *range(1, 24)))
    ecc, mldsa = (dice.idevid_key_id(keys[suite].public, chosen) for suite in dice.SUITES)
    assert ecc == b"".join(word.to_bytes(4, "little") for word in range(1, 6))
    assert mldsa == b"".join(word.to_bytes(4, "little") for word in range(6, 11))


@pytest.mark.parametrize(
    ("layer", "usages", "purposes", "path_length"),
    [
        (dice.LDEVID, "03020204", ("2.23.133.5.4.100.7", "2.23.133.5.4.100.12"), 6),
        (dice.FMC_ALIAS, "03020204", ("2.23.133.5.4.100.12", "2.23.133.5.4.100.9"), 5),
        (dice.RT_ALIAS, "03020284", ("2.23.133.5.4.100.12",), 4),
    ],
)
def test_a_layer_is_certified_as_the_specification_says(
    layer: dice.Layer, usages: str, purposes: tuple[str, ...], path_length: int
) -> None:
    issuer, subject = new_keys(1), new_keys(2)
    evidence = [certs.extension("2.23.133.5.4.1", b"\x30\x00")]
    pair = dice.certify(
        layer,
        public(subject),
        dice.authority(issuer.__getitem__, lambda public: dice.name_of(dice.IDEVID, public, CALIPTRA_2_1_2)),
        ueid=UEID,
        profile=CALIPTRA_2_1_2,
        evidence=evidence,
        validity=dice.Validity("20240101000000Z", "20340101000000Z"),
    )
    for suite in dice.SUITES:
        certificate = Certificate.parse(pair[suite])
        assert certificate.signed_by(issuer[suite].public)
        assert list(certificate.extensions) == [
            "2.5.29.19", "2.5.29.15", "2.23.133.5.4.4", "2.5.29.37", "2.23.133.5.4.1", "2.5.29.14", "2.5.29.35",
        ]  # fmt: skip
        assert certificate.extensions["2.5.29.19"].value.hex() == f"30060101ff0201{path_length:02x}"
        assert certificate.extensions["2.5.29.15"].value.hex() == usages
        assert certificate.extensions["2.5.29.37"].value in certs.extended_key_usage(purposes)
        assert certificate.extensions["2.23.133.5.4.4"].value.endswith(UEID)
        assert (certificate.not_before, certificate.not_after) == ("20240101000000Z", "20340101000000Z")
        assert certificate.key_id == certs.key_id(subject[suite].public)
        assert certificate.authority_key_id == certs.key_id(issuer[suite].public)
        digest = hashlib.sha256(subject[suite].public.raw).digest()
        assert certificate.serial_number == digest.hex().upper()
        assert certificate.serial[0] == digest[0] & 0x7F | 4


def test_an_authority_signs_under_the_key_id_that_is_chosen_for_it() -> None:
    keys = new_keys(1)
    issuer = dice.authority(
        keys.__getitem__, lambda public: Name("issuer"), lambda public: dice.idevid_key_id(public, fuses())
    )
    for suite in dice.SUITES:
        assert issuer.key_ids[suite] == hashlib.sha1(keys[suite].public.raw).digest()
        issued = Certificate.parse(
            issuer.issue(keys[suite].public, Name("subject"), [], validity=dice.Validity(), serial=b"\1\2")
        )
        assert issued.authority_key_id == issuer.key_ids[suite]
        assert issued.serial == b"\1\2"


@pytest.mark.parametrize(
    ("not_before", "not_after"),
    [
        (b"\xff" * 15, b"99991231235959Z"),
        (b"20230101000000+", b"99991231235959Z"),
        (b"20231301000000Z", b"99991231235959Z"),
        (b"202301 1000000Z", b"99991231235959Z"),
        (b"2023010100000Z\0", b"99991231235959Z"),
        (b"20230101000000Z", b"20230101000000"),
        (b"2023010100000Z", b"99991231235959Z"),
        (b"20240101000000Z", b"20230101000000Z"),
    ],
)
def test_what_is_no_date_is_no_validity(not_before: bytes, not_after: bytes) -> None:
    with pytest.raises(DecodeError, match="Validity"):
        Validity.decode(not_before, not_after)


def test_dates_are_read_as_they_stand() -> None:
    assert Validity.decode(b"20240229000000Z", b"20240229000000Z") == Validity(
        "20240229000000Z", "20240229000000Z"
    )


def test_requests_ask_for_what_the_certificate_will_say() -> None:
    keys = new_keys(1)
    requests = dice.request_idevid(keys, fuses(), CALIPTRA_2_1_2)
    name = dice.name_of(dice.IDEVID, keys[Suite.P384].public, CALIPTRA_2_1_2)
    assert name.common_name == "Caliptra 2.1 Ecc384 IDevID"
    assert name.der() in requests.ecc
    assert b"Caliptra 2.1 MlDsa87 IDevID" in requests.mldsa
