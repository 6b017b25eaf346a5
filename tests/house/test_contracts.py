"""Each import contract is seen to fail: a copy of the source, one planted import, the contract's name in the report."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Planted(NamedTuple):
    """A line that breaks a contract, and the module that it is planted in."""

    module: str
    line: str


PLANTED = {
    "An import goes down only": Planted("wire/suites", "import endocarp.crypto.keys"),
    "Only crypto imports the library of cryptography": Planted("shell/serve", "import cryptography.x509"),
    "The command line opens nothing by itself": Planted("cli/main", "import socket"),
    "Cores have no clock, no entropy and no I/O": Planted("rot/boot", "import time"),
    "The verifier shares only wire and crypto with what it verifies": Planted(
        "verifier/pcrs", "import endocarp.rot.pcr"
    ),
    "The box holds no secret and knows no cryptography but digests": Planted(
        "shell/machine", "import endocarp.crypto.keys"
    ),
    "What parses strangers' octets reaches neither keys nor cryptography": Planted(
        "hsm/token_view", "import endocarp.crypto.digest"
    ),
    "What holds keys parses no PKCS#11": Planted("hsm/phases", "import endocarp.wire.p11"),
}


def contracts() -> dict[str, Any]:
    """Return every contract by its name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["name"]: contract for contract in settings["contracts"]}


def lint(project: Path) -> "subprocess.CompletedProcess[str]":
    """Run import-linter over the source in `project`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    environment = os.environ | {"PYTHONPATH": str(project / "src"), "COLUMNS": "200"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of what import-linter looks at."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_has_a_planted_violation() -> None:
    assert set(contracts()) == set(PLANTED)


def test_every_module_that_knows_pkcs11_is_out_of_reach_of_the_vault() -> None:
    source = ROOT / "src/endocarp"
    found = [*source.glob("wire/p11*.py"), *source.glob("hsm/token*.py")]
    names = {"endocarp." + ".".join(path.relative_to(source).with_suffix("").parts) for path in found}
    assert names <= set(contracts()["What holds keys parses no PKCS#11"]["forbidden_modules"])


def test_the_contracts_hold(project: Path) -> None:
    done = lint(project)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("contract", PLANTED)
def test_a_contract_sees_what_breaks_it(contract: str, project: Path) -> None:
    planted = PLANTED[contract]
    module = project / f"src/endocarp/{planted.module}.py"
    module.write_text(f"{module.read_text()}\n{planted.line}\n")
    done = lint(project)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def test_a_room_without_a_layer_is_told(project: Path) -> None:
    (project / "src/endocarp/attic").mkdir()
    (project / "src/endocarp/attic/__init__.py").touch()
    assert "An import goes down only BROKEN" in lint(project).stdout
