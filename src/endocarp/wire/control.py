"""What a process and the one that started it say to each other, over an inherited SEQPACKET socket pair.

Upwards: `Progress` (a line for the account of the boot), `Ready` (once, with what the sandbox got), `Failed`
(the reason, before the end). Downwards: `Pair` (the descriptor that comes with it is this process's end of a
channel to another) and `Stop`. The end of the channel means that the other process is gone.
"""

import enum
from typing import Annotated

from endocarp.wire.codec import (
    U8,
    U32,
    Items,
    Nested,
    OneOf,
    Struct,
    Text,
    measured,
    secret,
    u8,
    u16,
)
from endocarp.wire.text import TEXT_LIMIT

MAX_MESSAGE = 16 << 10
"""The size in octets that no control message exceeds."""
ROT_GONE = "process.rot"
"""The rule of a Failed whose only reason is that the root of trust is gone."""
NOTE_LIMIT = 256
"""Octets in a remark of a sandbox."""


class Note(Struct):
    """One remark of a sandbox on what it lacks."""

    text: Annotated[str, Text(u16, limit=NOTE_LIMIT)]


class MemoryMode(enum.IntEnum):
    """How well a process keeps its secrets, from worst to best (see `shell.memory`)."""

    ORDINARY = 0
    LOCKED = 1
    SECRET = 2


class Seccomp(enum.IntEnum):
    """The states of seccomp, as /proc/PID/status counts them."""

    OFF = 0
    FILTER = 2


class SandboxReport(Struct):
    """What a process got of its sandbox."""

    uid: U32
    no_new_privileges: U8
    not_dumpable: U8
    landlock_abi: U8
    seccomp: Annotated[Seccomp, u8]
    memory: Annotated[MemoryMode, u8]
    note_count: U8 = measured()
    notes: Annotated[tuple[Note, ...], Items(Note, "note_count", limit=16)] = ()


class Progress(Struct):
    """A step that was taken, as a line for people."""

    text: Annotated[str, Text(u16, limit=TEXT_LIMIT)]


class Ready(Struct):
    """The process serves. `pin` is there only from a vault that has just made its partition."""

    sandbox: Annotated[SandboxReport, Nested(SandboxReport)]
    pin: Annotated[str, Text(u8, limit=64)] = secret(default="")


class Failed(Struct):
    """The process gives up: the rule, the reason and what to do, as `endocarp.errors` has them."""

    rule: Annotated[str, Text(u16, limit=TEXT_LIMIT)]
    reason: Annotated[str, Text(u16, limit=TEXT_LIMIT)]
    hint: Annotated[str, Text(u16, limit=TEXT_LIMIT)] = ""


class Pair(Struct):
    """The descriptor that comes with this message is one end of the channel between front and this partition."""

    partition: U32


class Stop(Struct):
    """Finish what is under way, then exit."""


class Kind(enum.IntEnum):
    """What a control message is."""

    PROGRESS = 1
    READY = 2
    FAILED = 3
    PAIR = 4
    STOP = 5


class ControlMessage(Struct):
    """One message of the control channel."""

    kind: Annotated[Kind, u8] = measured()
    body: Annotated[
        Progress | Ready | Failed | Pair | Stop,
        OneOf(
            "kind",
            {
                Kind.PROGRESS: Progress,
                Kind.READY: Ready,
                Kind.FAILED: Failed,
                Kind.PAIR: Pair,
                Kind.STOP: Stop,
            },
        ),
    ] = Stop()
