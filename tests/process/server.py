"""A real server for tests: `endocarp up` in a process of its own, on directories of its own."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from endocarp.client import Partition, Session, connect
from endocarp.errors import EndocarpError
from endocarp.shell.admin import ask
from endocarp.shell.config import Config, State
from endocarp.wire.admin import Evidence, GetEvidence, GetStatus, Status

TOOLS = Path(sys.executable).parent
ENDOCARP = str(TOOLS / "endocarp")
PATIENCE = 30.0
"""Seconds after which something that was to happen has not."""


@dataclass
class Home:
    """The state and the configuration directory of one server, below a short path; `pin` is that of its partition."""

    root: Path
    pin: str = ""

    @property
    def state(self) -> State:
        """The server's own directory."""
        return State(self.root / "s" / "endocarp")

    @property
    def config(self) -> Config:
        """The directory of its owner."""
        return Config(self.root / "c" / "endocarp")

    @property
    def records(self) -> Path:
        """The file of the sealed store of partition 0."""
        return self.state.store(0) / "records"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which commands and programs find this server."""
        return {
            **os.environ,
            "PATH": f"{TOOLS}:{os.environ.get('PATH', os.defpath)}",
            "XDG_STATE_HOME": str(self.root / "s"),
            "XDG_CONFIG_HOME": str(self.root / "c"),
            "P11_KIT_SERVER_ADDRESS": f"unix:path={self.state.p11_kit_socket(0)}",
            "COLUMNS": "200",
        }

    def run(self, *words: str, exits: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command of `endocarp` that ends by itself, with the exit code that is expected."""
        return self.run_program(ENDOCARP, *words, exits=exits)

    def run_program(self, *words: str, exits: int = 0, told: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a program that finds this server in its environment, with the exit code that is expected."""
        done = self.attempt(*words, told=told)
        assert done.returncode == exits, f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def attempt(self, *words: str, told: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a program that finds this server in its environment, however it ends; `told` is its standard input."""
        return subprocess.run(
            words,
            input=told,
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def copy(self, root: Path) -> "Home":
        """Copy both directories below another path: the same server, at the same moment."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Home(root, self.pin)


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """Make a directory whose path leaves room for the sockets below it, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="endocarp-", dir="/tmp") as name:
        yield Path(name)


@dataclass
class Server:
    """A running `endocarp up`. Use it in a `with` statement: at its end no process is left, or the test fails."""

    home: Home
    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    """What it has printed so far."""
    _told: threading.Condition = field(default_factory=threading.Condition)
    _ended: bool = False

    @classmethod
    def launch(
        cls, home: Home, *options: str, wrapped_in: Sequence[str] = (), program: str = ENDOCARP
    ) -> "Server":
        """Start `endocarp up`, and do not wait for it; `wrapped_in` is a command that runs it."""
        process = subprocess.Popen(
            [*wrapped_in, program, "up", *options],
            env=home.environment,
            cwd=home.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        server = cls(home, process)
        threading.Thread(target=server._read, daemon=True).start()
        return server

    @classmethod
    def start(
        cls, home: Home, *options: str, wrapped_in: Sequence[str] = (), program: str = ENDOCARP
    ) -> "Server":
        """Start `endocarp up` and wait until it serves; take the PIN where it tells one."""
        tells_pin = not home.records.exists()
        server = cls.launch(home, *options, wrapped_in=wrapped_in, program=program)
        try:
            server.line("the server serves")
            if tells_pin:
                home.pin = server.line(r"^PIN: \d{8}$").removeprefix("PIN: ")
        except BaseException:
            server.end()
            raise
        return server

    def _read(self) -> None:
        """Take what is printed. Its end is that of `up` and box."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._told:
                self.lines.append(line.rstrip())
                self._told.notify_all()
        with self._told:
            self._ended = True
            self._told.notify_all()

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return "\n".join(self.lines)

    def line(self, pattern: str, *, after: int = 0, within: float = PATIENCE) -> str:
        """Wait for a line that matches, beyond the first `after` ones, and return it."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [line for line in self.lines[after:] if re.search(pattern, line)]
            return bool(found) or self._ended

        with self._told:
            self._told.wait_for(is_there, within)
        assert found, f"no line {pattern!r} in:\n{self.output}"
        return found[0]

    # --- its processes ----------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Ask how it stands."""
        found = ask(self.home.state.admin_socket, GetStatus())
        assert isinstance(found, Status)
        return found

    def pids(self) -> dict[str, int]:
        """Return the process numbers by name: of `up`, of `box`, and of all that the box runs."""
        return {
            "up": self.process.pid,
            "box": children_of(self.process.pid)[0],
            **{one.name: one.pid for one in self.status().processes},
        }

    def kill(self, name: str) -> int:
        """Kill a process, wait until it is gone, and return what its number was."""
        pid = self.pids()[name]
        kill(pid)
        return pid

    def await_end(self, within: float = PATIENCE) -> int:
        """Wait until no process of this server is left, and return the exit code of `up`."""
        with self._told:
            assert self._told.wait_for(lambda: self._ended, within), f"processes are left:\n{self.output}"
        served = [int(pid) for pid in re.findall(r"serves, pid (\d+)", self.output)]
        eventually(lambda: not any(runs_an_archive(pid) for pid in served), within)
        return self.process.wait(within)

    def stop(self) -> int:
        """Tell it to stop, as a service manager does; return its exit code once no process is left."""
        self.process.terminate()
        return self.await_end()

    def end(self) -> None:
        """Stop it, by force where it does not stop by itself."""
        if self.process.poll() is None:
            self.process.terminate()
        family = [self.process.pid, *descendants_of(self.process.pid)]
        try:
            self.await_end(within=15.0)
        except (AssertionError, subprocess.TimeoutExpired):
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None and self._ended:
                self.process.stdout.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # --- its doors --------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The native door."""
        return f"unix:{self.home.state.native_socket(0)}"

    def connect(self) -> Partition:
        """Connect to the partition."""
        return connect(self.address)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session that is logged in."""
        with self.connect() as partition, partition.session(self.home.pin) as session:
            yield session

    def evidence(self, nonce: bytes) -> bytes:
        """Collect evidence over a nonce."""
        found = ask(self.home.state.admin_socket, GetEvidence(nonce))
        assert isinstance(found, Evidence)
        return found.octets


def refused(home: Home, *options: str, wrapped_in: Sequence[str] = ()) -> tuple[int, str]:
    """Run an `endocarp up` that is to end by itself; return its exit code and what it printed."""
    with Server.launch(home, *options, wrapped_in=wrapped_in) as server:
        code = server.await_end()
        return code, server.output


def children_of(pid: int) -> list[int]:
    """Return the process numbers of the children of a process, the oldest first."""
    return sorted(child for child, parent in _parents() if parent == pid)


def descendants_of(pid: int) -> list[int]:
    """Return the process numbers of the children of a process, and of theirs."""
    children = children_of(pid)
    return [*children, *(one for child in children for one in descendants_of(child))]


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # proc(5): the name of the program, in parentheses, may hold anything; the state and the parent follow.
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def flip(path: Path, at: int) -> None:
    """Change one bit of a file; `at` counts from the end where it is negative."""
    octets = bytearray(path.read_bytes())
    octets[at] ^= 1
    path.write_bytes(octets)


def runs_an_archive(pid: int) -> bool:
    """Tell whether a process of a server still has this number."""
    try:
        return b"/proc/self/fd/" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def kill(pid: int) -> None:
    """Kill a process with SIGKILL and wait until it is gone."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} does not die"
    finally:
        os.close(descriptor)


def eventually(holds: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until `holds()` is true, and raises nothing of a server that is away; for what no event tells."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(EndocarpError, OSError):
            if holds():
                return
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


class Bystander:
    """A well-behaved application that signs all the while, whatever others do; any fault of it is a fault of theirs."""

    def __init__(self, server: Server, label: str = "first") -> None:
        self.server, self.label = server, label
        self.signed = 0
        self._fault: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            with self.server.session() as session:
                key = session.find(label=self.label)
                while not self._stop.wait(0.001):
                    key.sign(b"all the while")
                    self.signed += 1
        except BaseException as fault:  # noqa: BLE001 - told in the thread of the test
            self._fault = fault

    def check(self) -> None:
        """Wait until it has signed some more."""
        before = self.signed
        eventually(lambda: self._fault or self.signed > before + 3)
        assert self._fault is None, self._fault

    def __enter__(self) -> "Bystander":
        self._thread.start()
        self.check()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "a well-behaved application hangs"
        assert self._fault is None, self._fault
