from typing import Any

import pytest
from tests.simulators.token_vault import PUBLIC

from endocarp.errors import PeerError
from endocarp.hsm.object_policy import check_change, default_policy, granted_policy
from endocarp.hsm.token_objects import (
    P11Object,
    changed_template,
    new_template,
    p11_object,
    template_attributes,
)
from endocarp.wire import hsm
from endocarp.wire.cryptoki import CKA, CKK, CKM, CKP, CKR
from endocarp.wire.hsm import Description, ObjectClass, Policy, Status, Template
from endocarp.wire.p11 import Attribute, AttributeRoom, Size
from endocarp.wire.suites import Suite

PUBLIC_KEY, PRIVATE_KEY, SECRET_KEY = ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY
VENDOR = 0x8000_1234
ALL = [
    *(
        (suite, object_class)
        for suite in Suite
        if suite is not Suite.AES256
        for object_class in (PUBLIC_KEY, PRIVATE_KEY)
    ),
    (Suite.AES256, SECRET_KEY),
]


def known(
    suite: Suite, object_class: ObjectClass, *, label: str = "web", kept: tuple[hsm.Attribute, ...] = ()
) -> P11Object:
    policy = granted_policy(object_class, default_policy(suite, object_class) | Policy.TOKEN)
    template = Template(policy=policy, label=label, id=b"\1", attributes=kept)
    return p11_object(
        Description(handle=7, object_class=object_class, suite=suite, template=template, public=PUBLIC[suite])
    )


def refusal(function: Any, *arguments: Any) -> CKR:
    with pytest.raises(PeerError) as caught:
        function(*arguments)
    return CKR(caught.value.number)


def read(found: P11Object, number: int, room: int = 8192) -> tuple[Any, CKR]:
    (answer,), result = found.read([AttributeRoom(number, room)])
    assert answer.type == number
    return answer.value, result


# --- attributes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "object_class"), ALL)
def test_every_object_has_what_every_key_has(suite: Suite, object_class: ObjectClass) -> None:
    found = known(suite, object_class)
    assert found.attributes[CKA.CLASS] == object_class
    assert found.attributes[CKA.LABEL] == b"web"
    assert found.attributes[CKA.ID] == b"\1"
    assert found.attributes[CKA.TOKEN] == found.attributes[CKA.LOCAL] == 1
    assert found.attributes[CKA.COPYABLE] == 0
    assert (found.handle, found.suite, found.is_token_object) == (7, suite, True)


@pytest.mark.parametrize(("suite", "object_class"), ALL)
def test_no_object_tells_its_secret(suite: Suite, object_class: ObjectClass) -> None:
    found = known(suite, object_class)
    secret = CKA.PRIVATE_EXPONENT if suite in (Suite.RSA2048, Suite.RSA3072) else CKA.VALUE
    if object_class is not PUBLIC_KEY:
        assert read(found, secret) == (None, CKR.ATTRIBUTE_SENSITIVE)
        assert secret not in found.attributes
        assert found.attributes[CKA.SENSITIVE] == 1
        assert found.is_private
    assert not found.attributes.keys() & found.secrets


def test_a_curve_is_told_by_name_and_a_point_as_an_octet_string() -> None:
    attributes = known(Suite.P256, PUBLIC_KEY).attributes
    assert attributes[CKA.KEY_TYPE] == CKK.EC
    assert attributes[CKA.EC_PARAMS].hex() == "06082a8648ce3d030107"
    assert attributes[CKA.EC_POINT] == b"\x04\x41" + PUBLIC[Suite.P256]
    assert attributes[CKA.KEY_GEN_MECHANISM] == CKM.EC_KEY_PAIR_GEN


def test_rsa_keys_tell_their_modulus_both() -> None:
    modulus = ((1 << 2047) | 5).to_bytes(256, "big")
    public, private = (
        known(Suite.RSA2048, PUBLIC_KEY).attributes,
        known(Suite.RSA2048, PRIVATE_KEY).attributes,
    )
    assert public[CKA.MODULUS] == private[CKA.MODULUS] == modulus
    assert public[CKA.PUBLIC_EXPONENT] == private[CKA.PUBLIC_EXPONENT] == b"\1\0\1"
    assert public[CKA.MODULUS_BITS] == 2048
    assert CKA.MODULUS_BITS not in private


