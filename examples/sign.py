"""Sign with a key that never leaves its vault: python examples/sign.py [PIN [ADDRESS]]."""

import getpass
import sys

from endocarp.client import connect
from endocarp.wire.suites import Suite

pin, *address = sys.argv[1:] or [getpass.getpass("PIN of partition 0: ")]
with connect(*address) as partition, partition.session(pin) as session:
    keys = session.keys(label="example")
    key = keys[0] if keys else session.generate(Suite.P256, label="example")
    signature = key.sign(b"hello")
    print(f"{key.suite.name} {key.public.hex()}\nsignature {signature.hex()}")
    print("verified" if key.verify(signature, b"hello") else "NOT VERIFIED")
