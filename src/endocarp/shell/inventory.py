"""What runs beneath the archives and that nobody measures before it runs: the interpreter and its libraries.

A zip cannot hold shared objects, so these come from the machine. The box hashes them and evidence lists them as
reported: a relying party may compare, but nothing here refuses a change. Sources and shared objects count; the
compiled copies in `__pycache__`, which the interpreter loads in their place, differ from machine to machine and do not.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from endocarp.wire.evidence import Component

DISTRIBUTIONS = ("cbor2", "cffi", "cryptography", "pyseccomp")
"""The packages that a process of the server imports."""


def inventory() -> tuple[Component, ...]:
    """Hash the interpreter, the standard library and the packages that the server imports, SHA-384."""
    interpreter, library = Path(sys.executable).resolve(), Path(os.__file__).parent
    found = [
        Component(f"interpreter {interpreter.name}", _file(interpreter)),
        Component("standard library", _files(library, _modules(library))),
    ]
    for name in DISTRIBUTIONS:
        for site in _sites():
            files = sorted(_distribution(site, name))
            if files:
                found.append(Component(f"package {name}", _files(site, files)))
                break  # as an import does: the first one found counts
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


def _sites() -> Iterator[Path]:
    """Return the directories that packages are imported from, in the order of the search."""
    yield from (path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages"))


def _distribution(site: Path, name: str) -> Iterator[Path]:
    for pattern in (f"{name}/**/*", f"{name}.py", f"_{name}*.so"):
        yield from (path for path in site.glob(pattern) if path.suffix in (".py", ".so"))


def _files(root: Path, paths: list[Path]) -> bytes:
    """Return one digest over the paths below `root` and the digests of files, in the order given."""
    whole = hashlib.sha384()
    for path in paths:
        whole.update(os.fsencode(path.relative_to(root)) + b"\0" + _file(path))
    return whole.digest()


def _file(path: Path) -> bytes:
    """Return the digest of a file; zeros, which no file has, where it cannot be read, as with a dangling link."""
    try:
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha384").digest()
    except OSError:
        return bytes(48)
