"""`endocarp up`: what it starts, what it tells, and how it ends; with the real box once, else with simulated ones."""

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.simulators.kernel import no_descriptor_leaks

from endocarp.cli.main import endocarp
from endocarp.cli.up import _AGAIN
from endocarp.errors import DeviceError, Refused, UsageError
from endocarp.shell.admin import ask
from endocarp.shell.archive import build, source_tree
from endocarp.shell.config import Config, State
from endocarp.wire.admin import GetStatus

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READY = "channel.send(Ready(SandboxReport(0, 0, 0, 0, Seccomp.OFF, MemoryMode.ORDINARY), '12345678'))"
SIGNALLED = """
    while True:
        os.kill(os.getppid(), signal.{})
        if select.select([channel.socket], [], [], 0.1)[0]:
            break
    channel.progress(f"up: stopped: {{type(channel.receive()[0].body).__name__}}")
"""
BOX = """
import os, select, signal, socket, sys
from endocarp.shell.channel import Channel
from endocarp.shell.process import parse_arguments
from endocarp.wire.control import Failed, MemoryMode, Pair, Progress, Ready, SandboxReport, Seccomp, Stop

def main():
    arguments = parse_arguments(sys.argv[1:])
    channel = Channel(socket.socket(fileno=int(arguments["control"])))
    {}
"""


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Keep signals from ending the tests before and after they are caught by the command."""
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    with no_descriptor_leaks():
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def state(place: Path) -> State:
    """Return a state directory that a server was made in, whose box is simulated."""
    state = State(place / "s")
    state.images.mkdir(parents=True)
    state.root.chmod(0o700)
    state.device.write_text("a device")
    return state


def up(state: State, *words: str, box: str = "") -> Result:
    """Run the command on a directory whose box does this."""
    if box:
        tree = source_tree() | {"endocarp.simulated": ("endocarp/simulated.py", BOX.format(box).encode())}
        state.archive("box").write_bytes(build("endocarp.simulated", tree))
    options = ["--state", str(state.root), "--config", str(state.root.parent / "c")]
    return CliRunner().invoke(endocarp, ["up", *options, *words], env={"COLUMNS": "200"})


def ended(done: Result) -> list[str]:
    """Return what a server told that has ended in order."""
    if done.exception is not None:
        raise done.exception
    return [line[10:] for line in done.output.splitlines()]


# --- the real box ---------------------------------------------------------------------------------------------------


def test_the_first_start_makes_everything_and_serves_until_a_signal(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state, config = State(place / "s"), Config(place / "c")

    def stop_once_it_serves() -> None:
        for _ in range(1000):
            time.sleep(0.02)
            with contextlib.suppress(DeviceError, Refused):
                if len(ask(state.admin_socket, GetStatus()).processes) == 4:
                    break
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop_once_it_serves)
    stopping.start()
    done = up(state)
    stopping.join()
    lines = ended(done)
    assert lines[0].startswith("rot      identity of MODEL-")
    assert lines[-1] == "up       stopped: as asked"
    assert sum(line.startswith("PIN: ") for line in done.output.splitlines()) == 1
    made = capfd.readouterr().err
    assert "device   made" in made
    assert "images   built and signed" in made
    assert config.keys.is_dir()
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700


# --- simulated ones -------------------------------------------------------------------------------------------------


def test_the_box_is_told_its_directory_and_what_it_says_is_shown(state: State) -> None:
    tells = (
        "channel.progress('box: ' + ' '.join(f'{k}={v}' for k, v in sorted(arguments.items()) if k > 'j'))"
    )
    assert ended(up(state, box=tells)) == [f"box      state={state.root}"]
    words = ["--require-sandbox"]
    assert ended(up(state, *words, box=tells)) == [f"box      require-sandbox=yes state={state.root}"]


def test_once_the_box_serves_it_tells_what_to_paste_and_the_pin(state: State) -> None:
    lines = up(state, box=READY).output.splitlines()
    assert "PIN: 12345678" in lines
    assert f"    endocarp status --state {state.root}" in lines
    assert f"    endocarp verify --config {state.root.parent / 'c'} evidence.cbor" in lines


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_stops_the_box_in_order(state: State, number: signal.Signals) -> None:
    assert ended(up(state, box=SIGNALLED.format(number.name))) == ["up       stopped: Stop"]


def test_a_server_that_was_started_to_outlive_its_terminal_does(state: State) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup(1) does
    hung_up = """
    os.kill(os.getppid(), signal.SIGHUP)
    channel.progress(f"up: {len(select.select([channel.socket], [], [], 0.3)[0])} messages")
    """
    assert ended(up(state, box=hung_up)) == ["up       0 messages"]


def test_a_signal_after_the_end_of_the_box_does_no_harm(state: State) -> None:
    late = "channel.socket.close(); os.kill(os.getppid(), signal.SIGTERM)"
    assert ended(up(state, box=late)) == []


def test_a_message_that_means_nothing_here_is_passed_over(state: State) -> None:
    assert ended(up(state, box="channel.send(Pair(0)); channel.progress('box: goes on')")) == [
        "box      goes on"
    ]


@pytest.mark.parametrize(
    ("box", "error", "told", "advice"),
    [
        ("channel.send(Failed('usage', 'runs already', 'stop it')); sys.exit(1)", UsageError, "runs already", "stop it"),
        ("channel.send(Failed('image.x', 'spoilt', 'rebuild')); sys.exit(1)", Refused, "spoilt [image.x]", "rebuild"),
        ("channel.progress('box: begins'); sys.exit(7)", Refused, "the box died (exit code 7) [process.box]", _AGAIN),
    ],
    ids=["usage", "refused", "died"],
)  # fmt: skip
def test_a_box_that_fails_is_told_by_its_own_reason(
    state: State, box: str, error: type[Refused | UsageError], told: str, advice: str
) -> None:
    found = up(state, box=box).exception
    assert isinstance(found, error)
    assert (str(found), found.advice()) == (told, advice)


def test_a_box_that_dies_before_a_word_is_told_by_its_archive(state: State) -> None:
    found = up(state, box="sys.exit(9)").exception
    assert isinstance(found, Refused)
    assert found.rule == "image.box"
    assert found.reason == f"{state.archive('box')}: the box died before it said a word (exit code 9)"
    assert "--rebuild" in found.advice()


def test_an_archive_that_is_missing_is_named(state: State) -> None:
    found = up(state).exception
    assert isinstance(found, Refused)
    assert (found.rule, str(state.archive("box")) in found.reason) == ("image.missing", True)


# --- the workshop ---------------------------------------------------------------------------------------------------


def test_where_the_workshop_fails_nothing_is_started_and_its_exit_code_is_ours(
    state: State, capfd: pytest.CaptureFixture[str]
) -> None:
    done = up(state, "--rebuild", box="channel.progress('box: started')")
    assert (done.exit_code, done.output) == (2, "")
    assert "the keys that this device was made with are missing" in capfd.readouterr().err
