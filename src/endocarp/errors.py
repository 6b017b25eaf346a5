"""The six ways to fail.

    EndocarpError
    +-- DecodeError         the octets do not have the form that they should have
    +-- PeerError           the other side broke a rule of the protocol: carries the code to answer with
    +-- UsageError          our caller asked for something that makes no sense
    +-- Refused             policy said no: carries the rule
    +-- DeviceError         the other side answered with an error: carries its code
    +-- VerificationError   evidence did not hold: carries every rule that failed

Each has `code`, a short stable name or number for programs, and `advice()`, one line on what to do, for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class EndocarpError(Exception):
    """What every expected failure derives from; only its six children are raised."""

    code: str = "error"
    hint: str = ""

    def advice(self) -> str:
        """Return one line on what to do next, or an empty string where nothing can be said."""
        return self.hint


class DecodeError(EndocarpError):
    """The octets are wrong.

    `where` names the field, as `Struct.field`; `reason` says what was found there.
    """

    code = "decode"
    hint = "the sender speaks another version of this format, or the octets were damaged on the way"

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class PeerError(EndocarpError):
    """The other side broke a rule: `number` is the specification's code, which becomes our answer."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{reason} ({number:#x})")
        self.number = number
        self.reason = reason
        self.code = f"{number:#x}"


class UsageError(EndocarpError):
    """Our caller made a mistake; `hint` says how to call instead."""

    code = "usage"

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class Refused(EndocarpError):
    """Policy said no: `rule` is the identifier of the rule, which documentation and evidence share."""

    def __init__(self, rule: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{reason} [{rule}]")
        self.rule = rule
        self.reason = reason
        self.code = rule
        self.hint = hint


class DeviceError(EndocarpError):
    """The other side answered with an error: `number` is the code that it sent."""

    def __init__(self, number: int, reason: str, hint: str = "") -> None:
        super().__init__(f"{reason} ({number:#x})")
        self.number = number
        self.reason = reason
        self.code = f"{number:#x}"
        self.hint = hint


@dataclass(frozen=True)
class Failure:
    """One rule that evidence broke: the rule's identifier, and what was found."""

    rule: str
    reason: str


class VerificationError(EndocarpError):
    """Evidence did not hold: `failures` lists every rule that it broke, the first one first."""

    hint = "do not rely on this server until each failure is explained"

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__("; ".join(f"{failure.reason} [{failure.rule}]" for failure in failures))
        self.failures = tuple(failures)
        self.code = failures[0].rule if failures else "verification"
