"""How a server stands, for people and for programs."""

import dataclasses
import json

import pytest
from rich.console import Console
from tests.simulators.box import STATUS

from endocarp.cli.screen import _duration, for_people, for_programs, shortened
from endocarp.wire.admin import ProcessState, Status


def screen(width: int = 200, found: Status = STATUS) -> str:
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(for_people(found))
    return captured.get()


def lines_of(name: str) -> tuple[str, str]:
    """Return the line of a process, and that of its sandbox."""
    process, sandbox = (line.rstrip() for line in screen().splitlines() if line.startswith(f"{name}  "))
    return process, sandbox


def test_programs_get_numbers_and_whole_digests() -> None:
    found = json.loads(json.dumps(for_programs(STATUS)))
    assert (found["version"], found["model"], found["boots"]) == ("0.1.0", "MODEL-test", 2)
    assert found["state"] == "/srv/[x]/endocarp"
    box, vault = found["processes"]
    assert (box["name"], box["state"], box["uptime_ms"], box["resident_kib"]) == (
        "box",
        "serving",
        3_725_000,
        20_480,
    )
    assert (vault["state"], vault["pid"], vault["restarts"], vault["image_sha384"]) == (
        "serving",
        42,
        3,
        "0f" * 48,
    )
    assert vault["sandbox"] == {
        "no_new_privileges": False,
        "not_dumpable": False,
        "landlock_abi": 7,
        "seccomp": 2,
        "memory": "secret",
        "notes": ["no [bold] step"],
    }
    assert found["partitions"] == [
        {"id": 0, "native": "/srv/[x]/native.sock", "p11_kit": "/srv/[x]/p11-kit.sock"}
    ]
    assert found["measurements"] == [{"name": "vault", "sha384": "ab" * 48}]


def test_people_get_everything_on_one_screen() -> None:
    shown = screen()
    for text in ("MODEL-test", "boots: 2", "/srv/[x]/endocarp", "/srv/[x]/native.sock", f"{'ab' * 8}…"):
        assert text in shown
    assert "cannot be wiped from Python" in shown
    assert max(map(len, screen(width=60).splitlines())) <= 60


def test_a_process_stands_on_a_line_with_what_it_has_and_what_it_lacks() -> None:
    box, sandbox_of_box = lines_of("box")
    assert box.split()[1:5] == ["41", "1:02:05", "20", "MiB"]
    assert sandbox_of_box.endswith("no_new_privs, not dumpable; lacks Landlock, seccomp")
    assert box.endswith("holds none")
    vault, sandbox_of_vault = lines_of("vault-0")
    assert vault.split()[1:] == ["42", "1", "s", "30", "MiB", "3", "secret"]
    assert sandbox_of_vault.endswith(
        "  Landlock 7, seccomp; lacks no_new_privs, not dumpable (no [bold] step)"
    )


def test_what_a_process_has_and_lacks_is_not_told_before_it_serves() -> None:
    starting = dataclasses.replace(STATUS.processes[1], state=ProcessState.STARTING)
    shown = screen(found=dataclasses.replace(STATUS, processes=(starting,)))
    vault, sandbox = (line.split() for line in shown.splitlines() if line.startswith("vault-0"))
    assert vault[1:] == ["42", "starting", "30", "MiB", "3"]
    assert sandbox[1:] == ["not", "known", "yet"]


def test_a_digest_is_cut_to_what_an_eye_compares() -> None:
    assert shortened(f"is {'0123456789abcdef' * 6}, not abc") == "is 0123456789abcdef…, not abc"


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0, "0 s"), (59_999, "59 s"), (60_000, "0:01:00"), (3_599_999, "0:59:59"), (360_000_000, "100:00:00")],
)
def test_a_time_is_shown_in_seconds_or_as_a_clock(milliseconds: int, shown: str) -> None:
    assert _duration(milliseconds) == shown
