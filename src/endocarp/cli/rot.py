"""`endocarp rot …`: makes what the root of trust starts from."""

import typer

from endocarp.cli import options
from endocarp.cli.account import Account
from endocarp.shell import config as directories
from endocarp.shell.workshop import Workshop

app = typer.Typer(help="Make a device and the images that it may run.", no_args_is_help=True)


@app.command()
def manufacture(state: options.State = None, config: options.Config = None) -> None:
    """Make the device of a new server: random secrets, and certificates by the provisioning authority."""
    Workshop(directories.state(state), directories.config(config), Account().step).manufacture()


@app.command()
def build(state: options.State = None, config: options.Config = None) -> None:
    """Build all images from the installed code, sign them, and note their digests for the relying party."""
    Workshop(directories.state(state), directories.config(config), Account().step).build()
