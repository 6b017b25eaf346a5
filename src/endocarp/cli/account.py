"""The account of a boot, as people see it: coloured on a terminal, plain lines elsewhere."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from endocarp.box.plan import PARTITIONS
from endocarp.cli.options import repeat
from endocarp.shell.config import State

_CLIENT_MODULES = ("/usr/lib/*/pkcs11/p11-kit-client.so", "/usr/lib*/pkcs11/p11-kit-client.so")
_MISSING = "$(echo /usr/lib/*/pkcs11/p11-kit-client.so)   # needs: apt-get install p11-kit-modules opensc"


class Account:
    """Prints steps as they come, each with the time since the start; on standard error where data goes to the other."""

    def __init__(self, *, stderr: bool = False) -> None:
        self.console = Console(highlight=False, soft_wrap=True, stderr=stderr)
        self._start = time.monotonic()

    def step(self, text: str) -> None:
        """Tell one step: `who: what`."""
        who, _, what = text.partition(": ")
        elapsed = f"{time.monotonic() - self._start:6.2f} s  "
        self.console.print(Text.assemble((elapsed, "dim"), (f"{who:<9}", "bold green"), what))

    def note(self, text: str) -> None:
        """Say something that is no step."""
        self.console.print(Text(text))

    def serving(self, lines: Sequence[str], pin: str) -> None:
        """Tell that the server serves: with `paste_lines` for a second terminal, and its PIN where one was made."""
        self.step("up: the server serves; stop it with Ctrl-C")
        self.note("")
        self.note("In a second terminal:")
        self.note("")
        for line in lines:
            self.note(f"    {line}")
        if pin:
            self.note("")
            self.note("The PIN of partition 0, shown this once:")
            self.note(f"PIN: {pin}")
        self.note("")


def paste_lines(server: State, *, state: Path | None, config: Path | None) -> list[str]:
    """Return the shell lines that reach a server from another terminal.

    `state` and `config` are the directories that it was started with, None where they are the usual ones.
    """
    tools = Path(sys.argv[0]).absolute().parent
    address = f"unix:path={server.p11_kit_socket(PARTITIONS[0])}"
    show = shlex.join(["endocarp", "status", *repeat(state=state)])
    prove = shlex.join(["endocarp", "evidence", *repeat(state=state, config=config)])
    judge = shlex.join(["endocarp", "verify", *repeat(config=config), "evidence.cbor"])
    # Last the line that asks for the PIN: some terminals would take what was pasted behind it for the answer.
    return [
        f"export PATH={shlex.quote(str(tools))}:$PATH",
        f"export P11_KIT_SERVER_ADDRESS={shlex.quote(address)}",
        f"M={client_module() or _MISSING}",
        show,
        f"{prove} > evidence.cbor",
        judge,
        "pkcs11-tool --module $M -L -O",
        "pkcs11-tool --module $M --login --keypairgen --key-type EC:prime256v1 --id 01 --label web",
    ]


def client_module() -> Path | None:
    """Return where p11-kit's client module lies, None where it is not installed."""
    for pattern in _CLIENT_MODULES:
        for path in sorted(Path("/").glob(pattern.removeprefix("/"))):
            return path
    return None
