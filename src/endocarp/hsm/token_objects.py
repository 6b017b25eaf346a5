"""The objects of a partition as PKCS#11 sees them: attributes of what the vault describes, and templates back.

Nothing here is decided: the vault holds the policy. What PKCS#11 knows and the vault does not is either answered
with a fixed value that tells the truth, or kept by the vault among the application's own attributes.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from endocarp.errors import DecodeError, PeerError, UsageError
from endocarp.hsm.mechanisms import (
    CURVES,
    EC,
    GENERATED_BY,
    KEY_TYPES,
    ML_DSA,
    MODULUS_BITS,
    PARAMETER_SETS,
    PUBLIC_EXPONENT,
    RSA,
)
from endocarp.hsm.object_policy import NO_USE_YET, VAULT_SET, default_policy
from endocarp.wire import der, hsm
from endocarp.wire.cryptoki import CKA, CKR
from endocarp.wire.hsm import Description, ObjectClass, Operation, Policy, Template
from endocarp.wire.p11 import Attribute, AttributeRoom, Size
from endocarp.wire.p11_forms import ATTRIBUTE_FORMS, ValueForm
from endocarp.wire.suites import AES_KEY_SIZE, Suite

if TYPE_CHECKING:
    from endocarp.hsm.token_sessions import Signing

Attributes = Mapping[int, Any]
KNOWN_LIMIT = 10_000
"""How many objects are kept worked out, at about 2.5 KiB each, whichever application sees them."""

# --- from the vault's description to attributes ---------------------------------------------------------------

_POLICY: Final[dict[int, Policy]] = {
    CKA.TOKEN: Policy.TOKEN,
    CKA.PRIVATE: Policy.PRIVATE,
    CKA.SENSITIVE: Policy.SENSITIVE,
    CKA.EXTRACTABLE: Policy.EXTRACTABLE,
    CKA.MODIFIABLE: Policy.MODIFIABLE,
    CKA.DESTROYABLE: Policy.DESTROYABLE,
    CKA.SIGN: Policy.SIGN,
    CKA.VERIFY: Policy.VERIFY,
    CKA.ENCRYPT: Policy.ENCRYPT,
    CKA.DECRYPT: Policy.DECRYPT,
    CKA.WRAP: Policy.WRAP,
    CKA.UNWRAP: Policy.UNWRAP,
    CKA.DERIVE: Policy.DERIVE,
    CKA.LOCAL: Policy.LOCAL,
    CKA.ALWAYS_SENSITIVE: Policy.ALWAYS_SENSITIVE,
    CKA.NEVER_EXTRACTABLE: Policy.NEVER_EXTRACTABLE,
}
_COMMON: Final = (CKA.TOKEN, CKA.PRIVATE, CKA.MODIFIABLE, CKA.DESTROYABLE, CKA.DERIVE, CKA.LOCAL)
_KEY: Final = (CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE)
# PKCS#11 2.40 Base, 4.8 to 4.10: which flags an object of each class has.
_FLAGS: Final[dict[ObjectClass, tuple[CKA, ...]]] = {
    ObjectClass.PUBLIC_KEY: (*_COMMON, CKA.VERIFY, CKA.ENCRYPT, CKA.WRAP),
    ObjectClass.PRIVATE_KEY: (*_COMMON, *_KEY, CKA.SIGN, CKA.DECRYPT, CKA.UNWRAP),
    ObjectClass.SECRET_KEY: (
        *(*_COMMON, *_KEY),
        *(CKA.SIGN, CKA.VERIFY, CKA.ENCRYPT, CKA.DECRYPT, CKA.WRAP, CKA.UNWRAP),
    ),
}
# What the token does not know is off: there is no copy, no recovery, no trust, no PIN for each use.
_OFF: Final[dict[ObjectClass, tuple[CKA, ...]]] = {
    ObjectClass.PUBLIC_KEY: (CKA.COPYABLE, CKA.VERIFY_RECOVER, CKA.TRUSTED),
    ObjectClass.PRIVATE_KEY: (
        *(CKA.COPYABLE, CKA.SIGN_RECOVER),
        *(CKA.WRAP_WITH_TRUSTED, CKA.ALWAYS_AUTHENTICATE),
    ),
    ObjectClass.SECRET_KEY: (CKA.COPYABLE, CKA.WRAP_WITH_TRUSTED, CKA.TRUSTED),
}
_DATES: Final = (CKA.START_DATE, CKA.END_DATE)
_KEPT: Final[dict[ObjectClass, tuple[CKA, ...]]] = {
    ObjectClass.PUBLIC_KEY: (CKA.SUBJECT, *_DATES),
    ObjectClass.PRIVATE_KEY: (CKA.SUBJECT, *_DATES),
    ObjectClass.SECRET_KEY: _DATES,
}
"""What the vault keeps for applications without asking what it means; empty where it was never set."""

VENDOR_DEFINED = 0x80000000
"""Attributes from here on, to VENDOR_LIMIT, belong to applications and are kept too, those that are octets."""
VENDOR_LIMIT = 0xFFFFFFFF

_DATE_SIZES: Final = frozenset({0, 8})
_RSA_SECRETS: Final = frozenset(
    {
        *(CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2),
        *(CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT),
    }
)
_SECRETS: Final = _RSA_SECRETS | {CKA.VALUE, CKA.SEED}


def secret_attributes(suite: Suite, object_class: ObjectClass) -> frozenset[int]:
    """Return the attributes that an object has and nobody is told."""
    if object_class is ObjectClass.PUBLIC_KEY:
        return frozenset()
    if suite in RSA:
        return _RSA_SECRETS
    return frozenset({CKA.VALUE, CKA.SEED}) if suite in ML_DSA else frozenset({CKA.VALUE})


@dataclass(frozen=True)
class P11Object:
    """One object: the vault's description, and the attributes that PKCS#11 reads out of it."""

    description: Description
    attributes: Attributes
    secrets: frozenset[int]
    signings: dict[tuple[Operation, int], "Signing"] = field(default_factory=dict, compare=False, repr=False)
    """The `Signing` for each operation and mechanism, made when first used; a changed object is another one, without any."""

    @property
    def handle(self) -> int:
        """The vault's handle, which is the caller's too."""
        return self.description.handle

    @property
    def suite(self) -> Suite:
        """What kind of key it is."""
        return self.description.suite

    @property
    def is_token_object(self) -> bool:
        """Whether it is kept; else it lives as long as the session that made it."""
        return bool(self.description.template.policy & Policy.TOKEN)

    @property
    def is_private(self) -> bool:
        """Whether it is seen only after login."""
        return bool(self.description.template.policy & Policy.PRIVATE)

    def matches(self, wanted: Iterable[Attribute]) -> bool:
        """Tell whether every attribute of a template has the value that this object's has."""
        return all(value is not None and self.attributes.get(number) == value for number, value in wanted)

    def read(self, rooms: Sequence[AttributeRoom]) -> tuple[list[Attribute], CKR]:
        """Return what C_GetAttributeValue answers: a value for each question, None where there is none.

        As the standard wants it, each question is answered, and the CKR is that of one that failed.
        """
        result = CKR.OK
        answers = []
        for number, room, _ in rooms:
            value, problem = self._read(number, room)
            result = problem or result
            answers.append(Attribute(number, value))
        return answers, result

    def _read(self, number: int, room: int) -> tuple[Any, CKR]:
        if number in self.secrets:
            return None, CKR.ATTRIBUTE_SENSITIVE
        value = self.attributes.get(number)
        if value is None:
            return None, CKR.ATTRIBUTE_TYPE_INVALID
        size = _size(number, value)
        if room == 0:
            return (Size(size) if isinstance(value, bytes) else value), CKR.OK
        return (None, CKR.BUFFER_TOO_SMALL) if room < size else (value, CKR.OK)


