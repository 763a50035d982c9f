"""A frozen tree: which files, by content, and where their bytes lie in packs of the object store.

The digest is of the lines `mode size sha256 path`, by path: the same tree has the same digest wherever its bytes lie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from adapters.artifact.paths import escaped, path_fault
from headway.errors import HeadwayError

MAX_BYTES: Final = 32 << 20
MODES: Final = ("644", "755", "link")
LEFT_OUT: Final = ("node_modules", ".git", ".DS_Store", "__MACOSX")


@dataclass(frozen=True)
class SnapshotFile:
    """`size` bytes at `offset` of `pack`; `mode` is 644, 755 or link (its bytes are the target), `path` relative."""

    path: str
    mode: str
    size: int
    sha256: str
    pack: str
    offset: int


def is_left_out(path: str) -> bool:
    """What a publish never takes along: what installs fill, caches, and other systems' litter."""
    parts = path.split("/")
    cached = (".next", "cache") in pairwise(parts)
    return cached or any(part in LEFT_OUT or part.startswith("._") for part in parts)


def digest_of(files: Iterable[SnapshotFile]) -> str:
    lines = (f"{one.mode} {one.size} {one.sha256} {one.path}\n" for one in sorted(files, key=lambda one: one.path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def dumped(files: Iterable[SnapshotFile]) -> bytes:
    rows = [[one.path, one.mode, one.size, one.sha256, one.pack, one.offset] for one in files]
    return json.dumps({"version": 1, "files": sorted(rows)}, separators=(",", ":")).encode()


def parsed(raw: bytes, digest: str) -> list[SnapshotFile]:
    """Raises source.invalid where it is not the snapshot of that digest, or names what no tree may hold."""
    try:
        files = [SnapshotFile(*row) for row in json.loads(raw)["files"]]
        right = digest_of(files) == digest
    except (ValueError, KeyError, TypeError):
        right, files = False, []
    if not right:
        raise HeadwayError("source.invalid", f"The snapshot {digest[:12]}… is not what its digest says.")
    for one in files:
        fault = path_fault(one.path)
        if fault or one.mode not in MODES or one.size < 0 or one.offset < 0:
            raise HeadwayError("source.invalid", f"The snapshot's {escaped(one.path)} {fault or 'is odd'}.")
    return files
