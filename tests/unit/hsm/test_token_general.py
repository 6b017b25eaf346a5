import hashlib

import pytest
from tests.simulators.application import READ_ONLY, READ_WRITE, ROOM, Application, CallError, template
from tests.simulators.token_vault import PIN, TokenVault

from endocarp.hsm.mechanisms import MECHANISMS
from endocarp.hsm.token_general import HANDSHAKE, RANDOM_LIMIT
from endocarp.wire.cryptoki import CKM, CKR, CKS, CKU, SlotFlags, TokenFlags
from endocarp.wire.hsm import DATA_LIMIT, PIN_LIMIT, SHORTEST_PIN, Operation, Status
from endocarp.wire.p11 import Mechanism, Version
from endocarp.wire.p11_calls import Call

P256_OID = bytes.fromhex("06082a8648ce3d030107")


@pytest.fixture
def vault() -> TokenVault:
    return TokenVault()


@pytest.fixture
def application(vault: TokenVault) -> Application:
    return Application(vault, partition=3)


def refused(application: Application, call: Call, *values: object) -> CKR:
    with pytest.raises(CallError) as caught:
        application.call(call, *values)
    return caught.value.number


# --- the token --------------------------------------------------------------------------------------------------


def test_a_client_of_another_protocol_is_refused(application: Application) -> None:
    assert refused(application, Call.C_Initialize, b"another", 0, b"\0") is CKR.DEVICE_ERROR
    application.start()


def test_with_c_finalize_the_connection_ends(application: Application) -> None:
    application.start()
    application.call(Call.C_Finalize)
    assert application.closed == "C_Finalize"


def test_the_library_tells_what_it_is(application: Application) -> None:
    application.start()
    version, manufacturer, flags, library, _ = application.call(Call.C_GetInfo)
    assert (version, flags) == (Version(2, 40), 0)
    assert (manufacturer, library) == (b"Endocarp".ljust(32), b"Endocarp token".ljust(32))


def test_there_is_one_slot_with_a_token(application: Application) -> None:
    application.start()
    assert application.call(Call.C_GetSlotList, 1, None) == (1,)
    assert application.call(Call.C_GetSlotList, 1, 8) == ((0,),)
    description, _, flags, *_ = application.call(Call.C_GetSlotInfo, 0)
    assert description == b"Endocarp partition 3".ljust(64)
    assert flags == SlotFlags.TOKEN_PRESENT


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (Call.C_GetSlotInfo, (1,)),
        (Call.C_GetTokenInfo, (1,)),
        (Call.C_GetMechanismList, (1, None)),
        (Call.C_GetMechanismInfo, (1, CKM.ECDSA)),
        (Call.C_OpenSession, (1, READ_WRITE)),
        (Call.C_CloseAllSessions, (1,)),
    ],
)
def test_there_is_no_other_slot(application: Application, call: Call, values: tuple[int, ...]) -> None:
    application.start()
    assert refused(application, call, *values) is CKR.SLOT_ID_INVALID


def test_the_token_tells_its_sessions_and_its_pin(application: Application) -> None:
    application.start()
    application.open_session(READ_ONLY)
    label, _, model, serial, flags, _, sessions, _, writing, longest, shortest, *_ = application.call(
        Call.C_GetTokenInfo, 0
    )
    assert (label.rstrip(), model.rstrip(), serial) == (
        b"Endocarp partition 3",
        b"software HSM",
        b"0000000000000003",
    )
    assert (sessions, writing, longest, shortest) == (2, 1, PIN_LIMIT, SHORTEST_PIN)
    expected = TokenFlags.RNG | TokenFlags.LOGIN_REQUIRED | TokenFlags.USER_PIN_INITIALIZED
    assert flags == expected | TokenFlags.TOKEN_INITIALIZED


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        (9, TokenFlags.USER_PIN_COUNT_LOW),
        (1, TokenFlags.USER_PIN_COUNT_LOW | TokenFlags.USER_PIN_FINAL_TRY),
        (0, TokenFlags.USER_PIN_LOCKED),
    ],
)
def test_wrong_pins_show_in_the_flags(
    application: Application, vault: TokenVault, attempts: int, expected: TokenFlags
) -> None:
    application.start()
    vault.attempts = attempts
    flags = application.call(Call.C_GetTokenInfo, 0)[4]
    shown = TokenFlags.USER_PIN_COUNT_LOW | TokenFlags.USER_PIN_FINAL_TRY | TokenFlags.USER_PIN_LOCKED
    assert flags & shown == expected


