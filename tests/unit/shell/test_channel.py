"""The control channel, and how a process is started: with real sockets and real processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.simulators.kernel import descriptors_left, no_descriptor_leaks

from endocarp.errors import DecodeError, DeviceError, EndocarpError, PeerError, Refused, UsageError
from endocarp.shell.archive import build, seal, source_tree
from endocarp.shell.channel import Channel, Child, pair, replace, run, sandbox_report, start
from endocarp.shell.sandbox import Report
from endocarp.wire.control import (
    NOTE_LIMIT,
    ControlMessage,
    Failed,
    MemoryMode,
    Note,
    Pair,
    Progress,
    Ready,
    SandboxReport,
    Seccomp,
    Stop,
)
from endocarp.wire.text import TEXT_LIMIT

BODIES = [
    Progress("rom: firmware verified"),
    Ready(SandboxReport(1000, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET), "12345678"),
    Failed("image.seal", "not sealed", "seal it"),
    Pair(3),
    Stop(),
]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Return the two ends of a control channel."""
    ours, theirs = pair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


Ends = tuple[Channel, Channel]


def _body(channel: Channel) -> Any:
    received = channel.receive()
    assert received is not None
    message, fds = received
    assert fds == []
    return message.body


# --- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_what_one_end_says_the_other_hears(ends: Ends, body: Any) -> None:
    ends[0].send(body)
    assert _body(ends[1]) == body


def test_messages_come_one_by_one_and_in_order(ends: Ends) -> None:
    for body in BODIES:
        ends[0].send(body)  # type: ignore[arg-type]
    assert [type(_body(ends[1])) for _ in BODIES] == [type(body) for body in BODIES]


def test_who_does_not_listen_keeps_nobody_waiting_who_is_in_a_hurry(ends: Ends) -> None:
    ends[0].hurry(0.05)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            ends[0].send(Progress(str(sent)))
            sent += 1
    ends[0].progress("one more")
    assert [_body(ends[1]) for _ in range(sent)] == [Progress(str(number)) for number in range(sent)]
    ends[0].progress("there is room again")
    assert _body(ends[1]) == Progress("there is room again")


def test_a_descriptor_comes_with_its_message_and_is_inherited_by_nobody(ends: Ends) -> None:
    with no_descriptor_leaks():
        fd = seal(b"image", "image")
        ends[0].send(Pair(3), [fd])
        os.close(fd)
        received = ends[1].receive()
        assert received is not None
        (copy,) = received[1]
        assert os.pread(copy, 16, 0) == b"image"
        assert not os.get_inheritable(copy)
        os.close(copy)


def test_no_more_descriptors_are_taken_than_belong_to_a_message(ends: Ends) -> None:
    with no_descriptor_leaks():
        fd = seal(b"image", "image")
        ends[0].send(Pair(3), [fd, fd, fd])
        received = ends[1].receive()
        assert received is not None
        assert len(received[1]) == 1
        for one in (fd, *received[1]):
            os.close(one)


def test_a_channel_that_takes_no_descriptors_gets_none(ends: Ends) -> None:
    with no_descriptor_leaks():
        fd = seal(b"image", "image")
        ends[0].send(Progress("gift"), [fd])
        os.close(fd)
        assert _body(Channel(ends[1].socket, descriptors=0)) == Progress("gift")


def test_the_end_of_the_other_side_is_the_end(ends: Ends) -> None:
    ends[0].send(Stop())
    ends[0].socket.close()
    assert _body(ends[1]) == Stop()
    assert ends[1].receive() is None
    assert ends[1].receive() is None


def test_an_end_that_one_side_makes_both_hear(ends: Ends) -> None:
    heard: list[object] = []
    waiting = threading.Thread(target=lambda: heard.append(ends[0].receive()))
    waiting.start()
    ends[0].end()
    ends[0].end()
    waiting.join(10)
    assert heard == [None]
    assert ends[1].receive() is None


def test_the_end_of_a_side_that_did_not_listen_is_the_end_all_the_same(ends: Ends) -> None:
    ends[1].send(Stop())
    ends[0].socket.close()
    assert ends[1].receive() is None


@pytest.mark.parametrize("octets", [b"\x09", b"\x05\x00", b"\x01\xff\xff"], ids=["kind", "left over", "cut"])
def test_octets_that_are_no_message_are_refused_and_what_came_with_them_is_closed(
    ends: Ends, octets: bytes
) -> None:
    with no_descriptor_leaks():
        fd = seal(b"image", "image")
        socket.send_fds(ends[0].socket, [octets], [fd])
        os.close(fd)
        with pytest.raises(DecodeError):
            ends[1].receive()


