import inspect
import random
import re
import struct

import pytest
from tests.simulators.application import ROOM, Application, CallError, template
from tests.simulators.token_vault import PIN, TokenVault

from endocarp.core import Ask, Close, Core
from endocarp.hsm.token import (
    CALL_REFUSALS,
    CALLS,
    NEXT,
    PERMITS,
    REFUSALS,
    Phase,
    TokenConnection,
)
from endocarp.hsm.token_general import HANDSHAKE
from endocarp.wire.cryptoki import CKM, CKR
from endocarp.wire.hsm import Status, encode_reply
from endocarp.wire.p11 import Mechanism, decode_frame, encode_frame
from endocarp.wire.p11_calls import Call, decode_reply, encode_request

P256_OID = bytes.fromhex("06082a8648ce3d030107")
NOT_CARRIED_OUT = [call for call in Call if call not in CALLS]


def fields(signature: str) -> list[str]:
    return re.findall("[af]?.", signature)


def refused(application: Application, call: Call, *values: object) -> CKR:
    with pytest.raises(CallError) as caught:
        application.call(call, *values)
    return caught.value.number


# --- the tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_every_call_takes_the_view_and_the_values_of_its_request(call: Call) -> None:
    assert len(inspect.signature(CALLS[call]).parameters) == 1 + len(fields(call.request))


def test_every_phase_has_its_permits_and_only_one_call_leads_in() -> None:
    assert set(PERMITS) == set(Phase)
    assert PERMITS[Phase.NEW] == {Call.C_Initialize}
    assert PERMITS[Phase.READY] | PERMITS[Phase.NEW] == set(CALLS)
    assert not PERMITS[Phase.CLOSED]
    assert {Call.C_Initialize: Phase.READY, Call.C_Finalize: Phase.CLOSED} == NEXT


def test_every_refusal_of_the_vault_has_a_number() -> None:
    assert set(REFUSALS) == set(Status) - {Status.OK}
    assert {call for call, _ in CALL_REFUSALS} <= set(CALLS)
    assert CKR.OK not in {*REFUSALS.values(), *CALL_REFUSALS.values()}


# --- calls ------------------------------------------------------------------------------------------------------


def test_nothing_is_due() -> None:
    core: Core = TokenConnection(0, 0)
    assert core.due() is None
    assert core.expire(1.0) == []


@pytest.mark.parametrize("dialect", [0, 1, 2])
def test_a_whole_dialogue_in_every_dialect(dialect: int) -> None:
    application = Application(TokenVault(), dialect=dialect)
    session = application.start(pin=PIN)
    _, private = application.generate_pair(
        session, CKM.EC_KEY_PAIR_GEN, template(EC_PARAMS=P256_OID, TOKEN=1, LABEL=b"web"), template(TOKEN=1)
    )
    signature = application.sign(session, Mechanism(CKM.ECDSA), private, bytes(32))
    assert len(signature) == 64
    application.call(Call.C_Finalize)
    assert application.closed == "C_Finalize"
    assert application.token.phase is Phase.CLOSED


def frame(call: Call, *values: object, code: int = 7, dialect: int = 0) -> bytes:
    return encode_frame(code, encode_request(call, values, dialect))


# --- wrong octets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets", [b"cut short", struct.pack(">III", 1, 0, 8) + b"short", bytes(20) + b"more"]
)
def test_octets_that_are_no_whole_frame_end_the_connection(octets: bytes) -> None:
    application = Application(TokenVault())
    application.start()
    application.send(octets)
    assert application.closed is not None
    assert application.closed.startswith("Frame: ")
    assert application.token.outgoing() == []
    # Nothing is carried out any more.
    assert refused(application, Call.C_GetInfo) is CKR.CRYPTOKI_NOT_INITIALIZED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", CKR.DEVICE_ERROR),
        (struct.pack(">I", Call.C_GetInfo), CKR.DEVICE_ERROR),
        (struct.pack(">II", Call.C_GetInfo, 1) + b"u", CKR.DEVICE_ERROR),
        (struct.pack(">II", Call.C_GetInfo, 0xFFFFFFFF), CKR.DEVICE_ERROR),
        (struct.pack(">II", Call.C_GetInfo, 0) + b"more", CKR.DEVICE_ERROR),
        (struct.pack(">II", Call.C_FindObjectsInit, 3) + b"uaA" + bytes(8) + b"\xff" * 4, CKR.DEVICE_ERROR),
        (struct.pack(">II", Call.C_CreateObject, 3) + b"uaA" + bytes(8) + b"\xff" * 4, CKR.DEVICE_ERROR),
        (struct.pack(">II", 0, 1) + b"u" + bytes(8), CKR.FUNCTION_NOT_SUPPORTED),
        (struct.pack(">II", 90, 0), CKR.FUNCTION_NOT_SUPPORTED),
        (struct.pack(">II", 0xFFFFFFFF, 0), CKR.FUNCTION_NOT_SUPPORTED),
    ],
)
def test_a_body_that_is_no_call_is_answered_with_its_number_and_nothing_else_happens(
    body: bytes, expected: CKR
) -> None:
    application = Application(TokenVault())
    session = application.start(pin=PIN)
    application.send_body(body)
    with pytest.raises(CallError) as caught:
        application.reply(Call.C_GetInfo)
    assert caught.value.number is expected
    assert application.closed is None
    application.call(Call.C_GetSessionInfo, session)