def test_ml_dsa_keys_tell_their_parameter_set_and_the_public_one_its_value() -> None:
    public, private = known(Suite.ML_DSA_65, PUBLIC_KEY), known(Suite.ML_DSA_65, PRIVATE_KEY)
    assert public.attributes[CKA.PARAMETER_SET] == private.attributes[CKA.PARAMETER_SET] == CKP.ML_DSA_65
    assert public.attributes[CKA.VALUE] == PUBLIC[Suite.ML_DSA_65]
    assert read(private, CKA.SEED) == (None, CKR.ATTRIBUTE_SENSITIVE)


def test_secret_keys_tell_their_size() -> None:
    assert known(Suite.AES256, SECRET_KEY).attributes[CKA.VALUE_LEN] == 32


def test_uses_that_a_class_does_not_have_are_no_attributes_of_it() -> None:
    assert CKA.SIGN not in known(Suite.P256, PUBLIC_KEY).attributes
    assert CKA.VERIFY not in known(Suite.P256, PRIVATE_KEY).attributes
    assert known(Suite.AES256, SECRET_KEY).attributes[CKA.SIGN] == 0


def test_what_applications_left_with_the_vault_is_read_back() -> None:
    kept = (hsm.Attribute(CKA.SUBJECT, b"subject"), hsm.Attribute(VENDOR, b"vendor"))
    found = known(Suite.P256, PRIVATE_KEY, kept=kept)
    assert read(found, CKA.SUBJECT) == (b"subject", CKR.OK)
    assert read(found, VENDOR) == (b"vendor", CKR.OK)
    assert read(found, CKA.START_DATE) == (b"", CKR.OK)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (CKA.CLASS, b"\4"),
        (CKA.SENSITIVE, b"\0"),
        (CKA.VALUE, b"secret"),
        (CKA.START_DATE, b"tomorrow!"),
        (0x8001_0001, b"a number in the client's eyes"),
        (1 << 32, b"beyond the protocol"),
    ],
)
def test_what_the_native_door_may_have_left_does_not_pretend_to_be_the_tokens(
    number: int, value: bytes
) -> None:
    plain = known(Suite.P256, PRIVATE_KEY)
    found = known(Suite.P256, PRIVATE_KEY, kept=(hsm.Attribute(number, value),))
    assert found.attributes == plain.attributes


def test_applications_share_what_is_worked_out() -> None:
    assert known(Suite.P256, PRIVATE_KEY) is known(Suite.P256, PRIVATE_KEY)
    assert known(Suite.P256, PRIVATE_KEY) is not known(Suite.P256, PRIVATE_KEY, label="mail")


# --- reading and matching ---------------------------------------------------------------------------------------


def test_a_question_without_room_is_answered_with_the_size() -> None:
    found = known(Suite.P256, PUBLIC_KEY)
    assert read(found, CKA.LABEL, 0) == (Size(3), CKR.OK)
    assert read(found, CKA.CLASS, 0) == (ObjectClass.PUBLIC_KEY, CKR.OK)


@pytest.mark.parametrize(("number", "size"), [(CKA.LABEL, 3), (CKA.CLASS, 8)])
def test_a_question_with_too_little_room_is_answered_so(number: int, size: int) -> None:
    found = known(Suite.P256, PUBLIC_KEY)
    assert read(found, number, size - 1) == (None, CKR.BUFFER_TOO_SMALL)
    assert read(found, number, size)[1] is CKR.OK
    assert read(found, CKA.VERIFY, 1) == (1, CKR.OK)
    assert read(found, CKA.DESTROYABLE, 1) == (1, CKR.OK)


