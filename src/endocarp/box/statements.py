"""What this server may claim about itself, and how far each claim holds on an ordinary kernel.

The first table is what software can only model; the second is made from what the processes really got. Both go
into the evidence as they are, and the verifier shows them with its verdict.
"""

from collections.abc import Mapping

from endocarp.wire.control import MemoryMode, SandboxReport, Seccomp
from endocarp.wire.evidence import Statement, Status

MODELLED: tuple[Statement, ...] = (
    Statement("root of trust", "silicon", Status.MODELLED, "fuses, ROM and key vault are files and processes of this machine"),
    Statement("rom", "mask ROM", Status.MODELLED, "the ROM's own digest is the word of the ROM"),
    Statement("pcr signing", "hardware key slot", Status.MODELLED, "only the runtime's own code keeps the FMC alias key to quotes"),
    Statement("signing keys", "offline ceremony", Status.ABSENT, "development keys in the configuration directory"),
    Statement("processes", "separate users", Status.ABSENT, "one user runs them all"),
    Statement("parsed keys", "wiping", Status.ABSENT, "a key that the crypto library has parsed lives in its ordinary heap"),
)  # fmt: skip
"""What every server of this version must say; what follows for any server of its kind, the verifier says itself."""

_MEMORY = {
    MemoryMode.SECRET: (
        Status.ENFORCED,
        "memfd_secret: no other process reads it, root included, short of taking this one over",
    ),
    MemoryMode.LOCKED: (Status.ENFORCED, "locked and left out of core dumps; root can read it"),
    MemoryMode.ORDINARY: (Status.ABSENT, "ordinary memory: may be swapped out, root can read it"),
}


def statements(sandboxes: Mapping[str, SandboxReport]) -> tuple[Statement, ...]:
    """Return every claim, given what each process got of its sandbox, by the name of the process."""
    found = [
        Statement("front and vault images", "sealed memory and SoC manifest", Status.ENFORCED, "hashed and authorized by rot before they run; what was measured cannot change"),
        Statement("box image", "measurement before it runs", Status.ABSENT, "it runs before the root of trust does, and hands over what it says it runs"),
    ]  # fmt: skip
    for name, report in sandboxes.items():
        found += _of_process(name, report)
    return (*found, *MODELLED)


def _of_process(name: str, report: SandboxReport) -> list[Statement]:
    notes = "; ".join(note.text for note in report.notes)
    memory, how = _MEMORY[report.memory]
    return [
        _held(name, "no new privileges", "PR_SET_NO_NEW_PRIVS", notes, holds=bool(report.no_new_privileges)),
        _held(
            name,
            "not dumpable",
            "no ptrace by the same user once it serves",
            notes,
            holds=bool(report.not_dumpable),
        ),
        _held(name, "Landlock", f"ABI {report.landlock_abi}", notes, holds=report.landlock_abi > 0),
        _held(
            name, "seccomp", "system calls by an allow-list", notes, holds=report.seccomp is Seccomp.FILTER
        ),
        Statement(name, "secret memory", memory, how),
    ]


def _held(subject: str, mechanism: str, detail: str, notes: str, *, holds: bool) -> Statement:
    status = Status.ENFORCED if holds else Status.ABSENT
    return Statement(subject, mechanism, status, detail if holds else notes or "not to be had here")
