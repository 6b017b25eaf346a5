"""What runs beneath the archives and that nobody measures before it runs: the interpreter and its libraries.

A zip cannot hold shared objects, so these come from the machine. The box hashes them and evidence lists them as
reported: a relying party may compare, but nothing here refuses a change.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from endocarp.wire.evidence import Component

DISTRIBUTIONS = ("cbor2", "cffi", "cryptography", "pyseccomp")
"""The packages that a process of the server imports."""
_BLOCK = 1 << 20


def inventory() -> tuple[Component, ...]:
    """Hash the interpreter, the standard library and the packages that the server imports, SHA-384."""
    found = [
        Component(
            f"interpreter {Path(sys.executable).resolve().name}", _file(Path(sys.executable).resolve())
        ),
        Component("standard library", _files(_modules(Path(os.__file__).parent))),
    ]
    for name in DISTRIBUTIONS:
        files = sorted(_distribution(name))
        if files:
            found.append(Component(f"package {name}", _files(files)))
    return tuple(found)


def _modules(root: Path) -> list[Path]:
    """Return the modules below a library directory, without packages installed there and compiled copies."""
    left_out = {
        "__pycache__",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "ensurepip",
    }
    found = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(set(names) - left_out)
        found += [Path(directory, file) for file in sorted(files) if file.endswith((".py", ".so"))]
    return found


def _distribution(name: str) -> Iterator[Path]:
    for directory in map(Path, sys.path):
        if directory.name != "site-packages":
            continue
        for pattern in (f"{name}/**/*", f"{name}.py", f"_{name}*.so"):
            yield from (path for path in directory.glob(pattern) if path.suffix in (".py", ".so"))


def _files(paths: list[Path]) -> bytes:
    """Return one digest over names and digests of files, in the order given."""
    whole = hashlib.sha384()
    for path in paths:
        whole.update(path.name.encode() + b"\0" + _file(path))
    return whole.digest()


def _file(path: Path) -> bytes:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha384").digest()
