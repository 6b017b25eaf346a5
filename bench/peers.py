"""What is measured: a server of ours, and the peers that are installed on this machine."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from endocarp.cli import account

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PEER_PIN = "12345678"
LABEL = "bench"
PATIENCE = 10.0
"""Seconds that a peer may take to serve."""


class Absent(Exception):
    """A peer is not installed; the message says which package has it."""


@dataclass(frozen=True)
class OurServer:
    """A running server: where it is, how to reach it, what it took to start."""

    root: Path
    pin: str
    seconds_to_serve: float

    @property
    def native(self) -> str:
        """The address of the native door."""
        return f"unix:{self.root}/state/partition-0/native.sock"

    @property
    def p11_kit(self) -> str:
        """The address of the p11-kit door."""
        return f"unix:path={self.root}/state/partition-0/p11-kit.sock"

    def status(self) -> dict[str, object]:
        """Return what `endocarp status --json` says."""
        words = [
            sys.executable,
            "-m",
            "endocarp.cli.main",
            "status",
            "--json",
            "--state",
            f"{self.root}/state",
        ]
        found: dict[str, object] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        return found

    def pids(self) -> list[int]:
        """Return the processes that serve applications."""
        processes = self.status()["processes"]
        assert isinstance(processes, list)
        return [one["pid"] for one in processes]


@contextlib.contextmanager
def our_server(root: Path, *, fresh: bool = True) -> Iterator[OurServer]:
    """Start a server of ours in `root`, stop it at the end; `fresh` says that it is the first start there."""
    words = [sys.executable, "-m", "endocarp.cli.main", "up"]
    words += ["--state", f"{root}/state", "--config", f"{root}/config"]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    pin, seconds = "", 0.0
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "the server serves" in line:
                seconds = time.perf_counter() - start
            if line.startswith("PIN: "):
                pin = line.split()[1]
            if pin or ("endocarp verify" in line and not fresh):
                break
        yield OurServer(root, pin, seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a short path, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="eb", dir="/tmp") as name:
        yield Path(name)


@contextlib.contextmanager
def softhsm_token(root: Path) -> Iterator[None]:
    """Make a SoftHSM token with a P-256 token key; its configuration is in the environment meanwhile."""
    if not SOFTHSM.exists():
        raise Absent("SoftHSM2 (apt-get install softhsm2)")
    tokens = root / "tokens"
    tokens.mkdir(exist_ok=True)
    (root / "softhsm2.conf").write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(root / "softhsm2.conf")
    try:
        words = [
            "softhsm2-util",
            "--init-token",
            "--free",
            "--label",
            LABEL,
            "--pin",
            PEER_PIN,
            "--so-pin",
            PEER_PIN,
        ]
        _quietly(words)
        words = ["pkcs11-tool", "--module", str(SOFTHSM), "--login", "--pin", PEER_PIN, "--keypairgen"]
        _quietly([*words, "--key-type", "EC:prime256v1", "--label", LABEL])
        yield
    finally:
        del os.environ["SOFTHSM2_CONF"]


def _quietly(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def p11_kit_server(root: Path) -> Iterator[tuple[int, str]]:
    """Serve the SoftHSM token by `p11-kit server`; give its process and its address."""
    program = shutil.which("p11-kit")
    if program is None:
        raise Absent("p11-kit (apt-get install p11-kit p11-kit-modules)")
    path = root / "peer.sock"
    words = [
        program,
        "server",
        "--foreground",
        "--provider",
        str(SOFTHSM),
        "--name",
        str(path),
        f"pkcs11:token={LABEL}",
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Absent(f"a `p11-kit server` that serves {SOFTHSM}")
            time.sleep(0.01)
        yield process.pid, f"unix:path={path}"
    finally:
        process.terminate()
        process.wait()


def client_module() -> Path:
    """Return p11-kit's client module."""
    found = account.client_module()
    if found is None:
        raise Absent("p11-kit's client module (apt-get install p11-kit-modules)")
    return found
