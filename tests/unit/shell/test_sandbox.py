"""What a process gives up. What cannot be undone is done in a child that tells what it still can, and what not.

The filter and Landlock hold for the thread that asks for them, so the lines that ask also run in threads of this
process: coverage cannot be saved inside a filtered child.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.kernel import in_child, in_thread, lacking

from endocarp import errors
from endocarp.errors import Refused
from endocarp.shell.sandbox import (
    BOX,
    FRONT,
    ROT,
    Profile,
    Report,
    _allow_below,
    enter,
    vault_profile,
)
from endocarp.wire.control import Seccomp

WHOLE = Report(no_new_privileges=True, not_dumpable=True, landlock_abi=7, seccomp=Seccomp.FILTER)
OTHERS = "threads that were started before, and stay outside:"


SOURCE = Path(errors.__file__).parents[1]
on_x86_64 = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86-64"
)


def _landlock_abi() -> int:
    return max(int(ctypes.CDLL(None).syscall(444, None, 0, 1)), 0)


ABI = _landlock_abi()
needs_landlock = pytest.mark.skipif(ABI < 1, reason="this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import pyseccomp"], capture_output=True, check=False).returncode
    != 0,
    reason="libseccomp is not installed",
)


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Undo what a sandbox does to the whole process and not to a thread alone."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    yield
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, before)


# --- children -------------------------------------------------------------------------------------------------------

PRELUDE = """
import ctypes, fcntl, json, mmap, os, resource, signal, socket, subprocess, sys, termios, threading, time
from pathlib import Path
from endocarp.errors import EndocarpError
from endocarp.shell.sandbox import BOX, FRONT, ROT, enter, vault_profile
store = Path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
pair = socket.socketpair()
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(store / "sock"))
listener.listen()
terminal = os.openpty()
def attempt(work):
    try:
        return "did: " + repr(work())
    except (OSError, EndocarpError, RuntimeError) as error:
        return type(error).__name__
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
results = {}
"""


def _results(script: str, tmp_path: Path, **options: Any) -> Any:
    store = tmp_path / "store"
    store.mkdir(exist_ok=True)
    return in_child(f"{PRELUDE}{script}\nprint(json.dumps(results))\n", store, **options)


def _refused(results: dict[str, str]) -> dict[str, str]:
    return {name: told for name, told in results.items() if not told.startswith("did:")}


FRONT_ATTEMPTS = """
assert enter(FRONT, required=True).complete
def thread():
    done = []
    one = threading.Thread(target=lambda: done.append(1)); one.start(); one.join()
    return done
def answer():
    pair[1].sendall(b"x"); return pair[0].recv(1)
def wait():
    pair[0].settimeout(0.01)
    try:
        pair[0].recv(1)
    except TimeoutError:
        return "waited"
CAN = {
    "talk": answer,
    "wait": wait,
    "pass descriptors": lambda: socket.send_fds(pair[0], [b"x"], [1]) and socket.recv_fds(pair[1], 9, 1)[0],
    "pair": socket.socketpair,
    "thread": thread,
    "sleep": lambda: time.sleep(0.001),
    "memory": lambda: len(bytearray(8 << 20)),
    "entropy": lambda: len(os.urandom(16)),
    "inherit": lambda: os.set_inheritable(1, False),
    "terminal": lambda: os.isatty(terminal[1]),
    "peer": lambda: len(pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)),
    "see the time": time.time,
    "see itself": os.getpid,
}
CANNOT = {
    "read a file": lambda: open("/etc/passwd"),
    "read its memory": lambda: open("/proc/self/mem"),
    "write a file": lambda: open(store / "file", "w"),
    "list a directory": lambda: os.listdir("/"),
    "delete": lambda: os.unlink(store / "sock"),
    "rename": lambda: os.rename(store / "sock", store / "other"),
    "make a directory": lambda: os.mkdir(store / "sub"),
    "change a mode": lambda: os.chmod(store, 0o777),
    "open a socket": lambda: socket.socket(socket.AF_INET),
    "open a local socket": lambda: socket.socket(socket.AF_UNIX),
    "fork": os.fork,
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "signal itself": lambda: os.kill(os.getpid(), 0),
    "type on a terminal": lambda: fcntl.ioctl(terminal[1], termios.TIOCSTI, b"x"),
    "become another": lambda: os.setuid(12345),
    "raise a limit": lambda: call(302, 0, 7, None, None),
    "make memory with a name": lambda: os.memfd_create("x"),
    "change its root": lambda: os.chroot("/"),
    "set the time": lambda: time.clock_settime(time.CLOCK_REALTIME, 0),
    "be dumpable again": lambda: call(157, 4, 1, 0, 0, 0),
    "loosen its filter": lambda: call(317, 1, 0, None),
}
results = {"can": {n: attempt(w) for n, w in CAN.items()}, "cannot": {n: attempt(w) for n, w in CANNOT.items()}}
"""


@needs_landlock
@needs_seccomp
@on_x86_64
def test_the_front_can_talk_and_can_do_nothing_else(tmp_path: Path) -> None:
    results = _results(FRONT_ATTEMPTS, tmp_path)
    assert _refused(results["can"]) == {}
    assert results["can"]["terminal"] == "did: True"
    assert set(results["cannot"]) == set(_refused(results["cannot"]))
    assert set(results["cannot"].values()) == {"PermissionError"}


ROT_ATTEMPTS = """
from endocarp.shell.archive import read_sealed, seal
from endocarp.shell.memory import CHUNK, SecretMemory
memory = SecretMemory()
before = memory.mode
caller = socket.socket(socket.AF_UNIX)
caller.connect(str(store / "sock"))
assert enter(ROT, required=True).complete
def accept():
    caller.close()
    return listener.accept()[0].recv(1)
