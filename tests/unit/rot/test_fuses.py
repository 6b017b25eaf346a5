import dataclasses
import itertools
import json
from typing import Any

import pytest

from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, UsageError
from endocarp.rot.fuses import (
    NO_HASH,
    Device,
    Fuses,
    Lifecycle,
    manufacture,
    svn_bitmap,
    ueid_words,
)


def fuses(**changes: Any) -> Fuses:
    values: dict[str, Any] = {
        "uds_seed": bytes(range(64)),
        "field_entropy": bytes(range(0x80, 0xA0)),
        "vendor_pk_hash": bytes([1]) * 48,
    }
    return Fuses(**(values | changes))


def device(**changes: Any) -> Device:
    values: dict[str, Any] = {
        "model": "MODEL test",
        "fuses": fuses(),
        "obfuscation_key": Secret(bytes(range(32))),
        "doe_iv": bytes(range(16)),
    }
    return Device(**(values | changes))


def counter(start: int = 1) -> Any:
    numbers = itertools.count(start)
    return lambda size: bytes([next(numbers)]) * size


# --- fuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bitmap", "svn"), [(0, 0), (0b1, 1), (0b11, 2), (0b100, 3), (1 << 127, 128)])
def test_a_security_version_is_the_place_of_the_highest_blown_fuse(bitmap: int, svn: int) -> None:
    blown = fuses(firmware_svn=bitmap, soc_manifest_svn=bitmap)

    assert blown.fw_svn == svn
    assert blown.soc_manifest_min_svn == svn


@pytest.mark.parametrize("svn", [0, 1, 7, 128])
def test_the_fuses_of_a_security_version_stand_for_it(svn: int) -> None:
    assert fuses(firmware_svn=svn_bitmap(svn)).fw_svn == svn


@pytest.mark.parametrize(
    ("lifecycle", "anti_rollback_disable", "checked"),
    [
        (Lifecycle.UNPROVISIONED, False, False),
        (Lifecycle.MANUFACTURING, False, True),
        (Lifecycle.PRODUCTION, False, True),
        (Lifecycle.PRODUCTION, True, False),
    ],
)
def test_security_versions_count_unless_unprovisioned_or_switched_off(
    lifecycle: Lifecycle, *, anti_rollback_disable: bool, checked: bool
) -> None:
    device_fuses = fuses(lifecycle=lifecycle, anti_rollback_disable=anti_rollback_disable)

    assert device_fuses.svn_checked is checked


def test_the_version_in_force_is_zero_where_anti_rollback_is_disabled() -> None:
    assert fuses(firmware_svn=svn_bitmap(5)).effective_fw_svn == 5
    assert fuses(firmware_svn=svn_bitmap(5), anti_rollback_disable=True).effective_fw_svn == 0


def test_the_states_of_life_have_the_numbers_of_the_specification() -> None:
    assert {state.name: int(state) for state in Lifecycle} == {
        "UNPROVISIONED": 0,
        "MANUFACTURING": 1,
        "PRODUCTION": 3,
    }


def test_fuses_that_nobody_blew_are_zero() -> None:
    blank = fuses()

    assert blank.owner_pk_hash == bytes(48)
    assert blank.ecc_revocation == blank.lms_revocation == blank.mldsa_revocation == 0
    assert blank.fw_svn == blank.soc_manifest_min_svn == 0
    assert blank.idevid_cert_attributes == (0,) * 24
    assert not blank.anti_rollback_disable
    # What is not blank: ML-DSA as the second scheme, every SVN of a SoC manifest, production, debug locked.
    assert (blank.pqc_key_type, blank.soc_manifest_max_svn) == (1, 128)
    assert (blank.lifecycle, blank.debug_locked) == (Lifecycle.PRODUCTION, True)


def test_the_unique_id_stands_in_the_words_of_the_specification() -> None:
    words = [0] * 24
    words[11:16] = [0xFFFFFF01, 0x04030201, 0x08070605, 0x0C0B0A09, 0x100F0E0D]

    assert fuses(idevid_cert_attributes=tuple(words)).ueid == bytes([1, *range(1, 17)])


