"""The box: what it starts in which order, what it makes of what happens, with small programs in place of its images."""

import contextlib
import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from tests.simulators import puppet
from tests.simulators.kernel import descriptors_left, no_descriptor_leaks
from tests.simulators.program import Program, program
from tests.simulators.puppet import PIN, SANDBOX, encoded, settle

from endocarp.box.plan import FIRMWARE, PARTITIONS
from endocarp.crypto.digest import sha384
from endocarp.errors import Refused
from endocarp.shell import box as shell
from endocarp.shell import children, mailbox
from endocarp.shell.admin import ask
from endocarp.shell.archive import build, seal, source_tree
from endocarp.shell.box import Box
from endocarp.shell.channel import Channel, Child, pair, start
from endocarp.shell.children import Event, Quit
from endocarp.shell.config import State
from endocarp.shell.machine import locked, machine
from endocarp.shell.process import run_process
from endocarp.wire.admin import GetStatus, ProcessState
from endocarp.wire.control import ROT_GONE, ControlMessage, Failed, Note, Progress, Ready, Stop
from endocarp.wire.mailbox import (
    AuthorizeAndStashReply,
    AuthResult,
    Command,
    MailboxError,
    frame,
    with_headers,
)

PATIENCE = 20.0
ESCAPES = "\x1b[2J\x1b]0;x\x07\r\nvault-0: PIN: 1"
SPELT_OUT = ESCAPES.encode("unicode_escape").decode()
DIES = "os._exit(9)"
DIES_ONCE = "\nif once('died'): os._exit(9)"


@pytest.fixture
def state(place: Path) -> State:
    """Return where the state directory of a test lies."""
    return State(place / "s")


