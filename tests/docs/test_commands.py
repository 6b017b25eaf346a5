"""What README and tour show is what the server prints, and what they tell people to type does what they say it does."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.server import Home, Server, flip, refused, short_directory

from endocarp.cli.account import client_module, paste_lines
from endocarp.shell.config import State

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs/tour.md").read_text()
README = (ROOT / "README.md").read_text()
FLIPS = re.findall(r"^    flip \$S/(\S+) (\d+) +# (\S+):", TOUR, re.MULTILINE)
YOU = Path("/home/you")
TYPES_THE_PIN = re.compile(r"--login(?= )")
CHANGES = re.compile(
    r"\d+\.\d\d(?= s  )|[0-9a-f]{16}(?=…)|(?<=MODEL-)[0-9a-f]{8}|(?<=pid )\d+|(?<=PIN: )\d{8}"
)
"""What differs from one start to the next."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that runs, after its first start."""
    with short_directory() as root, Server.start(Home(root)) as server:
        server.line("^PIN: ")
        yield server


@pytest.fixture(scope="module")
def stopped() -> Iterator[Home]:
    """Return a server that was started once, and stopped."""
    with short_directory() as root:
        home = Home(root)
        with Server.start(home) as server:
            assert server.stop() == 0
        yield home


def block(text: str, begin: str, end: str) -> list[str]:
    """Return the indented lines of a page from the one that begins with `begin` to the one that begins with `end`."""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    first = next(number for number, line in enumerate(lines) if line.startswith(begin))
    last = next(number for number, line in enumerate(lines) if number >= first and line.startswith(end))
    return lines[first : last + 1]


def shown_to_you(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines to paste that a server prints whose user is you, on the machine of the pages."""
    monkeypatch.setattr(sys, "argv", [str(YOU / "endocarp/.venv/bin/endocarp"), "up"])
    return paste_lines(State(YOU / ".local/state/endocarp"), state=None, config=None)


def without_module(lines: list[str]) -> list[str]:
    """Return lines without the one that names p11-kit's client module: where it lies depends on the machine."""
    return [line for line in lines if not line.lstrip().startswith("M=")]


def typed(home: Home, *lines: str) -> str:
    """Run lines in a shell up to the first that fails, as somebody types them who answers when asked for the PIN."""
    script = "\n".join(TYPES_THE_PIN.sub(f"--login --pin {home.pin}", line) for line in lines)
    return home.run_program("sh", "-euc", script).stdout


def need_pkcs11() -> str:
    """Return the line that names p11-kit's client module; skip where it or pkcs11-tool is not here."""
    found = client_module()
    if found is None or shutil.which("pkcs11-tool") is None:
        pytest.skip("p11-kit-client.so or pkcs11-tool is not here: apt-get install p11-kit-modules opensc")
    return f"M={found}"


# --- what is shown --------------------------------------------------------------------------------------------------


def test_the_readme_shows_the_lines_to_paste_as_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = block(README, "export PATH", "pkcs11-tool --module $M --login")
    assert without_module(shown) == without_module(shown_to_you(monkeypatch))


def test_the_tour_shows_a_first_start_as_it_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "\n".join(without_module(server.lines))
    ours, yours = without_module(printed(server)), without_module(shown_to_you(monkeypatch))
    for mine, your in zip(ours, yours, strict=True):
        told = told.replace(mine, your)
    shown = "\n".join(without_module(block(TOUR, "  0.0", "PIN: ")))
    # Front and vault serve in either order.
    assert sorted(CHANGES.sub("?", shown).split()) == sorted(CHANGES.sub("?", told).split())


def printed(server: Server) -> list[str]:
    """Return the lines to paste that a server has printed."""
    return [line.strip() for line in server.lines if line.startswith("    ")]


# --- what is typed --------------------------------------------------------------------------------------------------


def test_what_was_printed_works_as_it_is(server: Server) -> None:
    need_pkcs11()
    told = typed(server.home, *printed(server))
    assert "VERIFIED" in told
    assert "label:      web" in told


def test_a_key_of_the_tour_signs_and_openssl_agrees(server: Server) -> None:
    lines = block(TOUR, "openssl dgst", "openssl pkeyutl")
    make = next(line for line in printed(server) if "--keypairgen" in line)
    readme = f"cp {shlex.quote(str(ROOT / 'README.md'))} ."
    assert "Verified Successfully" in typed(server.home, need_pkcs11(), readme, make, *lines)


def test_evidence_is_believed_once(server: Server) -> None:
    assert typed(server.home, *block(TOUR, "endocarp evidence", "endocarp verify")).startswith("VERIFIED")
    again = server.home.run("verify", "evidence.cbor", exits=1).stdout
    assert again.startswith("REFUSED")
    assert "nonce.challenge" in again


def test_status_tells_every_process(server: Server) -> None:
    assert {"box", "rot", "front", "vault-0"} <= set(typed(server.home, "endocarp status").split())


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(example: Path, server: Server) -> None:
    told = f"{server.home.pin}\n"
    assert "verified" in server.home.run_program(sys.executable, str(example), told=told).stdout
    elsewhere = server.home.run_program(sys.executable, str(example), server.address, told=told).stdout
    assert "verified" in elsewhere


# --- what is tampered with ------------------------------------------------------------------------------------------


def test_whatever_the_tour_flips_is_tried_here() -> None:
    assert len(re.findall(r"^    flip [^(]", TOUR, re.MULTILINE)) == len(FLIPS) + len(["evidence.cbor"])


def test_changed_evidence_is_refused(server: Server) -> None:
    [at] = re.findall(r"^    flip evidence\.cbor (\d+)", TOUR, re.MULTILINE)
    server.home.run("evidence", "--out", "changed.cbor")
    flip(server.home.root / "changed.cbor", int(at))
    assert "envelope.signature" in server.home.run("verify", "changed.cbor", exits=1).stdout


@pytest.mark.parametrize(("path", "at", "who"), FLIPS)
def test_a_changed_octet_is_refused_by_name(path: str, at: str, who: str, stopped: Home) -> None:
    flip(stopped.state.root / path, int(at))
    code, told = refused(stopped)
    flip(stopped.state.root / path, int(at))
    assert code == 1
    blamed = "vault-0" if who == "vault" else str(stopped.state.root / path)
    assert f"endocarp: {blamed}:" in told
    assert "advice:" in told


def test_a_torn_write_is_told(stopped: Home) -> None:
    whole = stopped.records.read_bytes()
    stopped.records.write_bytes(whole[:-5])
    with Server.start(stopped) as server:
        server.line("of a write that a crash cut short")
    stopped.records.write_bytes(whole)


def test_a_partition_whose_store_was_removed_is_made_anew_with_a_pin(stopped: Home) -> None:
    assert "remove `$S/partition-0/store`" in TOUR
    before = stopped.pin
    shutil.rmtree(stopped.state.store(0))
    with Server.start(stopped) as server, server.session() as session:
        assert session.keys() == []
    assert stopped.pin != before
