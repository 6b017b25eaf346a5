"""`./dev bench [NAME…] [--json]`: ratios against named peers, measured in one run."""

import argparse
import dataclasses
import json
import os
import sys

from rich.console import Console
from rich.table import Table

from bench import boot, native, p11
from bench.peers import Absent
from bench.rows import Row

BENCHMARKS = {"native": native.run, "p11": p11.run, "boot": boot.run}


def main() -> None:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    rows: list[Row] = []
    for name in arguments.names or BENCHMARKS:
        progress.print(f"{name} …", style="dim")
        everywhere = os.sched_getaffinity(0)
        try:
            rows += BENCHMARKS[name]()
        except Absent as absent:
            progress.print(f"{name}: left out, needs {absent}", style="yellow")
        finally:
            os.sched_setaffinity(0, everywhere)
    if arguments.json:
        plain = [{**dataclasses.asdict(row), "ratio": row.ratio, "verdict": row.verdict} for row in rows]
        json.dump(plain, sys.stdout, indent=2)
        return
    console = Console()
    console.print(_table(rows))
    for name, peer in {row.name: row.peer for row in rows}.items():
        console.print(f"{name}: against {peer}", style="dim")


def _table(rows: list[Row]) -> Table:
    table = Table("what", "placement", "ours", "theirs", "ratio", "bar", "", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row.name,
            row.placement,
            f"{row.ours:.1f} {row.unit}",
            f"{row.theirs:.1f} {row.unit}",
            f"{row.ratio:.2f}",
            "" if row.bar is None else f"{row.bar:.2f}",
            row.verdict,
        )
    return table


if __name__ == "__main__":
    main()
