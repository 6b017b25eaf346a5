"""Reference values and the rules of a policy."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.simulators.device import DeviceSimulator, references, sha384

from endocarp.errors import DecodeError
from endocarp.verifier import policy
from endocarp.verifier.policy import Facts, ReferenceValues
from endocarp.verifier.rules import RULES
from endocarp.verifier.verdict import Finding, Outcome
from endocarp.wire.mailbox import DeviceStatus, FwInfoReply

EXPECTED = references()


def status(device: DeviceSimulator) -> DeviceStatus:
    return DeviceStatus.decode(device.owner_info + device.vendor_info)


def info(device: DeviceSimulator) -> FwInfoReply:
    return device.fw_info_reply()


GOOD = Facts(
    digests={name: [digest] for name, digest in EXPECTED.digests.items()},
    svns={"fmc": 5, "runtime": 6},
    status=status(DeviceSimulator()),
    info=info(DeviceSimulator()),
    partitions=[0],
)


def judge(facts: Facts) -> Mapping[str, Finding]:
    """Return what the policy finds: one finding a rule, the failed one where there are several."""
    found: dict[str, Finding] = {}
    for rule in policy.policy_of(EXPECTED):
        for finding in rule.judge(facts):
            if finding.rule not in found or finding.outcome is Outcome.FAILED:
                found[finding.rule] = finding
    return found


def failed(facts: Facts) -> set[str]:
    return {rule for rule, finding in judge(facts).items() if finding.outcome is Outcome.FAILED}


def changed(**changes: Any) -> Facts:
    return Facts(**({**vars(GOOD), **changes}))


def test_what_is_as_expected_holds_and_names_its_reference() -> None:
    found = judge(GOOD)
    assert {finding.outcome for finding in found.values()} == {Outcome.HELD}
    assert set(found) == {rule for rule in RULES if rule.startswith(("image.", "policy."))}
    assert found["image.fmc.reference"].reference == "MODEL-test: fmc"
    assert found["policy.svn"].reference == "MODEL-test: svn"


def test_where_there_are_no_facts_nothing_holds_and_nothing_fails_but_the_missing_report() -> None:
    assert {rule: finding.outcome for rule, finding in judge(Facts()).items()} == {
        "policy.partitions": Outcome.FAILED
    }


@pytest.mark.parametrize("name", EXPECTED.digests)
def test_another_digest_than_that_of_the_references_fails(name: str) -> None:
    facts = changed(digests={**GOOD.digests, name: [sha384(b"x")]})
    assert failed(facts) == {f"image.{name}.reference"}
    assert EXPECTED.digests[name].hex() in judge(facts)[f"image.{name}.reference"].reason


def test_every_digest_of_a_name_is_compared() -> None:
    good = EXPECTED.digests["vault"]
    assert failed(changed(digests={**GOOD.digests, "vault": [good, good]})) == set()
    assert failed(changed(digests={**GOOD.digests, "vault": [good, sha384(b"x"), good]})) == {
        "image.vault.reference"
    }


def test_an_image_that_no_reference_speaks_of_fails() -> None:
    facts = changed(unknown=["guest", "other"])
    assert failed(facts) == {"image.known"}
    assert judge(facts)["image.known"].reason == "guest, other"


@pytest.mark.parametrize(
    ("svns", "rules"), [({"fmc": 4, "runtime": 5}, {"policy.svn"}), ({"runtime": 5}, set())]
)
def test_older_firmware_fails(svns: dict[str, int], rules: set[str]) -> None:
    assert failed(changed(svns=svns)) == rules


@pytest.mark.parametrize(
    ("device", "rule"),
    [
        (DeviceSimulator(lifecycle=0), "policy.lifecycle"),
        (DeviceSimulator(lifecycle=1), "policy.lifecycle"),
        (DeviceSimulator(lifecycle=2), "policy.lifecycle"),
        (DeviceSimulator(debug_locked=0), "policy.debug"),
        (DeviceSimulator(debug_locked=2), "policy.debug"),
        (DeviceSimulator(anti_rollback_disable=1), "policy.anti_rollback"),
    ],
)
def test_a_device_in_another_state_fails(device: DeviceSimulator, rule: str) -> None:
    assert failed(changed(status=status(device))) == {rule}


def test_attestation_that_was_switched_off_fails() -> None:
    assert failed(changed(info=info(DeviceSimulator(attestation_disabled=1)))) == {"policy.attestation"}


@pytest.mark.parametrize("partitions", [[], [0, 0], [1, 0, 1]])
def test_partitions_report_once_each_and_at_least_one_does(partitions: list[int]) -> None:
    assert failed(changed(partitions=partitions)) == {"policy.partitions"}
    assert failed(changed(partitions=[3, 1])) == set()


# --- references -----------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "model": "MODEL-test",
    "bundle": {
        "fmc_digest": sha384(b"fmc").hex(),
        "runtime_digest": sha384(b"runtime").hex(),
        "svn": 5,
        "vendor_pk_hash": sha384(b"vendor").hex(),
        "owner_pk_hash": sha384(b"owner").hex(),
    },
    "rom_digest": EXPECTED.digests["rom"].hex(),
    "manifest_digest": sha384(b"manifest").hex(),
    "images": {name: sha384(name.encode()).hex() for name in ("box", "front", "vault")},
}


def test_references_are_read_from_the_text_of_the_builder() -> None:
    assert ReferenceValues.from_json(json.dumps(PLAIN)) == EXPECTED


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (["model"], 1, "ReferenceValues.model"),
        (["model"], None, "ReferenceValues.model"),
        (["bundle"], [], "ReferenceValues.bundle"),
        (["images"], "box", "ReferenceValues.images"),
        (["bundle", "svn"], "5", "ReferenceValues.svn"),
        (["bundle", "svn"], True, "ReferenceValues.svn"),
        (["bundle", "fmc_digest"], "00", "ReferenceValues.fmc_digest"),
        (["bundle", "fmc_digest"], "x" * 96, "ReferenceValues.fmc_digest"),
        (["bundle", "vendor_pk_hash"], 0, "ReferenceValues.vendor_pk_hash"),
        (["rom_digest"], "00" * 48, "ReferenceValues.rom_digest"),
        (["manifest_digest"], "00" * 32, "ReferenceValues.manifest_digest"),
        (["images", "vault"], None, "ReferenceValues.vault"),
    ],
)
def test_damaged_references_are_refused_by_the_name_of_the_entry(
    path: list[str], value: Any, where: str
) -> None:
    plain = json.loads(json.dumps(PLAIN))
    inner = plain
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(DecodeError) as refused:
        ReferenceValues.from_json(json.dumps(plain))
    assert refused.value.where == where


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '"x"', "[" * 60000, " " * 70000])
def test_text_that_holds_no_references_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="ReferenceValues"):
        ReferenceValues.from_json(text)
