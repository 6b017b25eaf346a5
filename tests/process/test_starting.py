"""Starts that cannot be, and how they say so; starts under hard conditions, and what they still give."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.server import (
    PATIENCE,
    Bystander,
    Home,
    Server,
    eventually,
    refused,
    short_directory,
)

from endocarp.client import Session
from endocarp.errors import DeviceError
from endocarp.wire.admin import ProcessState
from endocarp.wire.hsm import Status
from endocarp.wire.suites import Suite

IS_ROOT = os.getuid() == 0


def is_told(home: Home, *options: str, code: int = 2) -> str:
    """Start a server that is not to come up; return the one line that says why, and the one that says what to do."""
    found, output = refused(home, *options)
    assert found == code, output
    assert "Traceback" not in output
    [reason] = [line for line in output.splitlines() if line.startswith("endocarp: ")]
    [advice] = [line for line in output.splitlines() if line.startswith("advice: ")]
    return f"{reason}\n{advice}"


# --- somebody is there already -----------------------------------------------------------------------------------


def test_a_second_server_on_the_same_directory_says_so_and_the_first_goes_on(running: Server) -> None:
    with Bystander(running) as bystander:
        told = is_told(running.home)
        assert f"a server already runs on {running.home.state.root}" in told
        assert "--state" in told
        bystander.check()
        assert running.status().boots == 1


def test_nobody_rebuilds_the_images_of_a_running_server(running: Server) -> None:
    images = {path: path.stat() for path in running.home.state.images.iterdir()}
    assert "a server already runs" in is_told(running.home, "--rebuild")
    assert {path: path.stat() for path in running.home.state.images.iterdir()} == images


def test_of_two_first_starts_at_the_same_moment_one_serves_and_the_other_says_so() -> None:
    with short_directory() as root, contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server.launch(Home(root))) for _ in range(2)]
        for server in servers:
            with contextlib.suppress(AssertionError):
                server.line("the server serves")
        [serves] = [server for server in servers if "the server serves" in server.output]
        [other] = [server for server in servers if server is not serves]
        assert other.await_end() == 2
        assert re.search("a server already runs|holds a device already", other.output)
        serves.home.pin = serves.line(r"^PIN: ").removeprefix("PIN: ")
        with serves.session() as session:
            assert session.generate(Suite.P256).public


@pytest.mark.parametrize("name", ["admin.sock", "partition-0/p11-kit.sock"])
def test_something_else_in_the_place_of_a_socket_is_named_and_left_alone(home: Home, name: str) -> None:
    path = home.state.root / name
    path.write_text("precious")
    assert f"{path} is in the way" in is_told(home)
    assert path.read_text() == "precious"


# --- directories ------------------------------------------------------------------------------------------------


def test_a_path_too_long_for_sockets_is_told(home: Home) -> None:
    told = is_told(home, "--state", str(home.root / ("s" * 80)))
    assert "too long" in told
    assert "shorter" in told
    assert not (home.root / ("s" * 80)).exists()


@pytest.mark.parametrize("place", ["/sys/endocarp", "/dev/null/endocarp"])
def test_a_state_that_cannot_be_written_is_told(home: Home, place: str) -> None:
    told = is_told(home, "--state", place)
    assert f"cannot write {place}" in told
    assert "--state" in told


def test_a_state_that_others_may_enter_is_not_served(home: Home) -> None:
    home.state.root.chmod(0o755)
    told = is_told(home)
    assert f"{home.state.root} is open to others" in told
    assert "chmod 700" in told


# --- disks that are full ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk(root: Path, size: str) -> Iterator[None]:
    """Put a small disk in the place of a directory."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(root)]
    if not IS_ROOT or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk of its own is mounted by root, where that is allowed")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_a_first_start_on_a_full_disk_is_told() -> None:
    with short_directory() as root, disk(root, "200k"):
        home = Home(root)
        told = is_told(home)
        assert "No space left on device" in told
        assert "free some space" in told


def fill(session: Session) -> int:
    """Make keys until one is refused; return with which status."""
    try:
        while True:
            session.generate(Suite.P256, label="more".ljust(200))
    except DeviceError as error:
        return error.number


