"""Text of others: what is shown of it."""

import pytest

from endocarp.wire.text import printable, truncate


@pytest.mark.parametrize("text", ["", "vault-0: serves", "für uns", "日本", "a\\b"])
def test_text_that_a_terminal_only_shows_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r", "a\\nb\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc", "\\u202eabc"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
    ],
    ids=["escape", "lines", "C1", "direction", "separator", "surrogate"],
)
def test_what_a_terminal_would_obey_is_spelt_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("letter", ["x", "ä", "€", "😀"])
def test_text_that_is_too_long_is_cut_between_two_letters(letter: str) -> None:
    assert truncate(letter * 100, 31) == letter * (31 // len(letter.encode()))


def test_octets_that_are_no_text_are_spelt_out() -> None:
    assert truncate("/srv/\udcff", 100) == "/srv/\\udcff"
