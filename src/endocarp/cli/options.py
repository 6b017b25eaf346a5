"""Options that several commands share."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

State = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="State directory of the server [default: XDG state home]."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="DIR", help="Anchors, references, keys, challenges [default: XDG config home]."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def repeat(*, state: Path | None, config: Path | None) -> str:
    """Return the options that other commands need to find the same directories, with a space in front of each."""
    given = {"--state": state, "--config": config}
    return "".join(f" {name} {shlex.quote(str(path.absolute()))}" for name, path in given.items() if path)
