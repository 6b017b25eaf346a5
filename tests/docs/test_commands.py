"""What README and tour tell people to type does what they say it does."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.server import Server, flip

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs/tour.md").read_text()
README = (ROOT / "README.md").read_text()
FLIPS = re.findall(r"^    flip \$S/(\S+) (\d+) +# (\S+):", TOUR, re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that runs."""
    with Server(tmp_path_factory.mktemp("s")) as server:
        yield server.start()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that was started once, and stopped."""
    with Server(tmp_path_factory.mktemp("t")) as server:
        server.start()
        assert server.stop() == 0
        yield server


def block(text: str, begin: str, end: str) -> str:
    """Return the indented lines of a page from the one that begins with `begin` to the one that begins with `end`."""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    first = next(number for number, line in enumerate(lines) if line.startswith(begin))
    last = next(number for number, line in enumerate(lines) if number >= first and line.startswith(end))
    return "\n".join(lines[first : last + 1])


def typed(script: str, server: Server) -> str:
    """Return the lines as somebody types them who has read what the server has printed."""
    if shutil.which("pkcs11-tool") is None:
        script = "\n".join(line for line in script.splitlines() if "pkcs11-tool" not in line)
    script = script.replace("unix:path=…/partition-0", f"unix:path={server.state}/partition-0")
    return script.replace("--pin …", f"--pin {server.pin}").replace("README.md", str(ROOT / "README.md"))


def module_path() -> str:
    """Return the line of the README that names p11-kit's client module, for this machine."""
    found = next(Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so"), None)
    if found is None:
        pytest.skip("p11-kit-client.so is not here: apt-get install p11-kit-modules")
    return f"M={found}\n"


def test_the_lines_of_the_readme_work_as_shown(server: Server) -> None:
    script = re.sub(
        r"^M=.*\n",
        lambda _: module_path(),
        block(README, "export P11", "endocarp verify"),
        flags=re.MULTILINE,
    )
    done = server.shell(typed(script, server))
    assert done.returncode == 0, done.stderr
    assert "VERIFIED" in done.stdout


def test_a_key_of_the_tour_signs(server: Server) -> None:
    lines = block(TOUR, "pkcs11-tool --module $M -L -O", "pkcs11-tool --module $M --login --pin … --sign")
    done = server.shell(module_path() + typed(lines, server) + "\ntest -s sig")
    assert done.returncode == 0, done.stderr


def test_evidence_is_believed_once(server: Server) -> None:
    done = server.shell(block(TOUR, "endocarp evidence", "endocarp verify"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("VERIFIED")
    again = server.run("endocarp", "verify", "evidence.cbor")
    assert again.returncode == 1
    assert again.stdout.startswith("REFUSED")
    assert "nonce.challenge" in again.stdout


def test_changed_evidence_is_refused(server: Server) -> None:
    assert server.shell("endocarp evidence > changed.cbor").returncode == 0
    flip(server.root / "changed.cbor", 5000)
    done = server.run("endocarp", "verify", "changed.cbor")
    assert done.returncode == 1
    assert "envelope.signature" in done.stdout


def test_status_tells_every_process(server: Server) -> None:
    done = server.run("endocarp", "status")
    assert done.returncode == 0, done.stderr
    assert {"rot", "front", "vault-0"} <= set(done.stdout.split())


@pytest.mark.parametrize(("path", "at", "who"), FLIPS)
def test_a_changed_octet_is_refused_by_name(path: str, at: str, who: str, stopped: Server) -> None:
    flip(stopped.state / path, int(at))
    done = stopped.run("endocarp", "up")
    flip(stopped.state / path, int(at))
    assert done.returncode == 1
    blamed = "vault-0" if who == "vault" else str(stopped.state / path)
    assert f"endocarp: {blamed}:" in done.stdout + done.stderr
    assert "advice:" in done.stdout + done.stderr


def test_the_tour_tampers_with_everything_that_is_checked_at_the_start() -> None:
    assert [path for path, _, _ in FLIPS] == [
        "images/firmware.bundle",
        "images/soc.manifest",
        "images/vault.zip",
        "partition-0/store/records",
    ]


def test_a_torn_write_is_told(stopped: Server) -> None:
    records = stopped.state / "partition-0/store/records"
    whole = records.read_bytes()
    records.write_bytes(whole[:-5])
    stopped.start()
    assert "of a write that a crash cut short" in stopped.told()
    assert stopped.stop() == 0
    records.write_bytes(whole)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(example: Path, server: Server) -> None:
    done = server.run("python", str(example), server.pin)
    assert done.returncode == 0, done.stderr
