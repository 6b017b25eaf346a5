"""The table of boot stages."""

import pytest

from endocarp.crypto.secret import Secret
from endocarp.errors import UsageError
from endocarp.rot import kv
from endocarp.rot.boot import BOOT, Boot, Event, Stage
from endocarp.rot.kv import KeyVault

# Typed from Caliptra's documents, cold boot only.
WAYS = {
    (Stage.RESET, Event.IDENTITY_DERIVED): Stage.ROM,
    (Stage.RESET, Event.FAULT): Stage.FATAL,
    (Stage.ROM, Event.FIRMWARE_VERIFIED): Stage.FMC,
    (Stage.ROM, Event.FAULT): Stage.FATAL,
    (Stage.ROM, Event.SHUTDOWN): Stage.SHUT_DOWN,
    (Stage.FMC, Event.RUNTIME_MEASURED): Stage.RUNTIME,
    (Stage.FMC, Event.FAULT): Stage.FATAL,
    (Stage.RUNTIME, Event.FAULT): Stage.FATAL,
    (Stage.RUNTIME, Event.SHUTDOWN): Stage.SHUT_DOWN,
    (Stage.FATAL, Event.SHUTDOWN): Stage.FATAL,
    (Stage.SHUT_DOWN, Event.SHUTDOWN): Stage.SHUT_DOWN,
}


def test_every_stage_stands_in_the_table() -> None:
    assert set(BOOT) == set(Stage)


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("event", Event)
def test_each_event_leads_where_the_documents_say(stage: Stage, event: Event) -> None:
    boot = Boot(stage)
    if (stage, event) in WAYS:
        boot.advance(event)
        assert boot.stage is WAYS[stage, event]
        return
    with pytest.raises(UsageError, match=f"no way from {stage.value} by {event.value}"):
        boot.advance(event)
    assert boot.stage is stage


@pytest.mark.parametrize(
    "error", [UsageError("ours"), UnicodeDecodeError("ascii", b"x", 0, 1, "odd"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("stage", [stage for stage, ways in BOOT.items() if Event.FAULT in ways])
def test_every_error_in_a_guarded_block_is_fatal(stage: Stage, error: BaseException) -> None:
    memory, boot = bytearray(kv.SIZE), Boot(stage)
    vault = KeyVault(memoryview(memory))
    vault.put(kv.RT_CDI, Secret(b"c" * 64))
    with pytest.raises(type(error)), boot.guard(vault):
        raise error
    assert boot.stage is Stage.FATAL
    assert not any(memory)


def test_a_guarded_block_that_holds_changes_nothing() -> None:
    boot = Boot(Stage.ROM)
    with boot.guard(KeyVault(memoryview(bytearray(kv.SIZE)))):
        pass
    assert boot.stage is Stage.ROM