CAN = {
    "more secret memory": lambda: len(memory.allocate(2 * CHUNK)),
    "as good as before": lambda: memory.mode is before,
    "take a caller": accept,
    "seal": lambda: read_sealed(seal(b"image", "image")),
}
CANNOT = {
    "read a file": lambda: open("/etc/passwd"),
    "open a socket": lambda: socket.socket(socket.AF_INET),
    "fork": os.fork,
    "cut a file": lambda: os.truncate(store / "sock", 0),
}
results = {"can": {n: attempt(w) for n, w in CAN.items()}, "cannot": {n: attempt(w) for n, w in CANNOT.items()}}
"""


@needs_landlock
@needs_seccomp
def test_the_root_of_trust_can_get_more_secret_memory(tmp_path: Path) -> None:
    results = _results(ROT_ATTEMPTS, tmp_path)
    assert _refused(results["can"]) == {}
    assert results["can"]["as good as before"] == "did: True"
    assert set(results["cannot"].values()) == {"PermissionError"}


VAULT_ATTEMPTS = """
from endocarp.shell.memory import CHUNK, SecretMemory
from endocarp.shell.storage import FileStorage
memory, storage = SecretMemory(), FileStorage(store)
storage.read()
outside = store.parent / "outside"
outside.write_text("theirs")
assert enter(vault_profile(store), required=True).complete
def keep():
    storage.append(b"one"); storage.cut(2); storage.replace(b"two"); storage.append(b"!")
    return storage.read()