def test_every_question_is_answered_and_one_failure_is_told() -> None:
    rooms = [AttributeRoom(CKA.MODULUS, 512), AttributeRoom(CKA.LABEL, 512), AttributeRoom(CKA.VALUE, 512)]
    answers, result = known(Suite.P256, PRIVATE_KEY).read(rooms)
    assert [answer.value for answer in answers] == [None, b"web", None]
    assert result is CKR.ATTRIBUTE_SENSITIVE


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ((), True),
        ((Attribute(CKA.LABEL, b"web"), Attribute(CKA.CLASS, 3)), True),
        ((Attribute(CKA.LABEL, b"web"), Attribute(CKA.CLASS, 2)), False),
        ((Attribute(CKA.MODULUS, b""),), False),
        ((Attribute(CKA.MODULUS, None),), False),
        ((Attribute(CKA.VALUE, b"guess"),), False),
    ],
)
def test_a_search_matches_all_attributes_or_not_at_all(wanted: tuple[Attribute, ...], matches: bool) -> None:
    assert known(Suite.P256, PRIVATE_KEY).matches(wanted) is matches


# --- templates --------------------------------------------------------------------------------------------------


def test_an_attribute_is_named_once_with_a_value() -> None:
    assert template_attributes([Attribute(CKA.ID, b"1"), Attribute(CKA.ID, b"1")]) == {CKA.ID: b"1"}
    assert refusal(template_attributes, [Attribute(CKA.ID, None)]) is CKR.ATTRIBUTE_VALUE_INVALID
    twice = [Attribute(CKA.ID, b"1"), Attribute(CKA.ID, b"2")]
    assert refusal(template_attributes, twice) is CKR.TEMPLATE_INCONSISTENT


def test_an_empty_template_asks_for_the_usual_object() -> None:
    assert new_template(Suite.P256, PRIVATE_KEY, {}) == Template(
        policy=default_policy(Suite.P256, PRIVATE_KEY)
    )


def test_a_template_asks_for_what_differs_from_the_usual() -> None:
    wanted = {
        CKA.CLASS: ObjectClass.PRIVATE_KEY,
        CKA.KEY_TYPE: CKK.RSA,
        CKA.TOKEN: 1,
        CKA.DECRYPT: 0,
        CKA.LABEL: "Schlüssel".encode(),
        CKA.ID: b"\2",
        CKA.SUBJECT: b"subject",
        CKA.ALWAYS_AUTHENTICATE: 0,
        VENDOR: b"vendor",
    }
    made = new_template(Suite.RSA2048, PRIVATE_KEY, wanted)
    usual = default_policy(Suite.RSA2048, PRIVATE_KEY)
    assert made.policy == (usual | Policy.TOKEN) & ~Policy.DECRYPT
    assert (made.label, made.id) == ("Schlüssel", b"\2")
    assert made.attributes == (hsm.Attribute(CKA.SUBJECT, b"subject"), hsm.Attribute(VENDOR, b"vendor"))


@pytest.mark.parametrize(
    ("suite", "object_class", "attributes"),
    [
        (Suite.RSA2048, PUBLIC_KEY, {CKA.MODULUS_BITS: 2048, CKA.PUBLIC_EXPONENT: b"\0\1\0\1"}),
        (Suite.P384, PUBLIC_KEY, {CKA.EC_PARAMS: bytes.fromhex("06052b81040022")}),
        (Suite.ML_DSA_87, PUBLIC_KEY, {CKA.PARAMETER_SET: 3}),
        (Suite.AES256, SECRET_KEY, {CKA.VALUE_LEN: 32}),
    ],
)
def test_what_chose_the_key_may_stand_in_its_template(
    suite: Suite, object_class: ObjectClass, attributes: dict[int, Any]
) -> None:
    assert new_template(suite, object_class, attributes).policy == default_policy(suite, object_class)