def _size(number: int, value: int | bytes) -> int:
    """Return how much room a value takes in the caller's memory."""
    if isinstance(value, bytes):
        return len(value)
    return 1 if ATTRIBUTE_FORMS[number] in (ValueForm.BYTE, ValueForm.RAW_BYTE) else 8


@functools.lru_cache(maxsize=KNOWN_LIMIT)
def p11_object(description: Description) -> P11Object:
    """Return the object that the vault describes; all applications that see it share what is worked out here."""
    object_class, suite, template = description.object_class, description.suite, description.template
    attributes: dict[int, Any] = {
        CKA.CLASS: int(object_class),
        CKA.KEY_TYPE: int(KEY_TYPES[suite]),
        CKA.LABEL: template.label.encode(),
        CKA.ID: template.id,
        CKA.KEY_GEN_MECHANISM: int(GENERATED_BY[suite]),
        **dict.fromkeys(_OFF[object_class], 0),
        **dict.fromkeys(_KEPT[object_class], b""),
        **{number: int(_POLICY[number] in template.policy) for number in _FLAGS[object_class]},
        **_key_attributes(suite, object_class, description.public),
        **{
            number: value
            for number, value in ((attribute.type, attribute.value) for attribute in template.attributes)
            if _is_kept(object_class, number, value)
        },
    }
    return P11Object(description, MappingProxyType(attributes), secret_attributes(suite, object_class))


