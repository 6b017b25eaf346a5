"""The command line: one module a command group, one function a command.

What was asked for goes to stdout, which for `up` is its account of the boot; progress and errors to stderr.
Exit codes: 0 done, 1 refused or failed, 2 usage, 3 nobody reached.
"""

import sys
from typing import NoReturn

import click

from endocarp.cli.evidence import evidence, verify
from endocarp.cli.rot import rot
from endocarp.cli.status import status
from endocarp.cli.up import up
from endocarp.errors import DeviceError, EndocarpError, UsageError
from endocarp.version import VERSION

EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHABLE = 1, 2, 3


class _AsTheyAreUsed(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_AsTheyAreUsed, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(VERSION, prog_name="endocarp")
def endocarp() -> None:
    """A server's own root of trust and HSM.

    Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 3 nobody answered."""


for command in (up, status, evidence, verify, rot):
    endocarp.add_command(command)


def main() -> NoReturn:
    """Run one command and exit with its code."""
    try:
        sys.exit(endocarp())
    except EndocarpError as error:
        _tell(error, error.advice())
        sys.exit(_exit_code(error))
    except OSError as error:
        reason = error.strerror or str(error)
        where = "" if error.filename is None else f"{error.filename}: "
        _tell(f"{where}{reason}", "look after the disk, the rights and the limits that this names")
        sys.exit(EXIT_REFUSED)


def _exit_code(error: EndocarpError) -> int:
    match error:
        case UsageError():
            return EXIT_USAGE
        case DeviceError():
            return EXIT_UNREACHABLE
        case _:
            return EXIT_REFUSED


def _tell(error: object, advice: str) -> None:
    click.secho("endocarp: ", fg="red", bold=True, nl=False, err=True)
    click.echo(error, err=True)
    if advice:
        click.secho("advice:   ", bold=True, nl=False, err=True)
        click.echo(advice, err=True)


if __name__ == "__main__":
    main()
