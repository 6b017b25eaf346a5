"""Options that several commands share."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from endocarp.cli import options


@click.command()
@options.state
@options.config
@options.nonce
@options.as_json
def command(state: Path | None, config: Path | None, nonce: str | None, as_json: bool) -> None:
    click.echo(repr((state, config, nonce, as_json)))


def test_nothing_given_is_nothing_and_what_is_given_has_its_type() -> None:
    run = CliRunner().invoke
    assert run(command).output == "(None, None, None, False)\n"
    words = ["--state", "s", "--config", "c", "--nonce", "ab", "--json"]
    assert run(command, words).output == f"{(Path('s'), Path('c'), 'ab', True)!r}\n"


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(command, ["--state", str(tmp_path / "file")])
    assert (done.exit_code, "is a file" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("state", "config", "repeated"),
    [
        (None, None, []),
        (Path("/s"), None, ["--state", "/s"]),
        (None, Path("/my config"), ["--config", "/my config"]),
        (Path("/s"), Path("/c"), ["--state", "/s", "--config", "/c"]),
    ],
)
def test_what_was_given_is_repeated(state: Path | None, config: Path | None, repeated: list[str]) -> None:
    assert options.repeat(state=state, config=config) == repeated


def test_what_was_given_from_here_is_found_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert options.repeat(state=Path("s")) == ["--state", str(tmp_path / "s")]
