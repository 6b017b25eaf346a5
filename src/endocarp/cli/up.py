"""`endocarp up`: starts the server in the foreground, with a live account of the boot."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from endocarp.cli import options
from endocarp.cli.account import Account, paste_lines
from endocarp.errors import Refused, UsageError
from endocarp.shell import config as directories
from endocarp.shell.archive import CHANGED, load, seal
from endocarp.shell.channel import Child, run, start
from endocarp.shell.process import heard
from endocarp.wire.control import Failed, Progress, Ready, Stop

_AGAIN = "start it again: endocarp up; if it dies again, what stands above says why, or the kernel's log"


@click.command()
@options.state
@options.config
@click.option("--rebuild", is_flag=True, help="Build and sign the images again from the installed code.")
@click.option(
    "--require-sandbox", is_flag=True, help="Refuse to start where a part of the sandbox is missing."
)
def up(state: Path | None, config: Path | None, rebuild: bool, require_sandbox: bool) -> None:
    """Start the server in the foreground.

    The first start makes a device, builds and signs its images, and makes partition 0, whose PIN it shows once."""
    server = directories.state(state)
    account = Account()
    flags = options.repeat(state=state, config=config)
    if not server.device.exists():
        _workshop("manufacture", flags)
    if rebuild or not server.images.exists():
        _workshop("build", flags)
    image = seal(load(server.archive("box")), "box")
    wanted = ["--require-sandbox", "yes"] if require_sandbox else []
    child = start("box", image, ["--state", str(server.root), *wanted])
    os.close(image)
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # nohup(1) has it ignored: then the server is meant to outlive its terminal.
        ends.remove(signal.SIGHUP)
    lines = paste_lines(server, state=state, config=config)
    with child.channel.socket, heard(ends, lambda: _stop(child)):
        _follow(child, account, server, lines)


def _stop(child: Child) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        child.channel.send(Stop())


def _workshop(command: str, flags: Sequence[str]) -> None:
    """Run a command of the workshop in a process of its own: it holds signing keys, and ends before the server starts.

    It tells what it does itself; where it fails, its exit code becomes ours.
    """
    code = run("endocarp.cli.main", ["rot", command, *flags])
    if code != 0:
        sys.exit(code)


def _follow(child: Child, account: Account, server: directories.State, lines: list[str]) -> None:
    """Show what the box tells until it ends. Raises Refused where it failed."""
    failed: Failed | None = None
    silent = True
    while (received := child.channel.receive()) is not None:
        silent = False
        match received[0].body:
            case Progress(text):
                account.step(text)
            case Ready(pin=pin):
                account.serving(lines, pin)
            case Failed():
                failed = received[0].body
            case _:
                pass
    code = child.process.wait()
    if failed is not None and failed.rule == UsageError.code:
        raise UsageError(failed.reason, failed.hint)
    if failed is not None:
        raise Refused(failed.rule, failed.reason, failed.hint)
    if code != 0 and silent:
        reason = f"{server.archive('box')}: the box died before it said a word (exit code {code})"
        raise Refused("image.box", reason, CHANGED)
    if code != 0:
        raise Refused("process.box", f"the box died (exit code {code})", _AGAIN)
