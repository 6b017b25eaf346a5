"""What a box runs, in which order, and what happens when one of them dies: tables.

    rot      root of trust: ROM, then FMC, then runtime, in one process; dead: the whole server is reset
    vault    one a partition: keys of one tenant; dead: started again and paired again
    front    listens for applications; dead: started again and paired again

The death of the box itself needs no table: every process ends when its control channel ends.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from endocarp.wire.manifest import FirmwareId


class Remedy(enum.Enum):
    """What to do about the death of a process."""

    RESTART = "restart"
    RESET = "reset"


ON_DEATH: Mapping[str, Remedy] = {
    "rot": Remedy.RESET,
    "vault": Remedy.RESTART,
    "front": Remedy.RESTART,
}
"""By the kind of a process, which is its name up to the hyphen."""

FIRMWARE: Mapping[str, FirmwareId] = {
    "box": FirmwareId.BOX,
    "front": FirmwareId.FRONT,
    "vault": FirmwareId.VAULT,
}
"""The images that the SoC manifest authorizes, in the order in which they are measured."""

PARTITIONS = (0,)


def vault_name(partition: int) -> str:
    """Return the name of the process that serves a partition."""
    return f"vault-{partition}"


def kind_of(name: str) -> str:
    """Return the kind of the process of this name: the key into the tables of this module."""
    return name.partition("-")[0]


@dataclass(frozen=True)
class Restart:
    """Start this process again, not before `after`."""

    name: str
    after: float


@dataclass(frozen=True)
class Reset:
    """Stop everything and boot from cold, not before `after`."""

    after: float


@dataclass(frozen=True)
class GiveUp:
    """Stop the server: this process died too often to go on."""

    name: str


Action = Restart | Reset | GiveUp
