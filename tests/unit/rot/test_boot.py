"""The table of boot stages."""

import pytest

from endocarp.errors import UsageError
from endocarp.rot.boot import BOOT, Boot, Event, Stage

# Typed from Caliptra's documents, cold boot only.
WAYS = {
    (Stage.RESET, Event.IDENTITY_DERIVED): Stage.ROM,
    (Stage.RESET, Event.FAULT): Stage.FATAL,
    (Stage.ROM, Event.FIRMWARE_VERIFIED): Stage.FMC,
    (Stage.ROM, Event.FAULT): Stage.FATAL,
    (Stage.ROM, Event.SHUTDOWN): Stage.SHUT_DOWN,
    (Stage.FMC, Event.RUNTIME_MEASURED): Stage.RUNTIME,
    (Stage.FMC, Event.FAULT): Stage.FATAL,
    (Stage.RUNTIME, Event.SHUTDOWN): Stage.SHUT_DOWN,
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
