"""One octet of what lies on disk is changed: the right thing refuses, names the file, and says what to do."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from tests.process.conftest import KEYS
from tests.process.server import Home, Server, flip, refused

from endocarp.crypto.digest import sha384
from endocarp.wire.admin import Status

REBUILD = "start once with --rebuild"
COPY = "put back a copy"
SOURCE = Path(__file__).parents[2] / "src"
MESSAGE = b"signed with a key from before"


def middle_of(path: Path) -> int:
    return path.stat().st_size // 2


def is_refused(home: Home, path: Path, *words: str) -> None:
    """Start the server, which is to say why it does not, in one line that names the file, and what to do."""
    code, output = refused(home)
    assert code == 1, output
    [reason] = [line for line in output.splitlines() if line.startswith("endocarp: ")]
    [advice] = [line for line in output.splitlines() if line.startswith("advice: ")]
    assert str(path) in reason
    for word in words:
        assert word in f"{reason}\n{advice}"
    assert "the server serves" not in output


END_OF_CENTRAL_DIRECTORY = 22
"""The size of the last record of an archive without a comment."""

# --- images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("firmware.bundle", "RUNTIME_DIGEST_MISMATCH"),
        ("soc.manifest", "RUNTIME_AUTH_MANIFEST"),
        ("front.zip", "digest mismatch (SoC manifest)"),
        ("vault.zip", "digest mismatch (SoC manifest)"),
    ],
)
def test_an_image_with_a_changed_octet_is_refused_by_name(home: Home, name: str, word: str) -> None:
    path = home.state.images / name
    flip(path, middle_of(path))
    is_refused(home, path, word, "--rebuild")


# Nobody has measured these two yet when they are executed: an octet without which the archive is none (APPNOTE.TXT
# 4.3.16) ends them at once; elsewhere rot, or the verifier, finds what has changed.
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("box.zip", "the box died before it said a word"),
        ("rom.zip", "died twice before it served"),
    ],
)
def test_an_archive_that_is_executed_unmeasured_and_is_broken_is_named(
    home: Home, name: str, word: str
) -> None:
    path = home.state.images / name
    flip(path, path.stat().st_size - END_OF_CENTRAL_DIRECTORY)
    is_refused(home, path, word, "--rebuild")


def test_a_box_whose_archive_was_changed_where_it_does_no_harm_is_refused_by_rot(home: Home) -> None:
    path = home.state.archive("box")
    flip(path, 10)  # the time of the first file in it (APPNOTE.TXT 4.3.7)
    is_refused(home, path, "digest mismatch (SoC manifest)", REBUILD)


def test_an_image_that_is_missing_is_told_by_name(home: Home) -> None:
    home.state.archive("front").unlink()
    is_refused(home, home.state.archive("front"), "No such file", REBUILD)


def test_an_image_that_is_far_too_long_is_refused(home: Home) -> None:
    home.state.bundle.write_bytes(bytes(1 << 23))
    is_refused(home, home.state.bundle, "more than 4194304 octets", REBUILD)


def measured(status: Status) -> dict[str, bytes]:
    return {one.name: one.digest for one in status.measurements}


def test_rebuild_mends_every_image_and_keeps_device_and_keys(home: Home) -> None:
    device = home.state.device.read_bytes()
    for path in home.state.images.iterdir():
        flip(path, middle_of(path))
    with Server.start(home, "--rebuild") as server, server.session() as session:
        keys = session.keys()
        assert {key.label for key in keys} == set(KEYS)
        evidence = home.root / "evidence.cbor"
        home.run("evidence", "--out", str(evidence))
        assert home.run("verify", str(evidence)).stdout.startswith("VERIFIED")
    assert home.state.device.read_bytes() == device


# --- device ---------------------------------------------------------------------------------------------------


def test_a_device_with_a_changed_octet_is_refused_by_name_and_not_made_anew(home: Home) -> None:
    path, entry = home.state.device, "field_entropy"
    value = path.read_bytes().index(b'"', path.read_bytes().index(entry.encode()) + len(entry) + 1) + 1
    octets = bytearray(path.read_bytes())
    octets[value + 8] = ord("0") if octets[value + 8] != ord("0") else ord("1")
    path.write_bytes(octets)
    is_refused(home, path, "Device.digest", COPY)


def test_a_device_that_is_no_text_any_more_is_refused_by_name(home: Home) -> None:
    flip(home.state.device, 0)
    is_refused(home, home.state.device, "not JSON", COPY)


def test_an_identity_certificate_with_a_changed_key_is_refused_by_name(home: Home) -> None:
    path = home.state.idevid_certificate("ecc384")
    flip(path, middle_of(path))
    is_refused(home, path, "IDEV_CERT_POPULATION_FAILED", COPY)


# --- the sealed store -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("header", "store-header"),
        ("middle", "store-record"),
        ("end", "store-record"),
    ],
)
def test_a_store_with_a_changed_octet_is_refused_by_name(home: Home, where: str, word: str) -> None:
    path = home.records
    flip(path, {"header": 0, "middle": middle_of(path), "end": -1}[where])
    before = path.read_bytes()
    is_refused(home, path, word, COPY)
    assert path.read_bytes() == before


def test_a_torn_tail_is_cut_and_told_and_everything_before_it_is_there(home: Home) -> None:
    octets = home.records.read_bytes()
    home.records.write_bytes(octets[:-1])
    with Server.start(home) as server, server.session() as session:
        assert "the store ended in" in server.line("crash cut short")
        keys = session.keys()
        # Only the record that was written last is gone, the third key's at the most.
        assert [key.label for key in keys][:2] == list(KEYS[:2])
        assert all(key.verify(key.sign(MESSAGE), MESSAGE) for key in keys)


# --- the checkout -----------------------------------------------------------------------------------------------


def checkout(folder: Path) -> tuple[Path, str]:
    """Make an environment of its own that runs a copy of the source; return the copy and its `endocarp`."""
    source, environment = folder / "src", folder / "venv"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    (environment / "bin").mkdir(parents=True)
    here = Path(sys.prefix)
    shutil.copy(here / "pyvenv.cfg", environment / "pyvenv.cfg")
    (environment / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    packages = environment / Path(os.__file__).parent.relative_to(sys.base_prefix) / "site-packages"
    packages.mkdir(parents=True)
    installed = [
        path for path in map(Path, sys.path) if path.name == "site-packages" and here in path.parents
    ]
    (packages / "here.pth").write_text("\n".join(map(str, [source, *installed])) + "\n")
    command = environment / "bin" / "endocarp"
    command.write_text(f"#!{environment / 'bin' / 'python'}\nfrom endocarp.cli.main import main\n\nmain()\n")
    command.chmod(0o755)
    return source, str(command)


def test_a_changed_checkout_runs_only_after_a_rebuild(home: Home, tmp_path: Path) -> None:
    source, endocarp = checkout(tmp_path)
    vault = source / "endocarp" / "shell" / "vault.py"
    vault.write_text(vault.read_text() + "\n# changed\n")
    before = sha384(home.state.archive("vault").read_bytes())
    with Server.start(home, program=endocarp) as server:
        assert measured(server.status())["vault"] == before
    with Server.start(home, "--rebuild", program=endocarp) as server:
        assert (
            measured(server.status())["vault"] == sha384(home.state.archive("vault").read_bytes()) != before
        )
