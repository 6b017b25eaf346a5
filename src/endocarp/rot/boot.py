"""The boot of the root of trust as a table: which stage follows which. Nothing else assigns a stage.

Source: Caliptra ROM, "Cold reset", and FMC, "Boot flow".
"""

import contextlib
import enum
from collections.abc import Iterator

from endocarp.errors import UsageError
from endocarp.rot.kv import KeyVault


class Stage(enum.Enum):
    """Where the root of trust is between reset and service."""

    RESET = "reset"
    ROM = "rom"
    FMC = "fmc"
    RUNTIME = "runtime"
    FATAL = "fatal"
    SHUT_DOWN = "shut down"


class Event(enum.Enum):
    """What moves it on."""

    IDENTITY_DERIVED = "identity derived"
    FIRMWARE_VERIFIED = "firmware verified"
    RUNTIME_MEASURED = "runtime measured"
    FAULT = "fault"
    SHUTDOWN = "shutdown"


BOOT: dict[Stage, dict[Event, Stage]] = {
    Stage.RESET: {Event.IDENTITY_DERIVED: Stage.ROM, Event.FAULT: Stage.FATAL},
    Stage.ROM: {
        Event.FIRMWARE_VERIFIED: Stage.FMC,
        Event.FAULT: Stage.FATAL,
        Event.SHUTDOWN: Stage.SHUT_DOWN,
    },
    Stage.FMC: {Event.RUNTIME_MEASURED: Stage.RUNTIME, Event.FAULT: Stage.FATAL},
    Stage.RUNTIME: {Event.FAULT: Stage.FATAL, Event.SHUTDOWN: Stage.SHUT_DOWN},
    Stage.FATAL: {Event.SHUTDOWN: Stage.FATAL},
    Stage.SHUT_DOWN: {Event.SHUTDOWN: Stage.SHUT_DOWN},
}
"""Only a reset leads out of FATAL and SHUT_DOWN: a new process."""


class Boot:
    """The stage that one process is in."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def stage(self) -> Stage:
        """The stage now."""
        return self._stage

    def advance(self, event: Event) -> None:
        """Move on; UsageError where the table has no such way."""
        if event not in BOOT[self._stage]:
            raise UsageError(f"no way from {self._stage.value} by {event.value}", "see BOOT")
        self._stage = BOOT[self._stage][event]

    @contextlib.contextmanager
    def guard(self, vault: KeyVault) -> Iterator[None]:
        """Run a block whose every error, of whatever kind, is fatal: the key vault is wiped, and the error goes on."""
        try:
            yield
        except BaseException:
            vault.erase_all()
            self.advance(Event.FAULT)
            raise
