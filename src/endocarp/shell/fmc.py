"""The FMC as a process: measures the runtime, derives its identity, becomes the runtime."""

import sys

from endocarp.errors import EndocarpError
from endocarp.rot.fmc import run_fmc
from endocarp.shell.archive import read_sealed
from endocarp.shell.channel import told
from endocarp.shell.stage import StageMemory, control_of, jump, read_table


def main() -> None:
    """Run the second stage; arguments as `shell.stage.jump` gives them."""
    arguments = told(sys.argv[1:])
    control = control_of(arguments)
    try:
        memory = StageMemory(int(arguments["vault"]))
        runtime = int(arguments["runtime"])
        table = run_fmc(read_table(arguments), memory.vault, read_sealed(runtime))
        control.progress(f"fmc: runtime measured {table.runtime_digest.hex()[:16]}…, RT alias certified")
        jump(runtime, table, arguments, vault=memory.descriptor)
    except EndocarpError as error:
        control.failed(error)
        sys.exit(1)
