"""The box: starts, measures, watches and stops every other process. It holds no secret.

One queue takes everything that happens: messages of children, their deaths, signals, the end of whoever started
the box. One thread works it off, so that nothing here needs a lock but the counters that the admin socket reads.

The order of a boot:
    rot   ROM takes the firmware bundle, becomes FMC, becomes the runtime
          IDevID certificates and the SoC manifest are handed in
          the images of box, front and vault are handed over in sealed memory, hashed and authorized by rot
    vault one a partition, each with a custody channel to rot
    front with the listening sockets, paired with every vault
"""

import collections
import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from endocarp.box.plan import (
    FIRMWARE,
    PARTITIONS,
    GiveUp,
    Reset,
    Restart,
    kind_of,
    vault_name,
)
from endocarp.box.supervisor import Supervisor
from endocarp.crypto.digest import sha384
from endocarp.errors import DecodeError, DeviceError, EndocarpError, Refused
from endocarp.shell.admin import serve_admin
from endocarp.shell.answers import Answers
from endocarp.shell.archive import read_sealed
from endocarp.shell.channel import Channel, Child, pair, sandbox_report, start, told
from endocarp.shell.config import State
from endocarp.shell.machine import Machine, machine
from endocarp.shell.mailbox import Mailbox
from endocarp.shell.memory import MemoryMode
from endocarp.shell.sandbox import BOX, enter
from endocarp.wire.control import (
    ROT_GONE,
    ControlMessage,
    Failed,
    Pair,
    Progress,
    Ready,
    SandboxReport,
    Stop,
)
from endocarp.wire.evidence import StashEntry
from endocarp.wire.mailbox import (
    AttachCustody,
    AuthorizeAndStash,
    AuthResult,
    FirmwareLoad,
    ImageSource,
    Reply,
    Request,
    SetAuthManifest,
)

START_LIMIT = 30.0
"""Seconds that a process has from its start until it serves."""
STOP_LIMIT = 3.0
"""Seconds that a process has to end after it was told to stop."""
REBUILD = "if you changed it on purpose, start once with --rebuild"
RESTORE = "put back a copy of it; it came with the device, and is not made again"
IMAGES: Mapping[str, str] = {"rot": "rom", "vault": "vault", "front": "front"}
"""What a process runs, by its kind."""


@dataclass
class Running:
    """One process of the box, over all its lives: `image` is the SHA-384 of what it runs."""

    name: str
    image: bytes
    child: Child
    started: float
    sandbox: SandboxReport | None = None


@dataclass(frozen=True)
class Happened:
    """Something in the box's queue: a message of a child, or its end (`message` is None)."""

    child: Child
    message: ControlMessage | None


@dataclass(frozen=True)
class Quit:
    """The box was told to stop, and why."""

    reason: str