def test_a_message_to_nobody_fails_but_an_account_to_nobody_does_not(ends: Ends) -> None:
    ends[1].socket.close()
    with pytest.raises(BrokenPipeError):
        ends[0].send(Stop())
    ends[0].progress("still here")
    ends[0].failed(UsageError("over"))
    ends[0].ready(SandboxReport(0, 0, 0, 0, Seccomp.OFF, MemoryMode.ORDINARY))


# --- accounts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (Refused("image.seal", "not sealed", "seal it"), Failed("image.seal", "not sealed", "seal it")),
        (UsageError("wrong", "do it so"), Failed("usage", "wrong", "do it so")),
        (PeerError(0x30, "broke a rule"), Failed("0x30", "broke a rule", "")),
        (DeviceError(0x31, "said no", "ask again"), Failed("0x31", "said no", "ask again")),
        (DecodeError("A.b", "cut short"), Failed("decode", "cut short", DecodeError.hint)),
        (EndocarpError("something"), Failed("error", "something", "")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_told_with_rule_reason_and_advice(
    ends: Ends, error: EndocarpError, failed: Failed
) -> None:
    ends[0].failed(error)
    assert _body(ends[1]) == failed


@pytest.mark.parametrize("letter", ["x", "ä", "€", "😀"])
def test_texts_that_are_too_long_are_cut_between_two_letters(ends: Ends, letter: str) -> None:
    long = letter * TEXT_LIMIT
    cut = letter * (TEXT_LIMIT // len(letter.encode()))
    ends[0].progress(long)
    assert _body(ends[1]) == Progress(cut)
    ends[0].failed(Refused("rule", long, long))
    assert _body(ends[1]) == Failed("rule", cut, cut)
    report = sandbox_report(Report(True, True, 7, Seccomp.FILTER, (long,)), MemoryMode.LOCKED)
    assert report.notes == (Note(letter * (NOTE_LIMIT // len(letter.encode()))),)
    ends[0].send(Ready(report))
    assert _body(ends[1]).sandbox.notes == report.notes


def test_a_path_that_is_no_text_is_spelt_out(ends: Ends) -> None:
    path = os.fsdecode(b"/srv/\xff")
    ends[0].progress(path)
    assert _body(ends[1]) == Progress("/srv/\\udcff")
    ends[0].failed(Refused("image.missing", path, path))
    assert _body(ends[1]).reason == "/srv/\\udcff"


def test_a_report_of_the_sandbox_says_who_and_what() -> None:
    report = sandbox_report(Report(True, False, 5, Seccomp.OFF, ("one", "two")), MemoryMode.SECRET)
    assert report == SandboxReport(
        os.getuid(), 1, 0, 5, Seccomp.OFF, MemoryMode.SECRET, notes=(Note("one"), Note("two"))
    )


# --- processes ------------------------------------------------------------------------------------------------------

TELLS_ALL = """
import json, os, sys, socket
from endocarp.shell.channel import Channel
from endocarp.shell.process import parse_arguments
from endocarp.wire.control import Failed, Progress

def main():
    words = sys.argv[1:]
    descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))
    descriptors = [fd for fd in descriptors if os.readlink(f"/proc/self/fd/{fd}") != f"/proc/{os.getpid()}/fd"]
    facts = {
        "told": parse_arguments(words), "descriptors": descriptors,
        "environment": sorted(os.environ), "directory": os.getcwd(), "session": os.getsid(0) == os.getpid(),
        "input": os.read(0, 1).decode(), "isolated": sys.flags.isolated, "arguments": words,
    }
    control = Channel(socket.socket(fileno=int(parse_arguments(words)["control"])))
    for number in range(0, len(json.dumps(facts)), 1000):
        control.send(Progress(json.dumps(facts)[number:number + 1000]))
    control.receive()
"""

BECOMES = """
import os, sys, socket
from endocarp.shell.channel import replace
from endocarp.shell.process import parse_arguments
from endocarp.shell.memory import map_secret, secret_descriptor

def main():
    arguments = parse_arguments(sys.argv[1:])
    forgotten = secret_descriptor(4096)
    kept = secret_descriptor(4096)
    replace(int(arguments["next"]), ["--after", str(os.getpid())], {"control": int(arguments["control"]), "kept": kept})
"""


def _program(name: str, source: str) -> int:
    tree = source_tree() | {f"endocarp.{name}": (f"endocarp/{name}.py", source.encode())}
    return seal(build(f"endocarp.{name}", tree), name)


def _facts(child: Child) -> dict[str, Any]:
    """Return what a program that tells all has told, then let it end."""
    text = ""
    while True:
        text += _body(child.channel).text
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        child.channel.send(Stop())
        assert child.process.wait(10) == 0
        child.channel.socket.close()
        return found


def test_a_process_is_started_with_nothing_but_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_OURS", "secret")
    with no_descriptor_leaks():
        image = _program("tells", TELLS_ALL)
        extra, secret = seal(b"extra", "extra"), os.open("/", os.O_PATH)
        facts = _facts(start("tells", image, ["--partition", "3"], {"store": extra}))
        for fd in (image, extra, secret):
            os.close(fd)
    assert set(facts["told"]) == {"control", "image", "store", "partition"}
    assert facts["told"] | {"image": str(image), "store": str(extra), "partition": "3"} == facts["told"]
    assert facts["descriptors"] == sorted({0, 1, 2, int(facts["told"]["control"]), image, extra})
    assert "LD_PRELOAD_OF_OURS" not in facts["environment"]
    assert set(facts["environment"]) <= {"LANG", "LC_CTYPE"}
    assert (facts["directory"], facts["session"], facts["input"], facts["isolated"]) == ("/", True, "", 1)


def test_the_death_of_a_process_is_heard_on_its_channel() -> None:
    image = _program("tells", TELLS_ALL)
    child = start("tells", image)
    os.close(image)
    child.process.kill()
    child.process.wait()
    while child.channel.receive() is not None:
        pass
    child.channel.socket.close()


GIVES = """
import os, socket, sys
from endocarp.shell.channel import Channel
from endocarp.shell.process import parse_arguments
from endocarp.wire.control import Progress

def main():
    control = Channel(socket.socket(fileno=int(parse_arguments(sys.argv[1:])["control"])))
    control.send(Progress("take these"), [1, 1, 1, 1])
"""


def test_a_process_cannot_press_descriptors_on_the_one_that_started_it() -> None:
    with no_descriptor_leaks():
        image = _program("gives", GIVES)
        child = start("gives", image)
        os.close(image)
        assert _body(child.channel) == Progress("take these")
        assert child.channel.receive() is None
        child.process.wait()
        child.channel.socket.close()


WRITES = """
import sys
def main():
    print("nobody hears this", flush=True)
    print("a fault", file=sys.stderr, flush=True)
"""


def test_what_a_process_prints_nobody_gets_and_its_errors_go_where_they_are_wanted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    image = _program("writes", WRITES)
    for errors in (None, subprocess.PIPE):
        child = start("writes", image, errors=errors)
        _, told = child.process.communicate(timeout=20)
        assert told == (None if errors is None else b"a fault\n")
        child.channel.socket.close()
    os.close(image)
    assert capfd.readouterr() == ("", "a fault\n")


def test_a_process_is_killed_whatever_it_does() -> None:
    image = _program("tells", TELLS_ALL)
    child = start("tells", image)
    os.close(image)
    os.kill(child.process.pid, signal.SIGSTOP)
    child.kill()
    assert child.process.returncode == -signal.SIGKILL
    child.channel.socket.close()


def test_where_a_process_cannot_be_started_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/python")
    image = seal(b"", "image")
    with no_descriptor_leaks(), pytest.raises(FileNotFoundError):
        start("nobody", image)
    with no_descriptor_leaks(), pytest.raises(OSError, match="Too many open files"), descriptors_left(1):
        start("nobody", image)
    os.close(image)


def test_a_process_becomes_another_with_the_descriptors_that_are_named_and_no_secret_besides() -> None:
    first, second = _program("becomes", BECOMES), _program("tells", TELLS_ALL)
    child = start("becomes", first, [], {"next": second})
    facts = _facts(child)
    os.close(first)
    os.close(second)
    assert facts["told"]["after"] == str(child.process.pid)
    named = {int(facts["told"][name]) for name in ("control", "kept", "image")}
    # What `start` made inheritable stays so: the image of the first program and the one that followed it.
    assert named <= set(facts["descriptors"]) <= named | {0, 1, 2, first, second}


def test_where_a_process_cannot_become_another_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    image, extra = seal(b"", "image"), seal(b"", "extra")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nothing/python")
        with pytest.raises(FileNotFoundError):
            replace(image, ["--after", "x"], {"extra": extra})
    assert os.get_inheritable(image)
    assert os.get_inheritable(extra)
    os.close(image)
    os.close(extra)


def test_a_module_is_run_as_a_program_to_its_end() -> None:
    assert run("endocarp.errors", []) == 0
    assert run("endocarp.nothing", []) == 1


def test_a_control_message_is_one_datagram(ends: Ends) -> None:
    ends[0].send(Pair(3))
    assert ends[1].socket.recv(100) == ControlMessage(body=Pair(3)).encode()
    assert ends[0].socket.type == socket.SOCK_SEQPACKET
