"""Code archives: what goes in, that it is the same each time, that it runs, and that it cannot change."""

import fcntl
import io
import mmap
import os
import shutil
import subprocess
import zipfile
from hashlib import sha384
from pathlib import Path

import pytest
from tests.simulators.kernel import descriptors_left, files_up_to, in_child, no_descriptor_leaks

from endocarp.errors import Refused, UsageError
from endocarp.shell import archive
from endocarp.shell.archive import (
    MAX_IMAGE,
    SEALS,
    SOURCE,
    build,
    closure,
    load,
    read_sealed,
    seal,
    source_tree,
)
from endocarp.shell.channel import interpreter

ENTRIES = {name: f"endocarp.shell.{name}" for name in ("rom", "fmc", "rot", "box", "front", "vault")}


def _tree(**sources: str) -> dict[str, tuple[str, bytes]]:
    """Return a tree of modules `endocarp.NAME`; two underscores stand for a point."""
    tree = {"endocarp": ("endocarp/__init__.py", b"")}
    for key, source in sources.items():
        name = f"endocarp.{key.replace('__', '.')}"
        tree[name] = (f"{name.replace('.', '/')}.py", source.encode())
    return tree


def _names(octets: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(octets)).namelist()


# --- what goes in -------------------------------------------------------------------------------------------------


def test_a_module_brings_everything_that_it_imports_in_whatever_way() -> None:
    tree = _tree(
        entry="import endocarp.one\nfrom endocarp import two\nfrom endocarp.three import something\n",
        one="def late():\n    import endocarp.four\n",
        two="import os, socket\n",
        three="something = 1\n",
        four="if False:\n    from endocarp.five import *\n",
        five="",
        stranger="",
    )
    names = ["endocarp", *(f"endocarp.{name}" for name in ("entry", "five", "four", "one", "three", "two"))]
    assert closure("endocarp.entry", tree) == names


def test_modules_that_import_each_other_are_no_trouble() -> None:
    tree = _tree(one="import endocarp.two", two="import endocarp.one")
    assert closure("endocarp.one", tree) == ["endocarp", "endocarp.one", "endocarp.two"]


def test_the_packages_of_a_module_come_with_it() -> None:
    tree = _tree(room__door="", room="")
    assert closure("endocarp.room.door", tree) == ["endocarp", "endocarp.room", "endocarp.room.door"]


