"""The walks through the house name files and functions that are there, and keep to their length."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "walks.md").read_text()
STOP = re.compile(r"^\| \d+ \| (.*?) \|", re.MULTILINE)
PLACE = re.compile(r"`([a-z0-9_/]+\.py)`, `([A-Za-z_.]+)`")
LONGEST = 12


def names_in(path: Path) -> set[str]:
    """Return the functions and classes of a module, methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return found


def test_every_place_on_the_page_is_there() -> None:
    places = PLACE.findall(PAGE)
    assert len(places) > 20
    for file, name in places:
        assert name in names_in(ROOT / "src" / "endocarp" / file), f"{file} has no {name}"


def test_no_walk_is_longer_than_twelve_stops() -> None:
    walks = PAGE.split("| stop | where |")[1:]
    assert len(walks) == 3
    for walk in walks:
        assert 0 < len(STOP.findall(walk)) <= LONGEST
