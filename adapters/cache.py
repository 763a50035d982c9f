"""What package managers may keep between builds: one folder per site and lock file, never shared across sites."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapters.sandbox.removal import measure, remove_tree

TARGET: Final = "/cache"
_MOST_FILES: Final = 400_000

# Where the clients look for their cache.
ENVIRONMENT: Final = {
    "npm_config_cache": f"{TARGET}/npm",
    "YARN_CACHE_FOLDER": f"{TARGET}/yarn",
    "PIP_CACHE_DIR": f"{TARGET}/pip",
    "UV_CACHE_DIR": f"{TARGET}/uv",
}


@dataclass(frozen=True)
class Cached:
    """`folder` to mount at /cache; `hit` where an earlier build has left something in it."""

    folder: Path
    key: str
    hit: bool


def cache_key(lock_name: str | None, lock: bytes | None) -> str:
    """Names the lock file's content: `package-lock.json` of other bytes is another cache."""
    return hashlib.sha256(f"{lock_name}\0".encode() + (lock or b"")).hexdigest()[:32]


class BuildCache:
    """Folders `<root>/<site_id>/<key>`. One is given to one build at a time; a second build goes without.

    A folder larger than `folder_bytes` is dropped after the build; past `total_bytes` the longest unused ones go.
    """

    def __init__(self, root: Path, *, folder_bytes: int = 2 << 30, total_bytes: int = 8 << 30) -> None:
        self._root = root
        self._folder_bytes = folder_bytes
        self._total_bytes = total_bytes

    @contextmanager
    def lend(self, site_id: str, key: str) -> Iterator[Cached | None]:
        """The site's folder for this lock file, or None where another build has it."""
        home = self._root / site_id
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(home / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            folder = home / key
            folder.mkdir(exist_ok=True, mode=0o700)
            try:
                yield Cached(folder, key, hit=any(folder.iterdir()))
            finally:
                self._settle(folder)
        finally:
            os.close(fd)

    def _settle(self, folder: Path) -> None:
        usage = measure([folder], _MOST_FILES)
        note = folder.with_suffix(".size")
        if usage.blocks > self._folder_bytes or usage.files > _MOST_FILES:
            remove_tree(folder)
            note.unlink(missing_ok=True)
            return
        note.write_text(str(usage.blocks))
        self._collect(keep=note)

    def _collect(self, keep: Path) -> None:
        """Longest unused first; never one that a build holds."""
        notes = sorted(self._root.glob("*/*.size"), key=_used)
        total = sum(_size(note) for note in notes)
        for note in notes:
            if total <= self._total_bytes:
                return
            if note != keep and self._drop(note):
                total -= _size(note)
                note.unlink(missing_ok=True)

    def _drop(self, note: Path) -> bool:
        fd = os.open(note.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            remove_tree(note.with_suffix(""))
            return True
        finally:
            os.close(fd)


def _used(note: Path) -> float:
    try:
        return note.stat().st_mtime
    except OSError:
        return time.time()


def _size(note: Path) -> int:
    try:
        return int(note.read_text())
    except (OSError, ValueError):
        return 0
