"""What runs beneath the archives: hashed, told, never in the way."""

import os
import sys
from hashlib import sha384
from pathlib import Path

import pytest

from endocarp.shell import inventory as module
from endocarp.shell.inventory import DISTRIBUTIONS, inventory

UNREADABLE = bytes(48)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty place for packages, the only one that imports look at."""
    found = tmp_path / "site-packages"
    found.mkdir()
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "checkout"), str(found)])
    return found


def _put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))


def _digests() -> dict[str, bytes]:
    return {one.name: one.digest for one in inventory()}


def test_interpreter_library_and_every_package_that_the_server_imports_are_listed() -> None:
    found = inventory()
    interpreter = Path(sys.executable).resolve()
    assert found[0].name == f"interpreter {interpreter.name}"
    assert found[0].digest == sha384(interpreter.read_bytes()).digest()
    assert [one.name for one in found[1:]] == [
        "standard library",
        *(f"package {one}" for one in DISTRIBUTIONS),
    ]
    assert all(len(one.digest) == 48 and any(one.digest) for one in found)


def test_two_looks_at_the_same_machine_give_the_same() -> None:
    assert inventory() == inventory()


def test_a_package_that_is_not_installed_is_not_listed(site: Path) -> None:
    _put(site, "pyseccomp.py")
    assert [name for name in _digests() if name.startswith("package")] == ["package pyseccomp"]


def test_sources_and_shared_objects_count_and_compiled_copies_do_not(site: Path) -> None:
    _put(site, "cffi/__init__.py", "cffi/deep/lib.so")
    before = _digests()["package cffi"]
    _put(site, "cffi/__pycache__/api.pyc", "cffi/README.txt", "cffi.dist-info/RECORD", "stranger/__init__.py")
    assert _digests()["package cffi"] == before
    for name in ("cffi/api.py", "cffi/deep/other.so", "_cffi_backend.so"):
        _put(site, name)
        after = _digests()["package cffi"]
        assert after != before
        before = after


def test_a_file_that_moves_or_changes_is_seen(site: Path) -> None:
    _put(site, "cbor2/one/part.py")
    digests = [_digests()["package cbor2"]]
    (site / "cbor2" / "one").rename(site / "cbor2" / "two")
    digests.append(_digests()["package cbor2"])
    (site / "cbor2" / "two" / "part.py").write_text("changed")
    digests.append(_digests()["package cbor2"])
    assert len(set(digests)) == 3


def test_the_first_place_that_has_a_package_counts_as_it_does_for_an_import(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "system" / "dist-packages"
    _put(second, "cbor2/__init__.py", "cffi/__init__.py")
    monkeypatch.setattr(sys, "path", [*sys.path, str(second)])
    assert {"package cbor2", "package cffi"} <= set(_digests())
    second_only = _digests()["package cbor2"]
    _put(site, "cbor2/other.py")
    assert _digests()["package cbor2"] != second_only


def test_what_cannot_be_read_is_told_and_stops_nothing(site: Path) -> None:
    _put(site, "cffi/__init__.py")
    before = _digests()["package cffi"]
    (site / "cffi" / "api.py").symlink_to(site / "nothing.py")
    assert _digests()["package cffi"] != before
    assert module._file(site / "cffi" / "api.py") == UNREADABLE


def test_tests_and_packages_below_the_library_are_left_out(tmp_path: Path) -> None:
    _put(tmp_path, "os.py", "json/__init__.py", "lib-dynload/_x.so", "os.txt")
    _put(
        tmp_path,
        "site-packages/p.py",
        "dist-packages/p.py",
        "test/t.py",
        "__pycache__/os.py",
        "json/tests/t.py",
    )
    names = [str(path.relative_to(tmp_path)) for path in module._modules(tmp_path)]
    assert names == ["os.py", "json/__init__.py", "lib-dynload/_x.so"]


def test_a_name_that_is_no_text_is_hashed_as_it_is(site: Path) -> None:
    name = os.fsdecode(b"cffi/\xff.py")
    _put(site, name)
    assert "package cffi" in _digests()
