"""A store's octets in a file: durable, whole or not at all, and never in the wrong file."""

import errno
import os
import stat
from pathlib import Path

import pytest
from tests.simulators.kernel import descriptors_left, files_up_to, full_disk, lacking, no_descriptor_leaks

from endocarp.shell.storage import FileStorage


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    """Return the storage of an empty directory, read once."""
    found = FileStorage(tmp_path)
    assert found.read() == b""
    return found


def _again(storage: FileStorage) -> bytes:
    """Return what the next process reads."""
    return FileStorage(storage.directory).read()


def test_where_nothing_was_ever_stored_there_is_nothing(tmp_path: Path) -> None:
    assert FileStorage(tmp_path).read() == b""
    assert FileStorage(tmp_path).read() == b""


def test_what_was_added_is_there_in_its_order(storage: FileStorage) -> None:
    for octets in (b"one ", b"two ", b"", b"three"):
        storage.append(octets)
    assert _again(storage) == storage.read() == b"one two three"


def test_only_the_owner_may_read_what_is_stored(storage: FileStorage) -> None:
    storage.replace(b"sealed")
    for path in storage.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_cut_keeps_the_beginning_and_what_comes_next_follows_it(storage: FileStorage) -> None:
    storage.append(b"whole, torn")
    storage.cut(5)
    storage.append(b"!")
    assert _again(storage) == b"whole!"


def test_a_replacement_takes_the_place_of_everything_and_is_added_to(storage: FileStorage) -> None:
    storage.append(b"old and long")
    storage.replace(b"new")
    storage.append(b"er")
    assert _again(storage) == b"newer"
    assert [path.name for path in storage.directory.iterdir()] == ["records"]


def test_long_files_come_back_to_their_last_octet(storage: FileStorage) -> None:
    octets = os.urandom(1 << 16) * 50
    storage.replace(octets)
    assert _again(storage) == octets


def test_a_replacement_that_a_crash_cut_short_is_not_taken_for_the_store(storage: FileStorage) -> None:
    storage.append(b"kept")
    (storage.directory / "records.new").write_bytes(b"half")
    assert _again(storage) == b"kept"
    assert [path.name for path in storage.directory.iterdir()] == ["records"]


def test_no_call_leaves_a_descriptor_open_but_one_until_it_is_closed(tmp_path: Path) -> None:
    with no_descriptor_leaks():
        storage = FileStorage(tmp_path)
        storage.read()
        storage.append(b"1")
        storage.replace(b"2")
        storage.read()
        storage.cut(0)
        storage.close()
        storage.close()


def test_no_program_that_is_started_inherits_the_file(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    for change in (storage.read, lambda: storage.replace(b"")):
        change()
        paths = {
            entry.readlink(): int(entry.name) for entry in Path("/proc/self/fd").iterdir() if entry.exists()
        }
        assert not os.get_inheritable(paths[tmp_path / "records"])
    storage.close()


def test_a_directory_that_is_gone_is_an_error_and_not_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileStorage(tmp_path / "nothing").read()


def test_nothing_is_written_before_the_store_was_read_or_after_it_was_closed(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        storage.append(b"x")
    storage.read()
    storage.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        storage.append(b"x")
    assert FileStorage(tmp_path).read() == b""


# --- when the disk does not do its part -----------------------------------------------------------------------------


def test_an_addition_that_does_not_fit_fails_and_can_be_cut(storage: FileStorage) -> None:
    storage.append(b"kept")
    with files_up_to(6), pytest.raises(OSError, match="File too large"):
        storage.append(b"too long")
    assert _again(storage) == b"kepttoo"[:6]
    storage.cut(4)
    storage.append(b"!")
    assert _again(storage) == b"kept!"


def test_a_replacement_that_does_not_fit_leaves_the_old_octets_which_go_on(storage: FileStorage) -> None:
    storage.append(b"kept")
    with no_descriptor_leaks(), files_up_to(6), pytest.raises(OSError, match="File too large"):
        storage.replace(b"too long")
    storage.append(b"!")
    assert _again(storage) == b"kept!"
    assert [path.name for path in storage.directory.iterdir()] == ["records"]


def test_a_full_disk_refuses_and_what_was_there_stays(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        storage = FileStorage(disk)
        storage.read()
        storage.append(b"kept")
        with pytest.raises(OSError, match="No space left"):
            storage.append(bytes(8 << 10))
        storage.cut(4)
        with pytest.raises(OSError, match="No space left"):
            storage.replace(bytes(8 << 10))
        assert storage.read() == b"kept"
        storage.close()


def test_a_replacement_that_cannot_be_put_in_place_leaves_the_old_octets(storage: FileStorage) -> None:
    storage.append(b"kept")
    with no_descriptor_leaks(), descriptors_left(0), pytest.raises(OSError, match="Too many open files"):
        storage.replace(b"new")
    storage.append(b"!")
    assert _again(storage) == b"kept!"


def test_after_a_replacement_of_which_nobody_knows_whether_it_lasts_nothing_is_acknowledged(
    storage: FileStorage,
) -> None:
    storage.append(b"old")
    directory = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with pytest.raises(OSError, match="Input/output error"):
        lacking(("openat", errno.EIO, (2, directory)), work=lambda: storage.replace(b"new"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        storage.append(b", acknowledged and lost")
    assert _again(storage) == b"new"
    storage.replace(b"newer")
    storage.append(b"!")
    assert _again(storage) == b"newer!"
