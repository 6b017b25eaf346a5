import hashlib

import pytest
from tests.simulators.application import ROOM, Application, CallError, template
from tests.simulators.token_vault import PIN, TAG, TokenVault, signature_of

from endocarp.wire.cryptoki import CKM, CKR
from endocarp.wire.hsm import DATA_LIMIT, Operation, Sign, Status
from endocarp.wire.p11 import Mechanism
from endocarp.wire.p11_calls import Call
from endocarp.wire.p11_forms import GcmParameters, PssParameters
from endocarp.wire.suites import Scheme, Suite

P256_OID = bytes.fromhex("06082a8648ce3d030107")
ECDSA, ECDSA_SHA256 = Mechanism(CKM.ECDSA), Mechanism(CKM.ECDSA_SHA256)
RSA_PKCS = Mechanism(CKM.RSA_PKCS)
GCM = Mechanism(CKM.AES_GCM, GcmParameters(bytes(12), 96, b"aad", 128))
DIGEST = hashlib.sha256(b"hello").digest()
SIGNATURE = signature_of(Suite.P256, Scheme.ECDSA_DIGEST, DIGEST)


class Signer:
    """An application that is logged in and has one key of each kind."""

    def __init__(self) -> None:
        self.vault = TokenVault()
        self.application = Application(self.vault)
        self.session = self.application.start(pin=PIN)
        self.public, self.private = self.application.generate_pair(
            self.session, CKM.EC_KEY_PAIR_GEN, template(EC_PARAMS=P256_OID), []
        )
        self.rsa_public, self.rsa_private = self.application.generate_pair(
            self.session, CKM.RSA_PKCS_KEY_PAIR_GEN, template(MODULUS_BITS=2048), []
        )
        (self.secret,) = self.call(Call.C_GenerateKey, Mechanism(CKM.AES_KEY_GEN), template(VALUE_LEN=32))
        self.vault.asked()

    def call(self, call: Call, *values: object) -> tuple[object, ...]:
        return tuple(self.application.call(call, self.session, *values))

    def refused(self, call: Call, *values: object) -> CKR:
        with pytest.raises(CallError) as caught:
            self.call(call, *values)
        return caught.value.number


@pytest.fixture
def signer() -> Signer:
    return Signer()


# --- signing ----------------------------------------------------------------------------------------------------


def test_a_signature_is_one_question(signer: Signer) -> None:
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    assert signer.vault.asked() == []
    assert signer.call(Call.C_Sign, DIGEST, ROOM) == (SIGNATURE,)
    assert signer.vault.requests == [Sign(signer.private, Scheme.ECDSA_DIGEST, DIGEST)]


def test_the_size_of_a_signature_is_told_without_ending_it(signer: Signer) -> None:
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    assert signer.call(Call.C_Sign, DIGEST, None) == (64,)
    assert signer.call(Call.C_Sign, DIGEST, 63) == (64,)
    assert signer.call(Call.C_Sign, DIGEST, 64) == (SIGNATURE,)
    assert signer.refused(Call.C_Sign, DIGEST, 64) is CKR.OPERATION_NOT_INITIALIZED


def test_data_of_any_size_comes_down_to_its_digest(signer: Signer) -> None:
    data = bytes(3 * DATA_LIMIT)
    signer.call(Call.C_SignInit, ECDSA_SHA256, signer.private)
    signer.call(Call.C_Sign, data, ROOM)
    signer.call(Call.C_SignInit, ECDSA_SHA256, signer.private)
    for _ in range(3):
        signer.call(Call.C_SignUpdate, bytes(DATA_LIMIT))
    assert signer.call(Call.C_SignFinal, None) == (64,)
    signer.call(Call.C_SignFinal, ROOM)
    expected = Sign(signer.private, Scheme.ECDSA_DIGEST, hashlib.sha256(data).digest())
    assert signer.vault.requests == [expected, expected]


