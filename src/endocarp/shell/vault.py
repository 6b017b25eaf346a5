"""A vault as a process: keys of one partition, no listening socket, no path but its store.

Connections come over pair channels, which box sets up: each message is the Hello of a client, and beside it the
connection.
"""

import fcntl
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from endocarp.crypto import selftest
from endocarp.crypto.secret import Secret, keep_in
from endocarp.errors import Refused
from endocarp.hsm.operations import Vault
from endocarp.hsm.partition import Partition, open_partition
from endocarp.hsm.report import Surroundings
from endocarp.hsm.vault import VaultConnection
from endocarp.line import Line
from endocarp.shell.channel import Channel, sandbox_report
from endocarp.shell.memory import SecretMemory, return_large_blocks
from endocarp.shell.process import HELLO_LIMIT, run_process, wait_for_stop
from endocarp.shell.sandbox import enter, vault_profile
from endocarp.shell.serve import Conversation, attend, in_thread
from endocarp.shell.storage import FileStorage
from endocarp.wire import custody, hsm
from endocarp.wire.control import ROT_GONE, SandboxReport, Seccomp

MAX_CONNECTIONS = 2048
"""How many connections a vault holds at once; its store keeps descriptors to work with wherever 4,096 may be open."""


def main() -> None:
    """Run a vault; arguments as `shell.channel.start` gives them, and `--partition N --store DIR --custody FD`.

    `--served yes` tells that the partition has been served before: it is not made anew.
    """
    run_process(_serve)


def _serve(arguments: Mapping[str, str], control: Channel) -> None:
    return_large_blocks()
    memory = SecretMemory()
    keep_in(memory)
    selftest.run(selftest.Algorithm)
    root_of_trust = socket.socket(fileno=int(arguments["custody"]))
    number, store = int(arguments["partition"]), Path(arguments["store"])
    # Both before there is anything to protect: no secret, and no octet of a store that anybody may have changed.
    wait_for_store(store)
    if "served" in arguments:
        see_that_it_is_there(store)
    got = enter(vault_profile(store), required="require-sandbox" in arguments)
    seal_key = Secret(ask(root_of_trust, custody.SealKey()).key)
    partition, pin = open_store(number, store, seal_key)
    if partition.torn:
        control.progress(
            f"the store ended in {partition.torn} octets of a write that a crash cut short; they are gone"
        )
    identity = partition.identity
    certification = ask(
        root_of_trust, custody.CertifyIdentity(identity.ecc.public.raw, identity.mldsa.public.raw)
    )
    report = sandbox_report(got, memory.mode)
    surroundings = Surroundings(certification, memory.mode.name.lower(), _for_report(report))
    vault = Vault(partition, surroundings, os.urandom, threading.RLock(), threading.Lock())
    control.ready(report, pin.decode() if pin else "")
    places = threading.BoundedSemaphore(MAX_CONNECTIONS)
    wait_for_stop(control, lambda _, channel: take_connections(channel, vault, places))
    seal_key.close()


def wait_for_store(store: Path) -> int:
    """Wait until a store is free, and return the descriptor that keeps it for this process until that is closed.

    A vault whose box was killed may still be finishing what it was asked, when the next box has started already: two
    vaults that write one store would lose what one of them has acknowledged. Raises Refused where there is no store.
    """
    try:
        directory = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        hint = "make it again, or take another state directory with --state"
        raise Refused("store-failed", f"{store}: {error.strerror}", hint) from None
    fcntl.flock(directory, fcntl.LOCK_EX)
    return directory


def see_that_it_is_there(store: Path) -> None:
    """Raise Refused where a store is empty: a partition that has been served would come back without keys, and new."""
    path = FileStorage(store).path
    if not path.exists() or path.stat().st_size == 0:
        hint = "put back a copy of it; or start the server again: without one it makes an empty partition"
        raise Refused("store-gone", f"{path} is gone", hint)


def open_store(number: int, store: Path, seal_key: Secret) -> tuple[Partition, bytes | None]:
    """Open the partition whose store lies in a directory. Raises Refused, which names the file, where it does not open."""
    storage = FileStorage(store)
    try:
        return open_partition(number, storage, seal_key, os.urandom)
    except Refused as refused:
        raise Refused(refused.rule, f"{storage.path}: {refused.reason}", refused.hint) from None


def ask(channel: socket.socket, request: custody.Request[custody.Reply]) -> custody.Reply:
    """Ask the root of trust on a custody channel.

    Raises DeviceError where it refuses, Refused `process.rot` where it is gone.
    """
    try:
        channel.sendall(custody.encode_request(request))
        message = channel.recv(custody.MESSAGE_LIMIT + 1)
    except OSError:
        message = b""
    if not message:
        raise Refused(ROT_GONE, "the root of trust is gone", "the server resets itself")
    return custody.decode_reply(request, message)


def _for_report(report: SandboxReport) -> dict[str, str]:
    """Return what a partition says of its sandbox, in words."""
    return {
        "no_new_privileges": "yes" if report.no_new_privileges else "no",
        "not_dumpable": "yes" if report.not_dumpable else "no",
        "landlock": f"ABI {report.landlock_abi}" if report.landlock_abi else "no",
        "seccomp": "filter" if report.seccomp is Seccomp.FILTER else "no",
    }


def take_connections(channel: socket.socket, vault: Vault, places: threading.BoundedSemaphore) -> None:
    """Serve every connection that comes over a pair channel, in threads of their own.

    Each takes one of `places` until it ends; where none is left, it is closed at once.
    """

    def serve() -> None:
        with channel:
            while True:
                hello, descriptors, _, _ = socket.recv_fds(channel, HELLO_LIMIT, 1)
                if not hello:
                    return
                for descriptor in descriptors:
                    connection = socket.socket(fileno=descriptor)
                    if places.acquire(blocking=False):
                        start_connection(connection, hello, vault, places.release)
                    else:
                        connection.close()

    in_thread("pair", serve)


def start_connection(
    connection: socket.socket, hello: bytes, vault: Vault, done: Callable[[], None] = lambda: None
) -> None:
    """Serve one connection in a thread of its own; `hello` is what its client said first, `done` is called at the end."""

    def serve(connection: socket.socket) -> None:
        line = Line(connection, hsm.MESSAGE_LIMIT + 1)
        Conversation(line, VaultConnection(vault)).run(hello)

    attend(connection, "connection", serve, done)