def test_uses_that_no_operation_has_are_passed_over_in_new_keys_and_refused_in_others() -> None:
    asked: dict[int, Any] = {CKA.DERIVE: 1, CKA.WRAP: 1, CKA.UNWRAP: 0}
    assert new_template(Suite.AES256, SECRET_KEY, asked) == new_template(Suite.AES256, SECRET_KEY, {})
    found = known(Suite.AES256, SECRET_KEY)
    assert found.attributes[CKA.WRAP] == 0
    changed = changed_template(found, {CKA.WRAP: 1})
    with pytest.raises(PeerError) as caught:
        check_change(found.description.template.policy, changed.policy)
    assert caught.value.number == Status.NOT_PERMITTED


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({CKA.CLASS: ObjectClass.PUBLIC_KEY}, CKR.TEMPLATE_INCONSISTENT),
        ({CKA.KEY_TYPE: CKK.EC}, CKR.TEMPLATE_INCONSISTENT),
        ({CKA.PUBLIC_EXPONENT: b"\3"}, CKR.TEMPLATE_INCONSISTENT),
        ({CKA.PRIVATE_EXPONENT: b"\3"}, CKR.TEMPLATE_INCONSISTENT),
        ({CKA.LOCAL: 1}, CKR.ATTRIBUTE_READ_ONLY),
        ({CKA.MODULUS: b"\3"}, CKR.ATTRIBUTE_READ_ONLY),
        ({CKA.ALWAYS_AUTHENTICATE: 1}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({CKA.START_DATE: b"today"}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({CKA.LABEL: b"\xff"}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({CKA.LABEL: b"x" * 256}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({CKA.ID: b"x" * 256}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({CKA.SUBJECT: b"x" * 4097}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({VENDOR + number: b"x" * 4000 for number in range(5)}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({VENDOR + number: b"x" for number in range(65)}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({0x4000_0600: (1, 2)}, CKR.ATTRIBUTE_TYPE_INVALID),
        ({0x8001_0001: 1}, CKR.ATTRIBUTE_TYPE_INVALID),
        ({CKA.TRUSTED: 0}, CKR.ATTRIBUTE_TYPE_INVALID),
    ],
)
def test_a_template_for_what_cannot_be_is_refused_with_the_reason(
    attributes: dict[int, Any], expected: CKR
) -> None:
    assert refusal(new_template, Suite.RSA2048, PRIVATE_KEY, attributes) is expected


# --- changes ----------------------------------------------------------------------------------------------------


def test_a_change_keeps_what_it_does_not_name() -> None:
    found = known(Suite.P256, PRIVATE_KEY, kept=(hsm.Attribute(CKA.SUBJECT, b"subject"),))
    changed = changed_template(
        found, {CKA.LABEL: b"new", CKA.DERIVE: 0, CKA.SIGN: 0, CKA.CLASS: ObjectClass.PRIVATE_KEY}
    )
    assert changed == Template(
        policy=found.description.template.policy & ~Policy.SIGN,
        label="new",
        id=b"\1",
        attributes=(hsm.Attribute(CKA.SUBJECT, b"subject"),),
    )


def test_a_change_of_what_applications_left_is_a_change() -> None:
    found = known(Suite.P256, PRIVATE_KEY, kept=(hsm.Attribute(VENDOR, b"old"),))
    changed = changed_template(found, {VENDOR: b"new", CKA.SUBJECT: b"subject"})
    assert {attribute.type: attribute.value for attribute in changed.attributes} == {
        VENDOR: b"new",
        CKA.SUBJECT: b"subject",
    }


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({CKA.CLASS: ObjectClass.PUBLIC_KEY}, CKR.ATTRIBUTE_READ_ONLY),
        ({CKA.EC_POINT: b"\4"}, CKR.ATTRIBUTE_READ_ONLY),
        ({CKA.VALUE: b"\4"}, CKR.ATTRIBUTE_READ_ONLY),
        ({CKA.COPYABLE: 1}, CKR.ATTRIBUTE_READ_ONLY),
        ({CKA.NEVER_EXTRACTABLE: 0}, CKR.ATTRIBUTE_READ_ONLY),
        ({CKA.MODULUS: b"\4"}, CKR.ATTRIBUTE_READ_ONLY),
        ({0x4000_0211: ()}, CKR.ATTRIBUTE_TYPE_INVALID),
    ],
)
def test_a_change_of_what_never_changes_is_refused(attributes: dict[int, Any], expected: CKR) -> None:
    assert refusal(changed_template, known(Suite.P256, PRIVATE_KEY), attributes) is expected
