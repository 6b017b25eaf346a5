"""The 32 platform configuration registers, their log, and what a quote signs.

Extending is SHA-384(old ‖ data). What ROM and FMC extend they also log, so that a verifier can replay it; PCR 31
belongs to stashed measurements, which their sender logs.

Source: caliptra-sw, drivers/src/pcr_bank.rs and drivers/src/pcr_log.rs.
"""

from collections.abc import Sequence

from endocarp.crypto.digest import sha384, sha512
from endocarp.errors import PeerError, UsageError
from endocarp.wire.mailbox import PCR_COUNT, PCR_LOG_LIMIT, PCR_SIZE, MailboxError, PcrLogEntry, PcrLogId

ROM_CURRENT, ROM_JOURNEY, FMC_CURRENT, FMC_JOURNEY = 0, 1, 2, 3
STASH = 31
EXTEND_LIMIT = 79
"""The most octets that one extension takes: register and data fill less than one block of SHA-384, 128 octets."""


class PcrBank:
    """The registers and the log of their extensions; both start from what an earlier stage left."""

    def __init__(self, values: bytes = bytes(PCR_COUNT * PCR_SIZE), log: bytes = b"") -> None:
        if len(values) != PCR_COUNT * PCR_SIZE:
            raise UsageError(f"{len(values)} octets of PCRs, must be {PCR_COUNT * PCR_SIZE}")
        self._values = bytearray(values)
        self._log = bytearray(log)

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._values[index * PCR_SIZE : (index + 1) * PCR_SIZE])

    @property
    def values(self) -> bytes:
        """All registers one after another, 1,536 octets."""
        return bytes(self._values)

    @property
    def log(self) -> bytes:
        """The log as GET_PCR_LOG answers it."""
        return bytes(self._log)

    def extend(self, index: int, data: bytes) -> None:
        """Extend one register by at most 79 octets."""
        if len(data) > EXTEND_LIMIT:
            raise UsageError(f"{len(data)} octets, at most {EXTEND_LIMIT} extend a PCR")
        self._values[index * PCR_SIZE : (index + 1) * PCR_SIZE] = sha384(self[index], data)

    def measure(self, entry: PcrLogId, indices: Sequence[int], data: bytes) -> None:
        """Extend several registers by the same data, and log it.

        Raises PeerError, before anything changes, where the log is full.
        """
        size = PcrLogEntry.fixed_size()
        # Caliptra, review by NCC Group in 2023, finding 4DN: the bound is that of the end of the new entry, not of its
        # beginning.
        if len(self._log) + size > PCR_LOG_LIMIT * size:
            raise PeerError(
                MailboxError.ROM_GLOBAL_PCR_LOG_EXHAUSTED, f"the PCR log holds {PCR_LOG_LIMIT} entries"
            )
        logged = PcrLogEntry(
            entry, pcr_mask=sum(1 << index for index in indices), data=data.ljust(PCR_SIZE, b"\0")
        )
        for index in indices:
            self.extend(index, data)
        self._log += logged.encode()

    def quote_digest(self, nonce: bytes) -> bytes:
        """Return SHA-512(PCRs ‖ nonce), 64 octets, of which each suite signs its own part."""
        return sha512(self._values, nonce)
