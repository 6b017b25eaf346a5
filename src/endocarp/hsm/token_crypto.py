"""The calls of the token that use keys: to sign, verify, encrypt and decrypt.

To begin is answered from the view, without asking the vault; each result is one question.
"""

from collections.abc import Mapping
from types import MappingProxyType

from endocarp.core import Ask
from endocarp.errors import PeerError
from endocarp.hsm.mechanisms import cipher_rule, sign_rule
from endocarp.hsm.object_policy import check_use
from endocarp.hsm.token_objects import P11Object
from endocarp.hsm.token_sessions import ActiveOperation, Ciphering, HashSigning, Signing, single_part
from endocarp.hsm.token_view import Handler, Steps, TokenView, octets
from endocarp.wire.cryptoki import CKR
from endocarp.wire.hsm import Decrypt, Encrypt, Operation, encode_request
from endocarp.wire.p11 import ByteArray, Mechanism
from endocarp.wire.p11_calls import Call, Values


def _check_use(operation: Operation, key: P11Object) -> None:
    """Refuse an operation that the key's class or policy does not allow."""
    try:
        check_use(operation, key.description)
    except PeerError as error:
        raise PeerError(CKR.KEY_FUNCTION_NOT_PERMITTED, error.reason) from None


# --- signatures -----------------------------------------------------------------------------------------------


def sign_init(view: TokenView, session: int, mechanism: Mechanism | None, handle: int) -> Values:
    """C_SignInit; without a mechanism it ends what is under way."""
    _begin_signing(view, Operation.SIGN, view.sessions.get(session).sign, mechanism, handle)
    return ()


def verify_init(view: TokenView, session: int, mechanism: Mechanism | None, handle: int) -> Values:
    """C_VerifyInit; without a mechanism it ends what is under way."""
    _begin_signing(view, Operation.VERIFY, view.sessions.get(session).verify, mechanism, handle)
    return ()


def _begin_signing(
    view: TokenView,
    operation: Operation,
    active: ActiveOperation[Signing | HashSigning],
    mechanism: Mechanism | None,
    handle: int,
) -> None:
    # PKCS#11 3.0 Base, 5.8 to 5.13: the NULL mechanism ends what is under way, in all kinds of operation.
    if mechanism is None:
        active.operation = None
        return
    key = view.key(handle)
    # Every signature begins here: without a parameter, the same key and mechanism always come to the same.
    signing = key.signings.get((operation, mechanism.type)) if mechanism.parameter is None else None
    if signing is None:
        _check_use(operation, key)
        signing = Signing(key, sign_rule(mechanism, key.suite))
        if mechanism.parameter is None:
            key.signings[operation, mechanism.type] = signing
    active.begin(signing.begin())


def sign(view: TokenView, session: int, data: ByteArray, room: int | None) -> Values | Ask:
    """C_Sign."""
    active = view.sessions.get(session).sign
    operation = single_part(active)
    if room is None or room < operation.size:
        return (operation.size,)
    active.operation = None
    return Ask(operation.sign(octets(data)))


def sign_update(view: TokenView, session: int, data: ByteArray) -> Values:
    """C_SignUpdate."""
    with view.sessions.get(session).sign.ended_by_errors() as operation:
        operation.update(octets(data))
    return ()


def sign_final(view: TokenView, session: int, room: int | None) -> Values | Ask:
    """C_SignFinal."""
    active = view.sessions.get(session).sign
    operation = active.current()
    if room is None or room < operation.size:
        return (operation.size,)
    active.operation = None
    return Ask(operation.sign(b""))


def verify(view: TokenView, session: int, data: ByteArray, signature: ByteArray) -> Steps[Values]:
    """C_Verify."""
    active = view.sessions.get(session).verify
    operation = single_part(active)
    active.operation = None
    yield operation.verify(octets(signature), octets(data))
    return ()


def verify_update(view: TokenView, session: int, data: ByteArray) -> Values:
    """C_VerifyUpdate."""
    with view.sessions.get(session).verify.ended_by_errors() as operation:
        operation.update(octets(data))
    return ()


def verify_final(view: TokenView, session: int, signature: ByteArray) -> Steps[Values]:
    """C_VerifyFinal."""
    active = view.sessions.get(session).verify
    operation = active.current()
    active.operation = None
    yield operation.verify(octets(signature), b"")
    return ()


