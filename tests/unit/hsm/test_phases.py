"""What each phase of a connection permits."""

import pytest

from endocarp.hsm.phases import PERMITS, Phase, refusal
from endocarp.wire.hsm import Operation, Status

NEEDS_LOGIN = {
    Operation.LOGOUT,
    Operation.GENERATE,
    Operation.SET_ATTRIBUTES,
    Operation.DESTROY,
    Operation.SIGN,
    Operation.DECRYPT,
}


def test_every_phase_has_its_row() -> None:
    assert set(PERMITS) == set(Phase)


@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.CLOSED])
def test_nothing_is_permitted_before_hello_and_after_the_end(phase: Phase) -> None:
    assert PERMITS[phase] == frozenset()


def test_without_login_nobody_uses_or_changes_keys() -> None:
    assert set(Operation) - PERMITS[Phase.PUBLIC] == NEEDS_LOGIN


def test_who_is_logged_in_may_do_everything_but_log_in() -> None:
    assert set(Operation) - PERMITS[Phase.USER] == {Operation.LOGIN}


def test_a_refusal_says_why() -> None:
    assert refusal(Phase.USER, Operation.LOGIN).number == Status.ALREADY_LOGGED_IN
    for operation in NEEDS_LOGIN:
        refused = refusal(Phase.PUBLIC, operation)
        assert refused.number == Status.NOT_LOGGED_IN
        assert operation.name in refused.reason
