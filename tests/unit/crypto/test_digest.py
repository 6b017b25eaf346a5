"""Digests of public octets."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from endocarp.crypto import digest

# FIPS 180-4, examples for "abc".
ABC = {
    digest.sha1: "a9993e364706816aba3e25717850c26c9cd0d89d",
    digest.sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    digest.sha384: (
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
    ),
    digest.sha512: (
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    ),
}


@pytest.mark.parametrize(("function", "expected"), list(ABC.items()), ids=[f.__name__ for f in ABC])
def test_digests_take_their_message_in_any_parts(function: Callable[..., bytes], expected: str) -> None:
    assert function(b"abc").hex() == expected
    assert function(b"a", bytearray(b"b"), memoryview(b"c")).hex() == expected


def test_shake256_gives_as_much_as_is_asked_for() -> None:
    # FIPS 202, SHAKE256 of the empty message.
    assert digest.shake256(size=16).hex() == "46b9dd2b0ba88d13233b3feb743eeb24"
    assert digest.shake256(b"", b"", size=200)[:16] == digest.shake256(size=16)
    assert digest.shake256(b"ab", b"c", size=64) == digest.shake256(b"abc", size=64)


def test_equality_is_of_octets() -> None:
    assert digest.equal(b"abc", bytearray(b"abc"))
    assert not digest.equal(b"abc", memoryview(b"abd"))
    assert not digest.equal(b"abc", b"abcd")


def test_digests_and_secrets_do_not_load_the_crypto_library() -> None:
    program = (
        "import sys, endocarp.crypto.digest, endocarp.crypto.secret; print('cryptography' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