def test_all_mechanisms_are_announced_to_every_client(application: Application) -> None:
    application.start()
    assert application.call(Call.C_GetMechanismList, 0, None) == (len(MECHANISMS),)
    assert application.call(Call.C_GetMechanismList, 0, len(MECHANISMS) - 1) == (len(MECHANISMS),)
    (listed,) = application.call(Call.C_GetMechanismList, 0, 100)
    assert set(listed) == set(MECHANISMS)
    for number in listed:
        assert application.call(Call.C_GetMechanismInfo, 0, number) == MECHANISMS[number]
    assert refused(application, Call.C_GetMechanismInfo, 0, 0x1082) is CKR.MECHANISM_INVALID


# --- sessions and login -----------------------------------------------------------------------------------------


def state(application: Application, session: int) -> int:
    return int(application.call(Call.C_GetSessionInfo, session)[1])


def test_login_holds_for_all_sessions_of_the_application(application: Application) -> None:
    session = application.start()
    other = application.open_session(READ_ONLY)
    assert (state(application, session), state(application, other)) == (
        CKS.RW_PUBLIC_SESSION,
        CKS.RO_PUBLIC_SESSION,
    )
    application.call(Call.C_Login, session, CKU.USER, PIN)
    assert (state(application, session), state(application, other)) == (
        CKS.RW_USER_FUNCTIONS,
        CKS.RO_USER_FUNCTIONS,
    )
    assert refused(application, Call.C_Login, other, CKU.USER, PIN) is CKR.USER_ALREADY_LOGGED_IN
    application.call(Call.C_Logout, other)
    assert state(application, session) == CKS.RW_PUBLIC_SESSION
    assert refused(application, Call.C_Logout, other) is CKR.USER_NOT_LOGGED_IN


@pytest.mark.parametrize(
    ("user", "pin", "expected"),
    [
        (CKU.USER, b"00000000", CKR.PIN_INCORRECT),
        (CKU.USER, bytes(PIN_LIMIT + 1), CKR.PIN_LEN_RANGE),
        (CKU.USER, 8, CKR.ARGUMENTS_BAD),
        (CKU.USER, 0, CKR.ARGUMENTS_BAD),
        (CKU.USER, b"", CKR.ARGUMENTS_BAD),
        (CKU.SO, PIN, CKR.USER_TYPE_INVALID),
        (CKU.CONTEXT_SPECIFIC, PIN, CKR.OPERATION_NOT_INITIALIZED),
    ],
)
def test_a_login_that_cannot_be_is_refused_with_the_reason(
    application: Application, vault: TokenVault, user: int, pin: object, expected: CKR
) -> None:
    session = application.start()
    vault.asked()
    assert refused(application, Call.C_Login, session, user, pin) is expected
    assert vault.asked() == ([Operation.LOGIN] if expected is CKR.PIN_INCORRECT else [])
    assert state(application, session) == CKS.RW_PUBLIC_SESSION


def test_a_locked_pin_is_told(application: Application, vault: TokenVault) -> None:
    session = application.start()
    vault.failures[Operation.LOGIN] = Status.PIN_LOCKED
    assert refused(application, Call.C_Login, session, CKU.USER, PIN) is CKR.PIN_LOCKED


@pytest.mark.parametrize("call", [Call.C_GetSessionInfo, Call.C_Logout, Call.C_CloseSession])
def test_a_session_that_is_not_open_is_refused(application: Application, call: Call) -> None:
    session = application.start()
    assert refused(application, call, session + 1) is CKR.SESSION_HANDLE_INVALID


def make_session_object(application: Application, session: int) -> None:
    public = template(EC_PARAMS=P256_OID)
    application.generate_pair(session, CKM.EC_KEY_PAIR_GEN, public, [])


