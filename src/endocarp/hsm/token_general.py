"""The calls of the token that need no key: information, sessions, login, digests, random octets."""

from collections.abc import Mapping
from types import MappingProxyType

from endocarp.errors import PeerError
from endocarp.hsm.mechanisms import DIGESTS, MECHANISMS
from endocarp.hsm.token_sessions import Digesting, Session, single_part
from endocarp.hsm.token_view import Handler, Steps, TokenView, ask, octets
from endocarp.wire.cryptoki import CKR, CKU, UNAVAILABLE_INFORMATION, SlotFlags, TokenFlags
from endocarp.wire.hsm import DATA_LIMIT, PIN_ATTEMPTS, PIN_LIMIT, SHORTEST_PIN, Info, Random, SetPin
from endocarp.wire.p11 import ByteArray, Mechanism, UlongArray, Version
from endocarp.wire.p11_calls import Call, Values

SLOT = 0
"""The one slot: a partition has its own socket."""
HANDSHAKE = b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
RANDOM_LIMIT = 1 << 19
"""The most random octets of one call."""
CRYPTOKI = Version(2, 40)
OURS = Version(0, 1)


def _text(text: str, size: int) -> bytes:
    """Return text as PKCS#11 pads it."""
    return text.encode()[:size].ljust(size)


def _slot(slot: int) -> None:
    if slot != SLOT:
        raise PeerError(CKR.SLOT_ID_INVALID, f"there is no slot {slot:#x}")


def _listed(numbers: list[int], room: int | None) -> tuple[UlongArray]:
    """Return numbers, or their count where there is no room for them."""
    return (len(numbers) if room is None or room < len(numbers) else numbers,)


# --- the token ------------------------------------------------------------------------------------------------


def initialize(_view: TokenView, handshake: ByteArray, _given: int, _reserved: ByteArray) -> Values:
    """C_Initialize."""
    if handshake != HANDSHAKE:
        raise PeerError(CKR.DEVICE_ERROR, "the client speaks another protocol")
    return ()


def finalize(_view: TokenView) -> Values:
    """C_Finalize: the connection ends with it, and so does everything that belonged to the application."""
    return ()


def get_info(_view: TokenView) -> Values:
    """C_GetInfo."""
    return CRYPTOKI, _text("Endocarp", 32), 0, _text("Endocarp token", 32), OURS


def get_slot_list(_view: TokenView, _token_present: int, room: int | None) -> Values:
    """C_GetSlotList."""
    return _listed([SLOT], room)


def get_slot_info(view: TokenView, slot: int) -> Values:
    """C_GetSlotInfo."""
    _slot(slot)
    name = f"Endocarp partition {view.partition}"
    return _text(name, 64), _text("Endocarp", 32), SlotFlags.TOKEN_PRESENT, OURS, OURS


def get_token_info(view: TokenView, slot: int) -> Steps[Values]:
    """C_GetTokenInfo: how the PIN stands is asked each time."""
    _slot(slot)
    info = yield from ask(Info())
    flags = TokenFlags.RNG | TokenFlags.LOGIN_REQUIRED | TokenFlags.USER_PIN_INITIALIZED
    flags |= TokenFlags.TOKEN_INITIALIZED | _pin_flags(info.pin_attempts)
    texts = (
        _text(f"Endocarp partition {view.partition}", 32),
        _text("Endocarp", 32),
        _text("software HSM", 16),
        _text(f"{view.partition:016}", 16),
    )
    # No limit on sessions is told, none on memory either: both are this process's own affair.
    sessions = (0, len(view.sessions), 0, view.sessions.writing)
    memory = (UNAVAILABLE_INFORMATION,) * 4
    return *texts, flags, *sessions, PIN_LIMIT, SHORTEST_PIN, *memory, OURS, OURS, _text("", 16)


def _pin_flags(attempts: int) -> TokenFlags:
    if attempts == 0:
        return TokenFlags.USER_PIN_LOCKED
    flags = TokenFlags(0) if attempts == PIN_ATTEMPTS else TokenFlags.USER_PIN_COUNT_LOW
    return flags | TokenFlags.USER_PIN_FINAL_TRY if attempts == 1 else flags


def get_mechanism_list(_view: TokenView, slot: int, room: int | None) -> Values:
    """C_GetMechanismList."""
    _slot(slot)
    return _listed(list(MECHANISMS), room)


def get_mechanism_info(_view: TokenView, slot: int, number: int) -> Values:
    """C_GetMechanismInfo."""
    _slot(slot)
    if number not in MECHANISMS:
        raise PeerError(CKR.MECHANISM_INVALID, f"there is no mechanism {number:#x}")
    return MECHANISMS[number]


# --- sessions and login ---------------------------------------------------------------------------------------


def open_session(view: TokenView, slot: int, flags: int) -> Values:
    """C_OpenSession."""
    _slot(slot)
    return (view.sessions.open(flags),)


def close_session(view: TokenView, session: int) -> Steps[Values]:
    """C_CloseSession: its objects are destroyed; after the last one nobody is logged in."""
    yield from _end(view, [view.sessions.close(session)])
    return ()


def close_all_sessions(view: TokenView, slot: int) -> Steps[Values]:
    """C_CloseAllSessions."""
    _slot(slot)
    yield from _end(view, view.sessions.close_all())
    return ()


