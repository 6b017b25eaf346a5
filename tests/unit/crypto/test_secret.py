"""Secrets: held in memory of their own, wiped on every path."""

import copy
import pickle
import subprocess
import sys

import pytest

from endocarp.crypto import secret
from endocarp.crypto.secret import Secret, keep_in, wipe
from endocarp.errors import UsageError


class Arena:
    """Memory that keeps a book: what is lent, and what came back how."""

    def __init__(self) -> None:
        self.lent: list[memoryview] = []
        self.returned: list[bytes] = []

    def allocate(self, size: int) -> memoryview:
        view = memoryview(bytearray(size))
        self.lent.append(view)
        return view

    def release(self, view: memoryview) -> None:
        self.lent = [other for other in self.lent if other is not view]
        self.returned.append(bytes(view))


@pytest.fixture
def arena(monkeypatch: pytest.MonkeyPatch) -> Arena:
    monkeypatch.setattr(secret, "_memory", secret._memory)  # brings the former memory back afterwards
    arena = Arena()
    keep_in(arena)
    return arena


def test_a_secret_copies_what_it_is_given() -> None:
    given = bytearray(b"abcd")
    with Secret(given) as kept:
        wipe(given)
        assert given == bytes(4)
        assert bytes(kept.view) == b"abcd"
        assert len(kept) == 4


def test_an_empty_secret_is_filled_through_its_view() -> None:
    with Secret.empty(4) as kept:
        assert bytes(kept.view) == bytes(4)
        kept.view[:2] = b"ab"
        assert bytes(kept.view) == b"ab\x00\x00"


def test_a_closed_secret_shows_nothing() -> None:
    kept = Secret(b"abcd")
    kept.close()
    kept.close()
    with pytest.raises(UsageError, match="closed") as caught:
        _ = kept.view
    assert caught.value.advice()
    with pytest.raises(UsageError):
        len(kept)


def test_secrets_are_compared_by_content_and_only_with_secrets() -> None:
    assert Secret(b"abcd") == Secret(b"abcd")
    assert Secret(b"abcd") != Secret(b"abce")
    assert Secret(b"abcd") != Secret(b"abcde")
    assert Secret(b"abcd") != b"abcd"


def test_a_kind_of_secret_says_its_kind_and_nothing_else() -> None:
    class Cdi(Secret):
        pass

    kept = Cdi.empty(2)
    assert isinstance(kept, Cdi)
    assert repr(kept) == str(kept) == "<Cdi>"
    assert "abcd" not in repr(Secret(b"abcd"))


def test_secrets_are_not_hashed_copied_or_pickled() -> None:
    kept = Secret(b"abcd")
    with pytest.raises(TypeError):
        hash(kept)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(UsageError, match="not copied or pickled"):
            attempt(kept)


def test_memory_comes_from_the_allocator_and_goes_back_wiped(arena: Arena) -> None:
    with Secret(b"abcd"):
        assert [bytes(view) for view in arena.lent] == [b"abcd"]
    assert (arena.lent, arena.returned) == ([], [bytes(4)])


def test_a_secret_is_wiped_when_an_exception_passes_through(arena: Arena) -> None:
    with pytest.raises(KeyError), Secret(b"abcd"):
        raise KeyError
    assert (arena.lent, arena.returned) == ([], [bytes(4)])


def test_a_forgotten_secret_is_wiped(arena: Arena) -> None:
    kept = Secret(b"abcd")
    del kept
    assert (arena.lent, arena.returned) == ([], [bytes(4)])


def test_memory_is_not_lent_again_while_somebody_looks_at_it(arena: Arena) -> None:
    part = Secret(b"abcd").view[1:3]
    assert bytes(part) == b"bc"
    assert arena.returned == []
    del part
    assert arena.returned == [bytes(4)]


def test_closing_wipes_also_what_somebody_looks_at(arena: Arena) -> None:
    kept = Secret(b"abcd")
    part = kept.view[1:3]
    kept.close()
    assert bytes(part) == bytes(2)
    assert arena.returned == []
    del part
    assert arena.returned == [bytes(4)]


def test_a_secret_of_no_octets_is_a_secret(arena: Arena) -> None:
    with Secret(b"") as kept:
        assert len(kept) == 0
        assert kept == Secret.empty(0)
    assert arena.lent == []


def test_more_memory_than_asked_for_does_not_show(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "allocate", lambda size: Arena.allocate(arena, size + 60))
    with Secret(b"abcd") as kept:
        assert len(kept) == 4
    assert arena.returned == [bytes(64)]


def test_the_place_of_secrets_is_chosen_once(arena: Arena) -> None:
    with pytest.raises(UsageError, match="chosen already"):
        keep_in(arena)


def test_what_is_left_when_the_interpreter_ends_is_wiped() -> None:
    program = """
from endocarp.crypto.secret import Secret, keep_in
class Arena:
    def allocate(self, size): return memoryview(bytearray(size))
    def release(self, view): print(bytes(view))
keep_in(Arena())
kept = Secret(b"abcd")
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(bytes(4))
