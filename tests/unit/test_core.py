"""The shape of a core: a small one is written here, and driven as a shell would drive it."""

import dataclasses

import pytest

from endocarp.core import Ask, Attach, Close, Core, Event, Job


class Echo:
    """A core that answers each message a second later, and gives up after ten silent seconds."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.deadline: float | None = None

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take one message."""
        if not data:
            return [Close("the other side has closed")]
        self.deadline = now + 10
        return [Job(lambda: self.out.append(data), after=now + 1)]

    def outgoing(self) -> list[bytes]:
        """Return what is to be sent."""
        out, self.out = self.out, []
        return out

    def due(self) -> float | None:
        """Return the end of the silence."""
        return self.deadline

    def expire(self, now: float) -> list[Event]:
        """Give up."""
        self.deadline = None
        return [Close(f"silent until {now}")]


def test_a_conversation_needs_nothing_but_the_four_calls() -> None:
    core: Core = Echo()
    (job,) = core.receive(b"hello", 100.0)
    assert isinstance(job, Job)
    assert (job.after, core.outgoing(), core.due()) == (101.0, [], 110.0)
    job.run()
    assert core.outgoing() == [b"hello"]
    assert core.outgoing() == []
    assert core.expire(110.0) == [Close("silent until 110.0")]
    assert core.due() is None


def test_empty_data_means_that_the_other_side_has_closed() -> None:
    assert Echo().receive(b"", 0.0) == [Close("the other side has closed")]


def test_a_job_may_run_at_once_unless_it_says_otherwise() -> None:
    assert Job(run=lambda: b"done").after == 0.0


@pytest.mark.parametrize("event", [Ask(b"question"), Attach(b"hello"), Close("done")])
def test_events_are_values(event: Event) -> None:
    assert dataclasses.replace(event) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.reason = "changed"  # type: ignore[union-attr, misc]
