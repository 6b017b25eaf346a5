from typing import Any

import pytest
from tests.simulators.token_vault import PIN, PUBLIC, TokenVault

from endocarp.errors import PeerError
from endocarp.hsm.object_policy import default_policy
from endocarp.hsm.token import REFUSALS
from endocarp.hsm.token_objects import P11Object
from endocarp.hsm.token_view import Steps, TokenView, ask, octets
from endocarp.wire.cryptoki import CKR
from endocarp.wire.hsm import (
    Description,
    Destroy,
    ObjectClass,
    Operation,
    Policy,
    Random,
    Reply,
    Status,
    Template,
)
from endocarp.wire.suites import Suite


def carry_out(steps: Steps[Any], vault: TokenVault, view: TokenView) -> Any:
    """Let the vault answer until the steps are done."""
    try:
        request = next(steps)
        while True:
            reply = Reply.decode(vault(request))
            view.generation = reply.generation
            if reply.status is Status.OK:
                request = steps.send(reply.body)
            else:
                request = steps.throw(PeerError(REFUSALS[reply.status], reply.reason))
    except StopIteration as end:
        return end.value


def keep(vault: TokenVault, object_class: ObjectClass = ObjectClass.PUBLIC_KEY, more: int = 0) -> Description:
    """Make an object without the view's knowledge."""
    policy = default_policy(Suite.P256, object_class) | Policy.TOKEN | Policy(more)
    return vault.add(Suite.P256, object_class, Template(policy=policy))


@pytest.fixture
def vault() -> TokenVault:
    return TokenVault()


@pytest.fixture
def view() -> TokenView:
    return TokenView(0)


def objects(view: TokenView, vault: TokenVault) -> list[P11Object]:
    return list(carry_out(view.objects(), vault, view))


def test_a_question_returns_its_answer(view: TokenView, vault: TokenVault) -> None:
    assert carry_out(ask(Random(3)), vault, view).data == b"ZZZ"


def test_octets_without_a_pointer_are_none_or_a_mistake() -> None:
    assert octets(b"data") == b"data"
    assert octets(0) == b""
    with pytest.raises(PeerError) as caught:
        octets(5)
    assert caught.value.number == CKR.ARGUMENTS_BAD


def test_objects_are_asked_for_once_and_again_only_when_they_changed(
    view: TokenView, vault: TokenVault
) -> None:
    first = keep(vault)
    assert [found.description for found in objects(view, vault)] == [first]
    assert vault.asked() == [Operation.PING, Operation.FIND]
    assert len(objects(view, vault)) == 1
    assert vault.asked() == [Operation.PING]
    keep(vault)
    assert len(objects(view, vault)) == 2
    assert vault.asked() == [Operation.PING, Operation.FIND]


def test_many_objects_come_in_pages(view: TokenView) -> None:
    vault = TokenVault(page=2)
    made = [keep(vault).handle for _ in range(5)]
    assert [found.handle for found in objects(view, vault)] == made
    assert vault.asked() == [Operation.PING, *[Operation.FIND] * 3]


def test_a_change_between_two_pages_is_seen_the_next_time(view: TokenView) -> None:
    vault = TokenVault(page=1)
    keep(vault)
    keep(vault)
    steps = view.objects()
    messages = [next(steps)]
    for number in range(3):
        if number == 2:
            vault.generation += 1
        reply = Reply.decode(vault(messages[-1]))
        view.generation = reply.generation
        try:
            messages.append(steps.send(reply.body))
        except StopIteration:
            break
    vault.asked()
    objects(view, vault)
    assert Operation.FIND in vault.asked()


def test_what_this_application_makes_and_destroys_is_known_without_asking(
    view: TokenView, vault: TokenVault
) -> None:
    objects(view, vault)
    made = keep(vault)
    view.generation = vault.generation
    assert view.put(made).description == made
    assert view.key(made.handle) is view.object(made.handle)
    vault.asked()
    assert len(objects(view, vault)) == 1
    assert vault.asked() == [Operation.PING]
    carry_out(ask(Destroy(made.handle)), vault, view)
    view.drop(made.handle)
    vault.asked()
    assert objects(view, vault) == []
    assert vault.asked() == [Operation.PING]


def test_what_another_application_made_meanwhile_is_not_missed(view: TokenView, vault: TokenVault) -> None:
    objects(view, vault)
    keep(vault)
    made = keep(vault)
    view.generation = vault.generation
    view.put(made)
    assert len(objects(view, vault)) == 2


def test_session_objects_do_not_hide_what_another_application_made(
    view: TokenView, vault: TokenVault
) -> None:
    objects(view, vault)
    policy = default_policy(Suite.P256, ObjectClass.PUBLIC_KEY)
    passing = vault.add(Suite.P256, ObjectClass.PUBLIC_KEY, Template(policy=policy))
    keep(vault)
    view.generation = vault.generation
    view.put(passing)
    assert len(objects(view, vault)) == 2


def test_a_handle_without_object_is_refused(view: TokenView) -> None:
    with pytest.raises(PeerError) as caught:
        view.key(7)
    assert caught.value.number == CKR.KEY_HANDLE_INVALID
    with pytest.raises(PeerError) as caught:
        view.object(7)
    assert caught.value.number == CKR.OBJECT_HANDLE_INVALID


def test_login_shows_private_objects_and_logout_hides_them_at_once(
    view: TokenView, vault: TokenVault
) -> None:
    public, private = keep(vault), keep(vault, ObjectClass.PRIVATE_KEY)
    assert private.public == PUBLIC[Suite.P256]
    assert len(objects(view, vault)) == 1
    carry_out(view.log_in(PIN), vault, view)
    assert len(objects(view, vault)) == 2
    carry_out(view.log_out(), vault, view)
    assert not view.logged_in
    view.key(public.handle)
    with pytest.raises(PeerError):
        view.key(private.handle)
    assert len(objects(view, vault)) == 1


@pytest.mark.parametrize("flag", [Policy(0), Policy.DESTROYABLE])
def test_a_session_object_ends_whatever_its_policy_and_without_login(
    view: TokenView, vault: TokenVault, flag: Policy
) -> None:
    policy = default_policy(Suite.P256, ObjectClass.PUBLIC_KEY) & ~flag
    ended = vault.add(Suite.P256, ObjectClass.PUBLIC_KEY, Template(policy=policy))
    assert len(objects(view, vault)) == 1
    carry_out(view.end([ended.handle]), vault, view)
    assert objects(view, vault) == []
    assert not vault.objects


def test_what_is_gone_already_does_not_hinder_what_ends_with_it(view: TokenView, vault: TokenVault) -> None:
    policy = default_policy(Suite.P256, ObjectClass.PUBLIC_KEY)
    ended = vault.add(Suite.P256, ObjectClass.PUBLIC_KEY, Template(policy=policy))
    carry_out(view.end([7, ended.handle]), vault, view)
    assert not vault.objects
