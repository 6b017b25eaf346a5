"""`endocarp status`, against an admin socket that answers."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.simulators.box import STATUS, Served

from endocarp.cli.main import endocarp
from endocarp.cli.screen import for_programs
from endocarp.errors import DeviceError


def test_programs_get_one_object(served: Served) -> None:
    done = CliRunner().invoke(endocarp, ["status", "--state", str(served.state.root), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == for_programs(STATUS)


def test_people_get_one_screen_with_every_path_as_it_is(served: Served) -> None:
    done = CliRunner().invoke(endocarp, ["status", "--state", str(served.state.root)], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for text in ("endocarp 0.1.0", "MODEL-test", "vault-0", "/srv/[x]/p11-kit.sock", "ab" * 8):
        assert text in done.stdout


def test_a_server_that_does_not_run_is_nobody_reached(place: Path) -> None:
    done = CliRunner().invoke(endocarp, ["status", "--state", str(place)])
    with pytest.raises(DeviceError, match="nobody answers at"):
        raise done.exception or AssertionError