CAN = {
    "store": keep,
    "read its store": lambda: (store / "records").read_bytes(),
    "begin the store again": lambda: FileStorage(store).read(),
    "more secret memory": lambda: len(memory.allocate(2 * CHUNK)),
}
CANNOT = {
    "read another file": outside.read_text,
    "write another file": lambda: outside.write_text("ours"),
    "cut another file": lambda: os.open(outside, os.O_WRONLY | os.O_TRUNC),
    "delete another file": outside.unlink,
    "climb": lambda: open(store / ".." / "outside"),
    "make a file elsewhere": lambda: open(store.parent / "new", "w"),
    "move the store away": lambda: os.rename(store / "records", store.parent / "records"),
    "bring a file in": lambda: os.rename(outside, store / "outside"),
    "link": lambda: os.link(outside, store / "link"),
    "make a link": lambda: os.symlink(outside, store / "link"),
    "make a directory": lambda: os.mkdir(store / "sub"),
    "make a pipe": lambda: os.mkfifo(store / "pipe"),
    "read the processes": lambda: open("/proc/1/status"),
    "read a program": lambda: open("/bin/sh", "rb"),
    "open a socket": lambda: socket.socket(socket.AF_INET),
    "take a caller": listener.accept,
    "pair": socket.socketpair,
    "fork": os.fork,
}
results = {"can": {n: attempt(w) for n, w in CAN.items()}, "cannot": {n: attempt(w) for n, w in CANNOT.items()}}
"""


@needs_landlock
@needs_seccomp
def test_the_vault_can_keep_its_store_and_reach_no_other_file(tmp_path: Path) -> None:
    results = _results(VAULT_ATTEMPTS, tmp_path)
    assert _refused(results["can"]) == {}
    assert results["can"]["store"] == "did: b'two!'"
    refused = {
        name: told for name, told in results["cannot"].items() if told in ("PermissionError", "OSError")
    }
    assert refused == results["cannot"]
    assert (tmp_path / "outside").read_text() == "theirs"


KILLED = {
    "run a program": "os.execv('/bin/true', ['true'])",
    "fork by the old call": "call(57)",
    "fork and wait": "call(58)",
    "trace": "call(101, 0, 0, None, None)",
    "read another process": "call(310, os.getppid(), None, 0, None, 0, 0)",
    "mount": "call(165, b'x', b'/', b'tmpfs', 0, None)",
    "load a program into the kernel": "call(321, 0, None, 0)",
    "queue calls past the filter": "call(425, 1, None)",
}


@needs_seccomp
@on_x86_64
@pytest.mark.parametrize(
    ("deed", "profile"),
    [
        *((deed, "FRONT") for deed in KILLED),
        ("run a program", "ROT"),
        ("run a program", "vault_profile(store)"),
    ],
)
def test_what_only_an_intruder_does_ends_the_process(tmp_path: Path, deed: str, profile: str) -> None:
    (tmp_path / "store").mkdir()
    script = f"{PRELUDE}\nenter({profile})\n{KILLED[deed]}\n"
    words = [sys.executable, "-c", script, str(tmp_path / "store")]
    done = subprocess.run(words, capture_output=True, check=False, timeout=30)
    assert done.returncode == -signal.SIGSYS


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


STATUS = """
report = enter({profile})
print(json.dumps([report.no_new_privileges, report.not_dumpable, report.landlock_abi, report.seccomp]), flush=True)
os.read(0, 1)
"""


@needs_landlock
@needs_seccomp
@pytest.mark.parametrize(
    ("profile", "seccomp"), [("FRONT", 2), ("ROT", 2), ("vault_profile(store)", 2), ("BOX", 0)]
)
def test_the_kernel_confirms_what_the_report_says(tmp_path: Path, profile: str, seccomp: int) -> None:
    (tmp_path / "store").mkdir()
    words = [sys.executable, "-c", PRELUDE + STATUS.format(profile=profile), str(tmp_path / "store")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        status = _status(process.pid)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.communicate(b"x")
    assert told[:2] == [True, True]
    assert told[2] == (0 if profile == "BOX" else min(ABI, 7))
    assert told[3] == seccomp
    # Whoever runs these tests may have a filter of his own, as containers do.
    assert int(status["Seccomp_filters"]) == int(_status(os.getpid())["Seccomp_filters"]) + (seccomp == 2)
    assert (status["NoNewPrivs"], status["Seccomp"]) == (
        "1",
        str(max(seccomp, int(_status(os.getpid())["Seccomp"]))),
    )
    (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert process.returncode == 0


def test_the_box_keeps_what_it_needs_to_start_others_and_says_so(tmp_path: Path) -> None:
    script = """
report = enter(BOX, required=True)
results = {
    "notes": report.notes, "complete": report.complete, "dumpable": libc.prctl(3, 0, 0, 0, 0),
    "run": attempt(lambda: subprocess.run(["/bin/true"]).returncode), "open": attempt(lambda: open("/etc/passwd").close()),
}
"""
    results = _results(script, tmp_path)
    assert results["notes"] == ["starts the others: no Landlock, no seccomp"]
    assert (results["complete"], results["dumpable"]) == (False, 0)
    assert (results["run"], results["open"]) == ("did: 0", "did: None")


ENDINGS = """
enter(FRONT)
def spin():
    while True:
        time.sleep(0.0001)
for _ in range(8):
    threading.Thread(target=spin, daemon=True).start()
time.sleep(0.05)
"""


@needs_seccomp
def test_a_filtered_process_with_threads_ends_in_peace(tmp_path: Path) -> None:
    assert _results(ENDINGS, tmp_path) == {}


@needs_seccomp
@pytest.mark.parametrize("count", [1, 3])
def test_threads_that_the_sandbox_does_not_reach_are_told(tmp_path: Path, count: int) -> None:
    script = f"""
for _ in range({count}):
    threading.Thread(target=pair[0].recv, args=(1,), daemon=True).start()
