"""What a vault does for each operation: one function a request, in a table.

A function decides, does it and returns the answer. It refuses by raising, before anything has changed but the count of
wrong PINs. The lock is held where something changes, and nowhere else: heavy work is done outside it. What has to wait
first, an attempt with a PIN, is returned as the `Attempt` that is to be made.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from endocarp.crypto.primitives import pin_digest
from endocarp.errors import PeerError
from endocarp.hsm import pin as pins
from endocarp.hsm.keys import Draft, KeyObject, make_key, public_octets
from endocarp.hsm.object_policy import (
    SECRET_SUITES,
    check_change,
    check_template,
    check_use,
    granted_policy,
    key_class,
)
from endocarp.hsm.partition import Partition
from endocarp.hsm.records import Pin
from endocarp.hsm.report import Surroundings, make_report
from endocarp.hsm.session import Session
from endocarp.wire import hsm
from endocarp.wire.codec import Struct
from endocarp.wire.hsm import Asked, Nothing, ObjectClass, Operation, Status
from endocarp.wire.suites import CIPHERS, GCM_NONCE_SIZE, SCHEMES, Cipher

DONE = Nothing().encode()
"""The answer that tells nothing but that it was done."""
PAGE_SIZE = 56 * 1024
"""How many octets of descriptions one answer to Find holds at most."""


@dataclass(frozen=True)
class Vault:
    """What all connections to one partition share.

    `lock` is held while something changes, `turn` while a PIN is compared: by one connection at a time, or many who
    come at once with the right one would count as so many wrong ones until the last is done.
    """

    partition: Partition
    surroundings: Surroundings
    entropy: Callable[[int], bytes]
    lock: AbstractContextManager[object]
    turn: AbstractContextManager[object]


@dataclass(frozen=True)
class Attempt:
    """An attempt with a PIN, to be made after `delay` seconds; raises as the functions here do."""

    make: Callable[[], bytes]
    delay: float


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    vault: Vault
    session: Session


Outcome = Struct | bytes | Attempt
"""An answer, encoded or not (octets alone are a `Data`), or the attempt that leads to one."""
Carry = Callable[[Caller, Asked], Outcome]


# --- the partition and this connection ------------------------------------------------------------------------


def _ping(caller: Caller, request: hsm.Ping) -> Outcome:
    return DONE


def _info(caller: Caller, request: hsm.Info) -> Outcome:
    held = caller.vault.partition
    return hsm.InfoReply(held.number, caller.session.logged_in, held.pin_attempts, len(held.objects))


def _login(caller: Caller, request: hsm.Login) -> Outcome:
    vault = caller.vault

    def settle(tried: Pin) -> None:
        with vault.lock:
            vault.partition.settle(tried)
        caller.session.log_in()

    return _attempt(vault, request.pin, settle)


def _attempt(vault: Vault, pin: bytes, settle: Callable[[Pin], None]) -> Attempt:
    """Return an attempt: it is counted, the digest of the PIN is derived, and `settle` compares it and does what follows.

    `settle` is called without the lock, in this attempt's turn: no other one comes between its steps.
    """
    held = vault.partition
    delay = held.pin_delay

    def make() -> bytes:
        with vault.turn:
            with vault.lock:
                if held.pin_delay > delay:
                    raise PeerError(Status.FAILED, "other attempts were wrong meanwhile: try again")
                salt = held.begin_attempt()
            settle(Pin(salt, pin_digest(pin, salt)))
        return DONE

    return Attempt(make, delay)


def _logout(caller: Caller, request: hsm.Logout) -> Outcome:
    caller.session.log_out()
    return DONE


def _set_pin(caller: Caller, request: hsm.SetPin) -> Outcome:
    vault = caller.vault
    pins.check_new(request.new)

    def settle(tried: Pin) -> None:
        with vault.lock:
            vault.partition.judge(tried)
        new = pins.digest_new(request.new, vault.entropy)
        with vault.lock:
            vault.partition.set_pin(tried, new)

    return _attempt(vault, request.old, settle)


def _random(caller: Caller, request: hsm.Random) -> Outcome:
    if request.size > hsm.DATA_LIMIT:
        raise PeerError(Status.DATA_INVALID, f"at most {hsm.DATA_LIMIT} random octets at once")
    return caller.vault.entropy(request.size)


def _report(caller: Caller, request: hsm.Report) -> Outcome:
    held = caller.vault.partition
    return make_report(
        held.identity,
        caller.vault.surroundings,
        partition=held.number,
        nonce=request.nonce,
        generation=held.generation,
        objects=len(held.objects),
    )


# --- objects --------------------------------------------------------------------------------------------------


def _generate(caller: Caller, request: hsm.Generate) -> Outcome:
    suite, own_class = request.suite, key_class(request.suite)
    check_template(suite, own_class, request.key)
    if suite not in SECRET_SUITES:
        check_template(suite, ObjectClass.PUBLIC_KEY, request.public)

    key = make_key(suite, caller.vault.entropy)
    public = public_octets(key)
    drafts = [Draft(own_class, suite, _granted(own_class, request.key), public, key)]
    if public:
        template = _granted(ObjectClass.PUBLIC_KEY, request.public)
        drafts.append(Draft(ObjectClass.PUBLIC_KEY, suite, template, public, None))
    with caller.vault.lock:
        made = caller.session.add(drafts)
    return hsm.Objects(0, tuple(one.description for one in made))


def _granted(object_class: ObjectClass, template: hsm.Template) -> hsm.Template:
    policy = granted_policy(object_class, template.policy)
    return hsm.Template(policy, template.label, template.id, template.attributes)


def _find(caller: Caller, request: hsm.Find) -> Outcome:
    page: list[hsm.Description] = []
    room = PAGE_SIZE
    for found in caller.session.visible():
        if not _matches(found.description, request):
            continue
        room -= found.size
        if room < 0:
            return hsm.Objects(page[-1].handle, tuple(page))
        page.append(found.description)
    return hsm.Objects(0, tuple(page))


def _matches(description: hsm.Description, request: hsm.Find) -> bool:
    return (
        description.handle > request.after
        and request.label in ("", description.template.label)
        and request.id in (b"", description.template.id)
    )


def _get_object(caller: Caller, request: hsm.GetObject) -> Outcome:
    return caller.session.get(request.handle).description


def _set_attributes(caller: Caller, request: hsm.SetAttributes) -> Outcome:
    with caller.vault.lock:
        found = caller.session.get(request.handle)
        check_use(Operation.SET_ATTRIBUTES, found.description)
        check_change(found.description.template.policy, request.template.policy)
        return caller.session.change(found, request.template).description


def _destroy(caller: Caller, request: hsm.Destroy) -> Outcome:
    with caller.vault.lock:
        found = caller.session.get(request.handle)
        check_use(Operation.DESTROY, found.description)
        caller.session.destroy(request.handle)
    return DONE


def _discard(caller: Caller, request: hsm.Discard) -> Outcome:
    caller.session.discard(request.handle)
    return DONE


# --- use of keys ----------------------------------------------------------------------------------------------


def _sign(caller: Caller, request: hsm.Sign) -> Outcome:
    found = caller.session.get(request.handle)
    sign = found.signers.get(request.scheme)
    if sign is None:
        _check_mechanism(found, Operation.SIGN, request.scheme, SCHEMES[found.description.suite])
        sign = found.signers[request.scheme] = found.private_key.signer(request.scheme)
    return sign(request.data)


def _verify(caller: Caller, request: hsm.Verify) -> Outcome:
    found = caller.session.get(request.handle)
    _check_mechanism(found, Operation.VERIFY, request.scheme, SCHEMES[found.description.suite])
    if not found.public_key.verify(request.scheme, request.signature, request.data):
        raise PeerError(Status.SIGNATURE_INVALID, "the signature does not fit")
    return DONE


def _encrypt(caller: Caller, request: hsm.Encrypt) -> Outcome:
    found = caller.session.get(request.handle)
    _check_mechanism(found, Operation.ENCRYPT, request.cipher, CIPHERS[found.description.suite])
    if request.cipher is not Cipher.AES_GCM:
        _refuse_gcm_fields(request.nonce, request.associated)
        return hsm.Sealed(b"", found.public_key.encrypt(request.cipher, request.data))
    nonce = request.nonce or caller.vault.entropy(GCM_NONCE_SIZE)
    return hsm.Sealed(nonce, found.aes_key.seal(nonce, request.data, request.associated))


def _decrypt(caller: Caller, request: hsm.Decrypt) -> Outcome:
    found = caller.session.get(request.handle)
    _check_mechanism(found, Operation.DECRYPT, request.cipher, CIPHERS[found.description.suite])
    if request.cipher is not Cipher.AES_GCM:
        _refuse_gcm_fields(request.nonce, request.associated)
        return found.private_key.decrypt(request.cipher, request.data)
    return found.aes_key.open(request.nonce, request.data, request.associated)


def _check_mechanism(found: KeyObject, operation: Operation, way: object, ways: frozenset[Any]) -> None:
    check_use(operation, found.description)
    if way not in ways:
        raise PeerError(Status.MECHANISM_INVALID, f"{way!r} is not for {found.description.suite.name}")


def _refuse_gcm_fields(nonce: bytes, associated: bytes) -> None:
    if nonce or associated:
        raise PeerError(Status.DATA_INVALID, "RSA takes no nonce and no associated data")


OPERATIONS: Mapping[Operation, Carry[Any]] = MappingProxyType(
    {
        Operation.PING: _ping,
        Operation.INFO: _info,
        Operation.LOGIN: _login,
        Operation.LOGOUT: _logout,
        Operation.SET_PIN: _set_pin,
        Operation.RANDOM: _random,
        Operation.REPORT: _report,
        Operation.GENERATE: _generate,
        Operation.FIND: _find,
        Operation.GET_OBJECT: _get_object,
        Operation.SET_ATTRIBUTES: _set_attributes,
        Operation.DESTROY: _destroy,
        Operation.DISCARD: _discard,
        Operation.SIGN: _sign,
        Operation.VERIFY: _verify,
        Operation.ENCRYPT: _encrypt,
        Operation.DECRYPT: _decrypt,
    }
)
"""What is done for each operation."""
