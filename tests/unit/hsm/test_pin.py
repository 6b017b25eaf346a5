"""The PIN: made at random, kept as a digest, delayed from the fourth wrong one, locked at the tenth."""

from itertools import pairwise

import pytest

from endocarp.errors import PeerError
from endocarp.hsm import pin as pins
from endocarp.hsm.records import Pin
from endocarp.wire.hsm import PIN_ATTEMPTS, PIN_LIMIT, Status


def test_a_pin_has_eight_digits() -> None:
    assert pins.make_pin(bytes) == b"00000000"
    assert pins.make_pin(lambda size: b"\xff" * size) == str(2**128 - 1)[-8:].encode()


def test_a_pin_is_told_by_its_digest() -> None:
    kept = pins.digest_new(b"12345678", bytes)
    assert kept == pins.digest_new(b"12345678", bytes)
    assert pins.is_right(kept, Pin(kept.salt, kept.digest))
    assert not pins.is_right(kept, Pin(kept.salt, bytes(32)))


def test_a_pin_that_was_changed_meanwhile_is_not_right() -> None:
    kept = Pin(bytes(16), bytes(32))
    assert not pins.is_right(kept, Pin(b"\x01" * 16, bytes(32)))


@pytest.mark.parametrize("pin", [b"123456", b"x" * PIN_LIMIT, "käse!".encode()])
def test_a_new_pin_may_be_text_of_six_to_sixty_four_octets(pin: bytes) -> None:
    pins.check_new(pin)


@pytest.mark.parametrize("pin", [b"", b"12345", b"x" * (PIN_LIMIT + 1), b"\xff" * 8])
def test_any_other_new_pin_is_refused(pin: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        pins.check_new(pin)
    assert caught.value.number == Status.PIN_INVALID


def test_attempts_wait_from_the_fourth_on_and_longer_each_time() -> None:
    waits = [pins.delay(failures) for failures in range(PIN_ATTEMPTS)]
    assert tuple(waits) == pins.DELAYS
    assert waits[:3] == [0, 0, 0]
    assert all(earlier < later for earlier, later in pairwise(waits[2:]))


def test_there_is_no_attempt_after_the_tenth() -> None:
    assert [pins.attempts_left(failures) for failures in range(12)] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    with pytest.raises(PeerError) as caught:
        pins.delay(10)
    assert caught.value.number == Status.PIN_LOCKED
