"""A real server of its own: started by the command line in two fresh directories, stopped at the end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

TOOLS = Path(sys.executable).parent
PATIENCE = 30.0
"""Seconds that a start may take."""


class Server:
    """A server below `root`; starting it again finds what it left there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state/endocarp"
        self.config = root / "config/endocarp"
        self.log = root / "up.log"
        self.environment = {
            "HOME": str(root),
            "PATH": f"{TOOLS}:/usr/local/bin:/usr/bin:/bin",
            "XDG_STATE_HOME": str(self.state.parent),
            "XDG_CONFIG_HOME": str(self.config.parent),
            "P11_KIT_SERVER_ADDRESS": f"unix:path={self.state}/partition-0/p11-kit.sock",
            "COLUMNS": "160",
        }
        self.pin = ""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *options: str) -> Self:
        """Start in the background and wait until the server serves; keep the PIN if one is shown."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [TOOLS / "endocarp", "up", *options],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE
        while "the server serves" not in self.told():
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < end, self.told()
            time.sleep(0.02)
        if found := re.search(r"^PIN: (\S+)$", self.told_after("the server serves"), re.MULTILINE):
            self.pin = found[1]
        return self

    def told(self) -> str:
        """Return what the server has said so far."""
        return self.log.read_text()

    def told_after(self, words: str) -> str:
        """Return what was said after these words, once nothing more comes."""
        before = ""
        while before != self.told():
            before = self.told()
            time.sleep(0.1)
        return before.partition(words)[2]

    def stop(self) -> int:
        """Stop in order; return the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the server's environment and directory."""
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def shell(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a script that ends at the first command that fails."""
        return self.run("sh", "-euc", script)


def flip(path: Path, at: int) -> None:
    """Change one bit of the octet at `at`."""
    with path.open("r+b") as file:
        file.seek(at)
        (octet,) = file.read(1)
        file.seek(at)
        file.write(bytes((octet ^ 1,)))


def kill(pid: int) -> None:
    """End a process as nothing in it can prevent."""
    os.kill(pid, signal.SIGKILL)
