"""The p11-kit door from a C client, against SoftHSM2 behind `p11-kit server`: token keys on both sides."""

import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.peers import (
    LABEL,
    PEER_PIN,
    Absent,
    client_module,
    our_server,
    p11_kit_server,
    scratch,
    softhsm_token,
)
from bench.placement import Placement, place
from bench.rows import Row, interleaved
from endocarp.client import connect
from endocarp.wire.suites import Suite

COUNT = 500
SIGN_BAR = 0.85
INITIALIZE_BAR = 0.2
PEER = "SoftHSM2 behind p11-kit server"


def run() -> Iterator[Row]:
    """Measure in every placement."""
    with scratch() as root:
        caller = _compile(root)
        module = client_module()
        with our_server(root) as server, softhsm_token(root), p11_kit_server(root) as (pid, address):
            with connect(server.native) as partition, partition.session(server.pin) as session:
                session.generate(Suite.P256, label=LABEL)
            for placement in Placement:
                place(placement, [*server.pids(), pid])
                ours: list[float] = []
                theirs: list[float] = []
                sign = interleaved(
                    partial(_run, caller, module, server.p11_kit, server.pin, ours),
                    partial(_run, caller, module, address, PEER_PIN, theirs),
                )
                yield Row("p11-kit P-256 sign", placement.value, *sign, PEER, bar=SIGN_BAR)
                begin = (statistics.median(ours), statistics.median(theirs))
                yield Row("C_Initialize", placement.value, *begin, PEER, bar=INITIALIZE_BAR)


def _run(caller: Path, module: Path, address: str, pin: str, initializations: list[float]) -> float:
    words = [str(caller), str(module), pin, LABEL, str(COUNT)]
    environment = {**os.environ, "P11_KIT_SERVER_ADDRESS": address}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    initialize, sign = map(float, done.stdout.split())
    initializations.append(initialize)
    return sign


def _compile(root: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Absent("a C compiler (apt-get install gcc)")
    caller = root / "sign"
    source = Path(__file__).with_name("sign.c")
    subprocess.run([compiler, "-std=gnu17", "-O2", "-o", caller, source, "-ldl"], check=True)
    return caller