def _is_kept(object_class: ObjectClass, number: int, value: Any) -> bool:
    """Tell whether an attribute is one of those that the vault keeps without asking what it means."""
    if number in _KEPT[object_class]:
        return number not in _DATES or len(value) in _DATE_SIZES
    # Through the native door any number and any octets may come.
    return VENDOR_DEFINED <= number <= VENDOR_LIMIT and number not in ATTRIBUTE_FORMS


def _key_attributes(suite: Suite, object_class: ObjectClass, public: bytes) -> dict[int, Any]:
    """Return the attributes of the key itself, which its public half tells."""
    if suite in EC:
        return {CKA.EC_PARAMS: CURVES[suite], CKA.EC_POINT: der.octet_string(public)}
    if suite in RSA:
        modulus = {CKA.MODULUS: _modulus(public), CKA.PUBLIC_EXPONENT: PUBLIC_EXPONENT}
        return modulus | (
            {CKA.MODULUS_BITS: MODULUS_BITS[suite]} if object_class is ObjectClass.PUBLIC_KEY else {}
        )
    if suite in ML_DSA:
        parameter_set: dict[int, Any] = {CKA.PARAMETER_SET: int(PARAMETER_SETS[suite])}
        return parameter_set | ({CKA.VALUE: public} if object_class is ObjectClass.PUBLIC_KEY else {})
    return {CKA.VALUE_LEN: AES_KEY_SIZE}


def _modulus(public: bytes) -> bytes:
    modulus = der.Reader(public, "RSAPublicKey").sequence().integer()
    return modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")


# --- from the caller's template to the vault's ----------------------------------------------------------------

_READ_ONLY: Final = frozenset(
    {
        *(CKA.LOCAL, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE),
        *(CKA.KEY_GEN_MECHANISM, CKA.EC_POINT, CKA.MODULUS),
    }
)
"""What the token states, and no template."""


def template_attributes(template: Iterable[Attribute]) -> dict[int, Any]:
    """Return a template by type; PeerError where an attribute has no value, or two."""
    attributes: dict[int, Any] = {}
    for number, value in template:
        if value is None:
            raise PeerError(CKR.ATTRIBUTE_VALUE_INVALID, f"attribute {number:#x} has no value")
        if attributes.setdefault(number, value) != value:
            raise PeerError(CKR.TEMPLATE_INCONSISTENT, f"attribute {number:#x} has two values")
    return attributes


def new_template(suite: Suite, object_class: ObjectClass, attributes: Attributes) -> Template:
    """Return what the vault is asked to make: the usual object, changed as the caller wants it.

    PeerError with the CKR to answer where the caller wants what no object here is.
    """
    fixed: dict[int, Any] = {
        CKA.CLASS: object_class,
        CKA.KEY_TYPE: KEY_TYPES[suite],
        **_parameters(suite),
    }
    for number, value in fixed.items():
        # Numbers as long as the caller likes: PKCS#11 2.40 Mechanisms, 2.1.2 has big integers without a shortest form.
        wanted = attributes.get(number, value)
        if (wanted.lstrip(b"\0") if number == CKA.PUBLIC_EXPONENT else wanted) != value:
            raise PeerError(CKR.TEMPLATE_INCONSISTENT, f"attribute {number:#x} does not fit this key")
    usual = Template(policy=default_policy(suite, object_class))
    # deviation: PKCS#11 refuses what is not supported. Common clients ask for CKA_DERIVE with every EC key, and for
    # CKA_WRAP and CKA_UNWRAP with others: such a key is made without, and its attributes say so.
    passed_over = fixed.keys() | {number for number, flag in _POLICY.items() if flag & NO_USE_YET}
    return _changed(
        usual,
        object_class,
        {number: value for number, value in attributes.items() if number not in passed_over},
    )


