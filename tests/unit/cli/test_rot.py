"""`endocarp rot …`: makes a device and its images below the directories that are given."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from endocarp.cli.main import endocarp
from endocarp.errors import UsageError
from endocarp.shell.config import Config, State
from endocarp.shell.relying import RelyingParty


def test_a_server_is_made_and_built_in_two_steps_each_of_which_is_told(place: Path) -> None:
    state, config = State(place / "s"), Config(place / "c")
    options = ["--state", str(state.root), "--config", str(config.root)]
    made = CliRunner().invoke(endocarp, ["rot", "manufacture", *options])
    assert (made.exit_code, "device   made, under the model root MODEL-" in made.stderr) == (0, True)
    assert state.device.exists()
    assert not state.images.exists()
    built = CliRunner().invoke(endocarp, ["rot", "build", *options])
    assert (built.exit_code, "images   built and signed" in built.stderr) == (0, True)
    assert made.stdout == built.stdout == ""
    assert state.bundle.exists()
    assert RelyingParty(config).names() == [state.model.read_text()]


def test_without_options_both_directories_lie_where_the_environment_says(place: Path) -> None:
    environment = {"XDG_STATE_HOME": str(place / "s"), "XDG_CONFIG_HOME": str(place / "c")}
    done = CliRunner().invoke(endocarp, ["rot", "manufacture"], env=environment)
    assert done.exit_code == 0
    assert (place / "s/endocarp/device.json").exists()
    assert (place / "c/endocarp/keys").is_dir()


def test_images_without_a_device_are_refused(place: Path) -> None:
    done = CliRunner().invoke(endocarp, ["rot", "build", "--state", str(place), "--config", str(place)])
    with pytest.raises(UsageError, match="holds no device"):
        raise done.exception or AssertionError
