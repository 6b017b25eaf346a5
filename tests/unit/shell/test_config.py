"""Where things lie, and that what is private is made so."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.simulators.kernel import files_up_to, frozen_disk, full_disk, in_child, no_descriptor_leaks

from endocarp import xdg
from endocarp.errors import UsageError
from endocarp.shell.config import (
    Config,
    State,
    config,
    make_private,
    state,
    sync_directory,
    unwritable,
    write,
)

MARGIN = len("/partition-0000/p11-kit.sock")
LIMIT = 107


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- names --------------------------------------------------------------------------------------------------------


def test_everything_of_a_server_lies_below_its_state_directory() -> None:
    server = State(Path("/s"))
    assert {
        server.lock,
        server.device,
        server.model,
        server.idevid_certificate("ecc384"),
        server.bundle,
        server.manifest,
        server.archive("front"),
        server.admin_socket,
        server.mailbox_socket,
        server.store(3),
        server.native_socket(3),
        server.p11_kit_socket(3),
    } == {
        Path("/s/lock"),
        Path("/s/device.json"),
        Path("/s/model"),
        Path("/s/idevid-ecc384.der"),
        Path("/s/images/firmware.bundle"),
        Path("/s/images/soc.manifest"),
        Path("/s/images/front.zip"),
        Path("/s/admin.sock"),
        Path("/s/mailbox.sock"),
        Path("/s/partition-3/store"),
        Path("/s/partition-3/native.sock"),
        Path("/s/partition-3/p11-kit.sock"),
    }


def test_everything_of_its_owner_lies_below_the_configuration_directory() -> None:
    owner = Config(Path("/c"))
    names = {owner.keys.name, owner.anchors.name, owner.references.name, owner.challenges.name}
    assert names == {"keys", "anchors", "references", "challenges"}
    assert {owner.keys.parent, owner.challenges.parent} == {Path("/c")}


def test_directories_that_are_not_given_lie_where_files_of_one_user_belong() -> None:
    surroundings = {"HOME": "/h", "XDG_STATE_HOME": "/s"}
    assert state(None, surroundings).root == xdg.state(surroundings)
    assert config(None, surroundings).root == xdg.config(surroundings)


def test_a_directory_that_is_given_is_taken_as_it_is_whatever_the_surroundings_say() -> None:
    surroundings = {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"}
    assert state(Path("/given"), surroundings).root == Path("/given")
    assert config(Path("here"), surroundings).root == Path.cwd() / "here"


def test_a_state_directory_is_refused_where_its_sockets_would_have_no_address() -> None:
    longest = Path("/" + "d" * (LIMIT - MARGIN - 1))
    assert state(longest).root == longest
    with pytest.raises(UsageError, match="2 octets too long") as raised:
        state(Path(f"{longest}dd"))
    assert "--state" in raised.value.advice()


def test_the_length_of_a_path_counts_in_octets() -> None:
    with pytest.raises(UsageError, match="too long"):
        state(Path("/" + "ä" * 40))


# --- directories --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_a_directory_is_made_for_its_owner_alone_with_those_above_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_private(tmp_path / "one")
        make_private(tmp_path / "one" / "two" / "three")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "one") == 0o700
    assert _mode(tmp_path / "one" / "two" / "three") == 0o700
    assert _mode(tmp_path / "one" / "two") == 0o700


def test_a_directory_that_is_private_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o700)
    make_private(tmp_path)
    assert _mode(tmp_path) == 0o700


def test_an_empty_directory_that_is_open_to_others_is_shut(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert _mode(tmp_path) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o1777])
def test_a_directory_that_others_use_is_refused_and_not_shut(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(mode)
    with pytest.raises(UsageError, match=f"open to others .mode {mode:04o}") as raised:
        make_private(tmp_path)
    assert f"chmod 700 {tmp_path}" in raised.value.advice()
    assert _mode(tmp_path) == mode


@pytest.mark.parametrize("below", [".", "sub"], ids=["a file itself", "below a file"])
def test_a_directory_that_cannot_be_made_is_told_by_its_path(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match=f"cannot write {file}") as raised:
        make_private(file / below)
    assert "--state" in raised.value.advice()


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_written_for_its_owner_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    with no_descriptor_leaks():
        write(path, b"first and long")
        write(path, b"second")
    assert path.read_bytes() == b"second"
    assert _mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_for_all_eyes_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "anchor.pem", b"", mode=0o644)
    assert _mode(tmp_path / "anchor.pem") == 0o644


def test_what_a_crash_left_behind_lends_a_secret_neither_its_mode_nor_its_place(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(mode=0o666)
    stale = tmp_path / "key.new"
    leave: tuple[Callable[[], None], ...] = (
        lambda: stale.touch(mode=0o666),
        lambda: stale.symlink_to(elsewhere),
    )
    for left in leave:
        left()
        write(tmp_path / "key", b"secret")
        assert _mode(tmp_path / "key") == 0o600
        assert not (tmp_path / "key").is_symlink()
    assert elsewhere.read_bytes() == b""


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "soc.manifest"
    write(path, b"old")
    with no_descriptor_leaks(), pytest.raises(UsageError, match="File too large"), files_up_to(16):
        write(path, bytes(32))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_the_disk_is_full_the_advice_is_to_make_room(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        write(disk / "model", b"old")
        with pytest.raises(UsageError, match="No space left") as raised:
            write(disk / "model", bytes(8 << 10))
        assert (disk / "model").read_bytes() == b"old"
        assert not (disk / "model.new").exists()
    assert raised.value.advice() == "free some space"


def test_where_the_disk_can_only_be_read_it_is_told_as_such(tmp_path: Path) -> None:
    with frozen_disk(tmp_path / "disk") as disk:
        attempts: tuple[Callable[[], None], ...] = (
            lambda: write(disk / "old", b"new"),
            lambda: make_private(disk / "sub"),
        )
        for attempt in attempts:
            with pytest.raises(UsageError, match="Read-only file system") as raised:
                attempt()
            assert "--state" in raised.value.advice()


def test_a_file_below_a_file_is_told_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Not a directory"):
        write(tmp_path / "file" / "below", b"")


UNPRIVILEGED = """
import json, os, sys
from pathlib import Path
from endocarp.errors import UsageError
from endocarp.shell.config import make_private, write
if os.getuid() == 0:
    os.setuid(65534)
