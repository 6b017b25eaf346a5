"""What a box runs, from which images, in which order, and what happens when one of them dies: tables.

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


@dataclass(frozen=True)
class Image:
    """A code archive: the module whose `main()` it runs, and under which id the SoC manifest authorizes it, if it does."""

    entry: str
    firmware_id: FirmwareId | None = None


IMAGES: Mapping[str, Image] = {
    "rom": Image("endocarp.shell.rom"),
    "fmc": Image("endocarp.shell.fmc"),
    "runtime": Image("endocarp.shell.rot"),
    "box": Image("endocarp.shell.box", FirmwareId.BOX),
    "front": Image("endocarp.shell.front", FirmwareId.FRONT),
    "vault": Image("endocarp.shell.vault", FirmwareId.VAULT),
}
"""Every archive. FMC and runtime travel in the firmware bundle, the others lie beside it."""

FIRMWARE: Mapping[str, FirmwareId] = {
    name: image.firmware_id for name, image in IMAGES.items() if image.firmware_id is not None
}
"""The images that the SoC manifest authorizes, in the order in which they are measured."""


@dataclass(frozen=True)
class Kind:
    """One kind of process: the image that it is started from, and what to do about its death."""

    image: str
    on_death: Remedy


KINDS: Mapping[str, Kind] = {
    "rot": Kind("rom", Remedy.RESET),
    "vault": Kind("vault", Remedy.RESTART),
    "front": Kind("front", Remedy.RESTART),
}
"""By the kind of a process, which is its name up to the hyphen; in the order of their start, stopped from behind."""

PARTITIONS = (0,)


def vault_name(partition: int) -> str:
    """Return the name of the process that serves a partition."""
    return f"vault-{partition}"


def kind_of(name: str) -> str:
    """Return the kind of the process of this name: the key into `KINDS`."""
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
