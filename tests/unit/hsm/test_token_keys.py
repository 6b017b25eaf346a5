import pytest
from tests.simulators.application import READ_ONLY, Application, CallError, template
from tests.simulators.token_vault import PIN, TokenVault

from endocarp.hsm.token_keys import FOUND_LIMIT
from endocarp.wire.cryptoki import CKA, CKM, CKR
from endocarp.wire.hsm import ObjectClass, Operation, Policy, Status
from endocarp.wire.p11 import AttributeRoom, Mechanism, Size
from endocarp.wire.p11_calls import Call
from endocarp.wire.suites import Suite

P256_OID = bytes.fromhex("06082a8648ce3d030107")
CURVE = template(EC_PARAMS=P256_OID)


@pytest.fixture
def vault() -> TokenVault:
    return TokenVault()


@pytest.fixture
def application(vault: TokenVault) -> Application:
    return Application(vault)


def refused(application: Application, call: Call, *values: object) -> CKR:
    with pytest.raises(CallError) as caught:
        application.call(call, *values)
    return caught.value.number


def make_pair(
    application: Application, session: int, label: bytes = b"web", token: int = 1
) -> tuple[int, int]:
    return application.generate_pair(
        session,
        CKM.EC_KEY_PAIR_GEN,
        template(EC_PARAMS=P256_OID, LABEL=label, TOKEN=token),
        template(LABEL=label, TOKEN=token),
    )


# --- making -----------------------------------------------------------------------------------------------------


def test_a_pair_is_made_in_one_step_and_found_by_its_attributes(
    application: Application, vault: TokenVault
) -> None:
    session = application.start(pin=PIN)
    vault.asked()
    public, private = make_pair(application, session)
    assert vault.asked() == [Operation.GENERATE]
    assert vault.objects[private].suite is Suite.P256
    assert application.find(session, LABEL=b"web") == [private, public]
    assert application.find(session, LABEL=b"web", CLASS=ObjectClass.PRIVATE_KEY) == [private]
    assert application.find(session, LABEL=b"mail") == []
    assert application.read(session, public, CKA.TOKEN, CKA.EC_PARAMS) == [1, P256_OID]


def test_a_secret_key_is_made(application: Application) -> None:
    session = application.start(pin=PIN)
    wanted = template(VALUE_LEN=32, LABEL=b"aes", TOKEN=1)
    (made,) = application.call(Call.C_GenerateKey, session, Mechanism(CKM.AES_KEY_GEN), wanted)
    assert application.find(session, CLASS=ObjectClass.SECRET_KEY) == [made]
    assert application.read(session, made, CKA.VALUE_LEN, CKA.LABEL) == [32, b"aes"]


def test_without_a_mechanism_nothing_is_made(application: Application) -> None:
    session = application.start(pin=PIN)
    assert refused(application, Call.C_GenerateKeyPair, session, None, CURVE, []) is CKR.ARGUMENTS_BAD
    assert refused(application, Call.C_GenerateKey, session, None, []) is CKR.ARGUMENTS_BAD


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.NOT_LOGGED_IN, CKR.USER_NOT_LOGGED_IN),
        (Status.TEMPLATE_INVALID, CKR.TEMPLATE_INCONSISTENT),
        (Status.STORE_FULL, CKR.DEVICE_MEMORY),
        (Status.STORE_FAILED, CKR.DEVICE_ERROR),
    ],
)
def test_what_the_vault_refuses_to_make_is_refused_with_its_reason(
    application: Application, vault: TokenVault, status: Status, expected: CKR
) -> None:
    session = application.start(pin=PIN)
    vault.failures[Operation.GENERATE] = status
    mechanism = Mechanism(CKM.EC_KEY_PAIR_GEN)
    assert refused(application, Call.C_GenerateKeyPair, session, mechanism, CURVE, []) is expected
    assert application.find(session) == []


def test_a_session_that_only_reads_makes_session_objects_only(application: Application) -> None:
    session = application.start(READ_ONLY, pin=PIN)
    kept = template(EC_PARAMS=P256_OID, TOKEN=1)
    mechanism = Mechanism(CKM.EC_KEY_PAIR_GEN)
    assert refused(application, Call.C_GenerateKeyPair, session, mechanism, kept, []) is CKR.SESSION_READ_ONLY
    public, private = make_pair(application, session, token=0)
    assert application.find(session) == [private, public]


# --- finding ----------------------------------------------------------------------------------------------------


def test_a_search_gives_as_many_handles_as_there_is_room_for(application: Application) -> None:
    session = application.start(pin=PIN)
    for _ in range(3):
        make_pair(application, session)
    application.call(Call.C_FindObjectsInit, session, [])
    assert [len(application.call(Call.C_FindObjects, session, 4)[0]) for _ in range(3)] == [4, 2, 0]
    assert refused(application, Call.C_FindObjects, session, None) is CKR.ARGUMENTS_BAD
    application.call(Call.C_FindObjectsFinal, session)


def test_room_is_never_taken_at_its_word(application: Application) -> None:
    session = application.start(pin=PIN)
    make_pair(application, session)
    application.call(Call.C_FindObjectsInit, session, [])
    assert len(application.call(Call.C_FindObjects, session, 0xFFFFFFFF)[0]) == 2
    assert FOUND_LIMIT * 8 < 1 << 20


