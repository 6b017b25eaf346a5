"""Where files of one user belong."""

from pathlib import Path

import pytest

from endocarp import xdg


@pytest.mark.parametrize(
    ("environment", "state", "config"),
    [
        ({"HOME": "/h"}, "/h/.local/state/endocarp", "/h/.config/endocarp"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"}, "/s/endocarp", "/c/endocarp"),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""},
            "/h/.local/state/endocarp",
            "/h/.config/endocarp",
        ),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "s", "XDG_CONFIG_HOME": "./c"},
            "/h/.local/state/endocarp",
            "/h/.config/endocarp",
        ),
        ({}, "/.local/state/endocarp", "/.config/endocarp"),
        ({"HOME": ""}, "/.local/state/endocarp", "/.config/endocarp"),
    ],
)
def test_a_path_of_the_environment_counts_where_it_is_absolute(
    environment: dict[str, str], state: str, config: str
) -> None:
    assert (xdg.state(environment), xdg.config(environment)) == (Path(state), Path(config))
