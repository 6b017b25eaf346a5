"""What several rooms need: a directory whose path leaves room for the sockets below it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a fresh directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="endocarp-", dir="/tmp") as name:
        yield Path(name)
