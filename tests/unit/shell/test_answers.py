"""What the box answers, made from a real root of trust and a real vault in this process."""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.relying import failed
from tests.simulators.root_of_trust import (
    IMAGES,
    MODEL,
    NONCE,
    ROM,
    Server,
    ask,
    authorize,
    manufacture_server,
)

from endocarp.client import Partition, connect
from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384
from endocarp.crypto.secret import Secret
from endocarp.errors import DeviceError, Refused
from endocarp.hsm.operations import Vault
from endocarp.hsm.partition import open_partition
from endocarp.hsm.report import Surroundings
from endocarp.rot.builder import references
from endocarp.shell import answers as shell
from endocarp.shell.answers import Answers, resident
from endocarp.shell.archive import seal
from endocarp.shell.channel import Channel, Child, pair
from endocarp.shell.children import Running
from endocarp.shell.config import State
from endocarp.shell.inventory import inventory
from endocarp.shell.machine import Machine, SealedImage
from endocarp.shell.mailbox import Mailbox
from endocarp.shell.rot import RootOfTrust
from endocarp.shell.sockets import listen_at
from endocarp.shell.storage import FileStorage
from endocarp.shell.vault import start_connection
from endocarp.verifier.appraise import appraise
from endocarp.verifier.chain import Anchor
from endocarp.verifier.policy import ReferenceValues
from endocarp.version import VERSION
from endocarp.wire import custody, hsm, mailbox
from endocarp.wire.admin import ProcessState, Status
from endocarp.wire.control import MemoryMode, Note, SandboxReport, Seccomp
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import Evidence, StashEntry
from endocarp.wire.hsm import Welcome
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Suite

NOW = 1_800_000_000.0
SANDBOX = SandboxReport(0, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET)
COMPONENTS = inventory()
OWN = SandboxReport(0, 1, 1, 0, Seccomp.OFF, MemoryMode.ORDINARY, notes=(Note("starts the others"),))


@dataclass
class BoxSimulator:
    """What answers are made of, without what runs a box."""

    machine: Machine
    mailbox: Mailbox | None = None
    boots: int = 2
    complete: bool = True
    running: dict[str, Running] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    stash_log: list[StashEntry] = field(default_factory=list)


@pytest.fixture(scope="module")
def server() -> Server:
    """A server whose images are all authorized."""
    server = manufacture_server()
    for fw_id in (FirmwareId.FRONT, FirmwareId.VAULT):
        authorize(server, fw_id)
    return server


@pytest.fixture
def box(place: Path) -> Iterator[BoxSimulator]:
    """Return a box that has booted nothing yet."""
    state = State(place)
    state.store(0).mkdir(parents=True)
    image = seal(IMAGES[FirmwareId.BOX], "box")
    with socket.socket() as unused:
        yield BoxSimulator(
            Machine(state, MODEL, {"box": SealedImage.of(image)}, b"", b"", {}, unused, unused, {})
        )
    os.close(image)


@pytest.fixture
def booted(box: BoxSimulator, server: Server) -> Iterator[BoxSimulator]:
    """Return a box with a root of trust and a vault behind it."""
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=RootOfTrust(server.runtime).serve_box, args=(theirs,))
    serving.start()
    box.mailbox = Mailbox(ours)
    for fw_id in (FirmwareId.BOX, FirmwareId.FRONT, FirmwareId.VAULT):
        box.stash_log.append(StashEntry(fw_id, fw_id.name.lower(), sha384(IMAGES[fw_id]), 0))
    with vault_of(box, server):
        yield box
    ours.close()
    serving.join(10)


@contextlib.contextmanager
def vault_of(box: BoxSimulator, server: Server) -> Iterator[None]:
    """Serve partition 0 at its native door, with an identity that the root of trust has certified."""
    state = box.machine.state
    server.box.execute(mailbox.AttachCustody(0, FirmwareId.VAULT))
    channel = server.runtime.custody(server.box.attached.pop())
    storage = FileStorage(state.store(0))
    with Secret(ask(channel, custody.SealKey()).key) as seal_key:
        partition, _ = open_partition(0, storage, seal_key, os.urandom)
        identity = partition.identity
        certified = ask(channel, custody.CertifyIdentity(identity.ecc.public.raw, identity.mldsa.public.raw))
        surroundings = Surroundings(certified, "locked", {"seccomp": "filter"})
        vault = Vault(partition, surroundings, os.urandom, threading.RLock(), threading.Lock())
        threads = set(threading.enumerate())
        with listen_at(state.native_socket(0), socket.SOCK_SEQPACKET) as listener:

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        start_connection(connection, connection.recv(64), vault)

            threading.Thread(target=accept).start()
            yield
            listener.shutdown(socket.SHUT_RDWR)
            for thread in set(threading.enumerate()) - threads:
                thread.join(10)
    storage.close()


