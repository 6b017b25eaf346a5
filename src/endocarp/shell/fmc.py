"""The FMC as a process: measures the runtime, derives its identity, becomes the runtime."""

from collections.abc import Mapping

from endocarp.rot.fmc import run_fmc
from endocarp.shell.archive import read_sealed
from endocarp.shell.channel import Channel
from endocarp.shell.process import run_process
from endocarp.shell.stage import StageMemory, jump, read_table


def main() -> None:
    """Run the second stage; arguments as `shell.stage.jump` gives them."""
    run_process(_run)


def _run(arguments: Mapping[str, str], control: Channel) -> None:
    memory = StageMemory(int(arguments["vault"]))
    runtime = int(arguments["runtime"])
    table = run_fmc(read_table(arguments), memory.vault, read_sealed(runtime))
    control.progress(f"runtime measured {table.runtime_digest.hex()[:16]}…, RT alias certified")
    jump(runtime, table, arguments, vault=memory.descriptor)