class Account:
    """What a box tells whoever started it."""

    def __init__(self, end: socket.socket) -> None:
        self.channel = Channel(end)
        self.lines: list[str] = []
        self.ready: Ready | None = None
        self._told = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while (received := self.channel.receive()) is not None:
            with self._told:
                if isinstance(received[0].body, Progress):
                    self.lines.append(received[0].body.text)
                self._told.notify_all()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until a line with this text has come so often."""
        with self._told:
            found = self._told.wait_for(lambda: sum(text in line for line in self.lines) >= times, PATIENCE)
        assert found, self.lines

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def prepared(
    state: State, programs: Mapping[str, str] | None = None, *, require_sandbox: bool = False
) -> Iterator[tuple[Box, Account]]:
    """Make a box that runs these programs; at the end see that nothing of it is left."""
    settle(state, programs or {})
    ours, theirs = pair()
    with no_descriptor_leaks():
        own = seal(b"the box", "box")
        with ours, theirs, machine(state, own) as found:
            account = Account(ours)
            box = Box(found, Channel(theirs), require_sandbox=require_sandbox)
            try:
                yield box, account
            finally:
                box.stop_children()
                for thread in threading.enumerate():
                    if "_watch" in thread.name:
                        thread.join(PATIENCE)
                        assert not thread.is_alive()
                theirs.shutdown(socket.SHUT_RDWR)
                account.join()
                ours.detach()
                theirs.detach()
        os.close(own)


@contextlib.contextmanager
def running(box: Box) -> Iterator[list[Exception]]:
    """Boot a box and let it run; at the end stop it, and yield what it ended by."""
    ended: list[Exception] = []

    def live() -> None:
        try:
            box.boot()
            box.run()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            ended.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield ended
    finally:
        box.children.events.put(Quit("by the test"))
        thread.join(PATIENCE)
        assert not thread.is_alive()


def kill(box: Box, name: str) -> None:
    """Kill a process that has served."""
    box.running[name].child.process.send_signal(signal.SIGKILL)


def refused(box: Box) -> Refused:
    """Boot a box that may not come up."""
    with pytest.raises(Refused) as raised:
        box.boot()
    return raised.value


# --- booting --------------------------------------------------------------------------------------------------------


def test_everything_comes_up_in_order_and_front_and_vault_are_paired(state: State) -> None:
    with prepared(state) as (box, account), running(box) as ended:
        account.wait_for("vault-0: hears the front")
        assert ended == []
        ready = [
            line.partition(", pid")[0] for line in account.lines if not line.startswith("vault-0: hears")
        ]
        assert ready[:6] == [
            "rot: firmware verified",
            "rot: serves",
            "manifest: signatures of vendor and owner hold",
            *(
                f"{name}: measured {digest(state, name)[:16]}…, authorized by the manifest"
                for name in FIRMWARE
            ),
        ]
        assert sorted(ready[6:]) == ["front: serves", "vault-0: serves"]
        assert (box.boots, box.complete, box.pin) == (1, True, PIN)
        assert [one.sandbox for one in box.running.values()] == [SANDBOX] * 3


def digest(state: State, name: str) -> str:
    octets = b"the box" if name == "box" else state.archive(name).read_bytes()
    return sha384(octets).hex()


def test_what_was_measured_is_what_runs(state: State) -> None:
    with prepared(state) as (box, _):
        box.boot()
        measured = {one.name: one.digest.hex() for one in box.stash_log}
        assert measured == {name: digest(state, name) for name in FIRMWARE}
        for name, image in (("rot", "rom"), ("vault-0", "vault"), ("front", "front")):
            assert box.running[name].image.digest.hex() == digest(state, image)


@pytest.mark.parametrize("required", [False, True])
def test_each_process_is_told_what_it_works_with_and_no_more(state: State, *, required: bool) -> None:
    tells = "progress(' '.join(sorted(told)) + ' ' + told.get('store', '') + told.get('device', ''))"
    programs = {
        "rom": puppet.rot(state.root, first=tells),
        "vault": puppet.vault(state.root, first=tells),
        "front": puppet.front(state.root, first=tells),
    }
    with prepared(state, programs, require_sandbox=required) as (box, account):
        box.boot()
        more = " require-sandbox" if required else ""
        account.wait_for(f"control device image mailbox pl0{more} {state.device}")
        account.wait_for(f"control custody image partition{more} store {state.store(0)}")
        account.wait_for(f"control image native-0 p11-kit-0{more} ")


def test_the_two_ends_of_a_custody_channel_go_to_rot_and_vault(state: State) -> None:
    # The puppet of rot closes its end: the vault sees that somebody had it.
    hears = "progress('custody ends: ' + repr(socket.socket(fileno=int(told['custody'])).recv(1)))"
    with prepared(state, {"vault": puppet.vault(state.root, first=hears)}) as (box, account):
        box.boot()
        account.wait_for("custody ends: b''")


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_bundle_that_rom_refuses_is_named_with_the_reason_of_rom(state: State) -> None:
    says = f"if command == FIRMWARE_LOAD: progress('looks'); failed({encoded(Failed('IMAGE_X', 'spoilt'))})"
    rom = puppet.rot(state.root, results={Command.FIRMWARE_LOAD: 0xB0001}, after=says)
    with prepared(state, {"rom": rom}) as (box, account):
        error = refused(box)
        assert (error.rule, error.reason) == ("IMAGE_X", f"{state.bundle}: spoilt")
        assert "--rebuild" in error.advice()
        account.wait_for("rot: looks")


def test_a_bundle_that_rom_refuses_without_a_word_is_named_by_the_number(state: State) -> None:
    rom = puppet.rot(state.root, results={Command.FIRMWARE_LOAD: 0xB0001}, after="os._exit(1)")
    with prepared(state, {"rom": rom}) as (box, _):
        error = refused(box)
        assert (error.rule, "--rebuild" in error.advice()) == ("image.bundle", True)
        assert error.reason.startswith(f"{state.bundle}: FIRMWARE_LOAD was refused")


@pytest.mark.parametrize(
    ("command", "rule", "file"),
    [
        (Command.POPULATE_IDEV_ECC384_CERT, "device.idevid", "idevid-ecc384.der"),
        (Command.POPULATE_IDEV_MLDSA87_CERT, "device.idevid", "idevid-mldsa87.der"),
        (Command.SET_AUTH_MANIFEST, "image.manifest", "images/soc.manifest"),
    ],
    ids=lambda value: value.name if isinstance(value, Command) else "",
)
def test_what_rot_does_not_take_is_refused_by_its_path(
    state: State, command: Command, rule: str, file: str
) -> None:
    rom = puppet.rot(state.root, results={command: MailboxError.RUNTIME_INTERNAL})
    with prepared(state, {"rom": rom}) as (box, _):
        error = refused(box)
        assert (error.rule, error.reason.partition(": ")[0]) == (rule, str(state.root / file))
        assert error.advice()


@pytest.mark.parametrize(
    ("answer", "told"),
    [("not in manifest", "not in manifest"), ("0x12345678", "0x12345678")],
    ids=["known", "unknown"],
)
def test_an_image_that_the_manifest_does_not_authorize_is_refused_by_its_path(
    state: State, answer: str, told: str
) -> None:
    number = AuthResult.NOT_IN_MANIFEST if answer == "not in manifest" else int(answer, 16)
    frames = frame(0, with_headers(AuthorizeAndStashReply(number))).hex()
    rom = puppet.rot(
        state.root,
        first=f"ANSWER = '{frames}'",
        before=f"answers[{int(Command.AUTHORIZE_AND_STASH)}] = ANSWER",
    )
    with prepared(state, {"rom": rom}) as (box, _):
        error = refused(box)
        assert (error.rule, error.reason) == ("image.box", f"{state.archive('box')}: {told} (SoC manifest)")
        assert "--rebuild" in error.advice()


def test_the_reason_that_a_process_gives_up_for_is_told(state: State) -> None:
    gives_up = f"failed({encoded(Failed('store-damaged', 'the store is damaged', 'restore it'))})"
    with prepared(state, {"vault": puppet.vault(state.root, first=gives_up)}) as (box, _):
        error = refused(box)
        assert (error.rule, error.reason) == ("store-damaged", "vault-0: the store is damaged")
        assert error.advice() == "restore it"


def test_what_rom_gives_up_for_before_it_takes_firmware_is_told(state: State) -> None:
    gives_up = f"failed({encoded(Failed('device', 'no device', 'make one'))})"
    with prepared(state, {"rom": puppet.rot(state.root, first=gives_up)}) as (box, _):
        error = refused(box)
        assert (error.rule, error.reason, error.advice()) == ("device", "rot: no device", "make one")


def test_a_process_that_does_not_come_up_is_refused_in_the_end(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "START_LIMIT", 0.3)
    monkeypatch.setattr(children, "STOP_LIMIT", 0.05)
    with prepared(state, {"vault": puppet.vault(state.root, first="time.sleep(20)")}) as (box, _):
        error = refused(box)
        assert (error.rule, "vault-0 did not come up" in error.reason) == ("process.start", True)
        assert error.advice()


def test_a_process_that_says_what_only_its_parent_may_say_is_killed(state: State) -> None:
    says = f"send({encoded(Stop())}); time.sleep(20)"
    with prepared(state, {"front": puppet.front(state.root, first=says)}) as (box, _):
        error = refused(box)
        child = box.running["front"].child
        assert error.rule == "process.control"
        assert child.process.wait(PATIENCE) == -signal.SIGKILL


# --- deaths during a boot -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rot", "vault-0", "front"])
def test_a_process_that_never_serves_has_one_more_try_and_then_its_archive_is_named(
    state: State, name: str
) -> None:
    image = {"rot": "rom", "vault-0": "vault"}.get(name, name)
    dead = {
        "rom": puppet.rot(state.root, first=DIES),
        "vault": puppet.vault(state.root, first=DIES),
        "front": puppet.front(state.root, first=DIES),
    }
    with prepared(state, {image: dead[image]}) as (box, account):
        error = refused(box)
        assert error.rule == "process.start"
        assert error.reason == f"{name}, which runs {state.archive(image)}, died twice before it served"
        assert error.advice().startswith("see above what it said")
        assert "--rebuild" in error.advice()
        account.wait_for(f"{name}: died")


@pytest.mark.parametrize(
    "command", ["FIRMWARE_LOAD", "SET_AUTH_MANIFEST", "AUTHORIZE_AND_STASH", "ATTACH_CUSTODY"]
)
def test_where_rot_dies_in_the_middle_of_a_boot_the_server_is_reset(state: State, command: str) -> None:
    dies = f"if command == {int(Command[command])} and once('died'): os._exit(9)"
    with prepared(state, {"rom": puppet.rot(state.root, before=dies)}) as (box, account):
        box.boot()
        account.wait_for("rot: died, the server is reset")
        assert box.boots == 2
        assert [one.name for one in box.stash_log] == list(FIRMWARE)


def test_where_the_vault_dies_once_on_its_way_up_it_is_started_again(state: State) -> None:
    with prepared(state, {"vault": puppet.vault(state.root, first=DIES_ONCE)}) as (box, account):
        box.boot()
        account.wait_for("vault-0: died, is started again")
        assert (box.boots, box.complete, box.restarts) == (1, True, {"vault-0": 1})


def test_where_the_front_dies_while_the_vault_is_on_its_way_it_is_not_forgotten(state: State) -> None:
    slow = "\nwhile not os.path.exists(ROOT + '/front-died'): time.sleep(0.01)\ntime.sleep(0.1)" + DIES_ONCE
    front = puppet.front(state.root, first="\nif once('front-died'): os._exit(9)")
    with (
        prepared(state, {"vault": puppet.vault(state.root, first=slow), "front": front}) as (box, account),
        running(box) as ended,
    ):
        account.wait_for("vault-0: hears the front")
        assert dict(box.restarts) == {"vault-0": 1, "front": 1}
        assert ended == []


def test_where_rot_dies_while_the_vault_waits_for_it_the_server_is_reset(state: State) -> None:
    # The vault says why it gives up, and rot dies: what counts is the death of rot.
    gone = f"\nif once('gone'): failed({encoded(Failed(ROT_GONE, 'the root of trust is gone'))})"
    attached = int(Command.ATTACH_CUSTODY)
    dies = f"if command == {attached} and once('rot-died'): threading.Timer(0.1, os._exit, (9,)).start()"
    programs = {"vault": puppet.vault(state.root, first=gone), "rom": puppet.rot(state.root, after=dies)}
    with prepared(state, programs) as (box, account), running(box) as ended:
        account.wait_for("vault-0: hears the front")
        account.wait_for("vault-0: the root of trust is gone")
        account.wait_for("rot: died, the server is reset")
        account.wait_for("rot: serves", 2)
        assert ended == []


def test_an_order_to_stop_ends_a_boot(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STOP_LIMIT", 0.1)
    with prepared(state, {"vault": puppet.vault(state.root, first="time.sleep(20)")}) as (box, account):
        with running(box) as ended:
            account.wait_for("vault: measured")
        assert [str(error) for error in ended] == ["by the test"]


# --- running --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vault-0", "front"])
def test_a_process_that_dies_is_started_again_and_paired_again(state: State, name: str) -> None:
    with prepared(state) as (box, account), running(box) as ended:
        account.wait_for("vault-0: hears the front")
        before = dict(box.running)
        kill(box, name)
        account.wait_for(f"{name}: died, is started again")
        account.wait_for("vault-0: hears the front", 2)
        changed = [other for other in before if box.running[other] is not before[other]]
        assert (changed, box.restarts[name], box.boots, ended) == ([name], 1, 1, [])


def test_where_rot_dies_everything_is_started_from_cold(state: State) -> None:
    with prepared(state) as (box, account), running(box) as ended:
        account.wait_for("vault-0: hears the front")
        before = dict(box.running)
        kill(box, "rot")
        account.wait_for("rot: died, the server is reset")
        account.wait_for("vault-0: hears the front", 2)
        assert all(box.running[name] is not before[name] for name in before)
        assert all(one.child.process.poll() is not None for one in before.values())
        assert (box.boots, dict(box.restarts), ended) == (2, {}, [])
        assert [one.name for one in box.stash_log] == list(FIRMWARE)


def test_what_processes_tell_while_they_serve_is_told(state: State) -> None:
    tells = "progress('one more thing'); send(" + encoded(Failed("some.rule", "not well")) + ")"
    with (
        prepared(state, {"front": puppet.front(state.root, paired=tells)}) as (box, account),
        running(box) as ended,
    ):
        account.wait_for("front: one more thing")
        account.wait_for("front: not well [some.rule]")
        assert ended == []


def test_a_process_that_talks_nonsense_is_killed_and_started_again(state: State) -> None:
    raves = "\n            if once('raved'): control.send(b'nonsense'); time.sleep(20)\n            channel.send(b'reason')"
    with prepared(state, {"front": puppet.front(state.root, paired=raves)}) as (box, account), running(box):
        account.wait_for("front: died, is started again")
        account.wait_for("vault-0: hears reason")


def test_what_a_process_said_before_it_was_replaced_counts_for_nothing(state: State) -> None:
    with prepared(state) as (box, _):
        box.boot()
        old = Child("vault-0", box.running["vault-0"].child.process, box.running["front"].child.channel)
        for message in (ControlMessage(body=Ready(SANDBOX, "87654321")), None):
            box.children.events.put(Event(old, message))
        box.children.events.put(Quit("by the test"))
        with pytest.raises(Exception, match="by the test"):
            box.run()
        assert (box.pin, dict(box.restarts)) == (PIN, {})


def test_a_process_that_dies_again_and_again_ends_the_server(state: State) -> None:
    with prepared(state) as (box, account), running(box) as ended:
        account.wait_for("vault-0: hears the front")
        for _ in range(8):
            box.supervisor.died("front", time.monotonic(), served=True)
        kill(box, "front")
        for thread in threading.enumerate():
            if "live" in thread.name:
                thread.join(PATIENCE)
        (error,) = ended
        assert isinstance(error, Refused)
        assert (error.rule, "front dies again and again" in error.reason) == ("process.restart", True)
        assert error.advice()


def test_to_pair_with_one_that_has_just_died_does_no_harm(state: State) -> None:
    with prepared(state) as (box, _):
        box.boot()
        kill(box, "vault-0")
        box.running["vault-0"].child.process.wait()
        for partition in PARTITIONS:
            box._pair(partition)


# --- what a process that was taken over can do ------------------------------------------------------------------


def test_what_a_process_says_comes_under_its_own_name_and_moves_no_terminal(state: State) -> None:
    says = f"progress({ESCAPES!r}); failed({encoded(Failed('r' + ESCAPES, 'w' + ESCAPES, 'h' + ESCAPES))})"
    with prepared(state, {"front": puppet.front(state.root, first=says)}) as (box, account):
        error = refused(box)
        account.wait_for(f"front: {SPELT_OUT}")
        assert (error.rule, error.reason) == (f"r{SPELT_OUT}", f"front: w{SPELT_OUT}")
        assert error.advice() == f"h{SPELT_OUT}"
        assert all(line.isprintable() for line in account.lines)


def test_what_a_process_lacks_is_told_in_words_that_move_no_terminal(state: State) -> None:
    report = dataclasses.replace(SANDBOX, notes=(Note(ESCAPES), Note("\x1b" * 256)))
    says = f"send({encoded(Ready(report))}); control.recv(1); os._exit(0)"
    with prepared(state, {"vault": puppet.vault(state.root, first=says)}) as (box, account):
        box.boot()
        account.wait_for(f"({SPELT_OUT}; \\x1b\\x1b")
        sandbox = box.running["vault-0"].sandbox
        assert sandbox is not None
        assert sandbox.encode()
        assert all(note.text.isprintable() for note in sandbox.notes)


def test_what_a_process_writes_on_standard_error_comes_under_its_name_and_nothing_else_comes(
    state: State,
) -> None:
    writes = f"print({ESCAPES!r}, flush=True); sys.stderr.write({ESCAPES!r} + '\\nsecond ' + 'x' * 2000); sys.stderr.flush()"
    with prepared(state, {"front": puppet.front(state.root, first=writes)}) as (box, account):
        box.boot()
        for line in SPELT_OUT.split("\\r\\n"):
            account.wait_for(f"front: {line}")
        account.wait_for("front: second xxx")
        assert not any(line.startswith("vault-0: PIN") for line in account.lines)


def test_the_traceback_of_a_process_that_dies_is_told_before_its_death(state: State) -> None:
    with prepared(state, {"rom": puppet.rot(state.root, first="raise ValueError('a fault')")}) as (
        box,
        account,
    ):
        refused(box)
        account.wait_for("rot: died")
        told = account.lines.index("rot: ValueError: a fault")
        assert told < account.lines.index("rot: died, the server is reset")


def test_a_process_that_gives_up_while_the_server_runs_stops_nothing_but_itself(state: State) -> None:
    gives_up = encoded(Failed("store-gone", "the store is gone", "put it back"))
    vault = puppet.vault(state.root, first=f"\nif not once('first') and once('second'): failed({gives_up})")
    with prepared(state, {"vault": vault}) as (box, account), running(box) as ended:
        account.wait_for("vault-0: hears the front")
        kill(box, "vault-0")
        account.wait_for("vault-0: the store is gone [store-gone]")
        account.wait_for("vault-0: hears the front", 2)
        assert (box.restarts, ended) == ({"vault-0": 2}, [])


def test_a_bystander_that_breaks_the_rules_while_another_starts_stops_nothing_but_itself(
    state: State,
) -> None:
    says = f"\n            if not once('paired') and once('again'): send({encoded(Stop())})"
    sends = "\n            channel.send(b'the front')"
    # The front speaks out of turn as soon as it hears of the second vault; that one is still on its way a third time.
    with (
        prepared(state, {"front": puppet.front(state.root, paired=says + sends)}) as (box, account),
        running(box) as ended,
    ):
        account.wait_for("vault-0: hears the front")
        kill(box, "vault-0")
        account.wait_for("front sent what it may not")
        account.wait_for("front: died, is started again")
        account.wait_for("vault-0: hears the front", 2)
        assert ended == []


def test_a_process_that_does_not_come_up_again_is_ended_and_tried_again(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "\nif not once('first') and once('second'): time.sleep(20)"
    with (
        prepared(state, {"vault": puppet.vault(state.root, first=slow)}) as (box, account),
        running(box) as ended,
    ):
        account.wait_for("vault-0: hears the front")
        monkeypatch.setattr(shell, "START_LIMIT", 1.0)
        kill(box, "vault-0")
        account.wait_for("vault-0: did not come up within 1 s")
        account.wait_for("vault-0: hears the front", 2)
        assert (box.restarts, ended) == ({"vault-0": 2}, [])


def test_a_root_of_trust_that_does_not_answer_is_dead(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "ANSWER_TIME", 0.3)
    monkeypatch.setattr(children, "STOP_LIMIT", 0.1)
    hangs = f"if command == {int(Command.ATTACH_CUSTODY)} and once('hangs'): time.sleep(20)"
    with prepared(state, {"rom": puppet.rot(state.root, before=hangs)}) as (box, account):
        box.boot()
        account.wait_for("rot: died, the server is reset")
        assert (box.boots, box.complete) == (2, True)


def test_a_root_of_trust_that_takes_no_vault_is_reset(state: State) -> None:
    refuses = (
        f"if command == {int(Command.ATTACH_CUSTODY)} and once('refuses'):"
        f" answers[command] = {frame(MailboxError.RUNTIME_MAILBOX_INVALID_PARAMS, b'').hex()!r}"
    )
    with prepared(state, {"rom": puppet.rot(state.root, before=refuses)}) as (box, account):
        box.boot()
        account.wait_for("rot: takes no vault: ATTACH_CUSTODY was refused")
        assert (box.boots, box.complete) == (2, True)


def test_only_a_vault_that_has_served_is_told_so(state: State) -> None:
    tells = "progress(told.get('served', 'new'))"
    with prepared(state, {"vault": puppet.vault(state.root, first=tells)}) as (box, account), running(box):
        account.wait_for("vault-0: hears the front")
        assert "vault-0: new" in account.lines
        kill(box, "vault-0")
        account.wait_for("vault-0: yes")
        account.wait_for("vault-0: hears the front", 2)
        kill(box, "rot")
        account.wait_for("vault-0: yes", 2)


# --- machines that lack something ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rot", "vault-0", "front"])
def test_what_cannot_be_started_for_want_of_descriptors_is_tried_again(state: State, name: str) -> None:
    with prepared(state) as (box, account), running(box) as ended:
        account.wait_for("vault-0: hears the front")
        with descriptors_left(0):
            kill(box, name)
            account.wait_for(f"{name}: cannot be started: [Errno 24] Too many open files", 2)
        account.wait_for("vault-0: hears the front", 2)
        assert ended == []


def test_a_first_start_for_which_descriptors_are_wanting_says_so(state: State) -> None:
    with prepared(state) as (box, _), descriptors_left(1):
        error = refused(box)
    assert error.rule == "process.start"
    assert error.reason == "rot cannot be started: [Errno 24] Too many open files"
    assert "ulimit -n" in error.advice()


def test_where_no_thread_is_to_be_had_a_process_counts_as_dead(state: State) -> None:
    with prepared(state) as (box, _):
        box.boot()
        before = threading.stack_size(1 << 47)  # more than there are addresses
        try:
            with pytest.raises(shell._Died, match="front") as died:
                box._start_service("front")
        finally:
            threading.stack_size(before)
        assert "start new thread" in died.value.reason


# --- the end --------------------------------------------------------------------------------------------------------


def test_every_process_is_told_to_stop_and_one_that_does_not_is_killed(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STOP_LIMIT", 0.1)
    programs = {
        "vault": puppet.vault(state.root, paired="progress('is told'); os._exit(0)"),
        "front": puppet.front(state.root, paired="time.sleep(20)"),
    }
    with prepared(state, programs) as (box, _):
        box.boot()
        processes = {name: one.child.process for name, one in box.running.items()}
        box.stop_children()
        codes = {name: process.returncode for name, process in processes.items()}
        assert codes["front"] == -signal.SIGKILL
        assert None not in codes.values()
        assert box.running == {}


def test_where_nothing_was_started_there_is_nothing_to_stop(state: State) -> None:
    with prepared(state) as (box, _):
        box.stop_children()
        assert box.mailbox is None


# --- a whole life ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def living(
    state: State, programs: Mapping[str, str] | None = None, prepare: Callable[[Box], None] = lambda box: None
) -> Iterator[Program]:
    """Run a box as a process does."""
    settle(state, programs or {})
    image = seal(b"the box", "box")

    def prepared(box: Box) -> contextlib.AbstractContextManager[None]:
        prepare(box)
        return contextlib.nullcontext()

    def main() -> None:
        run_process(partial(shell.live, prepared))

    with program(main, {"image": image}, "--state", str(state.root)) as found:
        yield found
    os.close(image)


def until_ready(box: Program) -> Ready:
    while isinstance(said := box.said(), Progress):
        pass
    assert isinstance(said, Ready)
    return said


def test_a_box_serves_answers_and_stops_as_asked(state: State) -> None:
    with living(state) as box:
        ready = until_ready(box)
        assert ready.pin == PIN
        assert (ready.sandbox.no_new_privileges, ready.sandbox.not_dumpable, ready.sandbox.seccomp) == (
            1,
            1,
            0,
        )
        found = ask(state.admin_socket, GetStatus())
        assert [one.name for one in found.processes] == ["box", "rot", "vault-0", "front"]
        assert {one.state for one in found.processes} == {ProcessState.SERVING}
        box.channel.send(Stop())
        while (told := box.progress()) != "up: stopped: as asked":
            assert told == "vault-0: hears the front"
        assert box.wait() == 0
    assert not state.admin_socket.exists()
    locked(state).close()


def test_where_whoever_started_it_is_gone_it_stops_everything(state: State) -> None:
    boxes: list[Box] = []
    with living(state, prepare=boxes.append) as box:
        until_ready(box)
        processes = [one.child.process for one in boxes.pop().running.values()]
        box.channel.socket.close()
        assert box.wait() == 0
        assert all(process.returncode is not None for process in processes)


def test_where_whoever_started_it_goes_during_the_boot_it_stops_everything(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STOP_LIMIT", 0.1)
    with living(state, {"vault": puppet.vault(state.root, first="time.sleep(20)")}) as box:
        box.progress()
        box.channel.socket.close()
        assert box.wait() == 0


def test_where_whoever_shows_the_account_stands_still_the_server_goes_on(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "TELL_LIMIT", 0.05)
    boxes: list[Box] = []
    with living(state, prepare=boxes.append) as found:
        until_ready(found)
        box = boxes.pop()
        with contextlib.suppress(BlockingIOError):
            while True:
                box.above.socket.send(ControlMessage(body=Progress("more")).encode(), socket.MSG_DONTWAIT)
        before = box.running["vault-0"].child
        kill(box, "vault-0")
        deadline = time.monotonic() + PATIENCE
        while not (box.complete and box.running["vault-0"].child is not before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert dict(box.restarts) == {"vault-0": 1}
        del box  # with its sockets, as at the end of a process


def test_the_pin_is_told_once_and_kept_by_nobody(state: State) -> None:
    boxes: list[Box] = []
    with living(state, prepare=boxes.append) as box:
        assert until_ready(box).pin == PIN
        assert boxes.pop().pin == ""


def test_a_box_that_is_refused_says_why_and_leaves_nothing_behind(state: State) -> None:
    with living(state, {"front": puppet.front(state.root, first=DIES)}) as box:
        while isinstance(said := box.said(), Progress):
            pass
        assert isinstance(said, Failed)
        assert said.rule == "process.start"
        assert box.wait() == 1
    assert not state.mailbox_socket.exists()


def test_a_second_box_on_the_same_directory_is_refused(state: State) -> None:
    settle(state, {})
    with locked(state), living(state) as box:
        failed = box.failed()
        assert (failed.rule, "already runs" in failed.reason) == ("usage", True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_the_box_stops_it_in_order(state: State, number: signal.Signals) -> None:
    settle(state, {})
    image = seal(build("endocarp.shell.box", source_tree()), "box")
    child = start("box", image, ["--state", str(state.root)])
    os.close(image)
    lines = []
    with child.channel.socket:
        while (received := child.channel.receive()) is not None:
            if isinstance(received[0].body, Ready):
                child.process.send_signal(number)
            elif isinstance(received[0].body, Progress):
                lines.append(received[0].body.text)
    assert (child.process.wait(PATIENCE), lines[-1]) == (0, "up: stopped: by a signal")
