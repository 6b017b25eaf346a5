"""The rules for objects: every row of every table is walked."""

import pytest

from endocarp.errors import PeerError
from endocarp.hsm.object_policy import (
    MAY_BE_CLEARED,
    MAY_BE_SET,
    NEEDS,
    SECRET_SUITES,
    USES,
    VAULT_SET,
    check_change,
    check_template,
    check_use,
    default_policy,
    granted_policy,
    key_class,
)
from endocarp.wire.hsm import Description, ObjectClass, Operation, Policy, Status, Template
from endocarp.wire.suites import CIPHERS, SCHEMES, Suite

OWN = [pair for pair in USES if pair[1] is not ObjectClass.PUBLIC_KEY]


def refusal(status: Status, suite: Suite, object_class: ObjectClass, policy: Policy) -> str:
    with pytest.raises(PeerError) as caught:
        check_template(suite, object_class, Template(policy))
    assert caught.value.number == status
    return caught.value.reason


def test_every_suite_is_a_pair_or_a_secret() -> None:
    for suite in Suite:
        classes = {object_class for each, object_class in USES if each is suite}
        secret = suite in SECRET_SUITES
        expected = {ObjectClass.SECRET_KEY} if secret else {ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY}
        assert classes == expected
        assert key_class(suite) in classes - {ObjectClass.PUBLIC_KEY}


def test_a_key_may_be_used_for_what_its_suite_can_do() -> None:
    for suite, object_class in USES:
        uses = USES[suite, object_class]
        own = object_class is not ObjectClass.PUBLIC_KEY
        assert bool(uses & Policy.SIGN) == (object_class is ObjectClass.PRIVATE_KEY and bool(SCHEMES[suite]))
        assert bool(uses & Policy.DECRYPT) == (own and bool(CIPHERS[suite]))


@pytest.mark.parametrize(("suite", "object_class"), USES)
def test_the_default_policy_is_allowed_and_does_not_outlive_the_connection(
    suite: Suite, object_class: ObjectClass
) -> None:
    policy = default_policy(suite, object_class)
    check_template(suite, object_class, Template(policy))
    assert not policy & Policy.TOKEN
    assert bool(policy & Policy.SENSITIVE) == (object_class is not ObjectClass.PUBLIC_KEY)


@pytest.mark.parametrize(("suite", "object_class"), USES)
def test_only_possible_policy_is_allowed(suite: Suite, object_class: ObjectClass) -> None:
    default = default_policy(suite, object_class) | Policy.SENSITIVE * (
        object_class is not ObjectClass.PUBLIC_KEY
    )
    always = Policy.TOKEN | Policy.MODIFIABLE | Policy.DESTROYABLE | Policy.PRIVATE
    for flag in Policy:
        possible = flag & (USES[suite, object_class] | always)
        if object_class is not ObjectClass.PUBLIC_KEY:
            possible |= flag & (Policy.SENSITIVE | Policy.EXTRACTABLE)
        if possible:
            check_template(suite, object_class, Template(default | flag))
        else:
            assert flag.name is not None
            assert flag.name in refusal(Status.TEMPLATE_INVALID, suite, object_class, default | flag)


@pytest.mark.parametrize(("suite", "object_class"), OWN)
def test_a_key_is_always_private(suite: Suite, object_class: ObjectClass) -> None:
    policy = default_policy(suite, object_class) & ~Policy.PRIVATE
    assert "PRIVATE" in refusal(Status.TEMPLATE_INVALID, suite, object_class, policy)


@pytest.mark.parametrize(("suite", "object_class"), OWN)
def test_a_key_that_could_be_read_in_the_clear_is_refused(suite: Suite, object_class: ObjectClass) -> None:
    policy = default_policy(suite, object_class) & ~Policy.SENSITIVE
    check_template(suite, object_class, Template(policy))
    assert "SENSITIVE" in refusal(Status.TEMPLATE_INVALID, suite, object_class, policy | Policy.EXTRACTABLE)


def test_the_vault_states_what_it_knows_of_a_new_object() -> None:
    own = ObjectClass.PRIVATE_KEY
    assert granted_policy(ObjectClass.PUBLIC_KEY, Policy.VERIFY) == Policy.VERIFY | Policy.LOCAL
    assert granted_policy(own, Policy.SENSITIVE) == Policy.SENSITIVE | VAULT_SET
    assert granted_policy(own, Policy.EXTRACTABLE) == Policy.EXTRACTABLE | Policy.LOCAL


@pytest.mark.parametrize("flag", Policy)
def test_policy_only_becomes_stricter(flag: Policy) -> None:
    nothing = Policy(0)
    for old, new, allowed in ((nothing, flag, MAY_BE_SET), (flag, nothing, MAY_BE_CLEARED)):
        if flag & allowed:
            check_change(old, new)
        else:
            with pytest.raises(PeerError, match=f"{flag.name}") as caught:
                check_change(old, new)
            assert caught.value.number == Status.NOT_PERMITTED
    check_change(flag, flag)


@pytest.mark.parametrize("operation", NEEDS)
@pytest.mark.parametrize("object_class", ObjectClass)
def test_an_operation_needs_its_class_and_its_policy(operation: Operation, object_class: ObjectClass) -> None:
    needed, classes = NEEDS[operation]
    every = Policy((1 << 13) - 1)
    for policy in (every, every & ~needed):
        description = Description(1, object_class, Suite.RSA2048, Template(policy), b"")
        if object_class in classes and policy & needed:
            check_use(operation, description)
        else:
            with pytest.raises(PeerError) as caught:
                check_use(operation, description)
            assert caught.value.number == Status.NOT_PERMITTED