@pytest.fixture
def child() -> Iterator[Child]:
    """Return a process that does nothing."""
    ours, theirs = pair()
    with ours, theirs:
        process = subprocess.Popen(["sleep", "60"])
        yield Child("rot", process, Channel(ours))
        process.kill()
        process.wait()


def running(child: Child, name: str, started: float, sandbox: SandboxReport | None) -> Running:
    """Return what the box knows of a process."""
    image = SealedImage(-1, 0, name[:2].encode() * 24)
    return Running(name, image, child, started, sandbox)


# --- status ---------------------------------------------------------------------------------------------------------


def test_the_status_tells_of_the_box_itself_first(box: BoxSimulator) -> None:
    found = Answers(box, OWN, COMPONENTS).status(time.monotonic() + 5)
    assert (found.version, found.model, found.boots) == (VERSION, MODEL, 2)
    assert found.state_directory == str(box.machine.state.root)
    (own,) = found.processes
    assert (own.name, own.state, own.pid, own.sandbox) == ("box", ProcessState.SERVING, os.getpid(), OWN)
    assert own.image == sha384(IMAGES[FirmwareId.BOX])
    assert 5000 <= own.uptime < 10000
    assert own.resident > 1000
    assert Status.decode(found.encode()) == found


def test_the_status_tells_of_every_process_what_it_runs_and_how_it_is_confined(
    box: BoxSimulator, child: Child
) -> None:
    now = time.monotonic()
    box.running = {
        "rot": running(child, "rot", now - 3, SANDBOX),
        "front": running(child, "front", now - 1, None),
    }
    box.restarts = {"front": 4}
    _, rot, front = Answers(box, OWN, COMPONENTS).status(now).processes
    assert (rot.state, rot.pid, rot.restarts, rot.uptime) == (
        ProcessState.SERVING,
        child.process.pid,
        0,
        3000,
    )
    assert (rot.image, rot.sandbox) == (b"ro" * 24, SANDBOX)
    assert rot.resident > 0
    assert (front.name, front.state, front.restarts) == ("front", ProcessState.STARTING, 4)
    assert front.sandbox == SandboxReport(0, 0, 0, 0, Seccomp.OFF, MemoryMode.ORDINARY)


def test_the_status_tells_where_the_doors_are_and_what_was_measured(box: BoxSimulator) -> None:
    box.stash_log.append(StashEntry(FirmwareId.VAULT, "vault", b"v" * 48, 0))
    found = Answers(box, OWN, COMPONENTS).status(time.monotonic())
    (partition,) = found.partitions
    state = box.machine.state
    assert (partition.native, partition.p11_kit) == (
        str(state.native_socket(0)),
        str(state.p11_kit_socket(0)),
    )
    assert [(one.name, one.digest) for one in found.measurements] == [("vault", b"v" * 48)]


def test_a_directory_whose_name_is_no_text_is_spelt_out(box: BoxSimulator) -> None:
    box.machine = Machine(**{**vars(box.machine), "state": State(Path(os.fsdecode(b"/srv/\xff")))})
    found = Answers(box, OWN, COMPONENTS).status(time.monotonic())
    assert found.state_directory == "/srv/\\udcff"
    assert found.partitions[0].native.startswith("/srv/\\udcff/")
    assert found.encode()


def test_a_process_that_is_gone_has_no_memory(child: Child) -> None:
    assert resident(child.process.pid) > 0
    child.process.kill()
    child.process.wait()
    assert resident(child.process.pid) == 0


def test_a_process_that_nobody_has_waited_for_has_no_memory_either(child: Child) -> None:
    child.process.kill()
    os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
    assert resident(child.process.pid) == 0


# --- evidence -------------------------------------------------------------------------------------------------------


