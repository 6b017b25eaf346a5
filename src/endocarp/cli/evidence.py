"""`endocarp evidence` and `endocarp verify`: the two sides of an attestation."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from endocarp.cli import options
from endocarp.cli.verdict import tree
from endocarp.errors import UsageError
from endocarp.shell import config as directories
from endocarp.shell.admin import ask
from endocarp.shell.relying import RelyingParty, read_nonce
from endocarp.wire.admin import Evidence, GetEvidence

_LIMIT = 1 << 21

Nonce = Annotated[
    str | None,
    typer.Option("--nonce", metavar="HEX", help="A challenge of 32 octets that somebody else keeps."),
]


def evidence(
    state: options.State = None,
    config: options.Config = None,
    nonce: Nonce = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write [default: standard output].")
    ] = None,
) -> None:
    """Get the server's evidence, over a fresh challenge from the relying party's folder."""
    if out is None and sys.stdout.isatty():
        raise UsageError("evidence is binary", "send it into a file: endocarp evidence > evidence.cbor")
    relying_party = RelyingParty(directories.config(config))
    challenge = relying_party.challenge(os.urandom(32)) if nonce is None else read_nonce(nonce)
    found = ask(directories.state(state).admin_socket, GetEvidence(challenge))
    assert isinstance(found, Evidence)
    if out is None:
        sys.stdout.buffer.write(found.octets)
    else:
        out.write_bytes(found.octets)


def verify(
    file: Annotated[Path, typer.Argument(help="Evidence, as `endocarp evidence` gives it.")],
    config: options.Config = None,
    nonce: Nonce = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every rule, also those that held.")] = False,
    as_json: options.Json = False,
) -> None:
    """Judge evidence by the anchors and references of the relying party's folder; say why. Exit code 0 or 1."""
    try:
        octets = file.read_bytes()[:_LIMIT]
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    challenge = None if nonce is None else read_nonce(nonce)
    verdict = RelyingParty(directories.config(config)).judge(octets, challenge, time.time())  # noqa: TID251
    if as_json:
        sys.stdout.write(verdict.to_json() + "\n")
    else:
        Console(highlight=False).print(tree(verdict, show_all=show_all))
    raise typer.Exit(0 if verdict.accepted else 1)
