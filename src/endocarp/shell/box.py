"""The box: starts, measures, watches and stops every other process. It holds no secret.

One queue takes everything that happens: messages of children, their deaths, signals, the end of whoever started
the box. One thread works it off, and nothing here needs a lock: what the admin socket reads meanwhile is replaced and
never changed in place.

The order of a boot:
    rot   ROM takes the firmware bundle, becomes FMC, becomes the runtime
          IDevID certificates and the SoC manifest are handed in
          the images of box, front and vault are handed over in sealed memory, hashed and authorized by rot
    vault one a partition, each with a custody channel to rot
    front with the listening sockets, paired with every vault
"""

import contextlib
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from endocarp.box.plan import (
    FIRMWARE,
    KINDS,
    PARTITIONS,
    GiveUp,
    Reset,
    Restart,
    kind_of,
    vault_name,
)
from endocarp.box.supervisor import Supervisor
from endocarp.errors import DecodeError, DeviceError, EndocarpError, Refused
from endocarp.shell.admin import serve_admin
from endocarp.shell.answers import Answers
from endocarp.shell.archive import CHANGED
from endocarp.shell.channel import Channel, Child, pair, sandbox_report
from endocarp.shell.children import Children, Event, Quit, Running, Stopped
from endocarp.shell.config import State
from endocarp.shell.inventory import inventory
from endocarp.shell.machine import DEVICE_IDEVID, RESTORE, Machine, machine
from endocarp.shell.mailbox import Mailbox
from endocarp.shell.process import heard, run_process
from endocarp.shell.sandbox import BOX, enter
from endocarp.wire.control import ROT_GONE, Failed, MemoryMode, Pair, Progress, Ready
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
from endocarp.wire.text import printable

START_LIMIT = 30.0
"""Seconds that a process has from its start until it serves."""
TELL_LIMIT = 1.0
"""Seconds that a line waits for whoever shows the account; where his terminal stands still, the server does not."""
FRONT = "front"
SERVICES = (*map(vault_name, PARTITIONS), FRONT)
"""The processes beside the root of trust, in the order of their start."""