@pytest.mark.parametrize("call", NOT_CARRIED_OUT, ids=lambda call: call.name)
def test_the_other_calls_are_refused_politely(call: Call) -> None:
    values = {
        "y": 0,
        "u": 1,
        "s": b" " * 32,
        "z": b"label",
        "ay": b"octets",
        "fy": 16,
        "aA": (),
        "M": Mechanism(CKM.ECDSA),
    }
    application = Application(TokenVault())
    application.start()
    request = [values[field] for field in fields(call.request)]
    assert refused(application, call, *request) is CKR.FUNCTION_NOT_SUPPORTED


def test_calls_come_after_c_initialize_which_comes_once() -> None:
    application = Application(TokenVault())
    assert refused(application, Call.C_GetInfo) is CKR.CRYPTOKI_NOT_INITIALIZED
    assert refused(application, Call.C_CreateObject, 1, ()) is CKR.FUNCTION_NOT_SUPPORTED
    application.start()
    values = (HANDSHAKE, 0, b"\0")
    assert refused(application, Call.C_Initialize, *values) is CKR.CRYPTOKI_ALREADY_INITIALIZED


def test_random_octets_end_or_are_answered_and_raise_nothing() -> None:
    chance = random.Random(21)
    for _ in range(3_000):
        token = TokenConnection(0, chance.randrange(3))
        token.receive(frame(Call.C_Initialize, HANDSHAKE, 0, b"\0"), 0.0)
        for _ in range(4):
            body = struct.pack(">I", chance.randrange(100)) + chance.randbytes(chance.randrange(40))
            octets = encode_frame(1, body) if chance.random() < 0.9 else chance.randbytes(30)
            for event in token.receive(octets, 0.0):
                assert isinstance(event, Ask | Close)


def test_an_application_that_goes_away_ends_the_connection() -> None:
    application = Application(TokenVault())
    application.start()
    application.send(b"")
    assert application.closed == "the application has closed the connection"


# --- the vault behind ---------------------------------------------------------------------------------------------


def waiting(call: Call, *values: object) -> TokenConnection:
    """Return a token that has asked the vault for this call, and waits."""
    token = TokenConnection(0, 2)
    token.receive(frame(Call.C_Initialize, HANDSHAKE, 0, b"\0"), 0.0)
    token.receive(frame(Call.C_OpenSession, 0, 6), 0.0)
    token.outgoing()
    (question,) = token.receive(frame(call, *values), 0.0)
    assert isinstance(question, Ask)
    return token


def check_removed(token: TokenConnection, call: Call, reply: bytes) -> None:
    (end,) = token.resume(reply)
    assert isinstance(end, Close)
    (answer,) = token.outgoing()
    _, body = decode_frame(answer)
    assert decode_reply(call, body, 2) == CKR.DEVICE_REMOVED


@pytest.mark.parametrize("reply", [b"", b"short", b"\xff" * 16, struct.pack("<IIQ", 0, 0, 0)[:-1]])
def test_a_vault_that_is_gone_is_a_device_that_was_removed(reply: bytes) -> None:
    check_removed(waiting(Call.C_GenerateRandom, 1, 4), Call.C_GenerateRandom, reply)


def test_an_answer_of_the_vault_that_does_not_decode_is_a_device_that_was_removed() -> None:
    reply = encode_reply(Status.OK, 0, 0, b"no info")
    check_removed(waiting(Call.C_GetTokenInfo, 0), Call.C_GetTokenInfo, reply)


def test_a_refusal_of_the_vault_is_told_by_its_number_and_the_next_call_goes_on() -> None:
    application = Application(TokenVault())
    session = application.start(pin=PIN)
    _, private = application.generate_pair(session, CKM.EC_KEY_PAIR_GEN, template(EC_PARAMS=P256_OID), [])
    application.call(Call.C_SignInit, session, Mechanism(CKM.ECDSA), private)
    application.vault = lambda message: struct.pack("<IIQ", Status.FAILED, 0, 0) + b"out of order"
    assert refused(application, Call.C_Sign, session, bytes(32), ROOM) is CKR.FUNCTION_FAILED
    application.call(Call.C_GetSessionInfo, session)
