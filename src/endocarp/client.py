"""The client of the native door: connect to a partition, open a session, make keys and use them.

    with connect() as partition, partition.session(pin="12345678") as session:
        key = session.generate(Suite.P256, label="web")
        signature = key.sign(b"hello")

Each session is a connection of its own: login and session objects end with it. Objects of this module are for one
thread at a time. This is the only module outside `shell` that opens a socket.
"""

import errno
import socket
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

from endocarp import xdg
from endocarp.errors import DecodeError, DeviceError, UsageError
from endocarp.hsm.object_policy import default_policy, key_class
from endocarp.line import Line, timeval
from endocarp.wire import hsm
from endocarp.wire.codec import Struct
from endocarp.wire.evidence import PartitionEvidence
from endocarp.wire.hsm import Description, ObjectClass, Operation, Policy, Status, Template
from endocarp.wire.suites import SIGNATURE_SIZE, Cipher, Scheme, Suite

Answer = TypeVar("Answer", bound=Struct)

DEFAULT_SCHEME: Mapping[Suite, Scheme] = MappingProxyType(
    {
        Suite.P256: Scheme.ECDSA_SHA256,
        Suite.P384: Scheme.ECDSA_SHA384,
        Suite.RSA2048: Scheme.RSA_PSS_SHA256,
        Suite.RSA3072: Scheme.RSA_PSS_SHA384,
        Suite.ML_DSA_65: Scheme.ML_DSA,
        Suite.ML_DSA_87: Scheme.ML_DSA,
    }
)
"""How a key signs where nothing else was said."""

_HINTS: Mapping[Status, str] = MappingProxyType(
    {
        Status.NOT_LOGGED_IN: "open the session with the partition's PIN",
        Status.PIN_INCORRECT: "wait between attempts; too many wrong ones lock the partition",
        Status.PIN_LOCKED: (
            "stop the server and put back a copy of the partition's folder `store`,"
            " or remove that folder for a new partition: its keys are lost then"
        ),
        Status.STORE_FULL: "free room on the server's disk; where objects are too many, destroy some",
        Status.STORE_FAILED: "look after the disk of the server",
    }
)

_SEE = "see that the server runs: endocarp status"

_LONGEST = 1 << 31
"""Seconds: 68 years."""


class _ClosedLine:
    """Stands where a line was: refuses whatever is asked."""

    def send(self, message: bytes) -> None:
        raise UsageError("this connection was closed", "connect again")

    def receive(self) -> bytes | None:
        raise UsageError("this connection was closed", "connect again")

    def close(self) -> None:
        pass


class Connection:
    """One connection to a vault, over a connected SEQPACKET socket: requests in, answers out.

    `timeout` is how many seconds the socket waits, which errors name. Whatever goes wrong on the way, an interrupt
    included, closes the connection: an answer that came late would be taken for that to the next request.
    """

    def __init__(self, connection: socket.socket, timeout: float | None = None) -> None:
        self._line: Line | _ClosedLine = Line(connection, hsm.MESSAGE_LIMIT + 1)
        self._timeout = timeout
        self._tag = 0
        self.generation = 0
        """The partition's count of changes, as the last answer told it."""
        message = self._exchange(hsm.Hello(hsm.MAGIC, hsm.VERSION).encode())
        try:
            welcome = hsm.Welcome.decode(message)
        except DecodeError:
            self.close()
            raise
        if welcome.status is not Status.OK:
            self.close()
            hint = "install the client of the server's version"
            reason = f"the server speaks version {welcome.version} of the protocol, not {hsm.VERSION}"
            raise DeviceError(welcome.status, reason, hint)
        self.partition = welcome.partition
        """The number of the partition behind this connection."""

    def execute(self, request: hsm.Request[Answer]) -> Answer:
        """Ask for something and return its answer; DeviceError, with the vault's `Status`, where it was refused."""
        return request.read_reply(self.ask(request.OPERATION, request.encode()))

    def ask(self, operation: Operation, body: bytes) -> bytes:
        """Do what `execute` does, with bodies as they stand on the wire."""
        self._tag = (self._tag + 1) & 0xFFFFFFFF
        message = self._exchange(hsm.encode_message(operation, self._tag, body))
        try:
            reply = hsm.Reply.decode(message)
        except DecodeError:
            self.close()
            raise
        if reply.tag != self._tag:
            self.close()
            raise DecodeError("Reply.tag", f"{reply.tag}, asked with {self._tag}")
        self.generation = reply.generation
        if reply.status is not Status.OK:
            raise DeviceError(reply.status, reply.reason, _HINTS.get(reply.status, ""))
        return reply.body

    def _exchange(self, message: bytes) -> bytes:
        try:
            self._line.send(message)
            if answer := self._line.receive():
                return answer
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise _unreachable(error, "the server went away", self._timeout) from error
            raise
        self.close()
        raise DeviceError(errno.ECONNRESET, "the server closed the connection", _SEE)

    def close(self) -> None:
        """End the connection; whatever is asked afterwards is a UsageError."""
        self._line.close()
        self._line = _ClosedLine()


