"""The native door from Python: P-256 signatures against SoftHSM2 in-process, null round trips against a bare echo."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pkcs11
from pkcs11.mechanisms import Mechanism

from bench.peers import LABEL, PEER_PIN, SOFTHSM, OurServer, our_server, scratch, softhsm_token
from bench.placement import Placement, place
from bench.rows import Row, interleaved, median_time
from endocarp.client import Connection, connect
from endocarp.wire.hsm import Operation
from endocarp.wire.suites import Scheme, Suite

COUNT = 500
DIGEST = bytes(range(32))
SIGN_BAR = {Placement.ONE_CORE: 1.0, Placement.TWO_CORES: 1.0, Placement.UNPINNED: 1.0}
ECHO_BAR = 2.0
ECHO = bytes(16)


def run() -> Iterator[Row]:
    """Measure in every placement."""
    with scratch() as root, our_server(root) as server:
        yield from _round_trips(server)
        with softhsm_token(root):
            yield from _signatures(server)


def _signatures(server: OurServer) -> Iterator[Row]:
    token = pkcs11.lib(str(SOFTHSM)).get_token(token_label=LABEL)
    with token.open(user_pin=PEER_PIN) as peer:
        theirs: Any = peer.get_key(pkcs11.ObjectClass.PRIVATE_KEY, label=LABEL)
        for placement in Placement:
            place(placement, server.pids())
            with connect(server.native) as partition, partition.session(server.pin) as session:
                ours = session.generate(Suite.P256, label=f"bench, {placement.value}")
                found = interleaved(
                    partial(median_time, partial(ours.sign, DIGEST, Scheme.ECDSA_DIGEST), COUNT),
                    partial(median_time, partial(theirs.sign, DIGEST, mechanism=Mechanism.ECDSA), COUNT),
                )
            yield Row(
                "native P-256 sign",
                placement.value,
                *found,
                "SoftHSM2 in-process, token keys on both sides",
                bar=SIGN_BAR[placement],
            )


def _round_trips(server: OurServer) -> Iterator[Row]:
    for placement in Placement:
        with _echo() as (pid, peer):
            place(placement, [*server.pids(), pid])
            end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            end.connect(server.native.removeprefix("unix:"))
            ours = Connection(end)
            found = interleaved(
                partial(median_time, partial(ours.ask, Operation.PING, b""), COUNT),
                partial(median_time, partial(_exchange, peer), COUNT),
            )
            ours.close()
        yield Row("null round trip", placement.value, *found, "bare Python echo", bar=ECHO_BAR)


def _exchange(peer: socket.socket) -> bytes:
    peer.send(ECHO)
    return peer.recv(1 << 16)


@contextmanager
def _echo() -> Iterator[tuple[int, socket.socket]]:
    """A process that sends back what it gets, over the same kind of socket; nothing else."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        with suppress(OSError):
            while data := theirs.recv(1 << 16):
                theirs.send(data)
        os._exit(0)
    theirs.close()
    try:
        with ours:
            yield pid, ours
    finally:
        os.waitpid(pid, 0)