class Box:
    """The running server. `above` is the channel to whoever started it, who shows the account of the boot."""

    def __init__(self, machine: Machine, above: Channel, *, require_sandbox: bool) -> None:
        self.machine = machine
        self.above = above
        self.require_sandbox = require_sandbox
        self.happenings: queue.SimpleQueue[Happened | Quit] = queue.SimpleQueue()
        self.supervisor = Supervisor()
        self.running: dict[str, Running] = {}
        self.restarts: collections.Counter[str] = collections.Counter()
        self.stash_log: list[StashEntry] = []
        self.boots = 0
        self.booted = False
        self.pin = ""
        self.mailbox: Mailbox | None = None
        self._served: set[str] = set()
        """The processes that have served at least once: what they run is sound."""

    # --- booting ----------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Bring everything up, again where something dies meanwhile. Raises Refused where an image is not what was signed."""
        try:
            self._boot()
        except _Died as died:
            self._bury(died.name)

    def _boot(self) -> None:
        self.boots += 1
        self.booted = False
        self.stash_log = []
        self._boot_root_of_trust()
        for name in FIRMWARE:
            self._authorize(name)
        for partition in PARTITIONS:
            self._start_vault(partition)
        self._start_front()
        for partition in PARTITIONS:
            self._await_ready(vault_name(partition))
        self._await_ready("front")
        for partition in PARTITIONS:
            self._pair(partition)
        self.booted = True

    def _boot_root_of_trust(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._start(
                "rot",
                "rom",
                ["--device", str(self.machine.state.device)],
                {"pl0": theirs.fileno(), "mailbox": self.machine.mailbox.fileno()},
            )
        self.mailbox = Mailbox(ours)
        try:
            self._ask_rot(FirmwareLoad(self.machine.firmware))
        except DeviceError as error:
            raise self._refusal_of_rom(error) from None
        except _Died:
            pass  # It may have said why; what it said is taken up next.
        self._await_ready("rot")
        for suite, request in self.machine.idevid.items():
            self._hand_in(request, "device.idevid", self.machine.state.idevid_certificate(suite), RESTORE)
        manifest = SetAuthManifest(self.machine.manifest)
        self._hand_in(manifest, "image.manifest", self.machine.state.manifest, REBUILD)
        self.above.progress("manifest: signatures of vendor and owner hold")

    def _ask_rot(self, request: Request[Reply], fds: Sequence[int] = ()) -> Reply:
        """Ask the root of trust; that it is gone is its death."""
        assert self.mailbox is not None
        try:
            return self.mailbox.execute(request, fds)
        except (OSError, DecodeError):
            raise _Died("rot") from None

    def _hand_in(self, request: Request[Any], rule: str, path: Path, hint: str) -> None:
        """Have rot take what lies in a file. Raises Refused, which names the file, where it does not."""
        try:
            self._ask_rot(request)
        except DeviceError as error:
            raise Refused(rule, f"{path}: {error}", hint) from None

    def _refusal_of_rom(self, error: DeviceError) -> Refused:
        """Return what ROM said on its control channel about the bundle that it refused, else what the mailbox said."""
        path = self.machine.state.bundle
        with contextlib.suppress(queue.Empty):
            while not self._is_death_of("rot", happened := self._next(1.0)):
                said = happened.message.body if happened.message else None
                if isinstance(said, Failed) and self._is_current(happened.child):
                    return Refused(said.rule, f"{path}: {said.reason}", said.hint or REBUILD)
                self._note(happened)
        return Refused("image.bundle", f"{path}: {error}", REBUILD)

    def _authorize(self, name: str) -> None:
        """Have rot hash the sealed image and compare it with the manifest; it runs only if that holds."""
        fd = self.machine.images[name]
        firmware_id = FIRMWARE[name]
        size = os.fstat(fd).st_size
        request = AuthorizeAndStash(firmware_id, bytes(48), bytes(48), 0, 0, ImageSource.LOAD_ADDRESS, size)
        result = self._ask_rot(request, [fd]).auth_req_result
        if result != AuthResult.AUTHORIZED:
            known = result in AuthResult.__members__.values()
            verdict = AuthResult(result).name.lower().replace("_", " ") if known else f"{result:#x}"
            raise Refused(
                f"image.{name}", f"{self.machine.state.archive(name)}: {verdict} (SoC manifest)", REBUILD
            )
        digest = sha384(read_sealed(fd))
        self.stash_log.append(StashEntry(firmware_id, name, digest, 0))
        self.above.progress(f"{name}: measured {digest.hex()[:16]}…, authorized by the manifest")

    def _start_vault(self, partition: int) -> None:
        ours, theirs = pair()
        with ours, theirs:
            self._ask_rot(AttachCustody(partition, FIRMWARE["vault"]), [ours.fileno()])
            store = self.machine.state.store(partition)
            self._start(
                vault_name(partition),
                "vault",
                ["--partition", str(partition), "--store", str(store)],
                {"custody": theirs.fileno()},
            )

    def _start_front(self) -> None:
        doors = {name: listener.fileno() for name, listener in self.machine.doors.items()}
        self._start("front", "front", [], doors)

    def _start(self, name: str, image: str, arguments: list[str], descriptors: dict[str, int]) -> None:
        fd = self.machine.images[image]
        required = ["--require-sandbox", "yes"] if self.require_sandbox else []
        child = start(name, fd, [*arguments, *required], descriptors)
        threading.Thread(target=self._watch, args=(child,), daemon=True).start()
        self.running[name] = Running(name, sha384(read_sealed(fd)), child, time.monotonic())

    def _watch(self, child: Child) -> None:
        """Carry what a child says into the queue, and its end. Runs in a thread of its own."""
        with contextlib.suppress(OSError, EndocarpError):
            while (received := child.channel.receive()) is not None:
                self.happenings.put(Happened(child, received[0]))
        child.process.kill()
        child.process.wait()
        child.channel.socket.close()
        self.happenings.put(Happened(child, None))

    def _next(self, patience: float) -> Happened:
        """Return what happens next; raises queue.Empty where nothing does, _Stopped where the box is told to stop."""
        happened = self.happenings.get(timeout=max(patience, 0.001))
        if isinstance(happened, Quit):
            raise _Stopped(happened.reason)
        return happened

    def _await_ready(self, name: str) -> None:
        """Wait until a process serves; tell its steps meanwhile. Raises _Died where it cannot come to that any more.

        The death of others is looked at afterwards, except that of rot, without which nobody comes up.
        """
        others: list[Happened] = []
        try:
            self._take_until_ready(self.running[name], others)
        finally:
            for happened in others:
                self.happenings.put(happened)

    def _take_until_ready(self, waiting: Running, others: list[Happened]) -> None:
        deadline = time.monotonic() + START_LIMIT
        while waiting.sandbox is None:
            try:
                happened = self._next(deadline - time.monotonic())
            except queue.Empty:
                reason = f"{waiting.name} did not come up within {START_LIMIT:.0f} s"
                hint = "start it again; if this machine is slow, when it has less to do"
                raise Refused("process.start", reason, hint) from None
            for needed in (waiting.name, "rot"):
                if self._is_death_of(needed, happened):
                    raise _Died(needed)
            if happened.message is None:
                others.append(happened)
            self._note(happened)

    def _note(self, happened: Happened) -> None:
        """Take up what a child says. Raises Refused where it gives up; what earlier lives say counts for nothing."""
        message, name = happened.message, happened.child.name
        if message is None or not self._is_current(happened.child):
            return
        match message.body:
            case Progress(text):
                self.above.progress(text)
            case Ready() if self.running[name].sandbox is None:
                self._ready(happened.child, message.body)
            case Failed(rule, reason) if rule == ROT_GONE:
                # Its death follows, and that of rot, which says what is to be done.
                self.above.progress(f"{name}: {reason}")
            case Failed(rule, reason, hint):
                raise Refused(rule, f"{name}: {reason}", hint)
            case _:
                happened.child.process.kill()
                reason = f"{name} sent what it may not: it is ready once, the rest comes from its parent"
                raise Refused("process.control", reason, REBUILD)

    def _ready(self, child: Child, ready: Ready) -> None:
        self.running[child.name].sandbox = ready.sandbox
        self._served.add(child.name)
        if kind_of(child.name) == "vault":
            self.pin = ready.pin or self.pin
        missing = "; ".join(note.text for note in ready.sandbox.notes)
        self.above.progress(
            f"{child.name}: serves, pid {child.process.pid}{f' ({missing})' if missing else ''}"
        )

    def _pair(self, partition: int) -> None:
        """Give front and a vault the two ends of a fresh channel.

        One that has just died is paired again when it is started again.
        """
        front, vault = pair()
        message = Pair(partition)
        with front, vault, contextlib.suppress(OSError):
            self.running[vault_name(partition)].child.channel.send(message, [vault.fileno()])
            self.running["front"].child.channel.send(message, [front.fileno()])

    # --- running ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch over the processes until the box is told to stop. Raises Refused where it cannot go on."""
        while True:
            happened = self.happenings.get()
            if isinstance(happened, Quit):
                raise _Stopped(happened.reason)
            if happened.message is not None:
                self._note_while_running(happened)
            elif self._is_current(happened.child):
                self._bury(happened.child.name)

    def _is_current(self, child: Child) -> bool:
        running = self.running.get(child.name)
        return running is not None and running.child is child

    def _is_death_of(self, name: str, happened: Happened) -> bool:
        return happened.message is None and happened.child.name == name and self._is_current(happened.child)

    def _note_while_running(self, happened: Happened) -> None:
        try:
            self._note(happened)
        except Refused as refused:
            # The process ends after this; the supervisor decides what follows.
            self.above.progress(f"{happened.child.name}: {refused}")

    def _bury(self, name: str) -> None:
        """Do what the plan says about the death of a process, and of those that die meanwhile."""
        while True:
            try:
                return self._remedy(name)
            except _Died as died:
                name = died.name

    def _remedy(self, name: str) -> None:
        action = self.supervisor.died(name, time.monotonic(), served=name in self._served)
        match action:
            case GiveUp():
                raise self._given_up(name)
            case Restart(_, after):
                self.above.progress(f"{name}: died, is started again")
                self.restarts[name] += 1
                self._pause(after)
                self._start_again(name)
            case Reset(after):
                self.above.progress(f"{name}: died, the server is reset")
                self.stop_children()
                self._pause(after)
                self._boot()
            case _:
                assert_never(action)

    def _given_up(self, name: str) -> Refused:
        if name in self._served:
            hint = "see above what it said, then start the server again"
            return Refused("process.restart", f"{name} dies again and again; the server stops", hint)
        path = self.machine.state.archive(IMAGES[kind_of(name)])
        return Refused("process.start", f"{path}: {name} dies before it serves", REBUILD)

    def _start_again(self, name: str) -> None:
        partitions: tuple[int, ...] = PARTITIONS
        if kind_of(name) == "vault":
            partitions = tuple(one for one in PARTITIONS if vault_name(one) == name)
            self._start_vault(partitions[0])
        else:
            self._start_front()
        self._await_ready(name)
        for partition in partitions:
            self._pair(partition)

    def _pause(self, until: float) -> None:
        time.sleep(max(until - time.monotonic(), 0.0))

    def stop_children(self) -> None:
        """Stop every process, doors first, the root of trust last; kill what does not end in time."""
        for kind in ("front", "vault", "rot"):
            processes = [one.child for one in self.running.values() if kind_of(one.name) == kind]
            for child in processes:
                with contextlib.suppress(OSError):
                    child.channel.send(Stop())
            for child in processes:
                with contextlib.suppress(Exception):
                    child.process.wait(STOP_LIMIT)
                child.process.kill()
                child.process.wait()
        self.running.clear()
        if self.mailbox is not None:
            self.mailbox.close()


class _Stopped(Exception):
    """The box was told to stop."""


class _Died(Exception):
    """A process is gone that was needed for the next step."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


# --- the process ----------------------------------------------------------------------------------------------


def main() -> None:
    """Run the box; its arguments are those that `shell.channel.start` gives, and `--state DIR`."""
    live(told(sys.argv[1:]), catch_signals)


def catch_signals(box: Box) -> None:
    """Take a signal that is meant to end this process for an order to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: box.happenings.put(Quit("by a signal")))


