"""The registry: which check comes first, and what each refusal answers."""

import inspect
import typing
from dataclasses import dataclass, field

import pytest

from endocarp.errors import PeerError
from endocarp.rot import rom, runtime
from endocarp.rot.dispatch import UNKNOWN_LIMIT, Call, Faults, Registry, name_of
from endocarp.wire.mailbox import (
    REQUESTS,
    Command,
    DataReply,
    DpeResultReply,
    EmptyReply,
    FirmwareLoad,
    InvokeDpeEcc384,
    MailboxError,
    StashMeasurement,
    Version,
    checksum,
    decode_reply,
    frame_limit,
    with_checksum,
)

FAULTS = Faults(
    reserved_caller=MailboxError.RUNTIME_CMD_RESERVED_PAUSER,
    checksum=MailboxError.RUNTIME_INVALID_CHECKSUM,
    unknown=MailboxError.RUNTIME_UNIMPLEMENTED_COMMAND,
    too_long=MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS,
    malformed=MailboxError.RUNTIME_INSUFFICIENT_MEMORY,
)


@dataclass
class Stage:
    """A boot stage of three commands that notes what it was asked."""

    asked: list[object] = field(default_factory=list)
    admits: bool = True

    def admit(self, call: Call) -> None:
        if not self.admits:
            raise PeerError(MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL, "not you")


COMMANDS: Registry[Stage] = Registry(FAULTS)


@COMMANDS.handles(StashMeasurement)
def _stash(stage: Stage, request: StashMeasurement, call: Call) -> DpeResultReply:
    stage.asked.append(request)
    return DpeResultReply(9)


@COMMANDS.handles(InvokeDpeEcc384)
def _invoke(stage: Stage, request: InvokeDpeEcc384, call: Call) -> DataReply:
    stage.asked.append(request)
    return DataReply(request.data)


@COMMANDS.handles(FirmwareLoad)
def _load(stage: Stage, request: FirmwareLoad, call: Call) -> EmptyReply:
    stage.asked.append(request)
    return EmptyReply()


STASH = StashMeasurement(1, b"m" * 48, b"c" * 48, 2)


def refusal(stage: Stage, call: Call) -> int:
    with pytest.raises(PeerError) as refused:
        COMMANDS.execute(stage, call)
    assert stage.asked == []
    return refused.value.number


def test_a_handler_gets_the_request_and_its_reply_is_sealed() -> None:
    stage = Stage()
    octets = COMMANDS.execute(stage, Call(1, Command.STASH_MEASUREMENT, with_checksum(STASH)))
    assert stage.asked == [STASH]
    assert decode_reply(StashMeasurement, octets) == DpeResultReply(9)


def test_firmware_comes_and_is_answered_without_headers() -> None:
    stage = Stage()
    assert COMMANDS.execute(stage, Call(1, Command.FIRMWARE_LOAD, b"bundle")) == b""
    assert stage.asked == [FirmwareLoad(b"bundle")]


def test_the_reserved_caller_is_refused_before_the_checksum_is_looked_at() -> None:
    assert refusal(Stage(), Call(0xFFFFFFFF, Command.STASH_MEASUREMENT, b"")) == FAULTS.reserved_caller


@pytest.mark.parametrize("octets", [b"", b"\0" * 108])
def test_a_wrong_checksum_is_refused(octets: bytes) -> None:
    assert refusal(Stage(), Call(1, Command.STASH_MEASUREMENT, octets)) == FAULTS.checksum


def test_a_wrong_checksum_of_an_unknown_command_is_a_wrong_checksum() -> None:
    assert refusal(Stage(), Call(1, 0xDEAD, b"\0" * 4)) == FAULTS.checksum


def test_unknown_commands_and_those_of_other_stages_are_refused() -> None:
    sealed = (0xFFFFFFFF + 1 - sum((0xDEAD).to_bytes(4, "little"))).to_bytes(4, "little")
    assert refusal(Stage(), Call(1, 0xDEAD, sealed)) == FAULTS.unknown
    assert refusal(Stage(), Call(1, Command.VERSION, with_checksum(Version()))) == FAULTS.unknown


def test_privilege_is_looked_at_before_the_length() -> None:
    stage = Stage(admits=False)
    octets = with_checksum(Version())
    broken = _sealed(Command.STASH_MEASUREMENT, octets[4:])
    assert (
        refusal(stage, Call(1, Command.STASH_MEASUREMENT, broken))
        == MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL
    )


def _sealed(command: Command, body: bytes) -> bytes:

    return checksum(command, body).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (STASH.encode() + b"\0", FAULTS.too_long),
        (STASH.encode()[:-1], FAULTS.malformed),
    ],
)
def test_a_body_of_another_length_is_refused(body: bytes, fault: MailboxError) -> None:
    octets = _sealed(Command.STASH_MEASUREMENT, body)
    assert refusal(Stage(), Call(1, Command.STASH_MEASUREMENT, octets)) == fault


def test_a_buffer_that_lies_about_its_length_is_refused() -> None:
    octets = _sealed(Command.INVOKE_DPE_ECC384, (513).to_bytes(4, "little") + bytes(512))
    assert refusal(Stage(), Call(1, Command.INVOKE_DPE_ECC384, octets)) == FAULTS.malformed


def test_frames_are_limited_by_what_this_stage_knows() -> None:
    assert COMMANDS.limit(Command.FIRMWARE_LOAD) == frame_limit(Command.FIRMWARE_LOAD)
    assert COMMANDS.limit(Command.SET_AUTH_MANIFEST) == UNKNOWN_LIMIT
    assert COMMANDS.limit(0xDEAD) == UNKNOWN_LIMIT


@pytest.mark.parametrize("registry", [rom.COMMANDS, runtime.COMMANDS])
def test_every_handler_takes_the_request_that_it_is_registered_for(registry: Registry[typing.Any]) -> None:
    for command, handler in registry.handlers.items():
        kind = inspect.signature(handler).parameters["request"].annotation
        assert issubclass(REQUESTS[command], typing.get_origin(kind) or kind)


def test_commands_have_names() -> None:
    assert name_of(Command.VERSION) == "VERSION"
    assert name_of(0xDEAD) == "0xdead"