def test_the_evidence_of_a_booted_server_is_believed(
    booted: BoxSimulator, server: Server, child: Child
) -> None:
    booted.running = {
        "rot": running(child, "rot", 0.0, SANDBOX),
        "front": running(child, "front", 0.0, SANDBOX),
    }
    octets = Answers(booted, OWN, COMPONENTS).evidence(NONCE)
    expected = references(model=MODEL, bundle=server.bundle, manifest=server.manifest, images=IMAGES, rom=ROM)
    roots = {suite: Certificate.parse(server.root[suite]) for suite in (Suite.P384, Suite.ML_DSA_87)}
    verdict = appraise(
        octets, {MODEL: Anchor(MODEL, roots)}, ReferenceValues.from_json(json.dumps(expected)), NONCE, NOW
    )
    assert failed(verdict) == set()
    assert verdict.accepted
    evidence = Evidence.decode(SignedMessage.decode(octets).payload)
    assert {"box", "rot", "front"} <= {one.subject for one in evidence.statements}
    assert evidence.inventory == COMPONENTS
    assert any(one.name.startswith("interpreter") for one in evidence.inventory)


def test_before_the_root_of_trust_is_there_evidence_is_refused(box: BoxSimulator) -> None:
    with pytest.raises(Refused) as raised:
        Answers(box, OWN, COMPONENTS).evidence(NONCE)
    assert (raised.value.rule, raised.value.advice()) == ("process.starting", "try again in a moment")


def test_in_the_middle_of_a_boot_evidence_is_refused(booted: BoxSimulator) -> None:
    booted.complete = False
    with pytest.raises(Refused, match=r"process\.starting"):
        Answers(booted, OWN, COMPONENTS).evidence(NONCE)


def test_while_a_process_is_being_started_evidence_is_refused(booted: BoxSimulator, child: Child) -> None:
    booted.running = {"rot": running(child, "rot", 0.0, SANDBOX), "front": running(child, "front", 0.0, None)}
    with pytest.raises(Refused, match=r"process\.starting"):
        Answers(booted, OWN, COMPONENTS).evidence(NONCE)


def test_where_a_process_was_started_again_meanwhile_evidence_is_refused(
    booted: BoxSimulator, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted.running = {"rot": running(child, "rot", 0.0, SANDBOX)}

    def while_it_is_asked(*words: Any, **options: Any) -> Partition:
        booted.running = {"rot": running(child, "rot", 1.0, SANDBOX)}
        return connect(*words, **options)

    monkeypatch.setattr(shell, "connect", while_it_is_asked)
    with pytest.raises(Refused, match=r"process\.starting"):
        Answers(booted, OWN, COMPONENTS).evidence(NONCE)


def test_where_the_root_of_trust_dies_meanwhile_evidence_is_refused(box: BoxSimulator) -> None:
    ours, theirs = socket.socketpair()
    box.mailbox = Mailbox(ours)
    theirs.close()
    for _ in range(2):  # at the first question, and on a mailbox that is closed already
        with pytest.raises(Refused, match=r"process\.rot"):
            Answers(box, OWN, COMPONENTS).evidence(NONCE)


def test_a_root_of_trust_that_does_not_answer_is_gone_for_the_box_too(
    box: BoxSimulator, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("endocarp.shell.mailbox.ANSWER_TIME", 0.1)
    ours, theirs = socket.socketpair()
    box.mailbox = Mailbox(ours)
    box.running = {"rot": running(child, "rot", 0.0, SANDBOX)}
    with theirs, pytest.raises(Refused, match=r"process\.rot"):
        Answers(box, OWN, COMPONENTS).evidence(NONCE)
    assert child.channel.receive() is None


def test_where_a_vault_is_away_evidence_is_refused(booted: BoxSimulator) -> None:
    booted.machine.state.native_socket(0).unlink()
    with pytest.raises(DeviceError, match="nothing answers at unix:"):
        Answers(booted, OWN, COMPONENTS).evidence(NONCE)


@pytest.mark.parametrize("answers", [0, 1])
def test_a_front_that_keeps_the_box_waiting_does_not_hold_its_admin_socket(
    booted: BoxSimulator, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    monkeypatch.setattr("endocarp.shell.answers.REPORT_TIME", 0.2)
    door = booted.machine.state.native_socket(0)
    door.unlink()
    with listen_at(door, socket.SOCK_SEQPACKET) as listener:

        def stall() -> None:
            connection, _ = listener.accept()
            with connection:
                for _ in range(answers):
                    connection.recv(64)
                    connection.sendall(Welcome(hsm.Status.OK, hsm.VERSION, 0, 0).encode())
                while connection.recv(4096):
                    pass

        stalling = threading.Thread(target=stall)
        stalling.start()
        with pytest.raises(DeviceError, match=r"no answer within 0\.2 s"):
            Answers(booted, OWN, COMPONENTS).evidence(NONCE)
        stalling.join(10)
