"""The pages that are made from the code are what the code would make now."""

from pathlib import Path

import pytest

from docs import make


@pytest.mark.parametrize("page", make.PAGES)
def test_a_made_page_is_current(page: str) -> None:
    assert (make.ROOT / "docs" / page).read_text() == make.PAGES[page](), "make it again: ./dev docs"


def test_a_stale_page_is_told_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(make, "ROOT", tmp_path)
    assert make.main(["--check"]) == 1
    assert "docs/states.md is not current: ./dev docs" in capsys.readouterr().out
    assert make.main([]) == 0
    assert make.main(["--check"]) == 0


def test_a_comment_of_two_lines_is_one_remark() -> None:
    source = "x = 1  # aside\n# RFC 1, 2: first\n# and second\n# deviation: third\n"
    assert [text for _, text in make.comments(source)] == [
        "aside",
        "RFC 1, 2: first and second",
        "deviation: third",
    ]


def test_a_remark_knows_the_function_that_it_stands_in() -> None:
    places = {remark.place for remark in make.remarks()}
    assert "`wire.der.Reader.integer`" in places