def test_the_parameter_of_one_signature_is_not_that_of_the_next(signer: Signer) -> None:
    for number, mgf, size in ((CKM.SHA256, 2, 32), (CKM.SHA384, 3, 48)):
        mechanism = Mechanism(CKM.RSA_PKCS_PSS, PssParameters(number, mgf, size))
        signer.call(Call.C_SignInit, mechanism, signer.rsa_private)
        signer.call(Call.C_Sign, bytes(size), ROOM)
    schemes = [request.scheme for request in signer.vault.requests if isinstance(request, Sign)]
    assert schemes == [Scheme.RSA_PSS_DIGEST_SHA256, Scheme.RSA_PSS_DIGEST_SHA384]


def test_a_signature_in_parts_is_not_ended_in_one(signer: Signer) -> None:
    signer.call(Call.C_SignInit, ECDSA_SHA256, signer.private)
    signer.call(Call.C_SignUpdate, b"part")
    assert signer.refused(Call.C_Sign, b"", ROOM) is CKR.OPERATION_ACTIVE
    assert signer.refused(Call.C_SignFinal, ROOM) is CKR.OPERATION_NOT_INITIALIZED


def test_an_operation_is_begun_once_and_can_be_given_up(signer: Signer) -> None:
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    assert signer.refused(Call.C_SignInit, ECDSA, signer.private) is CKR.OPERATION_ACTIVE
    signer.call(Call.C_SignInit, None, 0)
    signer.call(Call.C_SignInit, ECDSA, signer.private)


def test_an_operation_that_fails_is_over(signer: Signer) -> None:
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    signer.vault.failures[Operation.SIGN] = Status.DATA_INVALID
    assert signer.refused(Call.C_Sign, b"short", ROOM) is CKR.DATA_LEN_RANGE
    assert signer.refused(Call.C_Sign, DIGEST, ROOM) is CKR.OPERATION_NOT_INITIALIZED


@pytest.mark.parametrize(
    ("init", "mechanism", "update", "final"),
    [
        (Call.C_SignInit, ECDSA_SHA256, Call.C_SignUpdate, (Call.C_SignFinal, ROOM)),
        (Call.C_VerifyInit, ECDSA_SHA256, Call.C_VerifyUpdate, (Call.C_VerifyFinal, SIGNATURE)),
        (Call.C_EncryptInit, GCM, Call.C_EncryptUpdate, (Call.C_EncryptFinal, ROOM)),
        (Call.C_DecryptInit, GCM, Call.C_DecryptUpdate, (Call.C_DecryptFinal, ROOM)),
        (Call.C_EncryptInit, GCM, Call.C_Encrypt, (Call.C_EncryptFinal, ROOM)),
        (Call.C_DecryptInit, GCM, Call.C_Decrypt, (Call.C_DecryptFinal, ROOM)),
    ],
)
def test_a_part_that_is_refused_ends_the_operation(
    signer: Signer, init: Call, mechanism: Mechanism, update: Call, final: tuple[object, ...]
) -> None:
    key = {Call.C_SignInit: signer.private, Call.C_VerifyInit: signer.public}.get(init, signer.secret)
    signer.call(init, mechanism, key)
    rest = () if mechanism is ECDSA_SHA256 else (ROOM,)
    assert signer.refused(update, 32, *rest) is CKR.ARGUMENTS_BAD
    call, *values = final
    assert isinstance(call, Call)
    assert signer.refused(call, *values) is CKR.OPERATION_NOT_INITIALIZED


def test_a_part_too_many_ends_the_operation(signer: Signer) -> None:
    signer.call(Call.C_EncryptInit, GCM, signer.secret)
    assert signer.refused(Call.C_EncryptUpdate, bytes(DATA_LIMIT + 1), ROOM) is CKR.DATA_LEN_RANGE
    assert signer.refused(Call.C_EncryptFinal, ROOM) is CKR.OPERATION_NOT_INITIALIZED
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    assert signer.refused(Call.C_SignUpdate, b"part") is CKR.FUNCTION_NOT_SUPPORTED
    assert signer.refused(Call.C_SignFinal, ROOM) is CKR.OPERATION_NOT_INITIALIZED