def _unreachable(error: OSError, reason: str, timeout: float | None) -> DeviceError:
    # socket(7): this is what SO_RCVTIMEO and SO_SNDTIMEO end with.
    if timeout is not None and isinstance(error, BlockingIOError):
        return DeviceError(
            errno.ETIMEDOUT, f"no answer within {timeout:g} s", f"{_SEE}; or give it more time"
        )
    return DeviceError(error.errno or errno.EIO, reason, _SEE)


class Key:
    """A key of a partition, by its handle: the private or secret part never leaves the vault."""

    def __init__(self, connection: Connection, own: Description, public: Description | None) -> None:
        self._connection = connection
        self._own = own
        self._public = public
        self._signs: dict[Scheme, bytes] = {}
        """What stands before the data in a request to sign, by scheme."""

    @property
    def suite(self) -> Suite:
        """The kind of key."""
        return self._own.suite

    @property
    def label(self) -> str:
        """The name that its owner gave it."""
        return self._own.template.label

    @property
    def id(self) -> bytes:
        """The identifier that its owner gave it."""
        return self._own.template.id

    @property
    def public(self) -> bytes:
        """The public key: EC 04‖X‖Y, RSA DER RSAPublicKey, ML-DSA FIPS 204; empty for AES."""
        return self._own.public

    def sign(self, data: bytes, scheme: Scheme | None = None) -> bytes:
        """Return a signature over at most DATA_LIMIT octets; ECDSA as raw r‖s."""
        scheme = scheme or self._scheme()
        if len(data) > hsm.DATA_LIMIT:
            reason = f"{len(data)} octets to sign, at most {hsm.DATA_LIMIT}"
            raise UsageError(reason, "hash it and use a DIGEST scheme; ML-DSA: ML_DSA_MU")
        head = self._signs.get(scheme)
        if head is None:
            head = self._signs[scheme] = hsm.Sign(self._own.handle, scheme, b"").encode()
        return self._connection.ask(Operation.SIGN, head + data)

    def verify(self, signature: bytes, data: bytes, scheme: Scheme | None = None) -> bool:
        """Tell whether this is a signature over the data, by the public half in the vault."""
        handle = self._public_handle()
        # Others may have made it: one that is too long for any message is a wrong one, and no misuse of ours.
        if len(signature) > SIGNATURE_SIZE[self.suite]:
            return False
        try:
            self._connection.execute(hsm.Verify(handle, scheme or self._scheme(), signature, data))
        except DeviceError as error:
            if error.number == Status.SIGNATURE_INVALID:
                return False
            raise
        return True

    def encrypt(
        self, data: bytes, cipher: Cipher | None = None, *, nonce: bytes = b"", associated: bytes = b""
    ) -> hsm.Sealed:
        """Return the ciphertext and the nonce; AES keys draw a nonce where none is given, RSA keys take none."""
        handle = self._own.handle if self.suite is Suite.AES256 else self._public_handle()
        request = hsm.Encrypt(handle, cipher or self._cipher(), nonce, associated, data)
        return self._connection.execute(request)

    def decrypt(self, sealed: hsm.Sealed, cipher: Cipher | None = None, *, associated: bytes = b"") -> bytes:
        """Return what `encrypt` was given."""
        request = hsm.Decrypt(
            self._own.handle, cipher or self._cipher(), sealed.nonce, associated, sealed.data
        )
        return self._connection.execute(request).data

    def destroy(self) -> None:
        """Destroy the key, both halves of a pair."""
        for half in filter(None, (self._own, self._public)):
            self._connection.execute(hsm.Destroy(half.handle))

    def _scheme(self) -> Scheme:
        scheme = DEFAULT_SCHEME.get(self.suite)
        if scheme is None:
            raise UsageError("an AES key does not sign", "use encrypt, or make a key of another suite")
        return scheme

    def _cipher(self) -> Cipher:
        return Cipher.AES_GCM if self.suite is Suite.AES256 else Cipher.RSA_OAEP_SHA256

    def _public_handle(self) -> int:
        if self._public is None:
            raise UsageError(f"the public half of {self.label!r} is not in the vault", "use Key.public")
        return self._public.handle

    def __repr__(self) -> str:
        return f"<Key {self.suite.name} {self.label!r}>"


