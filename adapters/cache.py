"""What builds may keep between them: one folder per site, environment and lock file, never shared across sites."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from adapters.cache_archive import Bounds, fingerprint
from adapters.sandbox.removal import REMOVING, measure, remove_tree, removed_name

TARGET: Final = "/cache"
FOLDERS: Final = "folders"
_MOST_FILES: Final = 400_000
# What clients write at every run and never read again.
LEFT_OUT: Final = ("npm/_logs", "npm/_update-notifier-last-checked", "npm/_cacache/tmp")

# Where the clients look for their cache.
ENVIRONMENT: Final = {
    "npm_config_cache": f"{TARGET}/npm",
    "YARN_CACHE_FOLDER": f"{TARGET}/yarn",
    # Yarn 4 keeps packages below its global folder, whatever the one above says.
    "YARN_GLOBAL_FOLDER": f"{TARGET}/yarn",
    "PIP_CACHE_DIR": f"{TARGET}/pip",
    "UV_CACHE_DIR": f"{TARGET}/uv",
    "PNPM_HOME": f"{TARGET}/pnpm",
    # With -trimpath a toolchain's own compiled library does not count: without this each build compiles it anew.
    "GOCACHE": f"{TARGET}/go-build",
    "GOMODCACHE": f"{TARGET}/go-mod",
    # Else its folders are read-only, and nobody but root can take one away.
    "GOFLAGS": "-modcacherw",
}


@dataclass(frozen=True)
class Note:
    """What is known of a folder: the archive that it was last equal to, and how much lay in it then.

    `size` in bytes without the declared folders, `folders` is their fingerprint.
    """

    sha256: str
    size: int
    folders: str


@dataclass(frozen=True)
class Cached:
    """`folder` to mount at /cache, this build's alone while it is lent; `bounds` are those of what can be kept."""

    folder: Path
    key: str
    bounds: Bounds

    @property
    def hit(self) -> bool:
        """Whether there is something in it."""
        return any(one.name != FOLDERS or _holds(one) for one in self.folder.iterdir())

    @property
    def note(self) -> Note | None:
        try:
            return Note(**json.loads(self._note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def remember(self, sha256: str) -> None:
        """It is what this archive says."""
        self._note.write_text(json.dumps(asdict(self.look(sha256))))

    def look(self, sha256: str) -> Note:
        """Raises UnusableCache where it is too large to be kept."""
        size = measure([self.folder], self.bounds.files).blocks
        apart = measure([self.folder / FOLDERS], self.bounds.files).blocks
        return Note(sha256, size - apart, fingerprint(self.folder / FOLDERS, self.bounds))

    def empty(self) -> None:
        self._note.unlink(missing_ok=True)
        remove_tree(self.folder)
        self.folder.mkdir(mode=0o700)

    @property
    def _note(self) -> Path:
        return self.folder.with_suffix(".note")


def cache_key(lock_name: str | None, lock: bytes | None) -> str:
    """Names the lock file's content: `package-lock.json` of other bytes is another cache."""
    return hashlib.sha256(f"{lock_name}\0".encode() + (lock or b"")).hexdigest()[:32]


class BuildCache:
    """Folders `<root>/<site_id>/<place>`. One is given to one build at a time; a second build goes without.

    A folder larger than `folder_bytes` is dropped after the build; past `total_bytes` the longest unused ones go.
    """

    def __init__(self, root: Path, *, folder_bytes: int = 2 << 30, total_bytes: int = 8 << 30) -> None:
        self._root = root
        self._folder_bytes = folder_bytes
        self._total_bytes = total_bytes

    @contextmanager
    def scratch(self) -> Iterator[IO[bytes]]:
        """A file for an archive on its way in or out; nothing is left of it, whoever dies."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=self._root) as file:
            yield file

    @contextmanager
    def lend(self, site_id: str, place: str, key: str = "") -> Iterator[Cached | None]:
        """The site's folder of that name, or None where another build has it. `key` is the lock file's."""
        home = self._root / site_id
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = home / place
        with self._held(folder) as ours:
            if not ours:
                yield None
                return
            folder.mkdir(exist_ok=True, mode=0o700)
            try:
                yield Cached(folder, key or place, Bounds(self._folder_bytes, _MOST_FILES))
            finally:
                self._settle(folder)

    def _settle(self, folder: Path) -> None:
        usage = measure([folder], _MOST_FILES)
        note = folder.with_suffix(".size")
        # What cannot be looked at is not kept: it counted for nothing, and had no end.
        if usage.blind or usage.blocks > self._folder_bytes or usage.files > _MOST_FILES:
            remove_tree(folder)
            note.unlink(missing_ok=True)
            folder.with_suffix(".note").unlink(missing_ok=True)
            return
        note.write_text(str(usage.blocks))
        self._collect(keep=note)

    def _collect(self, keep: Path) -> None:
        """Longest unused first; never one that a build holds."""
        self._count_left_over()
        notes = sorted(self._root.glob("*/*.size"), key=_used)
        total = sum(_size(note) for note in notes)
        for note in notes:
            if total <= self._total_bytes:
                return
            if note != keep and self._drop(note):
                total -= _size(note)
                note.unlink(missing_ok=True)

    def _count_left_over(self) -> None:
        """What a builder that was killed has left counts like the rest, or goes where it was being removed."""
        for lock in self._root.glob("*/*.lock"):
            folder, note = lock.with_suffix(""), lock.with_suffix(".size")
            if not note.exists() and folder.is_dir():
                with self._held(folder) as ours:
                    if ours and folder.is_dir():
                        note.write_text(str(measure([folder], _MOST_FILES).blocks))
        for path in self._root.glob(f"*/{REMOVING}*"):
            with self._held(path.with_name(removed_name(path.name))) as ours:
                if ours:
                    remove_tree(path)

    def _drop(self, note: Path) -> bool:
        with self._held(note.with_suffix("")) as ours:
            if ours:
                remove_tree(note.with_suffix(""))
                note.with_suffix(".note").unlink(missing_ok=True)
            return ours

    @contextmanager
    def _held(self, folder: Path) -> Iterator[bool]:
        """Whether no build has the folder, nor will have it meanwhile."""
        fd = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)


def _holds(path: Path) -> bool:
    try:
        return not path.is_symlink() and any(path.iterdir())
    except OSError:
        return False


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
