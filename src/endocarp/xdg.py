"""Where files of one user belong (XDG Base Directory Specification 0.8), for a server and for its clients."""

import os
from collections.abc import Mapping
from pathlib import Path


def state(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the usual state directory: below XDG_STATE_HOME, else ~/.local/state."""
    return _directory("XDG_STATE_HOME", ".local/state", environment)


def config(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the usual configuration directory: below XDG_CONFIG_HOME, else ~/.config."""
    return _directory("XDG_CONFIG_HOME", ".config", environment)


def _directory(variable: str, default: str, environment: Mapping[str, str]) -> Path:
    base = Path(environment.get(variable, ""))
    if not base.is_absolute():  # XDG Base Directory Specification 0.8: a relative path is to be ignored
        base = Path(environment.get("HOME") or "/").absolute() / default
    return base / "endocarp"
