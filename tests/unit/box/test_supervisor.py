"""What follows from the death of a process."""

import pytest

from endocarp.box.plan import Action, GiveUp, Reset, Restart
from endocarp.box.supervisor import LIMIT, PAUSES, UNPROVEN_LIMIT, WINDOW, Supervisor


def _deaths(
    supervisor: Supervisor, name: str, count: int, *, now: float, served: bool = True
) -> list[Action]:
    return [supervisor.died(name, now, served=served) for _ in range(count)]


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize("name", ["vault-0", "vault-3", "front"])
def test_a_vault_or_the_front_is_started_again_at_once(name: str, served: bool) -> None:
    assert Supervisor().died(name, 5.0, served=served) == Restart(name, 5.0)


@pytest.mark.parametrize("served", [False, True])
def test_the_death_of_the_root_of_trust_resets_the_server(served: bool) -> None:
    assert Supervisor().died("rot", 5.0, served=served) == Reset(5.0)


def test_the_pause_grows_with_each_death_until_the_box_gives_up() -> None:
    supervisor = Supervisor()
    pauses = []
    for action in _deaths(supervisor, "front", LIMIT, now=100.0):
        assert isinstance(action, Restart)
        pauses.append(round(action.after - 100.0, 6))
    assert pauses == list(PAUSES)
    assert supervisor.died("front", 100.0, served=True) == GiveUp("front")


@pytest.mark.parametrize("name", ["rot", "vault-0", "front"])
def test_what_has_never_served_gets_one_more_try(name: str) -> None:
    supervisor = Supervisor()
    first = _deaths(supervisor, name, UNPROVEN_LIMIT, now=5.0, served=False)
    assert GiveUp(name) not in first
    assert supervisor.died(name, 5.0, served=False) == GiveUp(name)


def test_what_has_served_in_the_meantime_is_not_held_to_its_first_death() -> None:
    supervisor = Supervisor()
    supervisor.died("front", 5.0, served=False)
    assert supervisor.died("front", 6.0, served=True) == Restart("front", 6.0 + PAUSES[1])


def test_the_root_of_trust_is_not_reset_for_ever() -> None:
    supervisor = Supervisor()
    actions = [supervisor.died("rot", float(second), served=True) for second in range(LIMIT + 1)]
    assert {type(action) for action in actions[:-1]} == {Reset}
    assert actions[-1] == GiveUp("rot")


def test_there_is_a_pause_for_every_death_that_is_forgiven() -> None:
    assert len(PAUSES) == LIMIT > UNPROVEN_LIMIT
    assert sum(PAUSES) < WINDOW


@pytest.mark.parametrize(("served", "limit"), [(True, LIMIT), (False, UNPROVEN_LIMIT)])
def test_a_death_is_forgotten_once_it_lies_a_window_back(served: bool, limit: int) -> None:
    supervisor = Supervisor()
    _deaths(supervisor, "front", limit, now=10.0, served=served)
    assert supervisor.died("front", 10.0 + WINDOW - 0.001, served=served) == GiveUp("front")
    assert supervisor.died("front", 10.0 + WINDOW, served=served) == Restart("front", 10.0 + WINDOW)


def test_the_dead_of_one_name_do_not_count_for_another() -> None:
    supervisor = Supervisor()
    _deaths(supervisor, "vault-0", LIMIT, now=1.0)
    assert supervisor.died("vault-1", 1.0, served=False) == Restart("vault-1", 1.0)


def test_a_process_that_the_plan_does_not_know_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        Supervisor().died("stranger", 1.0, served=True)
