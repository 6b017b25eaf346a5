"""What the server claims about itself."""

import dataclasses
from typing import Any, cast

import pytest

from endocarp.box.statements import MODELLED, statements
from endocarp.wire.control import Note, SandboxReport
from endocarp.wire.evidence import Statement, Status

WHOLE = SandboxReport(1000, 1, 1, 7, 2, 2)
NOTHING = SandboxReport(
    1000, 0, 0, 0, 0, 0, notes=(Note("this kernel has no Landlock"), Note("no libseccomp"))
)


def _of(name: str, report: SandboxReport) -> dict[str, Statement]:
    return {one.mechanism: one for one in statements({name: report}) if one.subject == name}


def test_what_a_whole_sandbox_holds_is_claimed_as_enforced() -> None:
    found = _of("vault-0", WHOLE)
    assert set(found) == {"no new privileges", "not dumpable", "Landlock", "seccomp", "secret memory"}
    assert {one.status for one in found.values()} == {Status.ENFORCED}
    assert found["Landlock"].detail == "ABI 7"


def test_what_a_sandbox_lacks_is_claimed_as_absent_with_its_notes() -> None:
    found = _of("vault-0", NOTHING)
    assert {one.status for one in found.values()} == {Status.ABSENT}
    assert found["seccomp"].detail == "this kernel has no Landlock; no libseccomp"


def test_what_is_missing_without_a_note_is_still_told() -> None:
    assert _of("rot", SandboxReport(0, 0, 1, 7, 2, 2))["no new privileges"] == Statement(
        "rot", "no new privileges", Status.ABSENT, "not to be had here"
    )


@pytest.mark.parametrize(
    ("field", "mechanism"),
    [
        ("no_new_privileges", "no new privileges"),
        ("not_dumpable", "not dumpable"),
        ("landlock_abi", "Landlock"),
        ("seccomp", "seccomp"),
    ],
)
def test_each_claim_stands_for_its_own_step(field: str, mechanism: str) -> None:
    found = _of("front", dataclasses.replace(cast("Any", WHOLE), **{field: 0}))
    assert [one.mechanism for one in found.values() if one.status is Status.ABSENT] == [mechanism]


@pytest.mark.parametrize("number", [1, 3, 255])
def test_seccomp_in_another_state_than_a_filter_does_not_hold(number: int) -> None:
    assert _of("front", SandboxReport(0, 1, 1, 7, number, 2))["seccomp"].status is Status.ABSENT


@pytest.mark.parametrize(
    ("memory", "status", "word"),
    [
        (0, Status.ABSENT, "ordinary"),
        (1, Status.ENFORCED, "locked"),
        (2, Status.ENFORCED, "memfd_secret"),
        (3, Status.ABSENT, "means nothing"),
        (255, Status.ABSENT, "means nothing"),
    ],
)
def test_each_mode_of_memory_is_told_for_what_it_is(memory: int, status: Status, word: str) -> None:
    found = _of("vault-0", SandboxReport(0, 1, 1, 7, 2, memory))["secret memory"]
    assert found.status is status
    assert word in found.detail


def test_what_is_only_modelled_is_always_told() -> None:
    assert set(MODELLED) < set(statements({}))
    assert not any(one.status is Status.ENFORCED for one in MODELLED)


def test_without_a_process_only_the_images_are_claimed_to_be_enforced() -> None:
    assert [one.subject for one in statements({}) if one.status is Status.ENFORCED] == ["images"]


def test_processes_are_told_apart_in_the_order_in_which_they_came() -> None:
    found = [one.subject for one in statements({"rot": WHOLE, "vault-0": NOTHING})]
    assert found.index("rot") < found.index("vault-0") < found.index(MODELLED[0].subject)
    assert found.count("rot") == found.count("vault-0") == 5


def test_no_two_claims_speak_of_the_same_thing() -> None:
    found = [(one.subject, one.mechanism) for one in statements({"rot": WHOLE, "front": WHOLE})]
    assert len(found) == len(set(found))
