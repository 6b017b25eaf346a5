"""Options that several commands share."""

from pathlib import Path

import click

_DIRECTORY = click.Path(file_okay=False, path_type=Path)

state = click.option(
    "--state",
    type=_DIRECTORY,
    metavar="DIR",
    help="State directory of the server.  [default: ~/.local/state/endocarp]",
)
config = click.option(
    "--config",
    type=_DIRECTORY,
    metavar="DIR",
    help="Keys, anchors, references and challenges.  [default: ~/.config/endocarp]",
)
nonce = click.option("--nonce", metavar="HEX", help="A challenge of 32 octets that somebody else keeps.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def repeat(*, state: Path | None = None, config: Path | None = None) -> list[str]:
    """Return the words that make another command find the same directories."""
    given = {"--state": state, "--config": config}
    return [word for name, path in given.items() if path for word in (name, str(path.absolute()))]
