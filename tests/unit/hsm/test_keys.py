"""Keys sealed at rest, parsed when first used."""

from collections.abc import Iterator
from random import Random

import pytest

from endocarp.crypto.keys import AesKey, PrivateKey
from endocarp.crypto.secret import Secret
from endocarp.errors import Refused
from endocarp.hsm.keys import Draft, KeyObject, KeySeal, OwnKey, make_key, public_octets
from endocarp.hsm.object_policy import SECRET_SUITES, default_policy, key_class
from endocarp.hsm.records import StoredObject
from endocarp.wire.hsm import ObjectClass, Policy, Template
from endocarp.wire.suites import SCHEMES, Suite

entropy = Random("keys").randbytes
HANDLE = 5


@pytest.fixture(scope="module")
def seal() -> Iterator[KeySeal]:
    with Secret(bytes(range(32))) as key:
        yield KeySeal(key, entropy)


def stored(suite: Suite, key: OwnKey, seal: KeySeal) -> StoredObject:
    template = Template(default_policy(suite, key_class(suite)), "web")
    draft = Draft(key_class(suite), suite, template, public_octets(key), key)
    return StoredObject(draft.placed(HANDLE), seal.seal(HANDLE, key))


@pytest.mark.parametrize("suite", Suite)
def test_a_sealed_key_opens_as_the_same_key(seal: KeySeal, suite: Suite) -> None:
    key = make_key(suite, entropy)
    opened = seal.open(HANDLE, suite, seal.seal(HANDLE, key))
    assert public_octets(opened) == public_octets(key)
    with key.export() as one, opened.export() as other:
        assert one == other
        assert bytes(one.view) not in seal.seal(HANDLE, key)


def test_aes_keys_come_from_the_entropy_that_was_given() -> None:
    key = make_key(Suite.AES256, lambda size: b"\x07" * size)
    assert isinstance(key, AesKey)
    with key.export() as octets:
        assert bytes(octets.view) == b"\x07" * 32


def test_a_key_is_never_sealed_twice_in_the_same_way(seal: KeySeal) -> None:
    key = make_key(Suite.P256, entropy)
    assert seal.seal(HANDLE, key) != seal.seal(HANDLE, key)


def test_a_sealed_key_opens_under_its_own_handle_suite_and_partition_only(seal: KeySeal) -> None:
    sealed = seal.seal(HANDLE, make_key(Suite.P256, entropy))
    with Secret(bytes(32)) as other:
        for opener, handle, suite in (
            (seal, HANDLE + 1, Suite.P256),
            (seal, HANDLE, Suite.P384),
            (KeySeal(other, entropy), HANDLE, Suite.P256),
        ):
            with pytest.raises(Refused) as caught:
                opener.open(handle, suite, sealed)
            assert caught.value.rule == "store-key"


def test_an_object_parses_its_key_when_it_is_first_used(seal: KeySeal) -> None:
    held = KeyObject(stored(Suite.P256, make_key(Suite.P256, entropy), seal), seal)
    key = held.private_key
    assert isinstance(key, PrivateKey)
    assert held.private_key is key
    assert held.is_private


def test_a_secret_object_holds_an_aes_key(seal: KeySeal) -> None:
    key = make_key(Suite.AES256, entropy)
    held = KeyObject(stored(Suite.AES256, key, seal), seal)
    assert held.aes_key.open(bytes(12), held.aes_key.seal(bytes(12), b"data")) == b"data"
    assert public_octets(key) == b""


@pytest.mark.parametrize("suite", sorted(set(Suite) - SECRET_SUITES))
def test_a_public_object_verifies_what_its_pair_signed(seal: KeySeal, suite: Suite) -> None:
    key = make_key(suite, entropy)
    assert isinstance(key, PrivateKey)
    template = Template(default_policy(suite, ObjectClass.PUBLIC_KEY))
    draft = Draft(ObjectClass.PUBLIC_KEY, suite, template, public_octets(key), None)
    held = KeyObject(StoredObject(draft.placed(6)), seal)
    scheme = max(
        SCHEMES[suite]
        - {scheme for scheme in SCHEMES[suite] if "MU" in scheme.name or "DIGEST" in scheme.name}
    )
    assert held.public_key.verify(scheme, key.sign(scheme, b"data"), b"data")
    assert held.public_key is held.public_key
    assert not held.is_private


def test_an_object_with_another_template_keeps_its_key(seal: KeySeal) -> None:
    key = make_key(Suite.P256, entropy)
    old = KeyObject(stored(Suite.P256, key, seal), seal, key)
    new = old.changed(Template(Policy.PRIVATE, "other"))
    assert new.private_key is old.private_key
    assert new.description.template.label == "other"
    assert new.description.public == old.description.public
    assert new.stored.sealed == old.stored.sealed
    assert new.size == len(new.description.encode())
