"""Scan an output folder into manifest entries: each file is opened once, hashed as it is read, and never trusted.

Kept are regular files (as 644 or 755: setuid bits, owners and times are dropped; hard links are files like others) and
symbolic links that stay inside. Everything else is refused by name: devices, sockets, pipes, names that are not UTF-8
or hold control characters. `.git` is left out anywhere, `headway.toml` at the root.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final

from adapters.artifact.aside import Aside
from adapters.artifact.folder import Folder
from adapters.artifact.manifest import MAX_FILES, Entry, File, Link
from adapters.artifact.paths import MAX_DEPTH, escaped, name_fault
from adapters.blobs import Blob, blob_hasher, blob_id
from headway.errors import HeadwayError

CHUNK: Final = 1 << 20
LEFT_OUT: Final = frozenset({"headway.toml"})
# Several times the files: folders count too, so that a million empty ones do not hold a builder.
_VISITS_PER_FILE: Final = 4
_SMALL: Final = 1 << 20

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Bounds:
    """How large an output may be, in files, bytes and folders deep. `held` bytes of small files are kept in memory."""

    files: int = MAX_FILES
    file_bytes: int = 2 << 30
    total_bytes: int = 4 << 30
    depth: int = MAX_DEPTH
    held: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """One content and where it was seen first. `raw` where it is small enough to be held."""

    sha256: str
    size: int
    path: str
    stamp: Stamp
    raw: bytes | None


@dataclass
class Tree:
    """What a scan found. `contents` has each content once, by sha256, in the order of the scan.

    `blobs` are the same by git's ids, and `together` is the sha256 of all of them one after the other, where the scan
    was asked for it.
    """

    entries: list[Entry] = field(default_factory=list)
    contents: dict[str, Content] = field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0
    blobs: dict[str, Blob] = field(default_factory=dict)
    together: str | None = None


def scan(
    folder: Folder,
    bounds: Bounds | None = None,
    *,
    left_out: frozenset[str] = LEFT_OUT,
    canceled: Callable[[], bool] = lambda: False,
    git_ids: bool = False,
    together: bool = False,
) -> Tree:
    """Scan the folder in the order of names. Raises build.output_invalid, or job.canceled where `canceled()`.

    `together`: hash what a pack of all contents would hold, beside the rest: the first of a site's needs it.
    """
    with Aside() if together else nullcontext() as aside:
        scanner = _Scanner(bounds or Bounds(), left_out, canceled, git_ids=git_ids, aside=aside)
        scanner.walk(folder.fd, "", 0)
        if aside is not None:
            scanner.tree.together = aside.hexdigest()
    return scanner.tree


class _Scanner:
    def __init__(
        self,
        bounds: Bounds,
        left_out: frozenset[str],
        canceled: Callable[[], bool],
        *,
        git_ids: bool,
        aside: Aside | None,
    ) -> None:
        self.tree = Tree()
        self._aside = aside
        self._git_ids = git_ids
        self._bounds = bounds
        self._left_out = left_out
        self._canceled = canceled
        self._visits = 0
        self._held = 0

    def walk(self, fd: int, prefix: str, depth: int) -> None:
        if depth > self._bounds.depth:
            raise _refused(prefix, f"is more than {self._bounds.depth} folders deep")
        for entry in self._sorted(fd):
            path = prefix + entry.name
            self._visits += 1
            if self._visits > self._bounds.files * _VISITS_PER_FILE:
                raise HeadwayError("build.output_invalid", "The output has too many folders.")
            if entry.name == ".git" or path in self._left_out:
                continue
            fault = name_fault(entry.name)
            if fault:
                raise _refused(path, fault)
            if entry.is_symlink():
                self._link(fd, entry.name, path)
            elif entry.is_dir(follow_symlinks=False):
                self._folder(fd, entry.name, path, depth)
            elif entry.is_file(follow_symlinks=False):
                self._file(fd, entry.name, path)
            else:
                raise _refused(path, "is a device, a socket or a pipe")

    def _sorted(self, fd: int) -> list[os.DirEntry[str]]:
        most = self._bounds.files * _VISITS_PER_FILE
        found: list[os.DirEntry[str]] = []
        with os.scandir(fd) as names:
            for entry in names:
                found.append(entry)
                if len(found) > most:
                    raise HeadwayError("build.output_invalid", "The output has too many files in one folder.")
        return sorted(found, key=lambda entry: entry.name)

    def _folder(self, fd: int, name: str, path: str, depth: int) -> None:
        inner = _open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, fd, path)
        try:
            self.walk(inner, path + "/", depth + 1)
        finally:
            os.close(inner)

    def _link(self, fd: int, name: str, path: str) -> None:
        self._count(path)
        self.tree.entries.append(Link(path, os.readlink(name, dir_fd=fd)))

    def _file(self, fd: int, name: str, path: str) -> None:
        self._count(path)
        file = _open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, fd, path)
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                raise _refused(path, "is not a regular file")
            self._weigh(path, before.st_size)
            sha256, raw = self._read(file, before.st_size, path)
            if stamp(os.fstat(file)) != stamp(before):
                raise _refused(path, "changed while it was read")
        finally:
            os.close(file)
        mode = before.st_mode
        self.tree.entries.append(File(path, "755" if mode & stat.S_IXUSR else "644", before.st_size, sha256))
        if sha256 not in self.tree.contents:
            self._held += len(raw or b"")
            self.tree.contents[sha256] = Content(sha256, before.st_size, path, stamp(before), raw)

    def _read(self, file: int, size: int, path: str) -> tuple[str, bytes | None]:
        if size <= _SMALL:
            raw = os.read(file, size + 1) if size else b""
            if len(raw) != size:
                raise _refused(path, "changed while it was read")
            sha256 = hashlib.sha256(raw).hexdigest()
            if self._aside is not None and sha256 not in self.tree.contents:
                self._aside.feed(raw)
            if self._git_ids:
                self.tree.blobs[blob_id(raw)] = Blob(sha256, size)
            return sha256, raw if self._held + size <= self._bounds.held else None
        hasher, named = hashlib.sha256(), blob_hasher(size) if self._git_ids else None
        if self._aside is not None:
            self._aside.mark()
        left = size
        while left > 0 and (chunk := os.read(file, CHUNK)):
            if self._aside is not None:
                self._aside.feed(chunk)
            hasher.update(chunk)
            if named is not None:
                named.update(chunk)
            left -= len(chunk)
            if self._canceled():
                raise HeadwayError("job.canceled", "The job was canceled while its output was read.")
        if left:
            raise _refused(path, "changed while it was read")
        sha256 = hasher.hexdigest()
        if self._aside is not None and sha256 in self.tree.contents:
            self._aside.back()
        if named is not None:
            self.tree.blobs[named.hexdigest()] = Blob(sha256, size)
        return sha256, None

    def _count(self, path: str) -> None:
        self.tree.files += 1
        if self.tree.files > self._bounds.files:
            raise HeadwayError("build.output_invalid", f"The output has more than {self._bounds.files} files.")
        if self.tree.files % 256 == 0 and self._canceled():
            raise HeadwayError("job.canceled", f"The job was canceled while {escaped(path)} was read.")

    def _weigh(self, path: str, size: int) -> None:
        if size > self._bounds.file_bytes:
            raise _refused(path, f"is larger than {self._bounds.file_bytes} bytes")
        self.tree.size_bytes += size
        if self.tree.size_bytes > self._bounds.total_bytes:
            raise HeadwayError("build.output_invalid", f"The output is larger than {self._bounds.total_bytes} bytes.")


def stamp(status: os.stat_result) -> Stamp:
    """What changes whenever a file's content does: its change time cannot be set back by its owner."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _open(name: str, flags: int, fd: int, path: str) -> int:
    try:
        return os.open(name, flags, dir_fd=fd)
    except OSError as error:
        raise _refused(path, f"cannot be read ({errno.errorcode.get(error.errno or 0, 'unknown')})") from error


def _refused(path: str, fault: str) -> HeadwayError:
    shown = escaped(path)
    return HeadwayError("build.output_invalid", f"{shown} {fault}.", path=shown)
