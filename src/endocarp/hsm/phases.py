"""What a connection may ask for, by how far it has come: tables.

What an object may be used for stands in `endocarp.hsm.object_policy`, which the front reads too.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from endocarp.errors import PeerError
from endocarp.wire.hsm import Operation, Status


class Phase(enum.IntEnum):
    """How far a connection has come."""

    GREETING = 0
    """Nothing was said yet; Hello is expected."""
    PUBLIC = 1
    USER = 2
    """Logged in."""
    CLOSED = 3


_ANYBODY = frozenset(
    {
        Operation.PING,
        Operation.INFO,
        Operation.SET_PIN,
        Operation.FIND,
        Operation.GET_OBJECT,
        Operation.VERIFY,
        Operation.ENCRYPT,
        Operation.RANDOM,
        Operation.REPORT,
        Operation.DISCARD,
    }
)

PERMITS: Mapping[Phase, frozenset[Operation]] = MappingProxyType(
    {
        Phase.GREETING: frozenset(),
        Phase.PUBLIC: _ANYBODY | {Operation.LOGIN},
        Phase.USER: frozenset(Operation) - {Operation.LOGIN},
        Phase.CLOSED: frozenset(),
    }
)
"""The operations that each phase permits."""


def refusal(phase: Phase, operation: Operation) -> PeerError:
    """Return why a phase does not permit an operation."""
    if phase is Phase.USER:
        return PeerError(Status.ALREADY_LOGGED_IN, "this connection is logged in")
    return PeerError(Status.NOT_LOGGED_IN, f"{operation.name} needs login")