# --- ciphers --------------------------------------------------------------------------------------------------


def encrypt_init(view: TokenView, session: int, mechanism: Mechanism | None, handle: int) -> Values:
    """C_EncryptInit; without a mechanism it ends what is under way."""
    _begin_cipher(view, Encrypt, view.sessions.get(session).encrypt, mechanism, handle)
    return ()


def decrypt_init(view: TokenView, session: int, mechanism: Mechanism | None, handle: int) -> Values:
    """C_DecryptInit; without a mechanism it ends what is under way."""
    _begin_cipher(view, Decrypt, view.sessions.get(session).decrypt, mechanism, handle)
    return ()


def _begin_cipher(
    view: TokenView,
    request: type[Encrypt] | type[Decrypt],
    active: ActiveOperation[Ciphering],
    mechanism: Mechanism | None,
    handle: int,
) -> None:
    if mechanism is None:
        active.operation = None
        return
    key = view.key(handle)
    _check_use(request.OPERATION, key)
    active.begin(Ciphering(request, key, cipher_rule(mechanism, key.suite)))


def encrypt(view: TokenView, session: int, data: ByteArray, room: int | None) -> Steps[Values]:
    """C_Encrypt."""
    active = view.sessions.get(session).encrypt
    single_part(active)
    return _finish_cipher(active, data, room)


def encrypt_update(view: TokenView, session: int, data: ByteArray, room: int | None) -> Values:
    """C_EncryptUpdate."""
    return _update_cipher(view.sessions.get(session).encrypt, data, room)


def encrypt_final(view: TokenView, session: int, room: int | None) -> Steps[Values]:
    """C_EncryptFinal."""
    return _finish_cipher(view.sessions.get(session).encrypt, b"", room)


def decrypt(view: TokenView, session: int, data: ByteArray, room: int | None) -> Steps[Values]:
    """C_Decrypt."""
    active = view.sessions.get(session).decrypt
    single_part(active)
    return _finish_cipher(active, data, room)


def decrypt_update(view: TokenView, session: int, data: ByteArray, room: int | None) -> Values:
    """C_DecryptUpdate."""
    return _update_cipher(view.sessions.get(session).decrypt, data, room)


def decrypt_final(view: TokenView, session: int, room: int | None) -> Steps[Values]:
    """C_DecryptFinal."""
    return _finish_cipher(view.sessions.get(session).decrypt, b"", room)


def _update_cipher(active: ActiveOperation[Ciphering], data: ByteArray, room: int | None) -> Values:
    """Collect a part: PKCS#11 2.40 Base, 5.2 lets a token hold its output back until the end."""
    with active.ended_by_errors() as operation:
        part = octets(data)
        if room is None:
            # Who asks for the size gives the part again. Never 0: in dialect 0, a buffer of that size asks once more.
            return (max(len(part), 1),)
        operation.update(part)
    return (b"",)


def _finish_cipher(active: ActiveOperation[Ciphering], data: ByteArray, room: int | None) -> Steps[Values]:
    with active.ended_by_errors() as operation:
        part = octets(data)
    size = operation.size(part)
    if room is None or room < size:
        return (size,)
    active.operation = None
    request = operation.finish(part)
    body = yield encode_request(request)
    return (request.read_reply(body).data,)


CALLS: Mapping[Call, Handler] = MappingProxyType(
    {
        Call.C_SignInit: sign_init,
        Call.C_Sign: sign,
        Call.C_SignUpdate: sign_update,
        Call.C_SignFinal: sign_final,
        Call.C_VerifyInit: verify_init,
        Call.C_Verify: verify,
        Call.C_VerifyUpdate: verify_update,
        Call.C_VerifyFinal: verify_final,
        Call.C_EncryptInit: encrypt_init,
        Call.C_Encrypt: encrypt,
        Call.C_EncryptUpdate: encrypt_update,
        Call.C_EncryptFinal: encrypt_final,
        Call.C_DecryptInit: decrypt_init,
        Call.C_Decrypt: decrypt,
        Call.C_DecryptUpdate: decrypt_update,
        Call.C_DecryptFinal: decrypt_final,
    }
)
"""The calls of this module."""
