"""The custody core: one partition's seal key and identity, and every refusal."""

import pytest

from endocarp.core import Close
from endocarp.crypto import certs, keys
from endocarp.crypto.certs import Certificate
from endocarp.crypto.primitives import kdf_sha512
from endocarp.crypto.secret import Secret
from endocarp.errors import DeviceError
from endocarp.rot import dice, kv
from endocarp.rot.custody import CustodyConnection
from endocarp.rot.dice import Validity
from endocarp.rot.kv import KeyVault
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.wire import custody
from endocarp.wire.custody import MESSAGE_LIMIT, Status
from endocarp.wire.suites import Suite

ROOT = b"stable root" * 5 + b"123456789"
DIGEST = bytes(range(48))
ISSUER_KEYS = {suite: keys.generate(suite) for suite in dice.SUITES}
ISSUER = dice.authority(
    ISSUER_KEYS.__getitem__, lambda public: dice.name_of(dice.RT_ALIAS, public, CALIPTRA_2_1_2)
)
OWN = {suite: keys.generate(suite).public for suite in dice.SUITES}
IDENTITY = custody.CertifyIdentity(OWN[Suite.P384].raw, OWN[Suite.ML_DSA_87].raw)


@pytest.fixture
def vault() -> KeyVault:
    vault = KeyVault(memoryview(bytearray(kv.SIZE)))
    vault.put(kv.STABLE_ROOT_IDEV, Secret(ROOT))
    return vault


@pytest.fixture
def channel(vault: KeyVault) -> CustodyConnection:
    validity = Validity("20240101000000Z", "20340101000000Z")
    return CustodyConnection(vault, ISSUER, validity, 0x01020304, DIGEST)


def ask(channel: CustodyConnection, request: custody.Request[custody.Reply]) -> custody.Reply:
    assert channel.receive(custody.encode_request(request), 0.0) == []
    (message,) = channel.outgoing()
    assert channel.outgoing() == []
    return custody.decode_reply(request, message)


def refusal(channel: CustodyConnection, message: bytes) -> int:
    assert channel.receive(message, 0.0) == []
    (reply,) = channel.outgoing()
    with pytest.raises(DeviceError) as refused:
        custody.decode_reply(custody.SealKey, reply)
    return refused.value.number


def test_the_seal_key_hangs_on_the_device_and_the_partition(channel: CustodyConnection) -> None:
    expected = kdf_sha512(Secret(ROOT), b"endocarp_partition_seal", bytes((1, 2, 3, 4)), kind=Secret)
    assert ask(channel, custody.SealKey()).key == bytes(expected.view[:32])


def test_the_identity_is_certified_for_this_image_and_partition(channel: CustodyConnection) -> None:
    reply = ask(channel, IDENTITY)
    assert reply.rt_alias_key_id == certs.key_id(ISSUER_KEYS[Suite.P384].public)
    assert reply.image_digest == DIGEST
    for suite, octets in ((Suite.P384, reply.ecc_certificate), (Suite.ML_DSA_87, reply.mldsa_certificate)):
        certificate = Certificate.parse(octets)
        assert certificate.signed_by(ISSUER_KEYS[suite].public)
        assert certificate.public == OWN[suite]
        assert certificate.common_name == f"Endocarp Partition {0x01020304}"
        assert certificate.extensions["2.5.29.19"].value == b"\x30\x00"
        assert certificate.extensions["2.5.29.15"].value == b"\x03\x02\x07\x80"
        info = certificate.extensions["2.23.133.5.4.1"].value
        assert DIGEST in info
        assert b"\x88\x04\x01\x02\x03\x04" in info
        assert b"\x89\x04EVLT" in info
        assert certificate.key_id == certs.key_id(OWN[suite])
        assert certificate.authority_key_id == ISSUER.key_ids[suite]
        assert certificate.not_after == "20340101000000Z"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"\1", Status.MALFORMED),
        (custody.encode_request(custody.SealKey()) + b"x", Status.MALFORMED),
        (custody.encode_request(IDENTITY)[:-1], Status.MALFORMED),
        (b"\x63\0\0\0", Status.UNKNOWN_OPERATION),
        (
            custody.encode_request(custody.CertifyIdentity(b"\4" + bytes(96), IDENTITY.mldsa_public)),
            Status.KEY_INVALID,
        ),
    ],
)
def test_a_request_that_breaks_a_rule_is_answered_by_its_status(
    channel: CustodyConnection, message: bytes, status: Status
) -> None:
    assert refusal(channel, message) == status
    ask(channel, custody.SealKey())


@pytest.mark.parametrize("request_", [custody.SealKey(), IDENTITY])
def test_after_a_shutdown_nothing_is_given(
    vault: KeyVault, channel: CustodyConnection, request_: custody.Request[custody.Reply]
) -> None:
    vault.erase_all()
    assert refusal(channel, custody.encode_request(request_)) == Status.SHUT_DOWN


@pytest.mark.parametrize("message", [b"", bytes(MESSAGE_LIMIT + 1)])
def test_the_end_and_oversized_messages_close_the_channel(channel: CustodyConnection, message: bytes) -> None:
    (event,) = channel.receive(message, 0.0)
    assert isinstance(event, Close)
    assert channel.outgoing() == []


def test_the_channel_has_no_clock(channel: CustodyConnection) -> None:
    assert channel.due() is None
    assert channel.expire(1e9) == []