def live(arguments: Mapping[str, str], prepare: Callable[[Box], None]) -> None:
    """Be a box from its start to its end; `prepare` is called before anything is started."""
    above = Channel(socket.socket(fileno=int(arguments["control"])))
    try:
        with machine(State(Path(arguments["state"])), int(arguments["image"])) as found:
            box = Box(found, above, require_sandbox="require-sandbox" in arguments)
            prepare(box)
            _serve(box)
    except _Stopped as stopped:
        above.progress(f"up: stopped: {stopped}")
    except EndocarpError as error:
        above.failed(error)
        sys.exit(1)


def _serve(box: Box) -> None:
    """Boot, open the admin socket, watch over the processes until the end."""
    report = enter(BOX)
    threading.Thread(target=_watch_above, args=(box,), daemon=True).start()
    try:
        box.boot()
        own = sandbox_report(report, MemoryMode.ORDINARY)
        serve_admin(box.machine.admin, Answers(box, own))
        pin, box.pin = box.pin, ""
        box.above.ready(own, pin)
        box.run()
    finally:
        box.machine.admin.shutdown(socket.SHUT_RDWR)
        box.stop_children()


def _watch_above(box: Box) -> None:
    reason = "whoever started the server is gone"
    with contextlib.suppress(OSError, EndocarpError):
        if box.above.receive() is not None:
            reason = "as asked"
    box.happenings.put(Quit(reason))
