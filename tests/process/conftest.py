"""Servers to test: one that all tests share which do not disturb it, and copies of a prepared one for those that do."""

from collections.abc import Iterator

import pytest
from tests.process.server import Home, Server, short_directory

from endocarp.wire.suites import Suite

KEYS = ("first", "second", "third")


@pytest.fixture(scope="session")
def prepared() -> Iterator[Home]:
    """A server that was manufactured and built, has stopped, and holds the P-256 keys of KEYS: to be copied."""
    with short_directory() as root:
        home = Home(root)
        with Server.start(home) as server:
            with server.session() as session:
                for label in KEYS:
                    session.generate(Suite.P256, label=label)
            assert server.stop() == 0
        yield home


@pytest.fixture
def home(prepared: Home) -> Iterator[Home]:
    """A copy of the prepared server, not started."""
    with short_directory() as root:
        yield prepared.copy(root)


@pytest.fixture
def server(home: Home) -> Iterator[Server]:
    """A server of a test's own."""
    with Server.start(home) as server:
        yield server


@pytest.fixture(scope="session")
def running(prepared: Home) -> Iterator[Server]:
    """A server that tests share: they do not disturb it. Modules that do have a fixture of this name of their own."""
    with short_directory() as root, Server.start(prepared.copy(root)) as server:
        yield server
