"""What the server claims about itself."""

import dataclasses
from typing import Any, cast

import pytest

from endocarp.box.statements import MODELLED, statements
from endocarp.wire.control import MemoryMode, Note, SandboxReport, Seccomp
from endocarp.wire.evidence import Statement, Status

WHOLE = SandboxReport(1000, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET)
NOTHING = SandboxReport(
    1000,
    0,
    0,
    0,
    Seccomp.OFF,
    MemoryMode.ORDINARY,
    notes=(Note("this kernel has no Landlock"), Note("no libseccomp")),
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
    assert _of("rot", SandboxReport(0, 0, 1, 7, Seccomp.FILTER, MemoryMode.SECRET))[
        "no new privileges"
    ] == Statement("rot", "no new privileges", Status.ABSENT, "not to be had here")


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
    found = _of("front", dataclasses.replace(cast("Any", WHOLE), **{field: Seccomp.OFF}))
    assert [one.mechanism for one in found.values() if one.status is Status.ABSENT] == [mechanism]


@pytest.mark.parametrize(
    ("memory", "status", "word"),
    [
        (MemoryMode.ORDINARY, Status.ABSENT, "ordinary"),
        (MemoryMode.LOCKED, Status.ENFORCED, "locked"),
        (MemoryMode.SECRET, Status.ENFORCED, "memfd_secret"),
    ],
)
def test_each_mode_of_memory_is_told_for_what_it_is(memory: MemoryMode, status: Status, word: str) -> None:
    found = _of("vault-0", SandboxReport(0, 1, 1, 7, Seccomp.FILTER, memory))["secret memory"]
    assert found.status is status
    assert word in found.detail


def test_what_is_only_modelled_is_always_told() -> None:
    assert set(MODELLED) < set(statements({}))
    assert not any(one.status is Status.ENFORCED for one in MODELLED)


def test_what_rot_has_authorized_before_it_ran_is_claimed_and_the_box_is_not() -> None:
    found = {one.subject: one.status for one in statements({}) if "image" in one.subject}
    assert found == {"front and vault images": Status.ENFORCED, "box image": Status.ABSENT}
    assert [one.subject for one in statements({}) if one.status is Status.ENFORCED] == [
        "front and vault images"
    ]


def test_processes_are_told_apart_in_the_order_in_which_they_came() -> None:
    found = [one.subject for one in statements({"rot": WHOLE, "vault-0": NOTHING})]
    assert found.index("rot") < found.index("vault-0") < found.index(MODELLED[0].subject)
    assert found.count("rot") == found.count("vault-0") == 5


def test_no_two_claims_speak_of_the_same_thing() -> None:
    found = [(one.subject, one.mechanism) for one in statements({"rot": WHOLE, "front": WHOLE})]
    assert len(found) == len(set(found))
