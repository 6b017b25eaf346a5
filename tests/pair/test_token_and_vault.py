"""An application of PKCS#11 against a vault: octets of p11-kit's RPC, the token's core, the vault's cores, in memory."""

import hashlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.simulators.application import READ_ONLY, ROOM, Application, CallError, template
from tests.simulators.vault import PARTITION, VaultProcess

from endocarp.crypto.keys import PublicKey
from endocarp.crypto.secret import Secret
from endocarp.hsm.mechanisms import CURVES
from endocarp.wire import der, hsm
from endocarp.wire.cryptoki import CKA, CKM, CKP, CKR, CKU
from endocarp.wire.hsm import Hello, ObjectClass, Status, Welcome
from endocarp.wire.p11 import Attribute, Mechanism
from endocarp.wire.p11_calls import Call
from endocarp.wire.p11_forms import GcmParameters, OaepParameters, PssParameters
from endocarp.wire.suites import Scheme, Suite

MESSAGE = b"a message that is signed" * 100
HASHES = {CKM.SHA256: hashlib.sha256, CKM.SHA384: hashlib.sha384, CKM.SHA512: hashlib.sha512}
SHA256_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


class Front(VaultProcess):
    """A vault process, and applications of PKCS#11 that are connected to it."""

    def __init__(self, seal_key: Secret) -> None:
        super().__init__(seal_key)
        self.connections: list[socket.socket] = []

    def application(self, dialect: int = 2) -> Application:
        connection = self.connect()
        self.connections.append(connection)
        connection.send(Hello(hsm.MAGIC, hsm.VERSION).encode())
        assert Welcome.decode(connection.recv(hsm.MESSAGE_LIMIT)).status is Status.OK

        def ask(message: bytes) -> bytes:
            connection.send(message)
            return connection.recv(hsm.MESSAGE_LIMIT)

        return Application(ask, dialect=dialect, partition=PARTITION)

    def logged_in(self, dialect: int = 2) -> tuple[Application, int]:
        application = self.application(dialect)
        return application, application.start(pin=self.pin.encode())

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.join()


@pytest.fixture
def front() -> Iterator[Front]:
    with Secret(bytes(range(32))) as key:
        front = Front(key)
        yield front
        front.close()


# What each kind of pair is made with: mechanism, what the public template says.
PAIRS: dict[Suite, tuple[CKM, list[Attribute]]] = {
    Suite.P256: (CKM.EC_KEY_PAIR_GEN, template(EC_PARAMS=CURVES[Suite.P256])),
    Suite.P384: (CKM.EC_KEY_PAIR_GEN, template(EC_PARAMS=CURVES[Suite.P384])),
    Suite.RSA2048: (CKM.RSA_PKCS_KEY_PAIR_GEN, template(MODULUS_BITS=2048, PUBLIC_EXPONENT=b"\1\0\1")),
    Suite.ML_DSA_65: (CKM.ML_DSA_KEY_PAIR_GEN, template(PARAMETER_SET=int(CKP.ML_DSA_65))),
}
PSS_SHA256 = PssParameters(CKM.SHA256, 2, 32)
# Suite, mechanism, its parameter, the hash that the application computes itself, the scheme that a verifier uses.
SIGNATURES = [
    (Suite.P256, CKM.ECDSA, None, CKM.SHA256, Scheme.ECDSA_SHA256),
    (Suite.P256, CKM.ECDSA_SHA256, None, None, Scheme.ECDSA_SHA256),
    (Suite.P384, CKM.ECDSA_SHA384, None, None, Scheme.ECDSA_SHA384),
    (Suite.P384, CKM.ECDSA_SHA512, None, None, Scheme.ECDSA_SHA512),
    (Suite.RSA2048, CKM.SHA256_RSA_PKCS, None, None, Scheme.RSA_PKCS1_SHA256),
    (Suite.RSA2048, CKM.SHA384_RSA_PKCS, None, None, Scheme.RSA_PKCS1_SHA384),
    (Suite.RSA2048, CKM.SHA512_RSA_PKCS, None, None, Scheme.RSA_PKCS1_SHA512),
    (Suite.RSA2048, CKM.RSA_PKCS_PSS, PSS_SHA256, CKM.SHA256, Scheme.RSA_PSS_SHA256),
    (Suite.RSA2048, CKM.SHA256_RSA_PKCS_PSS, PSS_SHA256, None, Scheme.RSA_PSS_SHA256),
    (Suite.ML_DSA_65, CKM.ML_DSA, None, None, Scheme.ML_DSA),
]


def make(application: Application, session: int, suite: Suite, *, token: int = 1) -> tuple[int, int]:
    mechanism, public = PAIRS[suite]
    label = template(TOKEN=token, LABEL=suite.name.encode())
    return application.generate_pair(session, mechanism, [*public, *label], label)


