"""Objects and their keys: sealed at rest, parsed when first used, kept parsed from then on."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from endocarp.crypto.keys import AesKey, PrivateKey, PublicKey, generate, load
from endocarp.crypto.primitives import Gcm, hkdf_sha384
from endocarp.crypto.secret import Secret
from endocarp.errors import Refused
from endocarp.hsm.object_policy import SECRET_SUITES
from endocarp.hsm.records import StoredObject
from endocarp.wire.codec import U64, Bytes, Octets, Struct, u8
from endocarp.wire.hsm import Description, ObjectClass, Policy, Template
from endocarp.wire.suites import AES_KEY_SIZE, GCM_NONCE_SIZE, Scheme, Suite

OwnKey = PrivateKey | AesKey
"""A key that only its vault knows."""


class _SealedKey(Struct):
    nonce: Annotated[bytes, Octets(GCM_NONCE_SIZE)]
    sealed: Annotated[bytes, Bytes(None)]


class _Place(Struct):
    """What a sealed key is bound to, besides its partition."""

    handle: U64
    suite: Annotated[Suite, u8]


class KeySeal:
    """Seals keys for one partition: AES-256-GCM under a key of its own, random nonces, bound to handle and suite.

    So a key stands in the clear only while it is parsed, and what is kept in memory and written to the store is
    sealed. `entropy` gives random octets.
    """

    def __init__(self, seal_key: Secret, entropy: Callable[[int], bytes]) -> None:
        with hkdf_sha384(seal_key, b"", b"endocarp key seal", AES_KEY_SIZE) as key:
            self._gcm = Gcm(key)
        self._entropy = entropy

    def seal(self, handle: int, key: OwnKey) -> bytes:
        """Return the sealed form of a key."""
        nonce = self._entropy(GCM_NONCE_SIZE)
        with key.export() as octets:
            sealed = self._gcm.seal(nonce, octets, _Place(handle, key.suite).encode())
        return _SealedKey(nonce, sealed).encode()

    def open(self, handle: int, suite: Suite, sealed: bytes) -> OwnKey:
        """Return the key that `seal` sealed for this handle; Refused where it is another one."""
        held = _SealedKey.decode(sealed)
        try:
            octets = self._gcm.open_secret(held.nonce, held.sealed, _Place(handle, suite).encode())
        except Refused:
            raise Refused(
                "store-key", f"the key of object {handle} does not open", "restore the store"
            ) from None
        with octets:
            return AesKey(octets) if suite in SECRET_SUITES else load(suite, octets)


def make_key(suite: Suite, entropy: Callable[[int], bytes]) -> OwnKey:
    """Make a key of any suite; pairs are made with the library's own entropy."""
    if suite not in SECRET_SUITES:
        return generate(suite)
    with Secret(entropy(AES_KEY_SIZE)) as octets:
        return AesKey(octets)


def public_octets(key: OwnKey) -> bytes:
    """Return the public half of a key, empty where it has none."""
    return key.public.raw if isinstance(key, PrivateKey) else b""


@dataclass(frozen=True)
class Draft:
    """An object that has been made and has no place yet. `own` is the key of a private or secret object."""

    object_class: ObjectClass
    suite: Suite
    template: Template
    public: bytes
    own: OwnKey | None

    def placed(self, handle: int) -> Description:
        """Return the description of the object under its handle."""
        return Description(handle, self.object_class, self.suite, self.template, self.public)


class KeyObject:
    """One object; its key is parsed when it is first used. `size` is that of the encoded description, in octets."""

    __slots__ = ("_own", "_public", "_seal", "description", "is_private", "signers", "size", "stored")

    def __init__(self, stored: StoredObject, seal: KeySeal, own: OwnKey | None = None) -> None:
        self.stored = stored
        self.description = stored.description
        self.size = len(stored.description.encode())
        self.is_private = bool(stored.description.template.policy & Policy.PRIVATE)
        self.signers: dict[Scheme, Callable[[bytes], bytes]] = {}
        """The ways to sign that were found permitted: as a policy is replaced with its object, they stay so."""
        self._seal = seal
        self._own = own
        self._public: PublicKey | None = None

    @property
    def private_key(self) -> PrivateKey:
        """The key of a private object."""
        key = self._own_key()
        assert isinstance(key, PrivateKey)
        return key

    @property
    def aes_key(self) -> AesKey:
        """The key of a secret object."""
        key = self._own_key()
        assert isinstance(key, AesKey)
        return key

    def _own_key(self) -> OwnKey:
        if self._own is None:
            description = self.description
            self._own = self._seal.open(description.handle, description.suite, self.stored.sealed)
        return self._own

    @property
    def public_key(self) -> PublicKey:
        """The key of a public object."""
        if self._public is None:
            self._public = PublicKey.from_raw(self.description.suite, self.description.public)
        return self._public

    def changed(self, template: Template) -> "KeyObject":
        """Return the same object with another template."""
        description = dataclasses.replace(self.description, template=template)
        return KeyObject(StoredObject(description, self.stored.sealed), self._seal, self._own)
