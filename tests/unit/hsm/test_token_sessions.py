import hashlib

import pytest
from tests.simulators.token_vault import PUBLIC

from endocarp.errors import PeerError
from endocarp.hsm.mechanisms import cipher_rule, sign_rule
from endocarp.hsm.object_policy import default_policy
from endocarp.hsm.token_objects import P11Object, p11_object
from endocarp.hsm.token_sessions import (
    SESSION_LIMIT,
    ActiveOperation,
    Ciphering,
    Digesting,
    HashSigning,
    Sessions,
    Signing,
    single_part,
)
from endocarp.wire.cryptoki import CKM, CKR, CKS, SessionFlags
from endocarp.wire.hsm import (
    DATA_LIMIT,
    Decrypt,
    Description,
    Encrypt,
    ObjectClass,
    Sign,
    Template,
    Verify,
    encode_request,
)
from endocarp.wire.p11 import Mechanism
from endocarp.wire.p11_forms import GcmParameters
from endocarp.wire.suites import Cipher, Scheme, Suite

GCM = Mechanism(CKM.AES_GCM, GcmParameters(b"n" * 12, 96, b"aad", 128))


def key(suite: Suite, object_class: ObjectClass = ObjectClass.PRIVATE_KEY) -> P11Object:
    template = Template(policy=default_policy(suite, object_class))
    return p11_object(
        Description(handle=7, object_class=object_class, suite=suite, template=template, public=PUBLIC[suite])
    )


def signing(suite: Suite, number: int) -> Signing | HashSigning:
    return Signing(key(suite), sign_rule(Mechanism(number), suite)).begin()


def ciphering(request: type[Encrypt] | type[Decrypt], mechanism: Mechanism = GCM) -> Ciphering:
    suite = Suite.AES256 if mechanism is GCM else Suite.RSA2048
    object_class = ObjectClass.SECRET_KEY if mechanism is GCM else ObjectClass.PRIVATE_KEY
    return Ciphering(request, key(suite, object_class), cipher_rule(mechanism, suite))


def refusal(caught: pytest.ExceptionInfo[PeerError]) -> CKR:
    return CKR(caught.value.number)


# --- operations -------------------------------------------------------------------------------------------------


def test_the_question_for_a_signature_is_that_of_the_vaults_protocol() -> None:
    question = signing(Suite.P256, CKM.ECDSA).sign(b"d" * 32)
    assert question == encode_request(Sign(7, Scheme.ECDSA_DIGEST, b"d" * 32))


@pytest.mark.parametrize("number", [CKM.SHA384_RSA_PKCS, CKM.SHA512_RSA_PKCS])
def test_data_in_parts_is_signed_like_data_in_one(number: int) -> None:
    parts, one = signing(Suite.RSA3072, number), signing(Suite.RSA3072, number)
    parts.update(b"he")
    parts.update(b"llo")
    assert parts.multi_part
    assert parts.sign(b"") == one.sign(b"hello")
    digest = hashlib.sha384(b"hello") if number == CKM.SHA384_RSA_PKCS else hashlib.sha512(b"hello")
    assert one.size == 384
    assert parts.sign(b"").endswith(digest.digest())


def test_a_check_carries_the_signature_and_what_it_was_made_over() -> None:
    operation = signing(Suite.P384, CKM.ECDSA)
    question = operation.verify(b"s" * 96, b"d" * 48)
    assert question == encode_request(Verify(7, Scheme.ECDSA_DIGEST, b"s" * 96, b"d" * 48))
    with pytest.raises(PeerError) as caught:
        operation.verify(b"s" * 95, b"d" * 48)
    assert refusal(caught) is CKR.SIGNATURE_LEN_RANGE


def test_a_check_of_a_hash_carries_the_digest_info() -> None:
    digest_info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(b"x").digest()
    question = signing(Suite.RSA2048, CKM.SHA256_RSA_PKCS).verify(bytes(256), b"x")
    assert question == encode_request(Verify(7, Scheme.RSA_PKCS1, bytes(256), digest_info))


def test_data_that_goes_as_it_is_comes_in_one_part_and_is_bounded() -> None:
    operation = signing(Suite.P256, CKM.ECDSA)
    with pytest.raises(PeerError) as caught:
        operation.update(b"part")
    assert refusal(caught) is CKR.FUNCTION_NOT_SUPPORTED
    with pytest.raises(PeerError) as caught:
        operation.sign(bytes(DATA_LIMIT + 1))
    assert refusal(caught) is CKR.DATA_LEN_RANGE
    with pytest.raises(PeerError) as caught:
        operation.verify(bytes(64), bytes(DATA_LIMIT + 1))
    assert refusal(caught) is CKR.DATA_LEN_RANGE