def _end(view: TokenView, sessions: list[Session]) -> Steps[None]:
    yield from view.end([handle for session in sessions for handle in session.objects])
    if view.logged_in and not len(view.sessions):
        yield from view.log_out()


def get_session_info(view: TokenView, session: int) -> Values:
    """C_GetSessionInfo."""
    found = view.sessions.get(session)
    return SLOT, found.state(logged_in=view.logged_in), found.flags, 0


def login(view: TokenView, session: int, user: int, pin: ByteArray) -> Steps[Values]:
    """C_Login: there is one user, and no security officer."""
    view.sessions.get(session)
    if user == CKU.CONTEXT_SPECIFIC:
        raise PeerError(CKR.OPERATION_NOT_INITIALIZED, "no key here asks for the PIN at each use")
    if user != CKU.USER:
        raise PeerError(CKR.USER_TYPE_INVALID, "the token has no other user than CKU_USER")
    if view.logged_in:
        raise PeerError(CKR.USER_ALREADY_LOGGED_IN, "the application is logged in")
    yield from view.log_in(_pin(pin))
    return ()


def _pin(pin: ByteArray) -> bytes:
    text = octets(pin)
    # Whoever has no PIN to give is not let guess one: the vault would count it.
    if not text:
        raise PeerError(CKR.ARGUMENTS_BAD, "there is no PIN")
    if len(text) > PIN_LIMIT:
        raise PeerError(CKR.PIN_LEN_RANGE, f"a PIN has at most {PIN_LIMIT} octets")
    return text


def logout(view: TokenView, session: int) -> Steps[Values]:
    """C_Logout."""
    view.sessions.get(session)
    if not view.logged_in:
        raise PeerError(CKR.USER_NOT_LOGGED_IN, "nobody is logged in")
    yield from view.log_out()
    return ()


def set_pin(view: TokenView, session: int, old: ByteArray, new: ByteArray) -> Steps[Values]:
    """C_SetPIN."""
    if not view.sessions.get(session).may_write:
        raise PeerError(CKR.SESSION_READ_ONLY, "the session may not write")
    yield from ask(SetPin(_pin(old), _pin(new)))
    return ()


# --- digests and random octets --------------------------------------------------------------------------------


def digest_init(view: TokenView, session: int, mechanism: Mechanism | None) -> Values:
    """C_DigestInit; without a mechanism it ends what is under way."""
    active = view.sessions.get(session).digest
    if mechanism is None:
        active.operation = None
        return ()
    if mechanism.type not in DIGESTS:
        raise PeerError(CKR.MECHANISM_INVALID, f"{mechanism.type:#x} is no digest here")
    active.begin(Digesting(mechanism.type))
    return ()


def digest(view: TokenView, session: int, data: ByteArray, room: int | None) -> Values:
    """C_Digest."""
    active = view.sessions.get(session).digest
    operation = single_part(active)
    if room is None or room < operation.size:
        return (operation.size,)
    active.operation = None
    return (operation.finish(octets(data)),)


def digest_update(view: TokenView, session: int, data: ByteArray) -> Values:
    """C_DigestUpdate."""
    with view.sessions.get(session).digest.ended_by_errors() as operation:
        operation.update(octets(data))
    return ()


def digest_final(view: TokenView, session: int, room: int | None) -> Values:
    """C_DigestFinal."""
    active = view.sessions.get(session).digest
    operation = active.current()
    if room is None or room < operation.size:
        return (operation.size,)
    active.operation = None
    return (operation.finish(b""),)


def seed_random(view: TokenView, session: int, _seed: ByteArray) -> Values:
    """C_SeedRandom: the vault's randomness is the kernel's, and takes no seed from applications."""
    view.sessions.get(session)
    raise PeerError(CKR.RANDOM_SEED_NOT_SUPPORTED, "the token needs no seed")


def generate_random(view: TokenView, session: int, room: int | None) -> Steps[Values]:
    """C_GenerateRandom."""
    view.sessions.get(session)
    wanted = room or 0
    if wanted > RANDOM_LIMIT:
        raise PeerError(CKR.ARGUMENTS_BAD, f"at most {RANDOM_LIMIT} random octets at once")
    parts = []
    while wanted:
        part = yield from ask(Random(min(wanted, DATA_LIMIT)))
        parts.append(part.data)
        wanted -= len(part.data)
    return (b"".join(parts),)


CALLS: Mapping[Call, Handler] = MappingProxyType(
    {
        Call.C_Initialize: initialize,
        Call.C_Finalize: finalize,
        Call.C_GetInfo: get_info,
        Call.C_GetSlotList: get_slot_list,
        Call.C_GetSlotInfo: get_slot_info,
        Call.C_GetTokenInfo: get_token_info,
        Call.C_GetMechanismList: get_mechanism_list,
        Call.C_GetMechanismInfo: get_mechanism_info,
        Call.C_OpenSession: open_session,
        Call.C_CloseSession: close_session,
        Call.C_CloseAllSessions: close_all_sessions,
        Call.C_GetSessionInfo: get_session_info,
        Call.C_Login: login,
        Call.C_Logout: logout,
        Call.C_SetPIN: set_pin,
        Call.C_DigestInit: digest_init,
        Call.C_Digest: digest,
        Call.C_DigestUpdate: digest_update,
        Call.C_DigestFinal: digest_final,
        Call.C_SeedRandom: seed_random,
        Call.C_GenerateRandom: generate_random,
    }
)
"""The calls of this module."""
