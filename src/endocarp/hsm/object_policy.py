"""What objects may exist, what they may be used for, and how they may change: tables, free of cryptography.

The vault enforces these rules; the front reads the same tables to answer its callers without asking. Each check
raises a `PeerError` whose number is the `Status` to answer with.
"""

from collections.abc import Mapping
from types import MappingProxyType

from endocarp.errors import PeerError
from endocarp.wire.hsm import Description, ObjectClass, Operation, Policy, Status, Template
from endocarp.wire.suites import Suite

SECRET_SUITES: frozenset[Suite] = frozenset({Suite.AES256})
"""The suites whose keys have no public half."""

_SIGNING = (Policy.SIGN, Policy.VERIFY)
_RSA = (Policy.SIGN | Policy.DECRYPT, Policy.VERIFY | Policy.ENCRYPT)
_AES = Policy.ENCRYPT | Policy.DECRYPT

_PAIRS: Mapping[Suite, tuple[Policy, Policy]] = {
    Suite.P256: _SIGNING,
    Suite.P384: _SIGNING,
    Suite.RSA2048: _RSA,
    Suite.RSA3072: _RSA,
    Suite.ML_DSA_65: _SIGNING,
    Suite.ML_DSA_87: _SIGNING,
}

USES: Mapping[tuple[Suite, ObjectClass], Policy] = MappingProxyType(
    {(suite, ObjectClass.PRIVATE_KEY): private for suite, (private, _) in _PAIRS.items()}
    | {(suite, ObjectClass.PUBLIC_KEY): public for suite, (_, public) in _PAIRS.items()}
    | {(suite, ObjectClass.SECRET_KEY): _AES for suite in SECRET_SUITES}
)
"""Every object there can be, and the uses that it can be allowed."""

NO_USE_YET = Policy.WRAP | Policy.UNWRAP | Policy.DERIVE
"""Uses that no operation has: no new key is allowed them, or it would gain power with a later release."""

VAULT_SET = Policy.LOCAL | Policy.ALWAYS_SENSITIVE | Policy.NEVER_EXTRACTABLE
"""Facts that the vault states itself; no template may hold them."""

_ANY_USE = Policy.SIGN | Policy.VERIFY | Policy.ENCRYPT | Policy.DECRYPT | NO_USE_YET
_ANY_OBJECT = Policy.TOKEN | Policy.PRIVATE | Policy.MODIFIABLE | Policy.DESTROYABLE
_ANY_KEY = Policy.SENSITIVE | Policy.EXTRACTABLE

MAY_BE_SET = Policy.SENSITIVE
"""What a change may add to an object's policy."""
MAY_BE_CLEARED = Policy.EXTRACTABLE | Policy.DESTROYABLE | _ANY_USE
"""What a change may take from an object's policy: with MAY_BE_SET, policy only becomes stricter."""

NEEDS: Mapping[Operation, tuple[Policy, frozenset[ObjectClass]]] = MappingProxyType(
    {
        Operation.SIGN: (Policy.SIGN, frozenset({ObjectClass.PRIVATE_KEY})),
        Operation.VERIFY: (Policy.VERIFY, frozenset({ObjectClass.PUBLIC_KEY})),
        Operation.ENCRYPT: (Policy.ENCRYPT, frozenset({ObjectClass.PUBLIC_KEY, ObjectClass.SECRET_KEY})),
        Operation.DECRYPT: (Policy.DECRYPT, frozenset({ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY})),
        Operation.DESTROY: (Policy.DESTROYABLE, frozenset(ObjectClass)),
        Operation.SET_ATTRIBUTES: (Policy.MODIFIABLE, frozenset(ObjectClass)),
    }
)
"""The operations on an object: the policy that must be set, and the classes that they work on."""


def key_class(suite: Suite) -> ObjectClass:
    """Return what the private or secret part of a key is."""
    return ObjectClass.SECRET_KEY if suite in SECRET_SUITES else ObjectClass.PRIVATE_KEY


def default_policy(suite: Suite, object_class: ObjectClass) -> Policy:
    """Return the policy of an object of which nothing else was said: it lives as long as its connection."""
    policy = USES[suite, object_class] | Policy.MODIFIABLE | Policy.DESTROYABLE
    if object_class is ObjectClass.PUBLIC_KEY:
        return policy
    return policy | Policy.PRIVATE | Policy.SENSITIVE


def check_template(suite: Suite, object_class: ObjectClass, template: Template) -> None:
    """Refuse with TEMPLATE_INVALID what may not be made."""
    policy = template.policy
    possible = USES[suite, object_class] | _ANY_OBJECT
    if object_class is not ObjectClass.PUBLIC_KEY:
        possible |= _ANY_KEY
    if policy & ~possible:
        raise PeerError(Status.TEMPLATE_INVALID, f"no {suite.name} key can be {policy & ~possible!r}")
    if object_class is ObjectClass.PUBLIC_KEY:
        return
    # deviation: PKCS#11 allows private and secret keys that are used without login; here there are none.
    if not policy & Policy.PRIVATE:
        raise PeerError(Status.TEMPLATE_INVALID, "a key is always PRIVATE")
    # deviation: PKCS#11 gives out keys that are extractable and not sensitive; no operation here gives out any.
    if policy & _ANY_KEY == Policy.EXTRACTABLE:
        raise PeerError(Status.TEMPLATE_INVALID, "a key that is EXTRACTABLE must be SENSITIVE")


def granted_policy(object_class: ObjectClass, policy: Policy) -> Policy:
    """Return the policy of a new object: what its template asked for, and what the vault states."""
    granted = policy | Policy.LOCAL
    if object_class is ObjectClass.PUBLIC_KEY:
        return granted
    if policy & Policy.SENSITIVE:
        granted |= Policy.ALWAYS_SENSITIVE
    if not policy & Policy.EXTRACTABLE:
        granted |= Policy.NEVER_EXTRACTABLE
    return granted


def check_change(old: Policy, new: Policy) -> None:
    """Refuse with NOT_PERMITTED what would loosen the policy of an object, or change its nature."""
    loosened = new & ~old & ~MAY_BE_SET | old & ~new & ~MAY_BE_CLEARED
    if loosened:
        raise PeerError(Status.NOT_PERMITTED, f"{loosened!r} may not change")


def check_use(operation: Operation, description: Description) -> None:
    """Refuse with NOT_PERMITTED an operation that an object's class or policy does not allow."""
    needed, classes = NEEDS[operation]
    if description.object_class not in classes:
        raise PeerError(
            Status.NOT_PERMITTED, f"{operation.name} does not work on a {description.object_class.name}"
        )
    if not description.template.policy & needed:
        raise PeerError(Status.NOT_PERMITTED, f"the object's policy is without {needed.name}")
