"""`endocarp status`: how the running server stands."""

import json
from pathlib import Path

import click

from endocarp.cli import options
from endocarp.shell import config as directories


@click.command()
@options.state
@options.as_json
def status(state: Path | None, as_json: bool) -> None:
    """Show how the running server stands.

    Processes, partitions, measurements."""
    from rich.console import Console

    from endocarp.cli.screen import for_people, for_programs
    from endocarp.shell.admin import ask
    from endocarp.wire.admin import GetStatus

    found = ask(directories.state(state).admin_socket, GetStatus())
    if as_json:
        click.echo(json.dumps(for_programs(found), indent=2))
    else:
        Console(highlight=False, markup=False, emoji=False).print(for_people(found))
