from endocarp.wire import p11_forms
from endocarp.wire.cryptoki import CKA, CKM
from endocarp.wire.p11_forms import (
    ATTRIBUTE_FORMS,
    NO_PARAMETER,
    PARAMETER_FIELDS,
    PARAMETER_TYPES,
    GcmParameters,
    ValueForm,
)

# The first 89 are those of Debian 12's client (0.24.1); it has no others with a parameter than PSS and OAEP.
COUNT_OF_0_26_4 = 124


def test_ranges_include_both_ends() -> None:
    assert p11_forms._numbers("1-3 a ff-100") == {1, 2, 3, 10, 255, 256}


def test_as_many_mechanisms_have_no_parameter_as_in_the_newest_release() -> None:
    assert len(NO_PARAMETER) == COUNT_OF_0_26_4


def test_no_mechanism_both_has_and_has_not_a_parameter() -> None:
    assert not NO_PARAMETER & PARAMETER_FIELDS.keys()


def test_named_parameters_have_a_name_for_each_field() -> None:
    assert all(len(PARAMETER_FIELDS[number]) == len(kind._fields) for number, kind in PARAMETER_TYPES.items())
    assert PARAMETER_TYPES[CKM.AES_GCM] is GcmParameters


def test_flags_numbers_and_octets_are_told_apart() -> None:
    assert ATTRIBUTE_FORMS[CKA.SENSITIVE] is ValueForm.BYTE
    assert ATTRIBUTE_FORMS[CKA.CLASS] is ValueForm.ULONG
    assert ATTRIBUTE_FORMS[CKA.PARAMETER_SET] is ValueForm.RAW_ULONG
    assert CKA.LABEL not in ATTRIBUTE_FORMS


def test_no_attribute_has_two_forms() -> None:
    assert sum(len(numbers) for numbers in p11_forms._ATTRIBUTES.values()) == len(ATTRIBUTE_FORMS)
