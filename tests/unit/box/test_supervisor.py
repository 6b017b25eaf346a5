"""What follows from the death of a process."""

import pytest

from endocarp.box.plan import GiveUp, Reset, Restart
from endocarp.box.supervisor import LIMIT, PAUSES, WINDOW, Supervisor


@pytest.mark.parametrize("name", ["vault-0", "vault-3", "front"])
def test_a_vault_or_the_front_is_started_again_at_once(name: str) -> None:
    assert Supervisor().died(name, 5.0) == Restart(name, 5.0)


def test_the_death_of_the_root_of_trust_resets_the_server() -> None:
    assert Supervisor().died("rot", 5.0) == Reset(5.0)


def test_the_pause_grows_with_each_death_until_the_box_gives_up() -> None:
    supervisor = Supervisor()
    pauses = []
    for _ in range(LIMIT):
        action = supervisor.died("front", 100.0)
        assert isinstance(action, Restart)
        pauses.append(round(action.after - 100.0, 6))
    assert pauses == list(PAUSES)
    assert supervisor.died("front", 100.0) == GiveUp("front")


def test_the_root_of_trust_is_not_reset_for_ever() -> None:
    supervisor = Supervisor()
    actions = [supervisor.died("rot", float(second)) for second in range(LIMIT + 1)]
    assert {type(action) for action in actions[:-1]} == {Reset}
    assert actions[-1] == GiveUp("rot")


def test_there_is_a_pause_for_every_death_that_is_forgiven() -> None:
    assert len(PAUSES) == LIMIT
    assert sum(PAUSES) < WINDOW


def test_a_death_is_forgotten_once_it_lies_a_window_back() -> None:
    supervisor = Supervisor()
    for _ in range(LIMIT):
        supervisor.died("front", 10.0)
    assert supervisor.died("front", 10.0 + WINDOW - 0.001) == GiveUp("front")
    assert supervisor.died("front", 10.0 + WINDOW) == Restart("front", 10.0 + WINDOW)


def test_the_dead_of_one_name_do_not_count_for_another() -> None:
    supervisor = Supervisor()
    for _ in range(LIMIT):
        supervisor.died("vault-0", 1.0)
    assert supervisor.died("vault-1", 1.0) == Restart("vault-1", 1.0)


def test_a_process_that_the_plan_does_not_know_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        Supervisor().died("stranger", 1.0)
