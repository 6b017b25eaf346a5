"""A file in memory that keeps its word, fails, or dies, as it is told: the `Storage` of a store."""


class KilledError(BaseException):
    """The process died here: no code of it runs any more, so it is no Exception."""


class Disk:
    """A simulated file.

    `fault` makes each write fail, an append after `kept` octets, a replacement where `late` after it was made, and
    `unreadable` each reading; `cuts` says whether the file can be cut then. `dies_at` is the number of the write at which the process dies, after `kept` octets; with `zeros` the file system
    had made room for the others. A replacement is all or nothing: all where `kept` is not 0.
    """

    def __init__(self, octets: bytes = b"") -> None:
        self.octets = octets
        self.fault: OSError | None = None
        self.unreadable: OSError | None = None
        self.cuts = True
        self.late = False
        self.dies_at = -1
        self.kept = 0
        self.zeros = False
        self.sizes: list[int] = []
        """The size of each write; 1 for a replacement, since nothing lies between none and all of it."""
        self.replaced = 0

    def read(self) -> bytes:
        if self.unreadable:
            raise self.unreadable
        return self.octets

    def append(self, octets: bytes) -> None:
        self._begin(len(octets))
        if self.fault or self._dying:
            self.octets += octets[: self.kept]
            if self.zeros:
                self.octets += bytes(len(octets) - self.kept)
            raise self.fault or KilledError
        self.octets += octets

    def cut(self, size: int) -> None:
        if self.fault and not self.cuts:
            raise self.fault
        self.octets = self.octets[:size]

    def replace(self, octets: bytes) -> None:
        self._begin(1)
        self.replaced += 1
        if self.fault and not self.late:
            raise self.fault
        if not self._dying or self.kept:
            self.octets = octets
        if self.fault:
            raise self.fault
        if self._dying:
            raise KilledError

    def _begin(self, size: int) -> None:
        self.sizes.append(size)

    @property
    def _dying(self) -> bool:
        return len(self.sizes) - 1 == self.dies_at
