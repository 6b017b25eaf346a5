"""Listening sockets of the state directory."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.simulators.kernel import no_descriptor_leaks

from endocarp.errors import UsageError
from endocarp.shell.sockets import listen_at

KINDS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]


def _connects(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as caller:
        return caller.connect_ex(str(path)) == 0


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_is_for_its_owner_alone(tmp_path: Path, kind: socket.SocketKind, umask: int) -> None:
    path = tmp_path / "door.sock"
    before = os.umask(umask)
    try:
        with listen_at(path, kind):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert _connects(path, kind)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_no_program_that_is_started_inherits_a_listener(tmp_path: Path) -> None:
    with listen_at(tmp_path / "door.sock", socket.SOCK_STREAM) as listener:
        assert not listener.get_inheritable()


def test_many_callers_may_wait_at_once(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    with listen_at(path, socket.SOCK_STREAM):
        callers = [socket.socket(socket.AF_UNIX) for _ in range(200)]
        for caller in callers:
            caller.setblocking(False)
        assert {caller.connect_ex(str(path)) for caller in callers} == {0}
        for caller in callers:
            caller.close()


def test_a_socket_that_an_earlier_run_left_behind_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    listen_at(path, socket.SOCK_STREAM).close()
    assert path.is_socket()
    with listen_at(path, socket.SOCK_SEQPACKET):
        assert _connects(path, socket.SOCK_SEQPACKET)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_not_a_socket_is_left_where_it_is(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "door.sock", tmp_path / "target.sock"
    listen_at(target, socket.SOCK_STREAM).close()
    make: dict[str, Callable[[], None]] = {
        "file": path.touch,
        "directory": path.mkdir,
        "link": lambda: path.symlink_to(target),
    }
    make[kind]()
    with no_descriptor_leaks(), pytest.raises(UsageError, match="in the way") as raised:
        listen_at(path, socket.SOCK_STREAM)
    assert str(path) in str(raised.value)
    assert "--state" in raised.value.advice()
    assert path.lstat()
    assert target.is_socket()


def test_a_directory_that_is_not_there_is_told_and_the_mask_restored(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with (
            no_descriptor_leaks(),
            pytest.raises(UsageError, match=r"cannot write .*door\.sock: No such file"),
        ):
            listen_at(tmp_path / "nothing" / "door.sock", socket.SOCK_STREAM)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_path_that_no_socket_can_have_is_told_with_the_reason(tmp_path: Path) -> None:
    with no_descriptor_leaks(), pytest.raises(UsageError, match="path too long"):
        listen_at(tmp_path / ("d" * 120), socket.SOCK_STREAM)