class Box:
    """The running server. `above` is the channel to whoever started it, who shows the account of the boot."""

    def __init__(self, machine: Machine, above: Channel, *, require_sandbox: bool) -> None:
        self.machine = machine
        self.above = above
        self.require_sandbox = require_sandbox
        self.children = Children(above.progress)
        self.supervisor = Supervisor()
        self.restarts: Mapping[str, int] = {}
        self.stash_log: tuple[StashEntry, ...] = ()
        self.boots = 0
        self.complete = False
        self.pin = ""
        self.mailbox: Mailbox | None = None
        self._up = False
        """Whether the server has ever been complete: from then on nothing that one process says stops it."""
        self._served: set[str] = set()
        """The processes that have served at least once: what they run is sound."""
        self._down: set[str] = set()
        """The services that have to be started."""
        self._unpaired: set[int] = set()
        """The partitions whose vault is new, or whose front."""

    @property
    def running(self) -> Mapping[str, Running]:
        """The processes by their names."""
        return self.children.running

    # --- booting ----------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Bring everything up, again where something dies meanwhile. Raises Refused where an image is not what was signed."""
        try:
            self._boot()
        except _Died as died:
            self._handle_death(died)
        self._up = True

    def _boot(self) -> None:
        self.boots += 1
        self.stash_log = ()
        self._boot_root_of_trust()
        for name in FIRMWARE:
            self._authorize(name)
        self._down = set(SERVICES)
        self._bring_up()

    def _boot_root_of_trust(self) -> None:
        with _starting("rot"):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self.mailbox = Mailbox(ours)
            with theirs:
                channels = {"pl0": theirs.fileno(), "mailbox": self.machine.mailbox.fileno()}
                self._start("rot", ["--device", str(self.machine.state.device)], channels)
        try:
            self._ask_rot(FirmwareLoad(self.machine.firmware))
        except DeviceError as error:
            raise self._refusal_of_rom(error) from None
        except _Died:
            pass  # It may have said why; what it said is taken up next.
        self._await_ready("rot")
        for suite, request in self.machine.idevid.items():
            self._hand_in(request, DEVICE_IDEVID, self.machine.state.idevid_certificate(suite), RESTORE)
        manifest = SetAuthManifest(self.machine.manifest)
        self._hand_in(manifest, "image.manifest", self.machine.state.manifest, CHANGED)
        self.above.progress("manifest: signatures of vendor and owner hold")

    def _ask_rot(self, request: Request[Reply], fds: Sequence[int] = ()) -> Reply:
        """Ask the root of trust; that it is gone, or does not answer, is its death."""
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
            while not self.children.is_death_of("rot", event := self.children.next(1.0)):
                said = event.message.body if event.message else None
                if isinstance(said, Failed) and self.children.is_current(event.child):
                    refused = _refused(said, f"{path}: ")
                    return Refused(refused.rule, refused.reason, refused.hint or CHANGED)
                self._note(event)
        return Refused("image.bundle", f"{path}: {error}", CHANGED)

    def _authorize(self, name: str) -> None:
        """Have rot hash the sealed image and compare it with the manifest; it runs only if that holds."""
        image, number = self.machine.images[name], FIRMWARE[name]
        request = AuthorizeAndStash(number, bytes(48), bytes(48), 0, 0, ImageSource.LOAD_ADDRESS, image.size)
        result = self._ask_rot(request, [image.descriptor]).auth_req_result
        if result != AuthResult.AUTHORIZED:
            known = result in AuthResult.__members__.values()
            verdict = AuthResult(result).name.lower().replace("_", " ") if known else f"{result:#x}"
            reason = f"{self.machine.state.archive(name)}: {verdict} (SoC manifest)"
            raise Refused(f"image.{name}", reason, CHANGED)
        self.stash_log = (*self.stash_log, StashEntry(number, name, image.digest, 0))
        self.above.progress(f"{name}: measured {image.digest.hex()[:16]}…, authorized by the manifest")

    def _bring_up(self) -> None:
        """Start every service that is down, wait until all of them serve, and pair those that are new."""
        for name in [one for one in SERVICES if one in self._down]:
            self._start_service(name)
        for name in SERVICES:
            self._await_ready(name)
        for partition in sorted(self._unpaired):
            self._pair(partition)
        self.complete = True

    def _start_service(self, name: str) -> None:
        concerned = [one for one in PARTITIONS if name in (vault_name(one), FRONT)]
        with _starting(name):
            if name == FRONT:
                self._start(name, [], {door: one.fileno() for door, one in self.machine.doors.items()})
            else:
                self._start_vault(name, *concerned)
        self._unpaired.update(concerned)
        self._down.discard(name)

    def _start_vault(self, name: str, partition: int) -> None:
        ours, theirs = pair()
        with ours, theirs:
            try:
                self._ask_rot(AttachCustody(partition, FIRMWARE["vault"]), [ours.fileno()])
            except DeviceError as error:
                raise _Died("rot", f"takes no vault: {error}") from None
            words = ["--partition", str(partition), "--store", str(self.machine.state.store(partition))]
            served = ["--served", "yes"] if name in self._served else []
            self._start(name, [*words, *served], {"custody": theirs.fileno()})

    def _start(self, name: str, arguments: list[str], descriptors: Mapping[str, int]) -> None:
        required = ["--require-sandbox", "yes"] if self.require_sandbox else []
        image = self.machine.images[KINDS[kind_of(name)].image]
        self.children.start(name, image, [*arguments, *required], descriptors)

    def _pair(self, partition: int) -> None:
        """Give front and a vault the two ends of a fresh channel.

        One that has just died is paired again when it is started again.
        """
        name = vault_name(partition)
        with _starting(name):
            front, vault = pair()
        message = Pair(partition)
        with front, vault, contextlib.suppress(OSError):
            self.running[name].child.channel.send(message, [vault.fileno()])
            self.running[FRONT].child.channel.send(message, [front.fileno()])
        self._unpaired.discard(partition)

    # --- what processes say -----------------------------------------------------------------------------------

    def _await_ready(self, name: str) -> None:
        """Wait until a process serves; tell its steps meanwhile. Raises _Died where it cannot come to that any more.

        The death of others is looked at afterwards, except that of rot, without which nobody comes up.
        """
        others: list[Event] = []
        try:
            self._take_until_ready(name, others)
        finally:
            self.children.put_back(others)

    def _take_until_ready(self, name: str, others: list[Event]) -> None:
        deadline = time.monotonic() + START_LIMIT
        while self.running[name].sandbox is None:
            try:
                event = self.children.next(deadline - time.monotonic())
            except queue.Empty:
                raise self._too_slow(name) from None
            for needed in (name, "rot"):
                if self.children.is_death_of(needed, event):
                    raise _Died(needed)
            if event.message is None:
                others.append(event)
            elif not self._up:
                self._note(event)
            elif not self._note_while_running(event) and event.child.name == name:
                raise _Died(name)

    def _too_slow(self, name: str) -> Exception:
        reason = f"did not come up within {START_LIMIT:.0f} s"
        if self._up:
            return _Died(name, reason)
        hint = "start it again; if this machine is slow, when it has less to do"
        return Refused("process.start", f"{name} {reason}", hint)

    def _note_while_running(self, event: Event) -> bool:
        """Take up what a child says; False where it gives up. Its end follows, of which the supervisor decides."""
        try:
            self._note(event)
        except Refused as refused:
            self.above.progress(str(refused))
            return False
        return True

    def _note(self, event: Event) -> None:
        """Take up what a child says. Raises Refused where it gives up; what earlier lives say counts for nothing."""
        message, name = event.message, event.child.name
        if message is None or not self.children.is_current(event.child):
            return
        match message.body:
            case Progress(text):
                self.children.tell(name, text)
            case Ready() if self.running[name].sandbox is None:
                self._ready(event.child, message.body)
            case Failed(rule, reason) if rule == ROT_GONE:
                # Its death follows, and that of rot, which says what is to be done.
                self.children.tell(name, reason)
            case Failed():
                raise _refused(message.body, f"{name}: ")
            case _:
                event.child.process.kill()
                reason = f"{name} sent what it may not: it is ready once, the rest comes from its parent"
                raise Refused("process.control", reason, CHANGED)

    def _ready(self, child: Child, ready: Ready) -> None:
        lacks = self.children.serves(child.name, ready.sandbox)
        self._served.add(child.name)
        if kind_of(child.name) == "vault":
            self.pin = printable(ready.pin) or self.pin
        self.above.progress(f"{child.name}: serves, pid {child.process.pid}{f' ({lacks})' if lacks else ''}")

    # --- running ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch over the processes until the box is told to stop. Raises Refused where it cannot go on."""
        while True:
            event = self.children.next()
            if event.message is not None:
                self._note_while_running(event)
            elif self.children.is_current(event.child):
                self._handle_death(_Died(event.child.name))

    def _handle_death(self, died: "_Died") -> None:
        """Do what the plan says about the death of a process, and of those that die meanwhile."""
        while True:
            try:
                return self._remedy(died)
            except _Died as another:
                died = another

    def _remedy(self, died: "_Died") -> None:
        name = died.name
        self.complete = False
        if died.reason:
            self.above.progress(f"{name}: {died.reason}")
        action = self.supervisor.died(name, time.monotonic(), served=name in self._served)
        match action:
            case GiveUp():
                raise self._given_up(died)
            case Restart(_, after):
                self.above.progress(f"{name}: died, is started again")
                self.restarts = {**self.restarts, name: self.restarts.get(name, 0) + 1}
                self.children.take_down(name)
                self._down.add(name)
                self._pause(after)
                self._bring_up()
            case Reset(after):
                self.above.progress(f"{name}: died, the server is reset")
                self.stop_children()
                self._pause(after)
                self._boot()
            case _:
                assert_never(action)

    def _given_up(self, died: "_Died") -> Refused:
        name = died.name
        if name in self._served:
            hint = "see above what it said, then start the server again"
            return Refused("process.restart", f"{name} dies again and again; the server stops", hint)
        if died.reason:
            hint = "stop what else uses up this machine, or raise its limits (ulimit -n, ulimit -u)"
            return Refused("process.start", f"{name} {died.reason}", hint)
        path = self.machine.state.archive(KINDS[kind_of(name)].image)
        reason = f"{name}, which runs {path}, died twice before it served"
        return Refused("process.start", reason, f"see above what it said; {CHANGED}")

    def _pause(self, until: float) -> None:
        time.sleep(max(until - time.monotonic(), 0.0))

    def stop_children(self) -> None:
        """Stop every process, and let go of the root of trust."""
        self.children.stop()
        if self.mailbox is not None:
            self.mailbox.close()


