"""The command line: one module a command group, one function a command.

Data goes to stdout, everything for people's eyes to stderr. Exit codes: 0 done, 1 refused or failed, 2 usage,
3 nobody reached.
"""

import sys
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from endocarp.cli import evidence, rot, status, up
from endocarp.errors import EndocarpError, UsageError

EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHABLE = 1, 2, 3

app = typer.Typer(
    name="endocarp",
    help="A server's own root of trust and HSM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(status.status)
app.command()(evidence.evidence)
app.command()(evidence.verify)
app.add_typer(rot.app, name="rot")


def main() -> NoReturn:
    """Run one command and exit with its code."""
    try:
        sys.exit(app())
    except UsageError as error:
        _tell(error, error.advice())
        sys.exit(EXIT_USAGE)
    except EndocarpError as error:
        _tell(error, error.advice())
        sys.exit(EXIT_REFUSED)
    except BrokenPipeError:
        sys.exit(EXIT_REFUSED)
    except OSError as error:
        _tell(error, "is the server running? start it with: ./dev up")
        sys.exit(EXIT_UNREACHABLE)


def _tell(error: Exception, advice: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("endocarp: ", "bold red"), str(error)))
    if advice:
        console.print(Text.assemble(("advice:   ", "bold"), advice))


if __name__ == "__main__":
    main()