def test_a_store_on_a_full_disk_refuses_new_keys_and_goes_on_with_the_old_ones(prepared: Home) -> None:
    with short_directory() as root, disk(root, "4m"):
        home = prepared.copy(root)
        ballast = root / "ballast"
        with Server.start(home) as server:
            with server.session() as session, Bystander(server):
                with contextlib.suppress(OSError):
                    ballast.write_bytes(bytes(8 << 20))
                assert fill(session) == Status.STORE_FULL
                before = len(session.keys())
                ballast.unlink()
                session.generate(Suite.P256, label="after all")
            server.kill("vault-0")
            server.line("vault-0 +died")
            eventually(lambda: restarted(server, "vault-0"))
            with server.session() as session:
                assert len(session.keys()) == before + 1


def restarted(server: Server, name: str) -> bool:
    return any(
        one.name == name and one.restarts and one.state is ProcessState.SERVING
        for one in server.status().processes
    )


def test_a_store_that_may_not_grow_refuses_new_keys_and_goes_on_with_the_old_ones(home: Home) -> None:
    if IS_ROOT:
        pytest.skip("root has a full disk for this")
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not installed: apt-get install util-linux")
    limit = 400_000  # the images count too, which lie in memory
    with Server.start(home, wrapped_in=["prlimit", f"--fsize={limit}"]) as server, Bystander(server):
        with server.session() as session:
            assert fill(session) == Status.STORE_FULL
        assert home.records.stat().st_size <= limit


# --- sandboxes that are not to be had --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_libseccomp() -> list[str]:
    """Give a command that runs another one where libseccomp cannot be read."""
    found = {
        path.resolve()
        for pattern in ("lib/*/", "lib64/", "lib/")
        for path in Path("/usr").glob(f"{pattern}libseccomp.so.2")
    }
    hide = " && ".join(f"mount --bind /dev/null {path}" for path in found) or "true"
    command = ["unshare", *([] if IS_ROOT else ["-r"]), "-m", "sh", "-c", f'{hide} && exec "$@"', "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("libseccomp cannot be hidden here: unshare is not allowed")
    return command


def test_without_libseccomp_the_server_starts_and_says_what_is_missing_in_status_and_evidence(
    home: Home, without_libseccomp: list[str]
) -> None:
    with Server.start(home, wrapped_in=without_libseccomp) as server:
        assert "libseccomp is not installed" in server.output
        sandboxes = {one.name: one.sandbox for one in server.status().processes}
        assert {sandboxes[name].seccomp for name in ("rot", "vault-0", "front")} == {0}
        home.run("evidence", "--out", str(home.root / "evidence.cbor"))
        verdict = json.loads(home.run("verify", "--json", str(home.root / "evidence.cbor")).stdout)
        said = [
            one
            for one in verdict["statements"]
            if one["mechanism"] == "seccomp" and one["subject"] == "vault-0"
        ]
        assert [one["status"] for one in said] == ["absent"]
        assert "libseccomp" in said[0]["detail"]


def test_without_libseccomp_a_server_that_requires_its_sandbox_does_not_start(
    home: Home, without_libseccomp: list[str]
) -> None:
    code, output = refused(home, "--require-sandbox", wrapped_in=without_libseccomp)
    assert code == 1
    assert "sandbox.incomplete" in output
    assert "apt-get install libseccomp2" in output
    assert "the server serves" not in output


# --- environments --------------------------------------------------------------------------------------------------


def test_an_empty_environment_and_a_path_with_blanks_and_umlauts_are_enough(prepared: Home) -> None:
    with short_directory() as root:
        prepared.copy(root)
        state, config = root / "für uns", root / "c"
        (root / "s" / "endocarp").rename(state)
        (root / "c" / "endocarp").rename(root / "config")
        home = Home(root, prepared.pin)
        options = ("--state", str(state), "--config", str(root / "config"))
        with Server.launch(home, *options, wrapped_in=["env", "-i"]) as server:
            server.line("the server serves")
            assert f"'unix:path={state}/partition-0/p11-kit.sock'" in server.line("P11_KIT_SERVER_ADDRESS")
            told = home.run("status", "--json", "--state", str(state)).stdout
            assert json.loads(told)["state"] == str(state)
            server.process.send_signal(signal.SIGINT)
            assert server.await_end(PATIENCE) == 0
        assert not config.exists() or not list(config.iterdir())


def test_without_a_server_every_question_says_that_nobody_is_there(home: Home) -> None:
    for command in ("status", "evidence"):
        done = home.run(command, *(["--out", "evidence.cbor"] if command == "evidence" else []), exits=3)
        assert str(home.state.admin_socket) in done.stderr
        assert "advice: " in done.stderr
