"""Feed one family of decoders with octets: `./dev run python -m fuzz NAME --seconds 10`.

Where atheris is installed it guides the octets by coverage (give its options after `--`), else a seeded loop
spoils well-formed input. Either way anything but DecodeError ends the run, with the octets that brought it about.
"""

import argparse
import contextlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from endocarp.errors import DecodeError
from fuzz.decoders import Decoder, families


def main(arguments: Sequence[str]) -> int:
    """Run one family for some seconds; return 0 where nothing but DecodeError was raised."""
    known = families()
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Feed one family of decoders with octets."
    )
    parser.add_argument("name", choices=sorted(known), help="the family: a module of endocarp.wire, or certs")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long, 10 unless told")
    parser.add_argument("--seed", type=int, default=0, help="where the seeded loop begins")
    parser.add_argument(
        "--plain", action="store_true", help="the seeded loop, even where atheris is installed"
    )
    chosen, rest = parser.parse_known_args(arguments)
    decoders = known[chosen.name]
    if importlib.util.find_spec("atheris") is not None and not chosen.plain:
        return _guided(decoders, chosen.seconds, rest)
    count = _loop(decoders, chosen.seconds, Random(chosen.seed))
    print(f"{chosen.name}: {len(decoders)} decoders, {count} inputs, nothing but DecodeError")
    return 0


def _loop(decoders: Sequence[Decoder], seconds: float, random: Random) -> int:
    """Give each decoder its turn until the time is over; return how many inputs that were."""
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        for decoder in decoders:
            decoder.attack(random)
        count += len(decoders)
    return count


def _guided(decoders: Sequence[Decoder], seconds: float, options: Sequence[str]) -> int:
    import atheris  # noqa: PLC0415  (an extra of whoever fuzzes, never needed)

    def one(octets: bytes) -> None:
        # The first two octets choose the decoder, so that the corpus covers them all.
        decoder = decoders[int.from_bytes(octets[:2], "big") % len(decoders)]
        with contextlib.suppress(DecodeError):
            decoder.decode(octets[2:])

    with tempfile.TemporaryDirectory() as corpus:
        for number, decoder in enumerate(decoders):
            seed = decoder.seed(Random(number))
            Path(corpus, f"{number}").write_bytes(number.to_bytes(2, "big") + seed)
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", *options, corpus], one)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