class _Died(Exception):
    """A process is gone that was needed for the next step, or could not even be started, and why."""

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(name)
        self.name = name
        self.reason = reason


@contextlib.contextmanager
def _starting(name: str) -> Iterator[None]:
    """Take it for the death of a process that this machine lacks what it takes to start it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise _Died(name, f"cannot be started: {error}") from None


def _refused(said: Failed, whose: str) -> Refused:
    """Return what a child said as a refusal that no terminal obeys."""
    return Refused(printable(said.rule), f"{whose}{printable(said.reason)}", printable(said.hint))


# --- the process ----------------------------------------------------------------------------------------------


def main() -> None:
    """Run the box; its arguments are those that `shell.channel.start` gives, and `--state DIR`."""
    run_process(partial(live, catch_signals))


def catch_signals(box: Box) -> AbstractContextManager[None]:
    """Take a signal that is meant to end this process for an order to stop."""
    return heard((signal.SIGTERM, signal.SIGINT), lambda: box.children.events.put(Quit("by a signal")))


def live(
    prepare: Callable[[Box], AbstractContextManager[None]], arguments: Mapping[str, str], above: Channel
) -> None:
    """Be a box from its start to its end, inside of what `prepare` gives."""
    above.hurry(TELL_LIMIT)
    try:
        with machine(State(Path(arguments["state"])), int(arguments["image"])) as found:
            box = Box(found, above, require_sandbox="require-sandbox" in arguments)
            with prepare(box):
                _serve(box)
    except Stopped as stopped:
        above.progress(f"up: stopped: {stopped}")


def _serve(box: Box) -> None:
    """Boot, open the admin socket, watch over the processes until the end."""
    report = enter(BOX, required=box.require_sandbox)
    threading.Thread(target=_watch_above, args=(box,), daemon=True).start()
    try:
        with ThreadPoolExecutor(1) as beside:
            components = beside.submit(inventory)  # now: what lies there later need not be what runs
            box.boot()
        own = sandbox_report(report, MemoryMode.ORDINARY)
        shut = partial(box.children.events.put, Quit("nobody answers at the admin socket any more"))
        serve_admin(box.machine.admin, Answers(box, own, components.result()), shut)
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
    box.children.events.put(Quit(reason))