def test_the_unique_id_is_a_type_and_the_serial_number_in_order() -> None:
    words = ueid_words(bytes(range(1, 17)))

    assert fuses(idevid_cert_attributes=words).ueid == bytes([1, *range(1, 17)])
    assert words[:11] == (0,) * 11


def test_a_serial_number_of_another_size_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="a UEID of 15 octets"):
        ueid_words(bytes(15))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uds_seed", bytes(63)),
        ("field_entropy", bytes(33)),
        ("vendor_pk_hash", bytes(47)),
        ("owner_pk_hash", bytes(49)),
        ("ecc_revocation", 16),
        ("lms_revocation", 1 << 32),
        ("mldsa_revocation", -1),
        ("pqc_key_type", 4),
        ("firmware_svn", 1 << 128),
        ("soc_manifest_svn", 1 << 128),
        ("soc_manifest_max_svn", 256),
        ("idevid_cert_attributes", (0,) * 23),
        ("idevid_cert_attributes", (1 << 32,) * 24),
    ],
)
def test_a_value_that_does_not_fit_its_fuses_is_the_callers_mistake(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        fuses(**{name: value})


def test_seeds_do_not_show() -> None:
    shown = repr(device())

    for name in ("uds_seed", "field_entropy"):
        assert name not in shown
    assert "Secret" in shown


# --- manufacturing -------------------------------------------------------------------------------------------


def test_a_new_device_is_in_production_locked_and_bound_to_its_vendor_and_owner() -> None:
    made = manufacture(counter(), model="MODEL x", vendor_pk_hash=b"v" * 48, owner_pk_hash=b"o" * 48)

    assert made.fuses.lifecycle is Lifecycle.PRODUCTION
    assert made.fuses.debug_locked
    assert not made.fuses.anti_rollback_disable
    assert (made.fuses.vendor_pk_hash, made.fuses.owner_pk_hash) == (b"v" * 48, b"o" * 48)
    assert made.model == "MODEL x"
    assert made.idevid_ecc_certificate == made.idevid_mldsa_certificate == b""


def test_each_secret_of_a_new_device_is_drawn_by_itself() -> None:
    made = manufacture(counter(), model="MODEL x", vendor_pk_hash=b"v" * 48)

    drawn = [
        made.fuses.uds_seed,
        made.fuses.field_entropy,
        made.fuses.ueid[1:],
        bytes(made.obfuscation_key.view),
        made.doe_iv,
    ]
    assert drawn == [b"\1" * 64, b"\2" * 32, b"\3" * 16, b"\4" * 32, b"\5" * 16]


def test_an_unprovisioned_device_is_made_only_by_name() -> None:
    made = manufacture(
        counter(),
        model="MODEL x",
        vendor_pk_hash=NO_HASH,
        lifecycle=Lifecycle.UNPROVISIONED,
        debug_locked=False,
    )

    assert made.fuses.lifecycle is Lifecycle.UNPROVISIONED
    assert not made.fuses.debug_locked


# --- the text form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        device(),
        device(idevid_ecc_certificate=b"ecc", idevid_mldsa_certificate=b"mldsa"),
        device(
            fuses=fuses(
                owner_pk_hash=bytes([2]) * 48,
                ecc_revocation=0b101,
                lms_revocation=0xFFFFFFFF,
                mldsa_revocation=0b10,
                pqc_key_type=3,
                firmware_svn=svn_bitmap(128),
                soc_manifest_svn=svn_bitmap(3),
                soc_manifest_max_svn=10,
                anti_rollback_disable=True,
                idevid_cert_attributes=ueid_words(bytes(range(16)), kind=2),
                lifecycle=Lifecycle.MANUFACTURING,
                debug_locked=False,
            )
        ),
    ],
    ids=["plain", "certified", "every fuse"],
)
def test_a_device_survives_its_text_form(made: Device) -> None:
    assert Device.from_json(made.to_json()) == made


def test_the_text_of_a_fresh_device_holds_every_field() -> None:
    text = json.loads(device().to_json())

    assert text.keys() == {"form", "digest", *(each.name for each in dataclasses.fields(Device))}
    assert text["fuses"].keys() == {each.name for each in dataclasses.fields(Fuses)}
    assert text["fuses"]["lifecycle"] == "production"