def test_one_search_is_under_way_in_a_session(application: Application) -> None:
    session = application.start()
    assert refused(application, Call.C_FindObjects, session, 4) is CKR.OPERATION_NOT_INITIALIZED
    assert refused(application, Call.C_FindObjectsFinal, session) is CKR.OPERATION_NOT_INITIALIZED
    application.call(Call.C_FindObjectsInit, session, [])
    assert refused(application, Call.C_FindObjectsInit, session, []) is CKR.OPERATION_ACTIVE
    application.call(Call.C_FindObjectsFinal, session)
    assert application.find(session) == []


def test_without_login_private_keys_are_not_found(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    public, private = make_pair(application, session)
    application.call(Call.C_Logout, session)
    assert application.find(session) == [public]
    rooms = [AttributeRoom(CKA.LABEL, 8)]
    assert (
        refused(application, Call.C_GetAttributeValue, session, private, rooms) is CKR.OBJECT_HANDLE_INVALID
    )


def test_what_another_application_makes_is_found_by_the_next_search(
    application: Application, vault: TokenVault
) -> None:
    session = application.start(pin=PIN)
    other = Application(vault)
    vault.logged_in = False
    other_session = other.start(pin=PIN)
    assert application.find(session) == []
    public, private = make_pair(other, other_session)
    assert application.find(session) == [private, public]


# --- reading ----------------------------------------------------------------------------------------------------


def test_attributes_are_read_without_asking_the_vault(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    public, private = make_pair(application, session)
    vault.asked()
    rooms = [AttributeRoom(CKA.LABEL, 64), AttributeRoom(CKA.VALUE, 64), AttributeRoom(CKA.SIGN, 1)]
    values, result = application.call(Call.C_GetAttributeValue, session, private, rooms)
    assert [value.value for value in values] == [b"web", None, 1]
    assert result == CKR.ATTRIBUTE_SENSITIVE
    (size,) = application.call(Call.C_GetObjectSize, session, public)
    assert size > 65
    assert vault.asked() == []


def test_the_size_of_an_attribute_is_asked_for_first(application: Application) -> None:
    session = application.start(pin=PIN)
    public, _ = make_pair(application, session)
    assert application.token._view.object(public).read([AttributeRoom(CKA.LABEL, 0)])[0][0].value == Size(3)
    values, result = application.call(
        Call.C_GetAttributeValue, session, public, [AttributeRoom(CKA.LABEL, 0)]
    )
    # The octets are not there, their number is: a client reads it and comes again.
    assert (values[0].value, result) == (b"", CKR.OK)


# --- changing ---------------------------------------------------------------------------------------------------


def test_a_label_is_changed(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    public, _ = make_pair(application, session)
    application.call(Call.C_SetAttributeValue, session, public, template(LABEL=b"new", ID=b"\5"))
    assert (vault.objects[public].template.label, vault.objects[public].template.id) == ("new", b"\5")
    assert application.read(session, public, CKA.LABEL) == [b"new"]
    assert application.find(session, LABEL=b"new") == [public]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.NOT_PERMITTED, CKR.ATTRIBUTE_READ_ONLY),
        (Status.NO_SUCH_OBJECT, CKR.OBJECT_HANDLE_INVALID),
    ],
)
def test_a_change_that_the_vault_refuses_is_none(
    application: Application, vault: TokenVault, status: Status, expected: CKR
) -> None:
    session = application.start(pin=PIN)
    public, _ = make_pair(application, session)
    vault.failures[Operation.SET_ATTRIBUTES] = status
    wanted = template(LABEL=b"new")
    assert refused(application, Call.C_SetAttributeValue, session, public, wanted) is expected
    assert application.read(session, public, CKA.LABEL) == [b"web"]


def test_a_use_that_was_given_up_does_not_come_back(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    _, private = make_pair(application, session)
    application.call(Call.C_SetAttributeValue, session, private, template(SIGN=0))
    assert not vault.objects[private].template.policy & Policy.SIGN
    wanted = template(SIGN=1)
    assert refused(application, Call.C_SetAttributeValue, session, private, wanted) is CKR.ATTRIBUTE_READ_ONLY


def test_objects_are_destroyed_one_by_one(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    public, private = make_pair(application, session)
    application.call(Call.C_DestroyObject, session, public)
    assert application.find(session) == [private]
    assert refused(application, Call.C_DestroyObject, session, public) is CKR.OBJECT_HANDLE_INVALID
    vault.failures[Operation.DESTROY] = Status.NOT_PERMITTED
    assert refused(application, Call.C_DestroyObject, session, private) is CKR.ACTION_PROHIBITED
    assert application.find(session) == [private]


def test_a_session_object_that_was_destroyed_is_not_destroyed_again(
    application: Application, vault: TokenVault
) -> None:
    session = application.start(pin=PIN)
    public, private = make_pair(application, session, token=0)
    application.call(Call.C_DestroyObject, session, public)
    vault.asked()
    application.call(Call.C_CloseSession, session)
    assert vault.asked() == [Operation.DISCARD, Operation.LOGOUT]
    assert private not in vault.objects


def test_a_session_that_only_reads_changes_no_token_object(application: Application) -> None:
    session = application.start(pin=PIN)
    public, _ = make_pair(application, session)
    reading = application.open_session(READ_ONLY)
    wanted = template(LABEL=b"new")
    assert refused(application, Call.C_SetAttributeValue, reading, public, wanted) is CKR.SESSION_READ_ONLY
    assert refused(application, Call.C_DestroyObject, reading, public) is CKR.SESSION_READ_ONLY
