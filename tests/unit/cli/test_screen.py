"""How a server stands, for people and for programs."""

import json

import pytest
from rich.console import Console
from tests.simulators.box import STATUS

from endocarp.cli.screen import _duration, for_people, for_programs, memory_name


def screen() -> str:
    console = Console(width=200, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(for_people(STATUS))
    return captured.get()


def line_of(name: str) -> str:
    return next(line for line in screen().splitlines() if line.startswith(name))


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
        "starting",
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
    for text in ("MODEL-test", "boots: 2", "/srv/[x]/endocarp", "/srv/[x]/native.sock", "ab" * 48):
        assert text in shown
    assert "cannot be wiped from Python" in shown


def test_a_process_stands_on_a_line_with_what_it_has_and_what_it_lacks() -> None:
    box, vault = line_of("box").split(), line_of("vault-0").split()
    assert box[1:5] == ["41", "1:02:05", "20", "MiB"]
    assert "no new privileges, no ptrace, no landlock, no seccomp" in line_of("box")
    assert line_of("box").endswith("holds none")
    assert vault[1:7] == ["42", "1", "s", "30", "MiB", "3"]
    assert " new privileges, ptrace, landlock 7, seccomp" in line_of("vault-0")
    assert line_of("vault-0").rstrip().endswith("secret")


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0, "0 s"), (59_999, "59 s"), (60_000, "0:01:00"), (3_599_999, "0:59:59"), (360_000_000, "100:00:00")],
)
def test_a_time_is_shown_in_seconds_or_as_a_clock(milliseconds: int, shown: str) -> None:
    assert _duration(milliseconds) == shown


def test_memory_has_a_name_even_where_a_later_version_tells_it() -> None:
    assert [memory_name(number) for number in (0, 1, 2, 9)] == ["ordinary", "locked", "secret", "unknown 9"]