class _Closing:
    """Something that holds a connection and ends with it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Close the connection; to do it again does no harm."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Session(_Closing):
    """A connection that may be logged in."""

    def log_in(self, pin: str) -> None:
        """Log in with the PIN of the partition, which gives sight and use of private keys."""
        self._connection.execute(hsm.Login(pin.encode()))

    def log_out(self) -> None:
        """Log out; private session keys are gone."""
        self._connection.execute(hsm.Logout())

    def generate(
        self,
        suite: Suite,
        *,
        label: str = "",
        key_id: bytes = b"",
        durable: bool = True,
    ) -> Key:
        """Make a key, or a pair; one that is not `durable` ends with the session."""
        own_class = key_class(suite)
        key = _template(suite, own_class, label, key_id, durable=durable)
        if own_class is ObjectClass.SECRET_KEY:
            request = hsm.Generate(suite, key)
        else:
            public = _template(suite, ObjectClass.PUBLIC_KEY, label, key_id, durable=durable)
            request = hsm.Generate(suite, key, public)
        own, *rest = self._connection.execute(request).objects
        return Key(self._connection, own, rest[0] if rest else None)

    def keys(self, *, label: str = "", key_id: bytes = b"") -> list[Key]:
        """Return the keys with this label and id, or all."""
        found = list(self._objects(label, key_id))
        public = {one.public: one for one in found if one.object_class is ObjectClass.PUBLIC_KEY}
        return [
            Key(self._connection, one, public.get(one.public))
            for one in found
            if one.object_class is not ObjectClass.PUBLIC_KEY
        ]

    def find(self, *, label: str = "", key_id: bytes = b"") -> Key:
        """Return the first key with this label and id; UsageError where there is none."""
        for key in self.keys(label=label, key_id=key_id):
            return key
        info = self._connection.execute(hsm.Info())
        hint = "`keys()` lists what is there" if info.logged_in else "log in to see private keys"
        raise UsageError(f"there is no key {label or key_id.hex()!r} here", hint)

    def _objects(self, label: str, key_id: bytes) -> Iterator[Description]:
        after = 0
        while True:
            page = self._connection.execute(hsm.Find(after, label, key_id))
            yield from page.objects
            if not page.after:
                return
            after = page.after

    def random(self, size: int) -> bytes:
        """Return random octets, at most DATA_LIMIT."""
        return self._connection.execute(hsm.Random(size)).data

    def set_pin(self, old: str, new: str) -> None:
        """Change the PIN of the partition."""
        self._connection.execute(hsm.SetPin(old.encode(), new.encode()))


class Partition(_Closing):
    """A partition of a server: what may be asked without login, and the way to sessions."""

    def __init__(self, address: str, timeout: float | None) -> None:
        super().__init__(_dial(address, timeout))
        self._address, self._timeout = address, timeout
        self.number = self._connection.partition

    def info(self) -> hsm.InfoReply:
        """Return the state of the partition."""
        return self._connection.execute(hsm.Info())

    def report(self, nonce: bytes) -> PartitionEvidence:
        """Return the partition's signed report over a nonce of 32 octets."""
        return PartitionEvidence.decode(self._connection.execute(hsm.Report(nonce)).data)

    def session(self, pin: str | None = None) -> Session:
        """Open a session, a connection of its own; logged in where a PIN is given."""
        session = Session(_dial(self._address, self._timeout))
        try:
            if pin is not None:
                session.log_in(pin)
        except BaseException:
            session.close()
            raise
        return session


def connect(address: str | None = None, *, timeout: float | None = None) -> Partition:
    """Connect to a partition: `unix:/path/to/native.sock`, or where a server puts its partition 0.

    `timeout` is how many seconds one answer may take, None for ever. DeviceError, with the system's number, where
    nothing answers, ETIMEDOUT where it takes longer.
    """
    return Partition(default_address() if address is None else address, timeout)


def default_address() -> str:
    """Return where a server of this user, started without --state, puts the native door of its partition 0."""
    return f"unix:{xdg.state()}/partition-0/native.sock"


def _dial(address: str, timeout: float | None) -> Connection:
    scheme, _, path = address.partition(":")
    if scheme != "unix" or not path:
        raise UsageError(f"no address: {address!r}", "an address is unix:/path/to/native.sock")
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if timeout is not None:
            _limit(end, timeout)
        end.connect(path)
        return Connection(end, timeout)
    except OSError as error:
        end.close()
        reason = f"nothing answers at {address}: {error.strerror or error}"
        raise _unreachable(error, reason, timeout) from error
    except BaseException:
        end.close()
        raise


def _limit(end: socket.socket, timeout: float) -> None:
    """Let no call on a socket take longer; the system wakes us, so that looking first costs nothing more."""
    if not 0 < timeout < _LONGEST:
        raise UsageError(f"a timeout of {timeout:g} s", "give more than 0 seconds, or None to wait for ever")
    for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        end.setsockopt(socket.SOL_SOCKET, way, timeval(timeout))


def _template(
    suite: Suite, object_class: ObjectClass, label: str, key_id: bytes, *, durable: bool
) -> Template:
    policy = default_policy(suite, object_class)
    return Template(policy | Policy.TOKEN if durable else policy, label, key_id)