@pytest.mark.parametrize("text", ["", "{", "\0", "[" * 100_000], ids=["empty", "half", "zero", "deep"])
def test_a_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="not JSON"):
        Device.from_json(text)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"device"'])
def test_a_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="Device: not an object"):
        Device.from_json(text)


SPOILT = [
    (("form",), 1, r"Device\.form: 1, must be 2"),
    (("model",), 7, r"Device\.model: not a text"),
    (("fuses",), [], r"Fuses: not an object"),
    (("obfuscation_key",), "00", r"Device\.obfuscation_key: 1 octets, must be 32"),
    (("doe_iv",), "zz", r"Device\.doe_iv: not hexadecimal"),
    (("doe_iv",), None, r"Device\.doe_iv: not a text"),
    (("idevid_ecc_certificate",), "0", r"Device\.idevid_ecc_certificate: not hexadecimal"),
    (("idevid_mldsa_certificate",), 0, r"Device\.idevid_mldsa_certificate: not a text"),
    (("fuses", "uds_seed"), "00", r"Fuses\.uds_seed: 1 octets, must be 64"),
    (("fuses", "ecc_revocation"), "10", r"Fuses\.ecc_revocation: 0x10 does not fit 4 bits"),
    (("fuses", "ecc_revocation"), "-1", r"Fuses\.ecc_revocation: -0x1 does not fit 4 bits"),
    (("fuses", "firmware_svn"), "g", r"Fuses\.firmware_svn: not hexadecimal"),
    (("fuses", "firmware_svn"), 1, r"Fuses\.firmware_svn: not a text"),
    (("fuses", "lifecycle"), "retired", r"Fuses\.lifecycle: no such life cycle: 'retired'"),
    (("fuses", "lifecycle"), 3, r"Fuses\.lifecycle: not a text"),
    (("fuses", "debug_locked"), 1, r"Fuses\.debug_locked: neither true nor false"),
    (("fuses", "idevid_cert_attributes"), [0] * 23, r"idevid_cert_attributes: not 24 words"),
    (("fuses", "idevid_cert_attributes"), "0" * 24, r"idevid_cert_attributes: not 24 words"),
    (("fuses", "idevid_cert_attributes"), [True] * 24, r"does not fit 32 bits"),
    (("fuses", "idevid_cert_attributes"), [-1] * 24, r"does not fit 32 bits"),
    (("fuses", "idevid_cert_attributes"), [1 << 32] * 24, r"does not fit 32 bits"),
]


@pytest.mark.parametrize(("path", "value", "reason"), SPOILT)
def test_an_entry_that_is_wrong_is_named(path: tuple[str, ...], value: object, reason: str) -> None:
    text = json.loads(device().to_json())
    place = text
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value

    with pytest.raises(DecodeError, match=reason):
        Device.from_json(json.dumps(text))


@pytest.mark.parametrize("name", ["doe_iv", "fuses"])
def test_an_entry_that_is_missing_is_named(name: str) -> None:
    text = json.loads(device().to_json())
    del text[name]

    with pytest.raises(DecodeError, match=rf"Device\.{name}: missing"):
        Device.from_json(json.dumps(text))


def test_an_entry_that_nobody_knows_is_named() -> None:
    text = json.loads(device().to_json())
    text["fuses"]["extra"] = 1

    with pytest.raises(DecodeError, match=r"Fuses\.extra: no such entry"):
        Device.from_json(json.dumps(text))


@pytest.mark.parametrize("path", [("doe_iv",), ("obfuscation_key",), ("fuses", "field_entropy")])
def test_an_entry_that_was_changed_is_noticed_though_it_has_its_form(path: tuple[str, ...]) -> None:
    text = json.loads(device().to_json())
    place = text
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = f"{place[path[-1]][0] == '0':x}{place[path[-1]][1:]}"

    with pytest.raises(DecodeError, match=r"Device\.digest: does not fit"):
        Device.from_json(json.dumps(text))
