"""The key vault: 24 slots of 64 octets over one piece of memory, which every boot stage inherits.

The memory is the shell's: secret pages that survive exec, so that ROM, FMC and runtime see the same slots. What a slot
holds changes from stage to stage, so a `Slot` here is a number and what it holds at that moment.

Source: caliptra-sw, drivers/src/key_vault.rs and rom/dev/README.md, "Key vault slots".
"""

from dataclasses import dataclass
from typing import TypeVar

from endocarp.crypto.secret import Secret, wipe
from endocarp.errors import Refused, UsageError

S = TypeVar("S", bound=Secret)

SLOT_COUNT = 24
SLOT_SIZE = 64
SIZE = SLOT_COUNT * SLOT_SIZE
"""How much memory a vault needs, in octets."""


@dataclass(frozen=True)
class Slot:
    """A slot while it holds this: what it is called, the number of the slot, and the size of the secret in octets."""

    name: str
    number: int
    size: int = SLOT_SIZE


STABLE_ROOT_IDEV = Slot("stable identity root of IDevID", 0)
FIELD_ENTROPY = Slot("field entropy", 1, 32)
LDEV_MLDSA = Slot("LDevID ML-DSA seed", 4, 32)
RT_CDI = Slot("runtime CDI", 4)
LDEV_ECC = Slot("LDevID ECC key", 5, 48)
RT_ECC = Slot("runtime alias ECC key", 5, 48)
IDEV_CDI = Slot("IDevID CDI", 6)
LDEV_CDI = Slot("LDevID CDI", 6)
FMC_CDI = Slot("FMC CDI", 6)
IDEV_ECC = Slot("IDevID ECC key", 7, 48)
FMC_ECC = Slot("FMC alias ECC key", 7, 48)
IDEV_MLDSA = Slot("IDevID ML-DSA seed", 8, 32)
FMC_MLDSA = Slot("FMC alias ML-DSA seed", 8, 32)
RT_MLDSA = Slot("runtime alias ML-DSA seed", 9, 32)


class KeyVault:
    """The slots over `memory`, which is writable and exactly `SIZE` octets long."""

    def __init__(self, memory: memoryview) -> None:
        if memory.nbytes != SIZE or memory.readonly:
            raise UsageError(
                f"a key vault needs {SIZE} writable octets", "map the inherited descriptor whole"
            )
        self._memory = memory.cast("B")

    def put(self, slot: Slot, secret: Secret) -> None:
        """Keep a copy of the secret in `slot`, in place of what was there; `secret` stays open."""
        if len(secret) != slot.size:
            raise UsageError(f"{slot.name}: {len(secret)} octets, must be {slot.size}")
        self.erase(slot)
        self._octets(slot)[: slot.size] = secret.view

    def holds(self, slot: Slot) -> bool:
        """Tell whether anything lies in `slot`; a secret of zeros does not count as one."""
        return any(self._octets(slot))

    def take(self, slot: Slot, kind: type[S]) -> S:
        """Return a copy of what lies in `slot`, as a secret of this kind, for the caller to close.

        Raises Refused `kv.empty` where nothing does.
        """
        if not self.holds(slot):
            raise Refused("kv.empty", f"the key vault holds no {slot.name}", "reset the server")
        return kind(self._octets(slot)[: slot.size])

    def erase(self, slot: Slot) -> None:
        """Wipe `slot`."""
        wipe(self._octets(slot))

    def erase_all(self) -> None:
        """Wipe every slot."""
        wipe(self._memory)

    def _octets(self, slot: Slot) -> memoryview:
        return self._memory[slot.number * SLOT_SIZE : (slot.number + 1) * SLOT_SIZE]
