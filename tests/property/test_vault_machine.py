"""A vault under any order of requests, failures and deaths, against a model of a few lines."""

import errno
from contextlib import suppress
from random import Random
from threading import Lock
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.simulators.disk import Disk, KilledError
from tests.simulators.vault import SURROUNDINGS

from endocarp.core import Job
from endocarp.crypto.secret import Secret
from endocarp.errors import EndocarpError
from endocarp.hsm.object_policy import default_policy
from endocarp.hsm.operations import Vault
from endocarp.hsm.partition import open_partition
from endocarp.hsm.vault import VaultConnection
from endocarp.wire import hsm
from endocarp.wire.hsm import ObjectClass, Policy, Reply, Status, Template
from endocarp.wire.suites import Cipher, Suite

entropy = Random("machine").randbytes
SEAL_KEY = Secret(bytes(range(32)))
BLANK = Disk()
PIN = open_partition(0, BLANK, SEAL_KEY, entropy)[1] or b""
LABELS = st.sampled_from(["", "a", "b", "ä" * 100])
FULL = OSError(errno.ENOSPC, "no space left on device")
POLICY = default_policy(Suite.AES256, ObjectClass.SECRET_KEY)


class VaultMachine(RuleBasedStateMachine):
    """One connection to a vault, which may be killed and started again; secret keys only, since they are quick."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk(BLANK.octets)
        self.kept: dict[int, str] = {}
        """What the model says that the store holds: labels by handle."""
        self.mine: dict[int, str] = {}
        """What it says that this connection holds."""
        self.wrong = 0
        self.user = False
        self.start()

    def start(self) -> None:
        partition, _ = open_partition(0, self.disk, SEAL_KEY, entropy)
        self.vault = Vault(partition, SURROUNDINGS, entropy, Lock(), Lock())
        self.connect()

    def connect(self) -> None:
        self.connection = VaultConnection(self.vault)
        self.connection.receive(hsm.Hello(hsm.MAGIC, hsm.VERSION).encode(), 0.0)
        self.connection.outgoing()
        self.mine, self.user = {}, False

    def ask(self, request: hsm.Request[Any]) -> Reply:
        for event in self.connection.receive(hsm.encode_request(request), 0.0):
            assert isinstance(event, Job)
            try:
                result = event.run()
            except EndocarpError as error:
                result = error
            self.connection.finish(result)
        (message,) = self.connection.outgoing()
        return Reply.decode(message)

    @rule()
    def hang_up_and_call_again(self) -> None:
        self.connection.receive(b"", 0.0)
        self.connect()

    @rule()
    def start_again(self) -> None:
        self.start()

    @rule(right=st.booleans())
    @precondition(lambda self: not self.user and self.wrong < 9)
    def log_in(self, right: bool) -> None:
        reply = self.ask(hsm.Login(PIN if right else b"not this"))
        assert reply.status is (Status.OK if right else Status.PIN_INCORRECT)
        self.user, self.wrong = right, 0 if right else self.wrong + 1

    @rule()
    def log_out(self) -> None:
        reply = self.ask(hsm.Logout())
        assert reply.status is (Status.OK if self.user else Status.NOT_LOGGED_IN)
        self.user, self.mine = False, {}

    @rule(label=LABELS, durable=st.booleans())
    def generate(self, label: str, durable: bool) -> None:
        policy = POLICY | Policy.TOKEN if durable else POLICY
        reply = self.ask(hsm.Generate(Suite.AES256, Template(policy, label)))
        if not self.user:
            assert reply.status is Status.NOT_LOGGED_IN
            return
        (made,) = hsm.Objects.decode(reply.body).objects
        assert made.handle not in self.kept
        assert made.handle not in self.mine
        (self.kept if durable else self.mine)[made.handle] = label

    @rule(data=st.data(), label=LABELS)
    @precondition(lambda self: self.user and (self.kept or self.mine))
    def rename(self, data: st.DataObject, label: str) -> None:
        handle = data.draw(st.sampled_from([*self.kept, *self.mine]))
        old = hsm.Description.decode(self.ask(hsm.GetObject(handle)).body)
        assert self.ask(hsm.SetAttributes(handle, Template(old.template.policy, label))).status is Status.OK
        (self.kept if handle in self.kept else self.mine)[handle] = label

    @rule(data=st.data())
    @precondition(lambda self: self.user and (self.kept or self.mine))
    def destroy(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from([*self.kept, *self.mine]))
        assert self.ask(hsm.Destroy(handle)).status is Status.OK
        self.kept.pop(handle, None)
        self.mine.pop(handle, None)

    @rule(data=st.data())
    @precondition(lambda self: self.user and (self.kept or self.mine))
    def encrypt_and_decrypt(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from([*self.kept, *self.mine]))
        sealed = hsm.Sealed.decode(self.ask(hsm.Encrypt(handle, Cipher.AES_GCM, b"", b"", b"data")).body)
        opened = self.ask(hsm.Decrypt(handle, Cipher.AES_GCM, sealed.nonce, b"", sealed.data))
        assert opened.body == b"data"

    @rule(kept=st.integers(0, 200), cuts=st.booleans())
    @precondition(lambda self: self.user)
    def generate_on_a_full_disk(self, kept: int, cuts: bool) -> None:
        self.disk.fault, self.disk.kept, self.disk.cuts = FULL, kept, cuts
        reply = self.ask(hsm.Generate(Suite.AES256, Template(POLICY | Policy.TOKEN, "never")))
        self.disk.fault, self.disk.cuts = None, True
        assert reply.status is Status.STORE_FULL
        # Where not even cutting back was possible, what was written counts as soon as all of it was.
        if not cuts:
            assert (
                self.ask(hsm.Generate(Suite.AES256, Template(POLICY | Policy.TOKEN, "next"))).status
                is Status.OK
            )
            self.kept[max(self.vault.partition.objects)] = "next"

    @rule(kept=st.integers(0, 200), label=LABELS)
    @precondition(lambda self: self.user)
    def die_while_generating(self, kept: int, label: str) -> None:
        self.disk.dies_at, self.disk.kept = len(self.disk.sizes), kept
        with suppress(KilledError):
            self.ask(hsm.Generate(Suite.AES256, Template(POLICY | Policy.TOKEN, label)))
        self.disk.dies_at = -1
        before = dict(self.kept)
        self.start()
        made = {handle: label for handle in self.vault.partition.objects if handle not in before}
        assert len(made) <= 1
        self.kept |= made

    @invariant()
    def what_is_seen_is_what_the_model_says(self) -> None:
        reply = self.ask(hsm.Find())
        found = {one.handle: one.template.label for one in hsm.Objects.decode(reply.body).objects}
        assert found == ((self.kept | self.mine) if self.user else {})
        info = hsm.InfoReply.decode(self.ask(hsm.Info()).body)
        assert info == hsm.InfoReply(0, self.user, 10 - self.wrong, len(self.kept))


VaultMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
test_a_vault_does_what_its_model_does = VaultMachine.TestCase
