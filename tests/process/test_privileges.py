"""What the kernel says about each process: what it gave up, what it maps, what others may open."""

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.server import Home, Server, short_directory

FILTERED = ("rot", "front", "vault-0")
EVERYBODY = ("box", *FILTERED)
DOORS = ("admin.sock", "mailbox.sock", "partition-0/native.sock", "partition-0/p11-kit.sock")


MEMORY = ("/dev/null", "/memfd:", "/secretmem")
"""What a descriptor is called that leads to no file."""
STRANGERS = 65534
"""A group that root is given for the time of these tests: it shows whether /proc says dumpable."""


@pytest.fixture(scope="module")
def running(prepared: Home) -> Iterator[Server]:
    """A server as others are, except that the group of root's is not root's."""
    group = ["setpriv", "--regid", str(STRANGERS), "--clear-groups"] if os.getuid() == 0 else []
    with short_directory() as root, Server.start(prepared.copy(root), wrapped_in=group) as server:
        yield server


@pytest.fixture(scope="module")
def pids(running: Server) -> dict[str, int]:
    return running.pids()


def said_of(pid: int) -> dict[str, str]:
    """Return what /proc says about the process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mapped(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except PermissionError:
        pytest.skip("the memory map of a process that cannot be dumped is for root to read")


@pytest.mark.parametrize("name", EVERYBODY)
def test_no_process_can_gain_privileges(pids: dict[str, int], name: str) -> None:
    assert said_of(pids[name])["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", FILTERED)
def test_every_thread_of_a_process_but_the_box_is_behind_a_filter(pids: dict[str, int], name: str) -> None:
    tasks = list(Path(f"/proc/{pids[name]}/task").iterdir())
    assert tasks
    for task in tasks:
        assert re.search(r"^Seccomp:\s+2$", (task / "status").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", EVERYBODY)
def test_no_process_can_be_dumped(pids: dict[str, int], name: str) -> None:
    # proc(5): what a process has below /proc belongs to root, user and group, once it is not dumpable.
    found, other = Path(f"/proc/{pids[name]}/stat").stat(), Path(f"/proc/{pids['up']}/stat").stat()
    assert (found.st_uid, found.st_gid) == (0, 0)
    assert (other.st_uid, other.st_gid) != (0, 0)
    limits = Path(f"/proc/{pids[name]}/limits").read_text()
    assert re.search(r"^Max core file size\s+0\s+0\s", limits, re.MULTILINE)


def test_the_status_tells_of_each_sandbox_what_the_kernel_says(running: Server) -> None:
    for one in running.status().processes:
        said = said_of(one.pid)
        assert (one.sandbox.no_new_privileges, one.sandbox.seccomp) == (
            int(said["NoNewPrivs"]),
            int(said["Seccomp"]),
        )


def test_the_front_maps_no_library_of_cryptography(pids: dict[str, int]) -> None:
    libraries = mapped(pids["front"])
    assert "libc.so" in libraries
    assert not re.search(r"_rust\.abi3|/cryptography/|_cffi_backend", libraries)
    # Of libcrypto it has what the standard library's hashlib brings along, for C_Digest: no keys, no ciphers.
    assert "_rust.abi3" in mapped(pids["vault-0"])


def modules_in(archive: Path) -> Iterator[str]:
    with zipfile.ZipFile(archive) as found:
        yield from (name.removesuffix(".py").replace("/", ".") for name in found.namelist())


def test_the_archive_of_the_front_has_no_cryptography_and_that_of_the_vault_no_pkcs11(
    running: Server,
) -> None:
    front = set(modules_in(running.home.state.archive("front")))
    vault = set(modules_in(running.home.state.archive("vault")))
    assert "endocarp.wire.p11" in front
    assert not any(name.startswith(("endocarp.crypto", "endocarp.rot")) for name in front)
    assert "endocarp.hsm.store" not in front
    assert "endocarp.crypto.keys" in vault
    assert not any(name.startswith(("endocarp.wire.p11", "endocarp.hsm.token")) for name in vault)


def test_every_socket_is_for_its_owner_alone(running: Server) -> None:
    root = running.home.state.root
    sockets = {path for path in root.rglob("*") if path.is_socket()}
    assert sockets == {root / name for name in DOORS}
    for path in sockets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_below_the_two_directories_is_for_others(running: Server) -> None:
    for root in (running.home.state.root, running.home.config.root):
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        for path in root.rglob("*"):
            if path.is_dir():
                assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for secret in (running.home.state.device, running.home.records, *running.home.config.keys.iterdir()):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600, secret


@pytest.mark.parametrize("name", FILTERED)
def test_a_process_runs_sealed_memory_and_not_the_checkout(pids: dict[str, int], name: str) -> None:
    words = Path(f"/proc/{pids[name]}/cmdline").read_bytes().split(b"\0")
    assert words[1:3] == [b"-I", b"-S"]
    assert words[3].startswith(b"/proc/self/fd/")


@pytest.mark.parametrize("name", EVERYBODY)
def test_no_process_inherits_the_environment_of_whoever_started_the_server(
    pids: dict[str, int], name: str
) -> None:
    try:
        environment = Path(f"/proc/{pids[name]}/environ").read_bytes()
    except PermissionError:
        pytest.skip("the environment of a process that cannot be dumped is for root to read")
    assert environment.strip(b"\0").split(b"\0") == [b"LANG=C.UTF-8"]


def test_a_vault_has_no_listening_socket_and_opens_no_file_but_its_store(
    running: Server, pids: dict[str, int]
) -> None:
    try:
        held = [str(entry.readlink()) for entry in Path(f"/proc/{pids['vault-0']}/fd").iterdir()]
    except PermissionError:
        pytest.skip("the descriptors of a process that cannot be dumped are for root to read")
    files = {path for path in held if path.startswith("/") and not path.startswith(MEMORY)}
    assert files == {str(running.home.records), str(running.home.records.parent)}
    listening = {
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if line.split()[3] == "00010000"
    }
    assert listening
    assert not {path for path in held if path.startswith("socket:[") and path[8:-1] in listening}
