"""`endocarp evidence` and `endocarp verify`: the two sides of an attestation."""

import os
import sys
import time
from pathlib import Path

import click

from endocarp.cli import options
from endocarp.errors import UsageError
from endocarp.shell import config as directories


@click.command()
@options.state
@options.config
@options.nonce
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.  [default: standard output]",
)
def evidence(state: Path | None, config: Path | None, nonce: str | None, out: Path | None) -> None:
    """Get the server's evidence.

    It answers a fresh challenge from the relying party's folder, or the one that is given."""
    from endocarp.shell.admin import ask
    from endocarp.shell.relying import RelyingParty, read_nonce
    from endocarp.wire.admin import GetEvidence

    if out is None and sys.stdout.isatty():
        raise UsageError("evidence is binary", "send it into a file: endocarp evidence > evidence.cbor")
    challenge = os.urandom(32) if nonce is None else read_nonce(nonce)
    now = time.time()  # noqa: TID251 - here the caller is a person, who has no clock to give
    found = ask(directories.state(state).admin_socket, GetEvidence(challenge))
    relying_party = RelyingParty(directories.config(config))
    if nonce is None:
        relying_party.challenge(challenge, now)
    try:
        _deliver(found.octets, out)
    except (OSError, UsageError):
        if nonce is None:
            relying_party.take(challenge, now)
        raise


def _deliver(octets: bytes, out: Path | None) -> None:
    from endocarp.shell.relying import write_evidence

    if out is None:
        sys.stdout.buffer.write(octets)
        sys.stdout.buffer.flush()
    else:
        write_evidence(out, octets)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@options.config
@options.nonce
@click.option("--all", "show_all", is_flag=True, help="Show every rule, also those that held.")
@options.as_json
def verify(file: Path, config: Path | None, nonce: str | None, show_all: bool, as_json: bool) -> None:
    """Judge evidence, and say why.

    By the anchors, references and challenges of the relying party's folder. Exit code 0: VERIFIED, 1: REFUSED."""
    from rich.console import Console

    from endocarp.cli.verdict import tree
    from endocarp.shell.relying import RelyingParty, read_evidence, read_nonce

    octets = read_evidence(file)
    challenge = None if nonce is None else read_nonce(nonce)
    verdict = RelyingParty(directories.config(config)).judge(octets, challenge, time.time())  # noqa: TID251
    if as_json:
        click.echo(verdict.to_json())
    else:
        Console(highlight=False).print(tree(verdict, show_all=show_all))
    sys.exit(0 if verdict.accepted else 1)
