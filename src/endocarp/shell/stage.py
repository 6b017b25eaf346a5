"""What the three stages of the root of trust share: the inherited key vault, the hand-off, the jump.

ROM, FMC and runtime are three programs that one process runs one after another. The key vault is one piece of
secret memory that all three map; the hand-off table is sealed memory that each stage writes for the next.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from endocarp.crypto.secret import keep_in
from endocarp.rot import kv
from endocarp.rot.kv import KeyVault
from endocarp.shell.archive import read_sealed, seal
from endocarp.shell.channel import replace
from endocarp.shell.memory import SecretMemory, map_secret, secret_descriptor
from endocarp.wire.control import MemoryMode
from endocarp.wire.handoff import Handoff

_STANDARD = 3
"""Descriptors below this are standard input, output and error."""


class StageMemory:
    """The memory of a stage: its own secrets, and the key vault behind the descriptor that stages inherit.

    `mode` is the worse of the two.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        secrets = SecretMemory()
        keep_in(secrets)
        self.descriptor = secret_descriptor(kv.SIZE) if descriptor is None else descriptor
        region, mode = map_secret(self.descriptor, kv.SIZE)
        self.vault = KeyVault(memoryview(region))
        self.mode: MemoryMode = min(secrets.mode, mode)


def read_table(arguments: Mapping[str, str]) -> Handoff:
    """Return the hand-off table that the stage before has left."""
    return Handoff.decode(read_sealed(int(arguments["handoff"])))


def jump(image: int, table: Handoff, arguments: Mapping[str, str], **more: int) -> None:
    """Become the program in the sealed descriptor `image`, with the key vault, the table and what this stage had.

    Nothing else is inherited. Does not return.
    """
    kept = {name: int(arguments[name]) for name in ("control", "pl0", "mailbox")}
    kept |= {"handoff": seal(table.encode(), "handoff"), **more}
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) >= _STANDARD:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(entry.name), False)
    required = ["--require-sandbox", "yes"] if "require-sandbox" in arguments else []
    replace(image, required, kept)
