"""The sealed store of a partition: an append-only log of records that nobody else can read, change or reorder.

    file     header | record | record | …
    header   8 octets magic | u16 version | u32 partition | 32 octets salt
    record   u32 length | 16 octets tag of it | `length` octets: ciphertext and its tag

All integers are little-endian, but nonces, which are big-endian. The key of a file is HKDF-SHA-384 of the partition's
seal key, with the file's salt, and its header as info. Tags are AES-256-GCM's; the nonces of record n, from 0, are 2n
for its length and 2n + 1 for itself, and each tag also covers the tag before it, so that a record fits one place of
one file only. A file is begun anew, with a new salt, when the store is opened, when the log has grown, and after a
write that failed: no nonce meets the same key twice, whatever a crash left behind. Rollback to an older copy of the
whole file is not seen.

A record that was not written to its end was never acknowledged. It is told from one that was changed by its length,
which has a tag of its own: where the file ends before the record does, or reads as zero from the tag on, or from
the sector on that begins within the tag, the record is torn, and is cut. A record that is all there and does not fit
its tag closes the store.
"""

import contextlib
import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol

from endocarp.crypto.primitives import Gcm, hkdf_sha384
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, Refused
from endocarp.wire.codec import U32, Const, Octets, Struct, u16, u64
from endocarp.wire.suites import AES_KEY_SIZE, GCM_NONCE_SIZE, GCM_TAG_SIZE

RECORD_LIMIT = 1 << 18
"""The longest record, in octets, once it is sealed."""
GROWTH_LIMIT = 256 << 10
"""How many octets the log may grow beyond twice the size that it was begun with."""

FULL = "store-full"
FAILED = "store-failed"

_MAGIC = int.from_bytes(b"ENDOSEAL", "little")
_VERSION = 1
_SECTOR = 512
_NO_TAG = bytes(GCM_TAG_SIZE)
_HINT = "put back a copy of the state directory, or start with an empty one: its keys are lost then"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Storage(Protocol):
    """Where the octets of one store lie. Every method raises OSError where it cannot keep its word."""

    def read(self) -> bytes:
        """Return all octets; none where nothing was ever stored."""

    def append(self, octets: bytes) -> None:
        """Add octets at the end; they survive a crash once this has returned."""

    def cut(self, size: int) -> None:
        """Keep the first `size` octets only; the others are gone for good once this has returned."""

    def replace(self, octets: bytes) -> None:
        """Put these octets in place of all others, so that a crash leaves all of the old or all of the new."""


class _Header(Struct):
    magic: Annotated[int, Const(_MAGIC, u64)] = _MAGIC
    version: Annotated[int, Const(_VERSION, u16)] = _VERSION
    partition: U32 = 0
    salt: Annotated[bytes, Octets(32)] = b""


class _Head(Struct):
    length: U32
    tag: Annotated[bytes, Octets(GCM_TAG_SIZE)]


_HEAD_SIZE = _Head.fixed_size()


