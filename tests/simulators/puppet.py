"""Processes for a box to run that do as a test tells them: small scripts instead of archives, quick to start.

Each serves until it is told to stop, and does what the test's own lines say on the way. What these lines find ready:
`told` (the arguments), `control` (the channel to the box), `progress`, `ready`, `failed`, `send`, `once` (true the first
time that this process gets there), and `answers`: what the root of trust answers a command with, by its number.
"""

from collections.abc import Mapping
from pathlib import Path

from endocarp.shell.config import State
from endocarp.wire.control import (
    ControlMessage,
    Failed,
    MemoryMode,
    Pair,
    Progress,
    Ready,
    SandboxReport,
    Seccomp,
    Stop,
)
from endocarp.wire.mailbox import AuthorizeAndStashReply, AuthResult, Command, EmptyReply, frame, with_headers

SANDBOX = SandboxReport(0, 1, 1, 7, Seccomp.FILTER, MemoryMode.SECRET)
PIN = "12345678"

_PRELUDE = """
import json, os, socket, struct, sys, time
words = sys.argv[2:]  # the first one is where packages are imported from
told = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2])}
control = socket.socket(fileno=int(told["control"]))

def send(octets):
    control.send(bytes.fromhex(octets))

def progress(text):
    control.send(b"\\x01" + struct.pack("<H", len(text.encode())) + text.encode())

def ready():
    send(READY)

def failed(octets):
    send(octets)
    os._exit(1)

def once(name):
    try:
        os.close(os.open(f"{ROOT}/{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
"""

_PAIRED = """
ready()
while (message := socket.recv_fds(control, 1024, 1))[0] not in (b"", STOP):
    for fd in message[1]:
        with socket.socket(fileno=fd) as channel:
            PAIRED
"""

_ROT = """
answers = ANSWERS
pl0 = socket.socket(fileno=int(told["pl0"]))
def take(size):
    found = b""
    while len(found) < size:
        piece, fds, _, _ = socket.recv_fds(pl0, size - len(found), 1)
        for fd in fds:
            os.close(fd)
        if not piece:
            os._exit(0)
        found += piece
    return found
def serve():
    while True:
        command, length = struct.unpack("<II", take(8))
        body = take(length)
        BEFORE
        pl0.sendall(bytes.fromhex(answers.get(command, OK)))
        AFTER
        if command == FIRMWARE_LOAD:
            progress("firmware verified")
            ready()
import threading
threading.Thread(target=serve, daemon=True).start()
while control.recv(1024) not in (b"", STOP):
    pass
"""


def _program(root: Path, body: str, lines: Mapping[str, str], ready: Ready) -> str:
    facts = {
        "ROOT": repr(str(root)),
        "READY": repr(ControlMessage(body=ready).encode().hex()),
        "STOP": repr(ControlMessage(body=Stop()).encode()),
        "FIRMWARE_LOAD": repr(int(Command.FIRMWARE_LOAD)),
        "OK": repr(frame(0, with_headers(EmptyReply())).hex()),
    }
    for name, line in lines.items():
        body = body.replace(name, line)
    return "".join(f"{name} = {value}\n" for name, value in facts.items()) + _PRELUDE + body


def rot(
    root: Path,
    *,
    first: str = "",
    before: str = "",
    after: str = "",
    results: Mapping[int, int] | None = None,
) -> str:
    """Return a root of trust: `first` at its start, `before` and `after` around the answer to each `command`.

    `results` names commands that are refused, and by which number.
    """
    authorized = frame(0, with_headers(AuthorizeAndStashReply(AuthResult.AUTHORIZED)))
    answers = {int(Command.AUTHORIZE_AND_STASH): authorized.hex()}
    answers |= {int(command): frame(number, b"").hex() for command, number in (results or {}).items()}
    lines = {"ANSWERS": repr(answers), "BEFORE": before or "pass", "AFTER": after or "pass"}
    return _program(root, f"{first}\n{_ROT}", lines, Ready(SANDBOX))


def vault(
    root: Path, *, first: str = "", paired: str = "progress('hears ' + channel.recv(16).decode())"
) -> str:
    """Return a vault: `first` before it is ready, `paired` for each `channel` to a front."""
    return _program(root, f"{first}\n{_PAIRED}", {"PAIRED": paired}, Ready(SANDBOX, PIN))


def front(root: Path, *, first: str = "", paired: str = "channel.send(b'the front')") -> str:
    """Return a front, as `vault`."""
    return _program(root, f"{first}\n{_PAIRED}", {"PAIRED": paired}, Ready(SANDBOX))


def settle(state: State, programs: Mapping[str, str]) -> None:
    """Make a state directory that a box runs on, with puppets in place of images."""
    state.images.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.root.chmod(0o700)
    sources = {"rom": rot(state.root), "vault": vault(state.root), "front": front(state.root), **programs}
    for name, source in sources.items():
        state.archive(name).write_text(source)
    for path in (
        state.bundle,
        state.manifest,
        *(state.idevid_certificate(name) for name in ("ecc384", "mldsa87")),
    ):
        path.write_text(path.name)
    state.model.write_text("MODEL-test")


def encoded(body: Progress | Ready | Failed | Pair | Stop) -> str:
    """Return a control message for `send` and `failed`, as the source of a string."""
    return repr(ControlMessage(body=body).encode().hex())
