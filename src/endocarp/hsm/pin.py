"""The PIN of a partition: how it is made, kept, and how often it may be wrong."""

from collections.abc import Callable

from endocarp.crypto.digest import equal
from endocarp.crypto.primitives import pin_digest
from endocarp.errors import PeerError
from endocarp.hsm.records import Pin
from endocarp.wire.hsm import PIN_ATTEMPTS, PIN_LIMIT, SHORTEST_PIN, Status

PIN_DIGITS = 8

DELAYS = (0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""How many seconds an attempt waits, by the wrong ones before it: one for each of PIN_ATTEMPTS."""

_SALT_SIZE = 16


def make_pin(entropy: Callable[[int], bytes]) -> bytes:
    """Return a PIN of PIN_DIGITS decimal digits."""
    return f"{int.from_bytes(entropy(16), 'big') % 10**PIN_DIGITS:0{PIN_DIGITS}}".encode()


def digest_new(pin: bytes, entropy: Callable[[int], bytes]) -> Pin:
    """Return what is kept of a PIN. Takes as long as scrypt does."""
    salt = entropy(_SALT_SIZE)
    return Pin(salt, pin_digest(pin, salt))


def check_new(pin: bytes) -> None:
    """Refuse with PIN_INVALID what is too short, too long, or no text."""
    if not SHORTEST_PIN <= len(pin) <= PIN_LIMIT:
        raise PeerError(Status.PIN_INVALID, f"a PIN has {SHORTEST_PIN} to {PIN_LIMIT} octets")
    try:
        pin.decode()
    except UnicodeDecodeError:
        raise PeerError(Status.PIN_INVALID, "a PIN is text in UTF-8") from None


def attempts_left(failures: int) -> int:
    """Return how many more wrong PINs lock the partition; 0 where it is locked."""
    return max(PIN_ATTEMPTS - failures, 0)


def delay(failures: int) -> float:
    """Return how many seconds the next attempt waits; refuse it with PIN_LOCKED where there is none."""
    refuse_locked(failures)
    return DELAYS[failures]


def refuse_locked(failures: int) -> None:
    """Refuse another attempt with PIN_LOCKED after too many wrong PINs."""
    if failures >= PIN_ATTEMPTS:
        raise PeerError(Status.PIN_LOCKED, f"the PIN was wrong {PIN_ATTEMPTS} times")


def is_right(pin: Pin, tried: Pin) -> bool:
    """Tell whether `tried` was made of the PIN that `pin` was made of; False where the PIN has changed since."""
    return pin.salt == tried.salt and equal(pin.digest, tried.digest)