def test_a_session_takes_its_objects_with_it(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    other = application.open_session(READ_ONLY)
    make_session_object(application, session)
    make_session_object(application, other)
    assert len(application.find(session)) == 4
    application.call(Call.C_CloseSession, other)
    assert len(application.find(session)) == 2
    assert len(vault.objects) == 2
    assert vault.logged_in


def test_with_the_last_session_the_login_ends(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    application.call(Call.C_CloseSession, session)
    assert not vault.logged_in
    session = application.open_session()
    application.call(Call.C_Login, session, CKU.USER, PIN)


def test_all_sessions_are_closed_at_once(application: Application, vault: TokenVault) -> None:
    session = application.start(pin=PIN)
    application.open_session(READ_ONLY)
    make_session_object(application, session)
    application.call(Call.C_CloseAllSessions, 0)
    assert not vault.objects
    assert not vault.logged_in
    assert refused(application, Call.C_GetSessionInfo, session) is CKR.SESSION_HANDLE_INVALID


def test_a_session_object_that_is_gone_already_does_not_hinder(
    application: Application, vault: TokenVault
) -> None:
    session = application.start(pin=PIN)
    make_session_object(application, session)
    vault.objects.clear()
    application.call(Call.C_CloseSession, session)


def test_the_pin_is_changed_by_who_knows_it(application: Application, vault: TokenVault) -> None:
    session = application.start()
    assert refused(application, Call.C_SetPIN, session, b"00000000", b"a new PIN") is CKR.PIN_INCORRECT
    application.call(Call.C_SetPIN, session, PIN, b"a new PIN")
    assert vault.pin == b"a new PIN"
    vault.failures[Operation.SET_PIN] = Status.PIN_INVALID
    assert refused(application, Call.C_SetPIN, session, b"a new PIN", b"x") is CKR.PIN_LEN_RANGE
    reading = application.open_session(READ_ONLY)
    assert refused(application, Call.C_SetPIN, reading, PIN, PIN) is CKR.SESSION_READ_ONLY


# --- digests and random octets ----------------------------------------------------------------------------------


def test_digests_are_computed_without_asking_anybody(application: Application, vault: TokenVault) -> None:
    session = application.start()
    application.call(Call.C_DigestInit, session, Mechanism(CKM.SHA384))
    assert application.call(Call.C_Digest, session, b"abc", None) == (48,)
    assert application.call(Call.C_Digest, session, b"abc", 47) == (48,)
    assert application.call(Call.C_Digest, session, b"abc", 48) == (hashlib.sha384(b"abc").digest(),)
    assert vault.asked() == []


def test_a_digest_may_come_in_parts(application: Application) -> None:
    session = application.start()
    application.call(Call.C_DigestInit, session, Mechanism(CKM.SHA_1))
    application.call(Call.C_DigestUpdate, session, b"a")
    application.call(Call.C_DigestUpdate, session, b"bc")
    assert application.call(Call.C_DigestFinal, session, None) == (20,)
    (digest,) = application.call(Call.C_DigestFinal, session, ROOM)
    assert digest == hashlib.sha1(b"abc").digest()
    assert refused(application, Call.C_DigestFinal, session, ROOM) is CKR.OPERATION_NOT_INITIALIZED


def test_a_part_that_is_refused_ends_the_digest(application: Application) -> None:
    session = application.start()
    application.call(Call.C_DigestInit, session, Mechanism(CKM.SHA256))
    assert refused(application, Call.C_DigestUpdate, session, 32) is CKR.ARGUMENTS_BAD
    assert refused(application, Call.C_DigestFinal, session, ROOM) is CKR.OPERATION_NOT_INITIALIZED


def test_a_digest_is_begun_once_and_can_be_given_up(application: Application) -> None:
    session = application.start()
    assert refused(application, Call.C_DigestInit, session, Mechanism(CKM.ECDSA)) is CKR.MECHANISM_INVALID
    application.call(Call.C_DigestInit, session, Mechanism(CKM.SHA224))
    assert refused(application, Call.C_DigestInit, session, Mechanism(CKM.SHA224)) is CKR.OPERATION_ACTIVE
    application.call(Call.C_DigestInit, session, None)
    assert refused(application, Call.C_Digest, session, b"", ROOM) is CKR.OPERATION_NOT_INITIALIZED


def test_random_octets_come_from_the_vault_in_as_many_questions_as_it_takes(
    application: Application, vault: TokenVault
) -> None:
    session = application.start()
    assert application.call(Call.C_GenerateRandom, session, 16) == (b"Z" * 16,)
    assert application.call(Call.C_GenerateRandom, session, 0) == (b"",)
    assert application.call(Call.C_GenerateRandom, session, None) == (b"",)
    vault.asked()
    assert application.call(Call.C_GenerateRandom, session, 2 * DATA_LIMIT + 1) == (
        b"Z" * (2 * DATA_LIMIT + 1),
    )
    assert vault.asked() == [Operation.RANDOM] * 3


@pytest.mark.parametrize("room", [RANDOM_LIMIT + 1, 0xFFFFFFFE])
def test_more_random_octets_than_a_frame_holds_are_refused(application: Application, room: int) -> None:
    session = application.start()
    assert refused(application, Call.C_GenerateRandom, session, room) is CKR.ARGUMENTS_BAD


def test_the_token_takes_no_seed(application: Application) -> None:
    session = application.start()
    assert refused(application, Call.C_SeedRandom, session, b"seed") is CKR.RANDOM_SEED_NOT_SUPPORTED


def test_the_handshake_is_p11_kits() -> None:
    assert len(HANDSHAKE) == 41
