"""A vault as the token sees it: it keeps objects and answers every operation, and computes nothing.

A signature says what it was made of, so that a test sees what was asked. Any operation can be told to fail.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from endocarp.errors import PeerError
from endocarp.hsm.object_policy import check_change, check_template, check_use, granted_policy, key_class
from endocarp.wire import der
from endocarp.wire.codec import Struct
from endocarp.wire.hsm import (
    REQUESTS,
    SESSION_HANDLE,
    Data,
    Decrypt,
    Description,
    Destroy,
    Discard,
    Encrypt,
    Find,
    Generate,
    Info,
    InfoReply,
    Login,
    Logout,
    Nothing,
    ObjectClass,
    Objects,
    Operation,
    Ping,
    Policy,
    Random,
    Request,
    Sealed,
    SetAttributes,
    SetPin,
    Sign,
    Status,
    Template,
    Verify,
    decode_header,
    encode_reply,
    read_body,
)
from endocarp.wire.suites import SIGNATURE_SIZE, Suite

PIN = b"12345678"
TAG = b"the tag of a GCM"
PUBLIC = {
    Suite.P256: b"\4" + bytes(range(64)),
    Suite.P384: b"\4" + bytes(range(96)),
    Suite.RSA2048: der.sequence(der.integer((1 << 2047) | 5), der.integer(65537)),
    Suite.RSA3072: der.sequence(der.integer((1 << 3071) | 5), der.integer(65537)),
    Suite.ML_DSA_65: bytes(1952),
    Suite.ML_DSA_87: bytes(2592),
    Suite.AES256: b"",
}


def signature_of(suite: Suite, scheme: int, data: bytes) -> bytes:
    """Return the signature that this vault makes."""
    return (bytes((suite, scheme)) + data).ljust(SIGNATURE_SIZE[suite], b"\0")


class TokenVault:
    """One connection's vault; call it with a message to get the reply."""

    def __init__(self, *, page: int = 1000) -> None:
        self.objects: dict[int, Description] = {}
        self.page = page
        self.generation = 0
        self.pin = PIN
        self.attempts = 10
        self.logged_in = False
        self.failures: dict[Operation, Status] = {}
        self.requests: list[Request[Any]] = []
        self._next = 1

    def __call__(self, message: bytes) -> bytes:
        number, tag = decode_header(message)
        request = read_body(REQUESTS[Operation(number)], message)
        self.requests.append(request)
        try:
            body = self._answer(request).encode()
        except PeerError as refusal:
            return encode_reply(Status(refusal.number), tag, self.generation, refusal.reason.encode())
        return encode_reply(Status.OK, tag, self.generation, body)

    def asked(self) -> list[Operation]:
        """Return the operations asked for since the last time."""
        operations = [request.OPERATION for request in self.requests]
        self.requests.clear()
        return operations

    def add(self, suite: Suite, object_class: ObjectClass, template: Template) -> Description:
        """Keep a new object."""
        check_template(suite, object_class, template)
        handle = self._next
        self._next += 1
        if template.policy & Policy.TOKEN:
            self.generation += 1
        else:
            handle |= SESSION_HANDLE
        policy = granted_policy(object_class, template.policy)
        made = Description(
            handle=handle,
            object_class=object_class,
            suite=suite,
            template=replace(template, policy=policy),
            public=PUBLIC[suite],
        )
        self.objects[handle] = made
        return made

    def _get(self, handle: int) -> Description:
        found = self.objects.get(handle)
        if found is None or (found.template.policy & Policy.PRIVATE and not self.logged_in):
            raise PeerError(Status.NO_SUCH_OBJECT, "no such object")
        return found

    def _answer(self, request: Any) -> Struct:
        if request.OPERATION in self.failures:
            raise PeerError(self.failures[request.OPERATION], "as the test wants it")
        answers: dict[type, Callable[[Any], Struct]] = {
            Ping: lambda _: Nothing(),
            Info: lambda _: InfoReply(partition=0, logged_in=False, pin_attempts=self.attempts, objects=0),
            Login: self._log_in,
            Logout: self._log_out,
            SetPin: self._set_pin,
            Generate: self._generate,
            Find: self._find,
            SetAttributes: self._change,
            Destroy: self._destroy,
            Discard: self._discard,
            Sign: lambda asked: Data(self._sign(asked)),
            Verify: self._verify,
            Encrypt: lambda asked: Sealed(asked.nonce, asked.data + TAG),
            Decrypt: lambda asked: Data(asked.data.removesuffix(TAG)),
            Random: lambda asked: Data(b"\x5a" * asked.size),
        }
        return answers[type(request)](request)

    def _log_in(self, request: Login) -> Nothing:
        self._check_pin(request.pin)
        self.logged_in = True
        return Nothing()

    def _log_out(self, _request: Logout) -> Nothing:
        self.logged_in = False
        return Nothing()

    def _set_pin(self, request: SetPin) -> Nothing:
        self._check_pin(request.old)
        self.pin = request.new
        return Nothing()

    def _sign(self, request: Sign | Verify) -> bytes:
        return signature_of(self._get(request.handle).suite, request.scheme, request.data)

    def _verify(self, request: Verify) -> Nothing:
        if request.signature != self._sign(request):
            raise PeerError(Status.SIGNATURE_INVALID, "another signature")
        return Nothing()

    def _destroy(self, request: Destroy) -> Nothing:
        check_use(Operation.DESTROY, self._get(request.handle))
        self.generation += not request.handle & SESSION_HANDLE
        del self.objects[request.handle]
        return Nothing()

    def _discard(self, request: Discard) -> Nothing:
        self._get(request.handle)
        del self.objects[request.handle]
        return Nothing()

    def _check_pin(self, pin: bytes) -> None:
        if pin != self.pin:
            raise PeerError(Status.PIN_INCORRECT, "a wrong PIN")

    def _generate(self, request: Generate) -> Objects:
        made = [self.add(request.suite, key_class(request.suite), request.key)]
        if made[0].object_class is ObjectClass.PRIVATE_KEY:
            made.append(self.add(request.suite, ObjectClass.PUBLIC_KEY, request.public))
        return Objects(after=0, objects=tuple(made))

    def _find(self, request: Find) -> Objects:
        visible = [
            one
            for handle, one in sorted(self.objects.items())
            if handle > request.after and (self.logged_in or not one.template.policy & Policy.PRIVATE)
        ]
        page, more = visible[: self.page], visible[self.page :]
        return Objects(after=page[-1].handle if more else 0, objects=tuple(page))

    def _change(self, request: SetAttributes) -> Description:
        old = self._get(request.handle)
        check_use(Operation.SET_ATTRIBUTES, old)
        check_change(old.template.policy, request.template.policy)
        made = replace(old, template=request.template)
        self.objects[request.handle] = made
        self.generation += not request.handle & SESSION_HANDLE
        return made
