"""Sign with a key that never leaves its vault: python examples/sign.py [ADDRESS]; asks for the PIN, or reads it."""

import getpass
import sys

from endocarp.client import connect
from endocarp.wire.suites import Suite

# Never from the command line, which every process of this machine can read in /proc.
pin = getpass.getpass("PIN of partition 0: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
with connect(*sys.argv[1:]) as partition, partition.session(pin) as session:
    keys = session.keys(label="example")
    key = keys[0] if keys else session.generate(Suite.P256, label="example")
    signature = key.sign(b"hello")
    print(f"{key.suite.name} {key.public.hex()}\nsignature {signature.hex()}")
    print("verified" if key.verify(signature, b"hello") else "NOT VERIFIED")
