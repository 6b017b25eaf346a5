"""The command line as a whole: its commands, and how it ends."""

import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from endocarp.cli import main
from endocarp.errors import (
    DecodeError,
    DeviceError,
    Failure,
    PeerError,
    Refused,
    UsageError,
    VerificationError,
)
from endocarp.version import VERSION

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return how to run the command line with some words, up to its exit code."""

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["endocarp", *words])
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        return raised.value.code

    return run


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Return a list whose first entry the command `fail` ends by."""
    found: list[BaseException] = []

    @click.command()
    def fail() -> None:
        raise found[0]

    monkeypatch.setitem(main.endocarp.commands, "fail", fail)
    return found


def test_help_names_every_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-h"], ["--help"]):
        assert run(*words) == 0
        shown = capsys.readouterr().out
        assert all(f"  {name} " in shown for name in ("up", "status", "evidence", "verify", "rot"))


def test_the_version_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"endocarp, version {VERSION}\n"


@pytest.mark.parametrize("words", [["no-such-command"], ["status", "--no-such-option"], ["verify"], []])
def test_a_command_that_is_none_is_usage(run: Run, words: list[str]) -> None:
    assert run(*words) == 2


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (UsageError("wrong", "do it so"), 2, "endocarp: wrong\nadvice:   do it so\n"),
        (UsageError("wrong"), 2, "endocarp: wrong\n"),
        (Refused("rule.one", "no", "ask"), 1, "endocarp: no [rule.one]\nadvice:   ask\n"),
        (DeviceError(2, "nobody there", "start it"), 3, "endocarp: nobody there (0x2)\nadvice:   start it\n"),
        (PeerError(5, "broken"), 1, "endocarp: broken (0x5)\n"),
        (DecodeError("A.b", "cut"), 1, f"endocarp: A.b: cut\nadvice:   {DecodeError.hint}\n"),
        (
            VerificationError([Failure("x", "y")]),
            1,
            f"endocarp: y [x]\nadvice:   {VerificationError.hint}\n",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_told_on_standard_error_with_advice_and_its_own_exit_code(
    run: Run,
    faults: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    fault: BaseException,
    code: int,
    told: str,
) -> None:
    faults.append(fault)
    assert run("fail") == code
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (OSError(28, "No space left on device", "/srv/file"), "/srv/file: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
    ],
)
def test_what_the_system_refuses_is_told_by_the_file_that_it_is_about(
    run: Run, faults: list[BaseException], capsys: pytest.CaptureFixture[str], fault: OSError, told: str
) -> None:
    faults.append(fault)
    assert run("fail") == 1
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"endocarp: {told}\nadvice: ")) == ("", True)


def test_a_reader_that_goes_away_is_no_error_worth_a_word() -> None:
    words = [sys.executable, "-m", "endocarp.cli.main", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 1
