"""The account of a boot: what people see, and what they paste."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from endocarp.cli import account
from endocarp.cli.account import Account, client_module, paste_lines
from endocarp.cli.main import endocarp
from endocarp.shell.config import State

STATE = State(Path("/srv/my state/endocarp"))


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/endo carp/bin/endocarp", "up"])


def test_a_step_says_when_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    told = Account()
    told.step("rom: firmware verified: FMC 0123…")
    told.step("up: [bold]:tada:")  # names and paths are shown as they are
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r" +\d\.\d\d s  rom      firmware verified: FMC 0123…", first)
    assert second.endswith("s  up       [bold]:tada:")


def test_progress_goes_where_no_data_does(capsys: pytest.CaptureFixture[str]) -> None:
    Account(stderr=True).step("images: built")
    out, err = capsys.readouterr()
    assert (out, "images   built" in err) == ("", True)


def test_long_lines_are_not_broken_where_people_copy_them(capsys: pytest.CaptureFixture[str]) -> None:
    Account().note("x" * 500)
    assert capsys.readouterr().out == f"{'x' * 500}\n"


def test_a_server_that_serves_tells_what_to_paste_and_its_pin_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Account().serving(["first line", "second line"], "12345678")
    lines = capsys.readouterr().out.splitlines()
    assert "the server serves; stop it with Ctrl-C" in lines[0]
    assert [line for line in lines if line.startswith("    ")] == ["    first line", "    second line"]
    assert "PIN: 12345678" in lines


@pytest.mark.usefixtures("tools")
def test_the_line_that_asks_for_the_pin_is_the_last() -> None:
    *others, last = paste_lines(STATE, state=None, config=None)
    assert "--login" in last
    assert not [line for line in others if "--login" in line]


def test_a_pin_that_nobody_made_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    Account().serving([], "")
    assert "PIN" not in capsys.readouterr().out


@pytest.mark.usefixtures("tools")
def test_the_lines_survive_a_shell_whatever_the_paths_are() -> None:
    path, address, module, *_ = paste_lines(STATE, state=None, config=None)
    assert shlex.split(path) == ["export", "PATH=/opt/endo carp/bin:$PATH"]
    assert shlex.split(address)[1] == (
        "P11_KIT_SERVER_ADDRESS=unix:path=/srv/my state/endocarp/partition-0/p11-kit.sock"
    )
    assert module.startswith("M=")


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("state", [None, Path("/srv/my state")])
@pytest.mark.parametrize("config", [None, Path("/c")])
def test_every_command_takes_the_options_that_it_is_told_with(
    state: Path | None, config: Path | None
) -> None:
    lines = paste_lines(STATE, state=state, config=config)
    commands = [shlex.split(line.partition(" >")[0])[1:] for line in lines if line.startswith("endocarp ")]
    assert [words[0] for words in commands] == ["status", "evidence", "verify"]
    for name, *words in commands:
        with endocarp.commands[name].make_context(name, list(words)) as context:
            taken = {key: value for key, value in context.params.items() if key in ("state", "config")}
        assert taken == {key: {"state": state, "config": config}[key] for key in taken}


def test_the_client_module_is_named_by_its_full_path_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = tmp_path / "lib/pkcs11/p11-kit-client.so"
    pattern = str(tmp_path / "l*/pkcs11/p11-kit-client.so")
    monkeypatch.setattr(account, "_CLIENT_MODULES", ("/nothing/*/here.so", pattern))
    assert client_module() is None
    assert "apt-get install p11-kit-modules" in "\n".join(paste_lines(STATE, state=None, config=None))
    module.parent.mkdir(parents=True)
    module.write_bytes(b"")
    assert client_module() == module
    assert f"M={module}" in paste_lines(STATE, state=None, config=None)