def test_data_without_a_pointer_is_refused(signer: Signer) -> None:
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    assert signer.refused(Call.C_Sign, 32, ROOM) is CKR.ARGUMENTS_BAD


@pytest.mark.parametrize("init", [Call.C_SignInit, Call.C_VerifyInit, Call.C_EncryptInit, Call.C_DecryptInit])
def test_an_operation_needs_a_key_that_is_there(signer: Signer, init: Call) -> None:
    assert signer.refused(init, RSA_PKCS, 0) is CKR.KEY_HANDLE_INVALID


def test_a_key_is_used_only_for_what_its_policy_allows(signer: Signer) -> None:
    assert signer.refused(Call.C_SignInit, ECDSA, signer.public) is CKR.KEY_FUNCTION_NOT_PERMITTED
    assert signer.refused(Call.C_VerifyInit, ECDSA, signer.private) is CKR.KEY_FUNCTION_NOT_PERMITTED
    assert signer.refused(Call.C_DecryptInit, RSA_PKCS, signer.rsa_public) is CKR.KEY_FUNCTION_NOT_PERMITTED
    assert signer.refused(Call.C_SignInit, ECDSA, signer.rsa_private) is CKR.KEY_TYPE_INCONSISTENT
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    signer.call(Call.C_SignInit, None, 0)
    signer.call(Call.C_SetAttributeValue, signer.private, template(SIGN=0))
    assert signer.refused(Call.C_SignInit, ECDSA, signer.private) is CKR.KEY_FUNCTION_NOT_PERMITTED


def test_a_key_that_another_application_destroyed_is_told_when_it_is_used(signer: Signer) -> None:
    signer.call(Call.C_SignInit, ECDSA, signer.private)
    del signer.vault.objects[signer.private]
    assert signer.refused(Call.C_Sign, DIGEST, ROOM) is CKR.KEY_HANDLE_INVALID


# --- verifying --------------------------------------------------------------------------------------------------


def test_a_signature_is_checked(signer: Signer) -> None:
    signer.call(Call.C_VerifyInit, ECDSA_SHA256, signer.public)
    assert signer.call(Call.C_Verify, b"hello", SIGNATURE) == ()
    signer.call(Call.C_VerifyInit, ECDSA_SHA256, signer.public)
    assert signer.refused(Call.C_Verify, b"another", SIGNATURE) is CKR.SIGNATURE_INVALID
    signer.call(Call.C_VerifyInit, ECDSA, signer.public)
    assert signer.refused(Call.C_Verify, DIGEST, SIGNATURE[1:]) is CKR.SIGNATURE_LEN_RANGE
    assert signer.refused(Call.C_Verify, DIGEST, SIGNATURE) is CKR.OPERATION_NOT_INITIALIZED


def test_a_signature_is_checked_in_parts(signer: Signer) -> None:
    signer.call(Call.C_VerifyInit, ECDSA_SHA256, signer.public)
    signer.call(Call.C_VerifyUpdate, b"hel")
    signer.call(Call.C_VerifyUpdate, b"lo")
    assert signer.call(Call.C_VerifyFinal, SIGNATURE) == ()
    signer.call(Call.C_VerifyInit, None, 0)


# --- ciphers ----------------------------------------------------------------------------------------------------


def test_an_encryption_and_its_decryption_are_one_question_each(signer: Signer) -> None:
    signer.call(Call.C_EncryptInit, GCM, signer.secret)
    assert signer.call(Call.C_Encrypt, b"hello", None) == (21,)
    assert signer.call(Call.C_Encrypt, b"hello", 20) == (21,)
    assert signer.call(Call.C_Encrypt, b"hello", 21) == (b"hello" + TAG,)
    signer.call(Call.C_DecryptInit, GCM, signer.secret)
    assert signer.call(Call.C_Decrypt, b"hello" + TAG, ROOM) == (b"hello",)
    assert signer.vault.asked() == [Operation.ENCRYPT, Operation.DECRYPT]


