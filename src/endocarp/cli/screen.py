"""How a server stands, on one screen for people, and in one object for programs."""

import re
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from endocarp.wire.admin import ProcessState, ProcessStatus, Status
from endocarp.wire.control import SandboxReport, Seccomp

_DIGEST = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{24,}\b")


def for_programs(found: Status) -> dict[str, Any]:
    """Return what a program may read, ready for JSON."""
    return {
        "version": found.version,
        "model": found.model,
        "state": found.state_directory,
        "boots": found.boots,
        "processes": [
            {
                "name": one.name,
                "state": one.state.name.lower(),
                "pid": one.pid,
                "restarts": one.restarts,
                "uptime_ms": one.uptime,
                "resident_kib": one.resident,
                "image_sha384": one.image.hex(),
                "sandbox": _sandbox_for_programs(one.sandbox),
            }
            for one in found.processes
        ],
        "partitions": [
            {"id": one.partition, "native": one.native, "p11_kit": one.p11_kit} for one in found.partitions
        ],
        "measurements": [{"name": one.name, "sha384": one.digest.hex()} for one in found.measurements],
    }


def _sandbox_for_programs(report: SandboxReport) -> dict[str, Any]:
    return {
        "no_new_privileges": bool(report.no_new_privileges),
        "not_dumpable": bool(report.not_dumpable),
        "landlock_abi": report.landlock_abi,
        "seccomp": report.seccomp,
        "memory": report.memory.name.lower(),
        "notes": [note.text for note in report.notes],
    }


def for_people(found: Status) -> Group:
    """Return what to print on a terminal; digests are cut to what an eye compares."""
    head = Text.assemble(
        ("endocarp ", "bold"), found.version, "  ", (found.model, "bold"), f"  boots: {found.boots}\n",
        (found.state_directory, "dim"),
    )  # fmt: skip
    parts = (_processes, _sandboxes, _partitions, _measurements)
    return Group(head, "", *(piece for part in parts for piece in (part(found), "")), _caveat())


def shortened(text: str) -> str:
    """Return text with its digests cut to what an eye compares; `--json` has them whole."""
    return _DIGEST.sub(lambda found: f"{found[1]}…", text)


def _processes(found: Status) -> Table:
    table = _table("process", "pid", "up", "memory", "restarts", "secrets in")
    for one in found.processes:
        table.add_row(
            one.name,
            str(one.pid),
            _duration(one.uptime) if one.state is ProcessState.SERVING else one.state.name.lower(),
            f"{one.resident / 1024:.0f} MiB",
            str(one.restarts),
            _memory(one),
        )
    return table


def _sandboxes(found: Status) -> Table:
    table = _table("sandbox", "what it got")
    for one in found.processes:
        table.add_row(one.name, _sandbox(one))
    return table


def _memory(one: ProcessStatus) -> str:
    if one.name in ("box", "front"):
        return "holds none"
    return one.sandbox.memory.name.lower() if one.state is ProcessState.SERVING else ""


def _sandbox(one: ProcessStatus) -> Text:
    if one.state is ProcessState.STARTING:
        return Text("not known yet", "dim")
    report = one.sandbox
    steps = {
        "no_new_privs": bool(report.no_new_privileges),
        "not dumpable": bool(report.not_dumpable),
        f"Landlock {report.landlock_abi or ''}".rstrip(): report.landlock_abi > 0,
        "seccomp": report.seccomp is Seccomp.FILTER,
    }
    got = ", ".join(step for step, held in steps.items() if held)
    lacking = ", ".join(step for step, held in steps.items() if not held)
    notes = "; ".join(note.text for note in report.notes)
    return Text.assemble(
        (got, "green"), "; " if got and lacking else "", (f"lacks {lacking}" if lacking else "", "yellow"),
        (f" ({notes})" if notes else "", "dim"),
    )  # fmt: skip


def _partitions(found: Status) -> Table:
    table = _table("partition", "door", "socket")
    for one in found.partitions:
        table.add_row(str(one.partition), "native", one.native)
        table.add_row("", "p11-kit", one.p11_kit)
    return table


def _measurements(found: Status) -> Table:
    table = _table("measured", "SHA-384")
    for one in found.measurements:
        table.add_row(one.name, shortened(one.digest.hex()))
    return table


def _caveat() -> Text:
    return Text(
        "Keys at rest and between uses lie in the memory named above; a key that the crypto library has parsed "
        "lives in its ordinary heap and cannot be wiped from Python.",
        style="dim",
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _duration(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