def public_key(application: Application, session: int, public: int, suite: Suite) -> PublicKey:
    """Return the public key as an application puts it together from attributes."""
    if suite is Suite.RSA2048:
        modulus, exponent = application.read(session, public, CKA.MODULUS, CKA.PUBLIC_EXPONENT)
        numbers = (int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"))
        return PublicKey.from_raw(suite, der.sequence(*map(der.integer, numbers)))
    if suite is Suite.ML_DSA_65:
        return PublicKey.from_raw(suite, application.read(session, public, CKA.VALUE)[0])
    (point,) = application.read(session, public, CKA.EC_POINT)
    return PublicKey.from_raw(suite, der.Reader(point, "CKA_EC_POINT").octet_string())


@pytest.mark.parametrize(
    ("suite", "dialect"),
    # The older dialects have no way to carry a mechanism that they do not know.
    [*((suite, dialect) for suite in PAIRS for dialect in (0, 1) if suite is not Suite.ML_DSA_65)]
    + [(suite, 2) for suite in PAIRS],
)
def test_signatures_hold_before_the_application_and_before_the_token(
    front: Front, suite: Suite, dialect: int
) -> None:
    application, session = front.logged_in(dialect)
    public, private = make(application, session, suite)
    known = public_key(application, session, public, suite)
    for number, parameter, hashed, scheme in [row[1:] for row in SIGNATURES if row[0] is suite]:
        mechanism = Mechanism(number, parameter)
        data = MESSAGE if hashed is None else HASHES[hashed](MESSAGE).digest()
        signature = application.sign(session, mechanism, private, data)
        assert known.verify(scheme, signature, MESSAGE)
        application.call(Call.C_VerifyInit, session, mechanism, public)
        application.call(Call.C_Verify, session, data, signature)
        application.call(Call.C_VerifyInit, session, mechanism, public)
        spoilt = bytes((signature[0] ^ 1,)) + signature[1:]
        assert refused(application, Call.C_Verify, session, data, spoilt) is CKR.SIGNATURE_INVALID


def refused(application: Application, call: Call, *values: Any) -> CKR:
    with pytest.raises(CallError) as caught:
        application.call(call, *values)
    return caught.value.number


def test_a_digest_info_of_the_applications_own_is_signed_as_it_is(front: Front) -> None:
    application, session = front.logged_in()
    public, private = make(application, session, Suite.RSA2048)
    data = SHA256_DIGEST_INFO + hashlib.sha256(MESSAGE).digest()
    signature = application.sign(session, Mechanism(CKM.RSA_PKCS), private, data)
    known = public_key(application, session, public, Suite.RSA2048)
    assert known.verify(Scheme.RSA_PKCS1_SHA256, signature, MESSAGE)


@pytest.mark.parametrize("dialect", [1, 2])
def test_what_gcm_sealed_is_opened_only_unchanged(front: Front, dialect: int) -> None:
    application, session = front.logged_in(dialect)
    wanted = template(VALUE_LEN=32, TOKEN=1)
    (secret,) = application.call(Call.C_GenerateKey, session, Mechanism(CKM.AES_KEY_GEN), wanted)
    mechanism = Mechanism(CKM.AES_GCM, GcmParameters(b"n" * 12, 96, b"associated", 128))
    application.call(Call.C_EncryptInit, session, mechanism, secret)
    (sealed,) = application.call(Call.C_Encrypt, session, MESSAGE, ROOM)
    application.call(Call.C_DecryptInit, session, mechanism, secret)
    assert application.call(Call.C_Decrypt, session, sealed, ROOM) == (MESSAGE,)
    application.call(Call.C_DecryptInit, session, mechanism, secret)
    spoilt = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    assert refused(application, Call.C_Decrypt, session, spoilt, ROOM) is CKR.ENCRYPTED_DATA_INVALID


@pytest.mark.parametrize(
    "mechanism",
    [
        Mechanism(CKM.RSA_PKCS),
        Mechanism(CKM.RSA_PKCS_OAEP, OaepParameters(CKM.SHA_1, 1, 1, b"")),
        Mechanism(CKM.RSA_PKCS_OAEP, OaepParameters(CKM.SHA256, 2, 1, b"")),
    ],
    ids=["PKCS1", "OAEP-SHA1", "OAEP-SHA256"],
)
def test_what_rsa_encrypted_is_decrypted(front: Front, mechanism: Mechanism) -> None:
    application, session = front.logged_in()
    public, private = make(application, session, Suite.RSA2048)
    application.call(Call.C_EncryptInit, session, mechanism, public)
    (sealed,) = application.call(Call.C_Encrypt, session, b"a session key", 256)
    application.call(Call.C_DecryptInit, session, mechanism, private)
    assert application.call(Call.C_Decrypt, session, sealed, 256) == (b"a session key",)


def test_nobody_makes_or_sees_private_keys_without_login(front: Front) -> None:
    owner, owners_session = front.logged_in()
    public, private = make(owner, owners_session, Suite.P256)
    stranger = front.application()
    session = stranger.start()
    assert stranger.find(session) == [public]
    assert (
        refused(stranger, Call.C_SignInit, session, Mechanism(CKM.ECDSA), private) is CKR.KEY_HANDLE_INVALID
    )
    mechanism = Mechanism(CKM.EC_KEY_PAIR_GEN)
    wanted = template(EC_PARAMS=CURVES[Suite.P256])
    assert refused(stranger, Call.C_GenerateKeyPair, session, mechanism, wanted, []) is CKR.USER_NOT_LOGGED_IN
    assert refused(stranger, Call.C_Login, session, CKU.USER, b"00000000") is CKR.PIN_INCORRECT
    assert stranger.find(session, CLASS=ObjectClass.PRIVATE_KEY) == []


def test_a_logout_takes_the_keys_away(front: Front) -> None:
    application, session = front.logged_in()
    _, private = make(application, session, Suite.P256)
    application.call(Call.C_SignInit, session, Mechanism(CKM.ECDSA), private)
    application.call(Call.C_Logout, session)
    assert refused(application, Call.C_Sign, session, bytes(32), ROOM) in (
        CKR.USER_NOT_LOGGED_IN,
        CKR.KEY_HANDLE_INVALID,
    )
    assert (
        refused(application, Call.C_SignInit, session, Mechanism(CKM.ECDSA), private)
        is CKR.KEY_HANDLE_INVALID
    )


def test_the_pin_is_locked_after_as_many_attempts_as_are_told(front: Front) -> None:
    application = front.application()
    session = application.start()
    for _ in range(9):
        assert refused(application, Call.C_Login, session, CKU.USER, b"00000000") is CKR.PIN_INCORRECT
    assert refused(application, Call.C_Login, session, CKU.USER, b"00000000") is CKR.PIN_LOCKED
    assert refused(application, Call.C_Login, session, CKU.USER, front.pin.encode()) is CKR.PIN_LOCKED


def test_session_objects_are_the_applications_alone_and_end_with_their_session(front: Front) -> None:
    application, session = front.logged_in()
    reading = application.open_session(READ_ONLY)
    _, private = make(application, reading, Suite.P256, token=0)
    assert len(application.sign(session, Mechanism(CKM.ECDSA), private, bytes(32))) == 64
    other, others_session = front.logged_in()
    assert other.find(others_session) == []
    application.call(Call.C_CloseSession, reading)
    assert application.find(session) == []


def test_session_objects_end_with_their_session_after_a_logout_too(front: Front) -> None:
    application, session = front.logged_in()
    public, _ = make(application, session, Suite.P256, token=0)
    application.call(Call.C_Logout, session)
    assert application.find(session) == [public]
    application.call(Call.C_CloseSession, session)
    session = application.open_session()
    assert application.find(session) == []
    application.call(Call.C_Login, session, CKU.USER, front.pin.encode())
    assert application.find(session) == []


def test_token_objects_outlive_the_vault_process(front: Front) -> None:
    application, session = front.logged_in()
    public, private = make(application, session, Suite.P256)
    application.call(
        Call.C_SetAttributeValue, session, private, template(LABEL=b"renamed", SUBJECT=b"subject")
    )
    front.start()
    application, session = front.logged_in()
    assert application.find(session) == [private, public]
    assert application.read(session, private, CKA.LABEL, CKA.SUBJECT) == [b"renamed", b"subject"]
    application.call(Call.C_DestroyObject, session, private)
    assert application.find(session) == [public]


@pytest.mark.parametrize(
    "wanted",
    [template(PRIVATE=0), template(SENSITIVE=0, EXTRACTABLE=1), template(VERIFY=1)],
    ids=["public", "given out", "of another class"],
)
def test_the_vaults_policy_holds_against_the_template(front: Front, wanted: list[Attribute]) -> None:
    application, session = front.logged_in()
    mechanism = Mechanism(CKM.EC_KEY_PAIR_GEN)
    curve = template(EC_PARAMS=CURVES[Suite.P256])
    assert (
        refused(application, Call.C_GenerateKeyPair, session, mechanism, curve, wanted)
        is CKR.TEMPLATE_INCONSISTENT
    )
    assert application.find(session) == []


def test_random_octets_are_random(front: Front) -> None:
    application, session = front.logged_in()
    (first,) = application.call(Call.C_GenerateRandom, session, 32)
    (second,) = application.call(Call.C_GenerateRandom, session, 32)
    assert len(first) == 32
    assert first != second


@pytest.mark.parametrize("data", [b"", b"short", bytes(65)])
def test_data_of_a_wrong_size_is_refused_and_the_session_goes_on(front: Front, data: bytes) -> None:
    application, session = front.logged_in()
    _, private = make(application, session, Suite.P256)
    application.call(Call.C_SignInit, session, Mechanism(CKM.ECDSA), private)
    assert refused(application, Call.C_Sign, session, data, ROOM) is CKR.DATA_LEN_RANGE
    assert len(application.sign(session, Mechanism(CKM.ECDSA), private, bytes(32))) == 64
