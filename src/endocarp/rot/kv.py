"""The key vault: 24 slots of 64 octets over one piece of memory, which every boot stage inherits.

The memory is the shell's: secret pages that survive exec, so that ROM, FMC and runtime see the same slots. A
slot is known by what it holds at that moment (Caliptra: key vault slots); the same number is used again by a
later stage, as in Caliptra.
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
class Key:
    """What a slot holds: its number, and the size of the secret in octets."""

    name: str
    slot: int
    size: int = SLOT_SIZE


UDS = Key("unique device secret", 0)
STABLE_ROOT_IDEV = Key("stable identity root of IDevID", 0)
FIELD_ENTROPY = Key("field entropy", 1, 32)
STABLE_ROOT_LDEV = Key("stable identity root of LDevID", 1)
LDEV_MLDSA = Key("LDevID ML-DSA seed", 4, 32)
RT_CDI = Key("runtime CDI", 4)
LDEV_ECC = Key("LDevID ECC key", 5, 48)
RT_ECC = Key("runtime alias ECC key", 5, 48)
IDEV_CDI = Key("IDevID CDI", 6)
LDEV_CDI = Key("LDevID CDI", 6)
FMC_CDI = Key("FMC CDI", 6)
IDEV_ECC = Key("IDevID ECC key", 7, 48)
FMC_ECC = Key("FMC alias ECC key", 7, 48)
IDEV_MLDSA = Key("IDevID ML-DSA seed", 8, 32)
FMC_MLDSA = Key("FMC alias ML-DSA seed", 8, 32)
RT_MLDSA = Key("runtime alias ML-DSA seed", 9, 32)

KEYS = (
    UDS,
    STABLE_ROOT_IDEV,
    FIELD_ENTROPY,
    STABLE_ROOT_LDEV,
    LDEV_MLDSA,
    RT_CDI,
    LDEV_ECC,
    RT_ECC,
    IDEV_CDI,
    LDEV_CDI,
    FMC_CDI,
    IDEV_ECC,
    FMC_ECC,
    IDEV_MLDSA,
    FMC_MLDSA,
    RT_MLDSA,
)
"""Every key that has a place in the vault."""


class KeyVault:
    """The slots over `memory`, which is writable and exactly `SIZE` octets long."""

    def __init__(self, memory: memoryview) -> None:
        if memory.nbytes != SIZE or memory.readonly:
            raise UsageError(
                f"a key vault needs {SIZE} writable octets", "map the inherited descriptor whole"
            )
        self._memory = memory.cast("B")

    def put(self, key: Key, secret: Secret) -> None:
        """Keep a copy of the secret in the slot of `key`, in place of what was there; `secret` stays open."""
        if len(secret) != key.size:
            raise UsageError(f"{key.name}: {len(secret)} octets, must be {key.size}")
        self.erase(key)
        self._slot(key)[: key.size] = secret.view

    def take(self, key: Key, kind: type[S] = Secret) -> S:  # type: ignore[assignment]
        """Return a copy of what the slot of `key` holds, as a secret of this kind, for the caller to close.

        Raises Refused `kv.empty` where it holds nothing.
        """
        slot = self._slot(key)
        if not any(slot):
            raise Refused("kv.empty", f"the key vault holds no {key.name}", "reset the server")
        return kind(slot[: key.size])

    def erase(self, key: Key) -> None:
        """Wipe the slot of `key`."""
        wipe(self._slot(key))

    def erase_all(self) -> None:
        """Wipe every slot."""
        wipe(self._memory)

    def _slot(self, key: Key) -> memoryview:
        return self._memory[key.slot * SLOT_SIZE : (key.slot + 1) * SLOT_SIZE]
