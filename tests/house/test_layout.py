"""How the house is built: mirrored tests, short modules and functions, empty package files, names that say something."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/endocarp"
UNIT = ROOT / "tests/unit"
MODULES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if path.name != "__init__.py")
CODE_LINES = 400
FUNCTION_LINES = 60
VAGUE = re.compile(r"(utils?|helpers?|managers?|base|common|misc)(_|$)")
OPENING = {"open", "read_bytes", "read_text", "write_bytes", "write_text"}
QUIET = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def docstrings(tree: ast.AST) -> Iterator[int]:
    """Yield the numbers of the lines that strings standing by themselves take."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            assert node.end_lineno is not None
            yield from range(node.lineno, node.end_lineno + 1)


def code_lines(source: str) -> int:
    """Return how many lines hold code: no blanks, comments or docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in QUIET:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines.difference(docstrings(ast.parse(source))))


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the length, docstring included, of each function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_code_lines_are_counted_without_blanks_comments_and_docstrings() -> None:
    assert code_lines('"""Head.\n\nMore.\n"""\n\n# why\nx = [\n    1,  # one\n]\n') == 3


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_its_test_file(module: Path) -> None:
    assert (UNIT / module.with_name(f"test_{module.name}")).is_file()


@pytest.mark.parametrize(
    "test", sorted(UNIT.rglob("test_*.py")), ids=lambda path: str(path.relative_to(UNIT))
)
def test_a_test_file_has_its_module(test: Path) -> None:
    module = SOURCE / test.relative_to(UNIT).with_name(test.name.removeprefix("test_"))
    assert module.is_file()


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_is_short_and_so_are_its_functions(module: Path) -> None:
    source = (SOURCE / module).read_text()
    assert code_lines(source) <= CODE_LINES
    assert [name for name, length in functions(source) if length > FUNCTION_LINES] == []


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_name_says_what_a_module_holds(module: Path) -> None:
    assert not [part for part in (*module.parent.parts, module.stem) if VAGUE.match(part)]


@pytest.mark.parametrize("module", [one for one in MODULES if one.parts[0] == "cli"], ids=str)
def test_the_command_line_opens_no_file_by_itself(module: Path) -> None:
    tree = ast.parse((SOURCE / module).read_text())
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {one.id if isinstance(one, ast.Name) else getattr(one, "attr", "") for one in called}
    assert not names & OPENING


def test_package_files_are_empty() -> None:
    assert [path for path in SOURCE.rglob("__init__.py") if path.read_bytes()] == []


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_annotations_are_read_when_a_struct_is_made(module: Path) -> None:
    assert "from __future__ import annotations" not in (SOURCE / module).read_text()