def test_an_encryption_collects_its_parts() -> None:
    operation = ciphering(Encrypt)
    operation.update(b"he")
    assert operation.multi_part
    assert operation.size(b"llo") == 5 + 16
    assert operation.finish(b"llo") == Encrypt(7, Cipher.AES_GCM, b"n" * 12, b"aad", b"hello")


def test_a_decryption_takes_no_more_room_than_what_came() -> None:
    operation = ciphering(Decrypt)
    assert operation.size(b"x" * 20) == 4
    assert operation.size(b"x" * 3) == 0
    assert operation.finish(b"x" * 20) == Decrypt(7, Cipher.AES_GCM, b"n" * 12, b"aad", b"x" * 20)


def test_rsa_takes_as_much_room_as_the_modulus() -> None:
    assert ciphering(Decrypt, Mechanism(CKM.RSA_PKCS)).size(b"x") == 256


def test_ciphers_take_as_much_as_the_vault_does_and_no_more() -> None:
    ciphering(Encrypt).finish(bytes(DATA_LIMIT))
    ciphering(Decrypt).finish(bytes(DATA_LIMIT + 16))
    with pytest.raises(PeerError) as caught:
        ciphering(Encrypt).finish(bytes(DATA_LIMIT + 1))
    assert refusal(caught) is CKR.DATA_LEN_RANGE
    operation = ciphering(Decrypt)
    operation.update(bytes(DATA_LIMIT))
    with pytest.raises(PeerError) as caught:
        operation.update(bytes(17))
    assert refusal(caught) is CKR.ENCRYPTED_DATA_LEN_RANGE


def test_a_digest_in_parts_is_that_of_the_whole() -> None:
    operation = Digesting(CKM.SHA256)
    operation.update(b"he")
    assert operation.multi_part
    assert operation.size == 32
    assert operation.finish(b"llo") == hashlib.sha256(b"hello").digest()


# --- active operations ------------------------------------------------------------------------------------------------------


def test_one_operation_of_a_kind_is_under_way() -> None:
    active: ActiveOperation[Digesting] = ActiveOperation()
    with pytest.raises(PeerError) as caught:
        active.current()
    assert refusal(caught) is CKR.OPERATION_NOT_INITIALIZED
    first = Digesting(CKM.SHA256)
    active.begin(first)
    with pytest.raises(PeerError) as caught:
        active.begin(Digesting(CKM.SHA256))
    assert refusal(caught) is CKR.OPERATION_ACTIVE
    assert single_part(active) is first
    active.operation = None
    active.check_free()


def test_an_operation_in_parts_is_given_up_when_it_is_to_be_ended_in_one() -> None:
    active: ActiveOperation[Digesting] = ActiveOperation()
    active.begin(Digesting(CKM.SHA256))
    active.current().update(b"part")
    with pytest.raises(PeerError) as caught:
        single_part(active)
    assert refusal(caught) is CKR.OPERATION_ACTIVE
    active.check_free()


# --- sessions ---------------------------------------------------------------------------------------------------

SERIAL = SessionFlags.SERIAL_SESSION


def test_sessions_have_handles_that_are_never_used_again() -> None:
    sessions = Sessions()
    first, second = sessions.open(SERIAL), sessions.open(SERIAL | SessionFlags.RW_SESSION)
    assert (len(sessions), sessions.writing) == (2, 1)
    sessions.close(first)
    with pytest.raises(PeerError) as caught:
        sessions.get(first)
    assert refusal(caught) is CKR.SESSION_HANDLE_INVALID
    assert sessions.open(SERIAL) not in (first, second)
    assert len(sessions.close_all()) == 2
    assert len(sessions) == 0


def test_a_session_is_serial() -> None:
    with pytest.raises(PeerError) as caught:
        Sessions().open(SessionFlags.RW_SESSION)
    assert refusal(caught) is CKR.SESSION_PARALLEL_NOT_SUPPORTED


def test_sessions_are_bounded() -> None:
    sessions = Sessions()
    for _ in range(SESSION_LIMIT):
        sessions.open(SERIAL)
    with pytest.raises(PeerError) as caught:
        sessions.open(SERIAL)
    assert refusal(caught) is CKR.SESSION_COUNT


@pytest.mark.parametrize(
    ("flags", "logged_in", "state"),
    [
        (SERIAL, False, CKS.RO_PUBLIC_SESSION),
        (SERIAL, True, CKS.RO_USER_FUNCTIONS),
        (SERIAL | SessionFlags.RW_SESSION, False, CKS.RW_PUBLIC_SESSION),
        (SERIAL | SessionFlags.RW_SESSION, True, CKS.RW_USER_FUNCTIONS),
    ],
)
def test_a_session_tells_its_state(flags: int, logged_in: bool, state: CKS) -> None:
    sessions = Sessions()
    assert sessions.get(sessions.open(flags)).state(logged_in=logged_in) is state
