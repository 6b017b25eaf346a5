"""A server that stands still, and a relying party that knows it, for the commands that ask and judge."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.box import BoxSimulator, Served, serving
from tests.simulators.device import MODEL, DeviceSimulator, references
from tests.simulators.relying import anchor_pem, references_json

from endocarp.shell.config import Config, State
from endocarp.shell.relying import RelyingParty


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    """Return a server that answers, and its relying party."""
    served = Served(State(place), Config(place / "config"), BoxSimulator())
    RelyingParty(served.config).enrol(
        MODEL, anchor_pem(DeviceSimulator().anchor()), references_json(references())
    )
    with serving(served.state.admin_socket, served.box):
        yield served
