"""The custody channel of one partition: gives its seal key, and certifies its identity keys.

A core over a transport that keeps messages. The partition and the digest of the vault's image were bound when
box attached the channel; nothing that the vault says changes them.
"""

from endocarp.core import Close, Event
from endocarp.crypto import certs
from endocarp.crypto.certs import KeyUsage, Name
from endocarp.crypto.digest import sha256
from endocarp.crypto.keys import PublicKey
from endocarp.crypto.primitives import kdf_sha512
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, PeerError
from endocarp.rot import kv, tcb
from endocarp.rot.dice import ATTEST_LOC, Authority, Validity
from endocarp.rot.kv import KeyVault
from endocarp.rot.tcb import TcbInfo
from endocarp.wire import custody
from endocarp.wire.codec import Struct
from endocarp.wire.custody import MESSAGE_LIMIT, Status
from endocarp.wire.suites import Suite

SEAL_LABEL = b"endocarp_partition_seal"
SEAL_KEY_SIZE = 32
VAULT_TYPE = b"EVLT"


class CustodyConnection:
    """The root of trust's end of one custody channel."""

    def __init__(
        self, vault: KeyVault, issuer: Authority, validity: Validity, partition: int, image_digest: bytes
    ) -> None:
        self.partition, self.image_digest = partition, image_digest
        self._vault, self._issuer, self._validity = vault, issuer, validity
        self._outgoing: list[bytes] = []

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Answer one request; close the channel where the other side did, or sends what is no message."""
        if not data:
            return [Close("the vault closed its custody channel")]
        if len(data) > MESSAGE_LIMIT:
            return [Close(f"a custody message of {len(data)} octets")]
        try:
            self._outgoing.append(custody.encode_reply(self._answer(data)))
        except PeerError as error:
            self._outgoing.append(custody.encode_refusal(Status(error.number)))
        return []

    def outgoing(self) -> list[bytes]:
        """Return the replies to send, oldest first, and forget them."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def due(self) -> float | None:
        """Return None: the vault may take its time."""
        return None

    def expire(self, now: float) -> list[Event]:
        """Do nothing."""
        return []

    def _answer(self, data: bytes) -> Struct:
        try:
            operation, fields = custody.split_request(data)
            kind = custody.REQUESTS.get(operation)
            if kind is None:
                raise PeerError(Status.UNKNOWN_OPERATION, f"custody operation {operation}")
            request = kind.decode(fields)
        except DecodeError as error:
            raise PeerError(Status.MALFORMED, str(error)) from None
        if not self._vault.holds(kv.STABLE_ROOT_IDEV):
            raise PeerError(Status.SHUT_DOWN, "the key vault was wiped")
        if isinstance(request, custody.CertifyIdentity):
            return self._certify_identity(request)
        return self._seal_key()

    def _seal_key(self) -> custody.SealKeyReply:
        with (
            self._vault.take(kv.STABLE_ROOT_IDEV, Secret) as root,
            # From a root that stays, not from a CDI: an update of the firmware must not lose the store.
            kdf_sha512(root, SEAL_LABEL, self.partition.to_bytes(4, "big"), kind=Secret) as key,
        ):
            return custody.SealKeyReply(bytes(key.view[:SEAL_KEY_SIZE]))

    def _certify_identity(self, request: custody.CertifyIdentity) -> custody.CertifyIdentityReply:
        try:
            ecc = PublicKey.from_raw(Suite.P384, request.ecc_public)
            mldsa = PublicKey.from_raw(Suite.ML_DSA_87, request.mldsa_public)
        except DecodeError as error:
            raise PeerError(Status.KEY_INVALID, str(error)) from None
        return custody.CertifyIdentityReply(
            rt_alias_key_id=self._issuer.key_ids[Suite.P384],
            image_digest=self.image_digest,
            ecc_certificate=self._certificate(ecc),
            mldsa_certificate=self._certificate(mldsa),
        )

    def _certificate(self, public: PublicKey) -> bytes:
        # deviation: Caliptra's RT alias certifies DPE keys only; here it vouches for partitions too, in words
        # (names and TcbInfo) that no DPE certificate has.
        component = TcbInfo(
            fwid=self.image_digest, type=VAULT_TYPE, vendor_info=self.partition.to_bytes(4, "big")
        )
        return self._issuer.issue(
            public,
            Name(f"Endocarp Partition {self.partition}", sha256(public.raw).hex().upper()),
            [
                certs.basic_constraints(None),
                certs.key_usage((KeyUsage.DIGITAL_SIGNATURE,)),
                certs.extended_key_usage((ATTEST_LOC,)),
                tcb.tcb_info(component),
                certs.subject_key_id(certs.key_id(public)),
            ],
            validity=self._validity,
        )
