"""Code archives: what a process is made of, as one file that can be measured, signed and run.

An archive is a zip of source: the entry module of a process and every module of Endocarp that it imports,
nothing else. A process that has no module for something cannot do it: the front's archive has no
`endocarp.crypto`. The octets depend on the source and on zlib, so that anyone can build them again and compare, and read
what was measured; to compile them at a start costs about 40 ms. An archive runs from a sealed memfd: what was
measured cannot change any more.
"""

import ast
import fcntl
import functools
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from endocarp.errors import Refused, UsageError

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MAX_IMAGE = 4 << 20
"""The largest image that is taken, in octets: far above any archive, far below trouble."""

PACKAGE = "endocarp"
SOURCE = Path(__file__).parent.parent
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100444 << 16
_START = """import sys

# Started with -S: nothing that an environment runs by itself at each start, only the packages that were told.
sys.path += sys.argv.pop(1).split(":")

from {entry} import main

main()
"""
REBUILD = "start once with --rebuild"
CHANGED = f"if you changed it on purpose, {REBUILD}"
"""Advice: where an image is missing, and where it is not what was signed."""


def source_tree(root: Path = SOURCE) -> dict[str, tuple[str, bytes]]:
    """Return every module below `root` by its dotted name: its path in an archive, and its source."""
    tree = {}
    for path in sorted(root.rglob("*.py")):
        parts = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree[name] = (f"{'/'.join(parts)}.py", path.read_bytes())
    return tree


def closure(entry: str, tree: Mapping[str, tuple[str, bytes]]) -> list[str]:
    """Return `entry`, all modules of `tree` that it imports in the end, and their packages, sorted by name."""
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found or name not in tree:
            continue
        found.add(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        waiting += _imports(tree[name][1])
    return sorted(found)


@functools.cache  # most archives have most modules in common
def _imports(source: bytes) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return frozenset(found)


def build(entry: str, tree: Mapping[str, tuple[str, bytes]]) -> bytes:
    """Return the archive that runs `main()` of the module `entry`.

    Raises UsageError where `tree` has no such module.
    """
    if entry not in tree:
        raise UsageError(f"no module {entry} to build an archive of", "install endocarp again, as a whole")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in closure(entry, tree):
            path, source = tree[name]
            _add(archive, path, source)
        _add(archive, "__main__.py", _START.format(entry=entry).encode())
    return out.getvalue()


def _add(archive: zipfile.ZipFile, path: str, source: bytes) -> None:
    info = zipfile.ZipInfo(path, _EPOCH)
    info.external_attr = _MODE
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, source, compresslevel=9)


def seal(octets: bytes, name: str) -> int:
    """Copy `octets` into memory that nobody can change any more; return its descriptor, which the caller owns."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(fd, "wb", closefd=False) as out:
            out.write(octets)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_sealed(fd: int) -> bytes:
    """Return the octets of sealed memory; the descriptor stays open.

    Raises Refused `image.seal` where the memory can still change, `image.size` where it is too large.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & SEALS != SEALS:
        hint = "hand it over in a memfd that is sealed against writing, growing, shrinking and further seals"
        raise Refused("image.seal", "the image is not in sealed memory", hint)
    size = os.fstat(fd).st_size
    if size > MAX_IMAGE:
        raise Refused("image.size", _too_large("the image"), REBUILD)
    return os.pread(fd, size, 0)


def load(path: Path, rule: str = "", hint: str = REBUILD) -> bytes:
    """Read an image from disk. Raises Refused `image.missing` where it is not there, `image.size` where too large.

    What is no image is refused under a rule of its own, with its own advice.
    """
    try:
        with path.open("rb") as source:
            octets = source.read(MAX_IMAGE + 1)
    except OSError as error:
        raise Refused(rule or "image.missing", f"{path}: {error.strerror}", hint) from None
    if len(octets) > MAX_IMAGE:
        raise Refused(rule or "image.size", _too_large(path), hint)
    return octets


def _too_large(what: object) -> str:
    return f"{what} has more than {MAX_IMAGE} octets"