def _parameters(suite: Suite) -> dict[int, Any]:
    """Return what a template may say about the key to be made."""
    if suite in EC:
        return {CKA.EC_PARAMS: CURVES[suite]}
    if suite in RSA:
        return {CKA.MODULUS_BITS: MODULUS_BITS[suite], CKA.PUBLIC_EXPONENT: PUBLIC_EXPONENT}
    if suite in ML_DSA:
        return {CKA.PARAMETER_SET: PARAMETER_SETS[suite]}
    return {CKA.VALUE_LEN: AES_KEY_SIZE}


def changed_template(known: P11Object, attributes: Attributes) -> Template:
    """Return what the vault is asked to put in place of an object's template."""
    description = known.description
    wanted = {number: value for number, value in attributes.items() if known.attributes.get(number) != value}
    fixed = (known.secrets | known.attributes.keys()) - _CHANGES.keys() - {*_KEPT[description.object_class]}
    for number in wanted:
        if number in fixed and number < VENDOR_DEFINED:
            raise PeerError(CKR.ATTRIBUTE_READ_ONLY, f"attribute {number:#x} never changes")
    return _changed(description.template, description.object_class, wanted)


@dataclass
class _Draft:
    """A template while it is being put together."""

    object_class: ObjectClass
    policy: Policy
    label: str
    id: bytes
    kept: dict[int, bytes]


def _changed(template: Template, object_class: ObjectClass, attributes: Attributes) -> Template:
    kept = {attribute.type: attribute.value for attribute in template.attributes}
    draft = _Draft(object_class, template.policy, template.label, template.id, kept)
    for number, value in attributes.items():
        _CHANGES.get(number, _keep)(draft, number, value)
    changed = Template(
        policy=draft.policy,
        label=draft.label,
        id=draft.id,
        attributes=tuple(hsm.Attribute(number, value) for number, value in draft.kept.items()),
    )
    try:
        changed.check()
        changed.encode()
    except (DecodeError, UsageError) as error:
        raise PeerError(CKR.ATTRIBUTE_VALUE_INVALID, str(error)) from None
    return changed


def _change_policy(draft: _Draft, number: int, value: int) -> None:
    flag = _POLICY[number]
    draft.policy = draft.policy | flag if value else draft.policy & ~flag


def _change_label(draft: _Draft, _number: int, value: bytes) -> None:
    try:
        draft.label = value.decode()
    except UnicodeDecodeError:
        raise PeerError(CKR.ATTRIBUTE_VALUE_INVALID, "a label that is not UTF-8") from None


def _change_id(draft: _Draft, _number: int, value: bytes) -> None:
    draft.id = value


def _keep(draft: _Draft, number: int, value: Any) -> None:
    """Let the vault keep what only applications understand; refuse what it would have to obey."""
    if _is_kept(draft.object_class, number, value):
        draft.kept[number] = value
    elif number in _DATES:
        raise PeerError(CKR.ATTRIBUTE_VALUE_INVALID, "a date is eight octets, or none")
    elif number in _OFF[draft.object_class]:
        if value:
            raise PeerError(CKR.ATTRIBUTE_VALUE_INVALID, f"attribute {number:#x} can only be off")
    elif number in _SECRETS:
        raise PeerError(CKR.TEMPLATE_INCONSISTENT, "keys are made here, never brought along")
    elif number in _READ_ONLY:
        raise PeerError(CKR.ATTRIBUTE_READ_ONLY, f"attribute {number:#x} is the token's")
    else:
        raise PeerError(CKR.ATTRIBUTE_TYPE_INVALID, f"no object here has attribute {number:#x}")


_CHANGES: Final[dict[int, Callable[[_Draft, int, Any], None]]] = {
    **{number: _change_policy for number, flag in _POLICY.items() if not flag & VAULT_SET},
    CKA.LABEL: _change_label,
    CKA.ID: _change_id,
}
