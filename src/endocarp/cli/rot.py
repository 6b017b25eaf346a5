"""`endocarp rot …`: makes what the root of trust starts from."""

from pathlib import Path

import click

from endocarp.cli import options
from endocarp.cli.account import Account
from endocarp.shell import config as directories


@click.group()
def rot() -> None:
    """Make a device and the images that it may run."""


@rot.command()
@options.state
@options.config
def manufacture(state: Path | None, config: Path | None) -> None:
    """Make the device of a new server.

    Random secrets, and certificates of its identity by the provisioning authority."""
    from endocarp.shell.workshop import Workshop

    Workshop(directories.state(state), directories.config(config), Account(stderr=True).step).manufacture()


@rot.command()
@options.state
@options.config
def build(state: Path | None, config: Path | None) -> None:
    """Build and sign all images from the installed code.

    Their digests are noted for the relying party."""
    from endocarp.shell.workshop import Workshop

    Workshop(directories.state(state), directories.config(config), Account(stderr=True).step).build()