@dataclass
class _File:
    """One file, from its header on: its key, and where its next record goes."""

    key: Gcm
    begun: int
    """The size of the file when it was begun, in octets."""
    size: int
    sequence: int = 0
    last_tag: bytes = _NO_TAG

    @property
    def grown(self) -> bool:
        return self.size > 2 * self.begun + GROWTH_LIMIT

    def seal(self, record: bytes) -> bytes:
        """Return the record as it is written, and count it as written."""
        length = len(record) + GCM_TAG_SIZE
        if length > RECORD_LIMIT:
            raise Refused(
                FULL, f"a record of {len(record)} octets", f"at most {RECORD_LIMIT - GCM_TAG_SIZE} fit"
            )
        tag = self.key.seal(self._nonce(0), b"", self._covered(length))
        sealed = self.key.seal(self._nonce(1), record, tag)
        self._pass(sealed)
        return _Head(length, tag).encode() + sealed

    def open(self, data: memoryview) -> bytes | None:
        """Return the record that stands at `size`, or None where it was not written to its end."""
        try:
            head, start = _Head.decode_from(data, self.size)
        except DecodeError:
            return None
        if self._opened(0, head.tag, self._covered(head.length)) is None:
            self._refuse_written(data, start - GCM_TAG_SIZE)
            return None
        end = start + head.length
        if end > len(data):
            return None
        sealed = bytes(data[start:end])
        record = self._opened(1, sealed, head.tag)
        if record is None:
            self._refuse_written(data, end - GCM_TAG_SIZE)
            return None
        self._pass(sealed)
        return record

    def _nonce(self, half: int) -> bytes:
        return (2 * self.sequence + half).to_bytes(GCM_NONCE_SIZE, "big")

    def _covered(self, length: int) -> bytes:
        return _Head(length, self.last_tag).encode()

    def _opened(self, half: int, sealed: bytes, covered: bytes) -> bytes | None:
        try:
            return self.key.open(self._nonce(half), sealed, covered)
        except Refused:
            return None

    def _refuse_written(self, data: memoryview, tag: int) -> None:
        """Refuse the tag that does not fit at offset `tag`, unless nothing was written there or any further."""
        sector = -(-tag // _SECTOR) * _SECTOR
        begins = sector if sector < tag + GCM_TAG_SIZE else tag
        if any(data[begins:]):
            raise Refused("store-record", f"record {self.sequence} of the sealed store was changed", _HINT)

    def _pass(self, sealed: bytes) -> None:
        self.size += _HEAD_SIZE + len(sealed)
        self.sequence += 1
        self.last_tag = sealed[-GCM_TAG_SIZE:]


class Store:
    """The records of one partition, oldest first, and the way to add one.

    `Store(…)` reads what is there, for `take_records`; `torn` says how many octets of an unfinished record it left
    out. Nothing can be added before `begin` has named where a snapshot of the whole state comes from.
    """

    def __init__(
        self, storage: Storage, seal_key: Secret, partition: int, entropy: Callable[[int], bytes]
    ) -> None:
        self._storage, self._seal_key, self._partition, self._entropy = storage, seal_key, partition, entropy
        self._file: _File | None = None
        self._snapshot: Callable[[], Iterable[bytes]] = tuple
        self._records: list[bytes] = []
        self.torn = 0
        try:
            data = storage.read()
        except OSError as error:
            raise _refused(error) from error
        self.is_new = not data
        """Nothing was ever stored here."""
        if data:
            self._read(memoryview(data))

    def _read(self, data: memoryview) -> None:
        file = self._open_file(data)
        while file.size < len(data):
            record = file.open(data)
            if record is None:
                break
            self._records.append(record)
        self.torn = len(data) - file.size

    def take_records(self) -> list[bytes]:
        """Return the records that were read, oldest first, and forget them: old PINs and destroyed keys stand there."""
        records, self._records = self._records, []
        return records

    def _open_file(self, data: memoryview) -> _File:
        try:
            header, size = _Header.decode_from(data)
        except DecodeError as error:
            raise Refused("store-header", f"this is no sealed store: {error}", _HINT) from None
        if header.partition != self._partition:
            reason = f"this store belongs to partition {header.partition}, not {self._partition}"
            raise Refused("store-partition", reason, "give each partition its own file")
        return self._file_of(header, size)

    def _file_of(self, header: _Header, size: int) -> _File:
        with hkdf_sha384(self._seal_key, header.salt, header.encode(), AES_KEY_SIZE) as key:
            return _File(Gcm(key), size, size)

    def begin(self, snapshot: Callable[[], Iterable[bytes]]) -> None:
        """Write the whole state, which `snapshot` gives as records, as a new file; Refused where that fails.

        After a refusal a crash leaves the old file, or the new one where only its place in the directory could not be
        made sure of; each `append` tries to begin anew first.
        """
        self._snapshot = snapshot
        self._begin(snapshot())

    def _begin(self, records: Iterable[bytes]) -> None:
        header = _Header(partition=self._partition, salt=self._entropy(32))
        file = self._file_of(header, header.fixed_size())
        octets = header.encode() + b"".join([file.seal(record) for record in records])
        file.begun = len(octets)
        try:
            self._storage.replace(octets)
        except OSError as error:
            raise _refused(error) from error
        self._file = file

    def append(self, record: bytes) -> None:
        """Add a record: it survives a crash once this has returned; Refused where it could not be added.

        After a refusal the caller's state is the one before, and the next record is put behind that. Until then a
        crash leaves that state too, unless the disk failed twice: a record that was written, and could neither be made
        sure of nor cut again, may be found at the next start; so may one in a new file whose place in the directory
        could not be made sure of.
        """
        file = self._file
        if file is None or file.grown:
            self._begin([*self._snapshot(), record])
            return
        kept = file.size
        # Until it has succeeded, there is no file to append to: this one's next nonces are used up.
        self._file = None
        sealed = file.seal(record)
        try:
            self._storage.append(sealed)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._storage.cut(kept)
            raise _refused(error) from error
        self._file = file


def _refused(error: OSError) -> Refused:
    if error.errno in _NO_ROOM:
        return Refused(FULL, "there is no room left for the sealed store", "free some room on its disk")
    return Refused(FAILED, f"the sealed store cannot be used: {error.strerror}", "look after its disk")