said = []
for attempt in (lambda: write(Path(sys.argv[1]) / "file", b""), lambda: make_private(Path(sys.argv[1]) / "sub" / "sub")):
    try:
        attempt()
    except UsageError as error:
        said.append([str(error), error.advice()])
print(json.dumps(said))
"""


def test_a_directory_of_somebody_else_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    for reason, advice in in_child(UNPRIVILEGED, tmp_path / "theirs"):
        assert "Permission denied" in reason
        assert "give yourself the right" in advice


def test_the_names_of_a_directory_are_synced_without_leaving_it_open(tmp_path: Path) -> None:
    with no_descriptor_leaks():
        sync_directory(tmp_path)
        with pytest.raises(FileNotFoundError):
            sync_directory(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("error", "reason", "advice"),
    [
        (OSError(errno.ENOSPC, "full"), "cannot write /x: full", "free some space"),
        (OSError(errno.EDQUOT, "quota"), "cannot write /x: quota", "free some space"),
        (OSError(errno.EACCES, "denied"), "cannot write /x: denied", "give yourself"),
        (OSError("AF_UNIX path too long"), "cannot write /x: AF_UNIX path too long", "give yourself"),
    ],
)
def test_an_error_of_the_disk_becomes_one_line_and_what_to_do(
    error: OSError, reason: str, advice: str
) -> None:
    told = unwritable(Path("/x"), error)
    assert str(told) == reason
    assert told.advice().startswith(advice)