def test_the_source_tree_knows_each_module_by_its_dotted_name(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    for name in ("__init__.py", "room/__init__.py", "room/door.py", "room/note.txt"):
        (tmp_path / name).write_text(name)
    assert source_tree(tmp_path) == {
        "endocarp": ("endocarp/__init__.py", b"__init__.py"),
        "endocarp.room": ("endocarp/room/__init__.py", b"room/__init__.py"),
        "endocarp.room.door": ("endocarp/room/door.py", b"room/door.py"),
    }


def test_an_archive_of_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no module endocarp\.nothing"):
        build("endocarp.nothing", _tree())


@pytest.mark.parametrize("entry", ENTRIES.values())
def test_an_archive_holds_its_entry_and_every_module_that_any_of_it_imports(entry: str) -> None:
    tree = source_tree()
    inside = set(closure(entry, tree))
    assert entry in inside
    for name in inside:
        assert {one for one in archive._imports(tree[name][1]) if one in tree} <= inside
    assert set(_names(build(entry, tree))) == {tree[name][0] for name in inside} | {"__main__.py"}


def _inside(process: str, *rooms: str) -> set[str]:
    """Return what the archive of a process holds of these modules and packages."""
    inside = closure(ENTRIES[process], source_tree())
    return {name for name in inside if any(f"{name}.".startswith(f"endocarp.{room}.") for room in rooms)}


def test_the_front_has_no_cryptography_no_store_and_no_root_of_trust() -> None:
    assert _inside("front", "crypto", "rot", "hsm.keys", "hsm.store", "hsm.partition", "hsm.vault") == set()


def test_the_vault_knows_no_format_of_strangers() -> None:
    inside = closure(ENTRIES["vault"], source_tree())
    strangers = (
        "endocarp.wire.p11",
        "endocarp.wire.cryptoki",
        "endocarp.hsm.token",
        "endocarp.hsm.mechanisms",
    )
    assert [name for name in inside if name.startswith(strangers)] == []


def test_the_box_hashes_but_holds_no_keys() -> None:
    assert _inside("box", "rot", "verifier", "hsm.keys", "hsm.vault") == set()
    assert _inside("box", "crypto") <= {"endocarp.crypto", "endocarp.crypto.digest"}


@pytest.mark.parametrize("process", ENTRIES)
def test_no_process_of_the_server_carries_what_judges_it_or_what_makes_it(process: str) -> None:
    assert _inside(process, "cli", "verifier", "shell.workshop", "shell.relying", "rot.builder") == set()


# --- the same each time -------------------------------------------------------------------------------------------

DIGESTS = """
import hashlib, json, sys
from pathlib import Path
from endocarp.shell.archive import build, source_tree
tree = source_tree(Path(sys.argv[1]))
print(json.dumps({entry: hashlib.sha384(build(entry, tree)).hexdigest() for entry in sys.argv[2:]}))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the whole package, in which nobody works meanwhile."""
    return shutil.copytree(SOURCE, tmp_path / "one" / "endocarp")


def _digests(root: Path) -> dict[str, str]:
    tree = source_tree(root)
    return {entry: sha384(build(entry, tree)).hexdigest() for entry in ENTRIES.values()}


def test_building_twice_gives_the_same_octets(copy: Path) -> None:
    assert _digests(copy) == _digests(copy)


def test_another_run_in_another_place_language_and_time_gives_the_same_octets(
    copy: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(copy, tmp_path / "two", copy_function=shutil.copyfile)
    for number, zone in enumerate(("Asia/Tokyo", "America/New_York")):
        surroundings = {"PYTHONHASHSEED": str(number), "TZ": zone, "LANG": "C", "SOURCE_DATE_EPOCH": "1"}
        told = in_child(
            DIGESTS, elsewhere, *ENTRIES.values(), env=surroundings, cwd=tmp_path, umask=0o077 * number
        )
        assert told == _digests(copy)


def test_nothing_in_an_archive_tells_when_or_by_whom_it_was_built() -> None:
    for entry in zipfile.ZipFile(io.BytesIO(build(ENTRIES["front"], source_tree()))).infolist():
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert entry.external_attr >> 16 == 0o100444
        assert entry.create_system == 3


# --- it runs ------------------------------------------------------------------------------------------------------

GREETING = "import sys\nfrom endocarp.words import WORD\n\n\ndef main():\n    print(WORD, *sys.argv[1:])\n"


def _run(fd: int, *arguments: str) -> str:
    words = [*interpreter(fd), *arguments]
    done = subprocess.run(words, pass_fds=[fd], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


def test_an_archive_runs_from_sealed_memory_with_its_arguments() -> None:
    fd = seal(build("endocarp.greeting", _tree(greeting=GREETING, words="WORD = 'here'")), "greeting")
    assert _run(fd, "--state", "x") == "here --state x\n"
    os.close(fd)


def test_the_modules_of_an_archive_come_from_the_archive_and_not_from_the_checkout() -> None:
    source = "import endocarp.errors, sys\n\n\ndef main():\n    print(endocarp.__file__, endocarp.errors.__file__)\n"
    tree = source_tree() | _tree(where=source)
    fd = seal(build("endocarp.where", tree), "where")
    inside = f"/proc/self/fd/{fd}/endocarp"
    assert _run(fd).split() == [f"{inside}/__init__.py", f"{inside}/errors.py"]
    os.close(fd)


@pytest.mark.parametrize("process", ENTRIES)
def test_every_process_of_the_server_can_be_imported_from_its_archive_alone(process: str) -> None:
    source = f"import {ENTRIES[process]} as found, json, sys\n\n\ndef main():\n    print(json.dumps(sorted(sys.modules)))\n"
    tree = source_tree()
    alone = {name: tree[name] for name in closure(ENTRIES[process], tree)} | _tree(where=source)
    fd = seal(build("endocarp.where", alone), process)
    modules = _run(fd)
    os.close(fd)
    assert ENTRIES[process] in modules
    if process in ("front", "box"):
        assert '"cryptography' not in modules


def test_an_archive_runs_without_what_an_environment_runs_at_each_start() -> None:
    source = "import sys\n\n\ndef main():\n    print(sys.flags.isolated, sys.flags.no_site, 'site' in sys.modules)\n"
    fd = seal(build("endocarp.where", _tree(where=source)), "bare")
    assert _run(fd).split() == ["1", "1", "False"]
    os.close(fd)


# --- it cannot change ---------------------------------------------------------------------------------------------


def test_sealed_memory_gives_back_what_was_put_in_and_stays_open() -> None:
    fd = seal(b"image", "image")
    assert read_sealed(fd) == b"image"
    assert read_sealed(fd) == b"image"
    assert str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("/memfd:image")
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_sealed_memory_cannot_be_changed_by_anyone() -> None:
    fd = seal(b"image", "image")
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    for one in (fd, again):
        with pytest.raises(PermissionError):
            os.pwrite(one, b"x", 0)
        with pytest.raises(PermissionError):
            os.pwrite(one, b"x", 5)
        with pytest.raises(PermissionError):
            os.ftruncate(one, 1)
        with pytest.raises(PermissionError):
            os.ftruncate(one, 10)
        with pytest.raises(PermissionError):
            mmap.mmap(one, 5)
        with pytest.raises(PermissionError):
            fcntl.fcntl(one, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
        os.close(one)


def test_memory_that_could_not_be_filled_is_not_left_open() -> None:
    with no_descriptor_leaks(), pytest.raises(OSError, match="File too large"), files_up_to(16):
        seal(bytes(32), "image")


def test_where_descriptors_have_run_out_nothing_is_sealed() -> None:
    with no_descriptor_leaks(), pytest.raises(OSError, match="Too many open files"), descriptors_left(0):
        seal(b"image", "image")


@pytest.mark.parametrize("missing", [1, 2, 4, 8], ids=["seal", "shrink", "grow", "write"])
def test_memory_that_lacks_a_seal_is_refused(missing: int) -> None:
    fd = os.memfd_create("image", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS & ~missing)
    with pytest.raises(Refused) as refused:
        read_sealed(fd)
    os.close(fd)
    assert refused.value.rule == "image.seal"
    assert "sealed against" in refused.value.advice()


def test_a_file_is_not_sealed_memory(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"image")
    with path.open("rb") as file, pytest.raises(Refused, match=r"image\.seal"):
        read_sealed(file.fileno())


def test_a_descriptor_that_is_closed_is_not_sealed_memory() -> None:
    fd = seal(b"image", "image")
    os.close(fd)
    with pytest.raises(Refused, match=r"image\.seal"):
        read_sealed(fd)


def test_an_image_may_be_as_large_as_the_limit_and_no_larger() -> None:
    fd = seal(bytes(MAX_IMAGE), "image")
    assert len(read_sealed(fd)) == MAX_IMAGE
    os.close(fd)
    fd = seal(bytes(MAX_IMAGE + 1), "image")
    with pytest.raises(Refused) as refused:
        read_sealed(fd)
    os.close(fd)
    assert refused.value.rule == "image.size"
    assert "--rebuild" in refused.value.advice()


# --- from disk ----------------------------------------------------------------------------------------------------


def test_an_image_is_read_from_disk_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"image")
    assert load(tmp_path / "a.zip") == b"image"


@pytest.mark.parametrize("name", ["nothing.zip", "."], ids=["not there", "a directory"])
def test_an_image_that_cannot_be_read_is_refused_by_its_path(tmp_path: Path, name: str) -> None:
    with no_descriptor_leaks(), pytest.raises(Refused) as refused:
        load(tmp_path / name)
    assert refused.value.rule == "image.missing"
    assert str(tmp_path / name) in refused.value.reason
    assert "--rebuild" in refused.value.advice()


def test_a_file_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "huge.zip"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    for one in (path, Path("/dev/zero")):
        with pytest.raises(Refused) as refused:
            load(one)
        assert refused.value.rule == "image.size"
        assert str(one) in refused.value.reason
        assert "--rebuild" in refused.value.advice()