report = enter(FRONT)
results = {{"notes": report.notes, "complete": report.complete}}
"""
    results = _results(script, tmp_path)
    assert results == {"notes": [f"{OTHERS} {count}"], "complete": False}


# --- a machine that lacks something ---------------------------------------------------------------------------------

WITHOUT_SECCOMP = """
report = enter(vault_profile(store))
results = {
    "report": [report.landlock_abi > 0, report.seccomp, list(report.notes), report.complete],
    "read a file": attempt(lambda: open("/etc/passwd")),
    "read its store": attempt(lambda: os.listdir(store)),
    "run a program": attempt(lambda: os.execv("/bin/true", ["true"])),
    "network": attempt(lambda: socket.socket(socket.AF_INET).bind(("127.0.0.1", 0))),
    "signal": attempt(lambda: os.kill(os.getppid(), 0)),
    "fork": attempt(lambda: os.waitpid(os.fork() or os._exit(0), 0)[1]),
}
"""


@needs_landlock
def test_without_libseccomp_landlock_still_holds_and_the_report_says_what_to_install(tmp_path: Path) -> None:
    # -S and -I: the packages of the environment, and so pyseccomp, are not found.
    (tmp_path / "store").mkdir()
    script = f"import sys; sys.path.append({str(SOURCE)!r})\n{PRELUDE}{WITHOUT_SECCOMP}\nprint(json.dumps(results))"
    words = [sys.executable, "-S", "-I", "-c", script, str(tmp_path / "store")]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=30)
    results = json.loads(done.stdout)
    note = "libseccomp is not installed (apt-get install libseccomp2)"
    assert results.pop("report") == [True, 0, [note], False]
    assert results["read its store"].startswith("did:")
    assert results["fork"] == "did: 0"
    expected = (
        {"read a file", "run a program"}
        | ({"network"} if ABI >= 4 else set())
        | ({"signal"} if ABI >= 6 else set())
    )
    assert set(_refused(results)) == expected


BY_THE_FILTER_ALONE = """
import errno, pyseccomp
pyseccomp.get_api()
older = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
older.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
older.load()
parent = os.getppid()
report = enter(FRONT)
assert (report.landlock_abi, report.seccomp) == (0, 2)
results = {
    "signal a thread of its own": attempt(lambda: call(234, os.getpid(), threading.get_native_id(), 0)),
    "copy a descriptor": attempt(lambda: pair[0].dup().close()),
    "signal another": attempt(lambda: call(234, parent, parent, 0)),
    "signal another by a descriptor": attempt(lambda: fcntl.fcntl(pair[0], fcntl.F_SETOWN, parent)),
    "choose the signal": attempt(lambda: fcntl.fcntl(pair[0], fcntl.F_SETSIG, signal.SIGKILL)),
}
"""


@needs_seccomp
@on_x86_64
def test_without_landlock_the_filter_still_keeps_signals_from_other_processes(tmp_path: Path) -> None:
    results = _results(BY_THE_FILTER_ALONE, tmp_path)
    assert set(_refused(results)) == {
        "signal another",
        "signal another by a descriptor",
        "choose the signal",
    }


# --- the same in threads, for their lines -----------------------------------------------------------------------------


def _in_thread(work: Callable[[], Report]) -> Report:
    """Enter a sandbox in a thread of this process, and leave out the note that there are others."""
    report = in_thread(work)
    return replace(report, notes=tuple(note for note in report.notes if not note.startswith(OTHERS)))


@needs_landlock
@needs_seccomp
@pytest.mark.parametrize("profile", [ROT, FRONT], ids=lambda profile: profile.name)
def test_a_process_gets_the_whole_sandbox(profile: Profile) -> None:
    assert _in_thread(lambda: enter(profile)) == replace(WHOLE, landlock_abi=min(ABI, 7))


@needs_landlock
@needs_seccomp
def test_a_vault_gets_the_whole_sandbox(tmp_path: Path) -> None:
    report = _in_thread(lambda: enter(vault_profile(tmp_path)))
    assert report == replace(WHOLE, landlock_abi=min(ABI, 7))
    assert report.complete


def test_the_box_gets_the_limits() -> None:
    report = _in_thread(lambda: enter(BOX))
    assert (report.no_new_privileges, report.not_dumpable) == (True, True)
    assert (report.landlock_abi, report.seccomp) == (0, Seccomp.OFF)
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


def test_this_process_has_threads_that_a_sandbox_would_not_reach() -> None:
    assert in_thread(lambda: enter(BOX)).notes[0].startswith(OTHERS)


CREATE, ADD, RESTRICT = "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        ((CREATE, errno.ENOSYS), "this kernel has no Landlock"),
        ((CREATE, errno.EOPNOTSUPP), "this kernel has no Landlock"),
        ((CREATE, errno.EINVAL, (2, 0)), "Landlock made no ruleset: Invalid argument"),
        ((RESTRICT, errno.E2BIG), "Landlock did not take hold: Argument list too long"),
    ],
    ids=["older", "switched off", "no ruleset", "too many"],
)
@needs_landlock
def test_where_landlock_is_not_to_be_had_the_filter_holds_alone(rule: tuple[Any, ...], note: str) -> None:
    report = lacking(rule, work=lambda: enter(FRONT))
    assert (report.landlock_abi, report.seccomp, report.complete) == (0, Seccomp.FILTER, False)
    assert report.notes[-1] == note


@needs_landlock
def test_where_the_filter_cannot_be_loaded_landlock_holds_alone() -> None:
    rules = (("seccomp", errno.EINVAL), ("prctl", errno.EINVAL, (0, 22)))
    report = lacking(*rules, work=lambda: enter(FRONT))
    assert (report.landlock_abi, report.seccomp, report.complete) == (min(ABI, 7), Seccomp.OFF, False)
    assert report.notes[-1].startswith("seccomp did not take hold:")


@needs_landlock
def test_where_libseccomp_is_missing_landlock_holds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)  # an import of it fails
    report = _in_thread(lambda: enter(FRONT))
    assert (report.landlock_abi, report.seccomp) == (min(ABI, 7), Seccomp.OFF)
    assert report.notes == ("libseccomp is not installed (apt-get install libseccomp2)",)


def test_whoever_requires_the_sandbox_is_refused_where_a_step_is_missing() -> None:
    with pytest.raises(Refused) as raised:
        lacking((CREATE, errno.ENOSYS), work=lambda: enter(FRONT, required=True))
    assert raised.value.rule == "sandbox.incomplete"
    assert "the sandbox of front lacks" in raised.value.reason
    assert "this kernel has no Landlock" in raised.value.reason
    assert "--require-sandbox" in raised.value.advice()


@pytest.mark.parametrize(("step", "option"), [("no_new_privs", 38), ("not dumpable", 4)])
def test_whoever_requires_the_sandbox_requires_of_the_box_what_it_can_have(step: str, option: int) -> None:
    lacks = ("prctl", errno.EPERM, (0, option))
    with pytest.raises(Refused) as raised:
        lacking(lacks, work=lambda: enter(BOX, required=True))
    assert raised.value.rule == "sandbox.incomplete"
    assert f"the sandbox of box lacks: {OTHERS}" in raised.value.reason
    assert f"{step} did not take hold: Operation not permitted" in raised.value.reason


@needs_landlock
@needs_seccomp
def test_a_basic_step_that_fails_is_missing_too() -> None:
    dumpable = ("prctl", errno.EPERM, (0, 4))
    report = lacking(dumpable, work=lambda: enter(FRONT))
    assert (report.no_new_privileges, report.not_dumpable, report.complete) == (True, False, False)
    assert "not dumpable did not take hold: Operation not permitted" in report.notes


@needs_landlock
def test_a_store_that_is_not_there_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(Refused) as raised:
        in_thread(lambda: enter(vault_profile(tmp_path / "store")))
    assert raised.value.rule == "sandbox.landlock"
    assert f"{tmp_path / 'store'}: No such file or directory" in raised.value.reason
    assert "--state" in raised.value.advice()


@needs_landlock
def test_a_store_that_landlock_does_not_take_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"no rule for {tmp_path}: Invalid argument"):
        lacking((ADD, errno.EINVAL), work=lambda: enter(vault_profile(tmp_path)))


def test_what_is_no_ruleset_takes_no_rule(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no rule"):
        _allow_below(-1, tmp_path, 0xFFFF)


@pytest.mark.parametrize(
    "changes",
    [
        {"no_new_privileges": False},
        {"not_dumpable": False},
        {"landlock_abi": 0},
        {"seccomp": Seccomp.OFF},
        {"notes": ("lacks",)},
    ],
)
def test_a_report_is_complete_only_with_every_step(changes: dict[str, Any]) -> None:
    assert WHOLE.complete
    assert not replace(WHOLE, **changes).complete
