"""A vault process as its clients see it, in this process: a simulated disk, the real cores, a thread a connection."""

import contextlib
import socket
import threading
from random import Random

from tests.simulators.disk import Disk

from endocarp.core import Close, Event, Job
from endocarp.crypto.secret import Secret
from endocarp.errors import EndocarpError
from endocarp.hsm.operations import Vault
from endocarp.hsm.partition import open_partition
from endocarp.hsm.report import Surroundings
from endocarp.hsm.vault import VaultConnection
from endocarp.wire import hsm
from endocarp.wire.custody import CertifyIdentityReply

PARTITION = 3
SURROUNDINGS = Surroundings(
    CertifyIdentityReply(b"k" * 20, b"d" * 48, b"ecc certificate", b"mldsa certificate"),
    "ordinary",
    {"seccomp": "absent: a test"},
)


class VaultProcess:
    """A vault that can be started again from its disk. Jobs are run at once; when they asked for is in `waits`."""

    def __init__(self, seal_key: Secret) -> None:
        self.disk = Disk()
        self.seal_key = seal_key
        self.pin = ""
        self.waits: list[float] = []
        self.threads: list[threading.Thread] = []
        self.boots = 0
        self.start()

    def start(self) -> None:
        """Forget everything but the disk, and open the partition again."""
        self.boots += 1
        entropy = Random(self.boots).randbytes
        partition, pin = open_partition(PARTITION, self.disk, self.seal_key, entropy)
        self.pin = pin.decode() if pin else self.pin
        self.vault = Vault(partition, SURROUNDINGS, entropy, threading.Lock(), threading.Lock())

    def connect(self) -> socket.socket:
        """Return the client's end of a new connection."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        thread = threading.Thread(target=self.serve, args=(theirs,))
        thread.start()
        self.threads.append(thread)
        return ours

    def serve(self, end: socket.socket) -> None:
        """Serve one connection until one side ends it."""
        core = VaultConnection(self.vault)
        with end, contextlib.suppress(OSError):
            data, open_ = b"-", True
            while data and open_:
                data = end.recv(hsm.MESSAGE_LIMIT + 1)
                open_ = all(self._carry_out(event, core) for event in core.receive(data, 0.0))
                for message in core.outgoing():
                    end.send(message)

    def _carry_out(self, event: Event, core: VaultConnection) -> bool:
        match event:
            case Job():
                self.waits.append(event.after)
                try:
                    result = event.run()
                except EndocarpError as error:
                    result = error
                assert core.finish(result) == []
            case Close():
                return False
            case _:
                raise AssertionError(event)
        return True

    def join(self) -> None:
        """Wait until every connection has ended."""
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()