def test_a_cipher_in_parts_gives_all_of_its_result_at_the_end(signer: Signer) -> None:
    signer.call(Call.C_EncryptInit, GCM, signer.secret)
    assert signer.call(Call.C_EncryptUpdate, b"hel", ROOM) == (b"",)
    assert signer.call(Call.C_EncryptUpdate, b"lo", ROOM) == (b"",)
    assert signer.call(Call.C_EncryptFinal, None) == (21,)
    assert signer.call(Call.C_EncryptFinal, ROOM) == (b"hello" + TAG,)
    signer.call(Call.C_DecryptInit, GCM, signer.secret)
    assert signer.call(Call.C_DecryptUpdate, b"hello" + TAG, ROOM) == (b"",)
    assert signer.call(Call.C_DecryptFinal, ROOM) == (b"hello",)


@pytest.mark.parametrize(
    ("init", "update", "final", "parts", "result"),
    [
        (Call.C_EncryptInit, Call.C_EncryptUpdate, Call.C_EncryptFinal, (b"hel", b"lo"), b"hello" + TAG),
        (Call.C_DecryptInit, Call.C_DecryptUpdate, Call.C_DecryptFinal, (b"hel", b"lo" + TAG), b"hello"),
    ],
)
def test_a_part_whose_size_was_asked_first_counts_once(
    signer: Signer, init: Call, update: Call, final: Call, parts: tuple[bytes, ...], result: bytes
) -> None:
    signer.call(init, GCM, signer.secret)
    for part in (*parts, b""):
        (size,) = signer.call(update, part, None)
        assert size == max(len(part), 1)
        assert signer.call(update, part, size) == (b"",)
    assert signer.call(final, ROOM) == (result,)


def test_a_cipher_in_parts_is_not_ended_in_one(signer: Signer) -> None:
    for init, update, one in (
        (Call.C_EncryptInit, Call.C_EncryptUpdate, Call.C_Encrypt),
        (Call.C_DecryptInit, Call.C_DecryptUpdate, Call.C_Decrypt),
    ):
        signer.call(init, GCM, signer.secret)
        signer.call(update, b"part", ROOM)
        assert signer.refused(one, b"", ROOM) is CKR.OPERATION_ACTIVE


def test_rsa_encrypts_with_the_public_key_and_decrypts_with_the_private_one(signer: Signer) -> None:
    signer.call(Call.C_EncryptInit, RSA_PKCS, signer.rsa_public)
    assert signer.call(Call.C_Encrypt, b"hello", None) == (256,)
    (sealed,) = signer.call(Call.C_Encrypt, b"hello", 256)
    signer.call(Call.C_DecryptInit, RSA_PKCS, signer.rsa_private)
    assert signer.call(Call.C_Decrypt, sealed, 256) == (b"hello",)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.CIPHERTEXT_INVALID, CKR.ENCRYPTED_DATA_INVALID),
        (Status.DATA_INVALID, CKR.ENCRYPTED_DATA_LEN_RANGE),
        (Status.NOT_LOGGED_IN, CKR.USER_NOT_LOGGED_IN),
    ],
)
def test_a_decryption_that_fails_is_told_and_over(signer: Signer, status: Status, expected: CKR) -> None:
    signer.call(Call.C_DecryptInit, GCM, signer.secret)
    signer.vault.failures[Operation.DECRYPT] = status
    assert signer.refused(Call.C_Decrypt, bytes(32), ROOM) is expected
    assert signer.refused(Call.C_Decrypt, bytes(32), ROOM) is CKR.OPERATION_NOT_INITIALIZED


def test_ciphers_are_begun_once_and_can_be_given_up(signer: Signer) -> None:
    for init in (Call.C_EncryptInit, Call.C_DecryptInit):
        signer.call(init, GCM, signer.secret)
        assert signer.refused(init, GCM, signer.secret) is CKR.OPERATION_ACTIVE
        signer.call(init, None, 0)
        signer.call(init, GCM, signer.secret)
