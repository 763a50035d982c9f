"""The sealed content store: `store/<aa>/<sha256>-<644|755>`, hashed as it enters, read-only ever after.

Modification times are zero: equal contents are equal files, and any later write shows without reading a byte.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError

SEALED: Final = {"644": 0o444, "755": 0o555, "etag": 0o444}
_CHUNK: Final = 1 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Content:
    """One content by its sha256 (lower-case hex), size in bytes and mode `644` or `755`."""

    sha256: str
    size: int
    mode: str


class ContentStore:
    """Safe for several threads and processes. `tmp` lies on the same file system as `root`."""

    def __init__(self, root: Path, tmp: Path) -> None:
        self._root = root
        self._tmp = tmp

    def path(self, content: Content) -> Path:
        return self._root / content.sha256[:2] / f"{content.sha256}-{content.mode}"

    def holds(self, content: Content) -> bool:
        """Whether it is here and its seal is whole: size, mode and time; the bytes are `scrub`'s."""
        try:
            found = os.lstat(self.path(content))
        except FileNotFoundError:
            return False
        return _sealed(found, content.mode) and found.st_size == content.size

    def put(self, content: Content, chunks: Iterable[bytes]) -> None:
        """Keep a content. A broken one of that name is replaced.

        Raises roll.verify_failed if the bytes are not those of the sha256, roll.disk_floor if the disk is full.
        """
        self._keep(self.path(content), lambda temporary: _write_hashed(temporary, content, chunks))

    def mirror(self, content: Content) -> bool:
        """Make a content from the same bytes in the other mode, if those are here."""
        other = Content(content.sha256, content.size, "755" if content.mode == "644" else "644")
        if not self.holds(other):
            return False
        with open(self.path(other), "rb") as file:
            self.put(content, iter(lambda: file.read(_CHUNK), b""))
        return True

    def copies(self, sha256: str) -> Iterator[Iterator[bytes]]:
        """The bytes of each file that has this name, one after the other; unread whether they are right."""
        for mode in ("644", "755"):
            with contextlib.suppress(FileNotFoundError), open(self.path(Content(sha256, 0, mode)), "rb") as file:
                yield iter(lambda file=file: file.read(_CHUNK), b"")  # type: ignore[misc]

    def etag(self, sha256: str) -> Path:
        """The sidecar that a content's copies in release trees share: its ETag, quoted.

        Not synced: a power cut could empty it, and Caddy then sends no ETag, which is slow and never wrong.
        """
        path = self._root / sha256[:2] / f"{sha256}-etag"
        text = f'"{sha256}"'.encode()
        if not is_sealed(path, "etag"):
            self._keep(path, lambda temporary: _seal(temporary, [text], "etag", sync=False))
        return path

    def scrub(self) -> Iterator[Path]:
        """Read and hash everything; take what does not match its name out of the store and name it.

        Release trees still hold the broken file: `repair_tree` gives them the new one.
        """
        for path in self._contents():
            try:
                whole = _is_whole(path)
            except FileNotFoundError:
                continue
            if not whole:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                yield path

    def collect(self, older: float) -> int:
        """Remove contents that no tree links to since `older` seconds; the bytes that this gave back."""
        freed = 0
        horizon = time.time() - older
        for path in self._contents():
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(path)
                # The time of change moves with each link made or removed.
                if found.st_nlink == 1 and found.st_ctime < horizon:
                    os.unlink(path)
                    freed += found.st_size
        return freed

    def _keep(self, target: Path, write: Callable[[Path], None]) -> None:
        temporary = self._tmp / f"content-{secrets.token_hex(8)}"
        try:
            write(temporary)
            try:
                os.rename(temporary, target)
            except FileNotFoundError:
                target.parent.mkdir(exist_ok=True)
                os.rename(temporary, target)
        except OSError as error:
            raise write_failure(error) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _contents(self) -> Iterator[Path]:
        for folder in sorted(self._root.iterdir()):
            if folder.is_dir():
                yield from sorted(folder.iterdir())


def is_sealed(path: Path, mode: str) -> bool:
    """Whether a file still has the mode and the time that it was sealed with."""
    try:
        return _sealed(os.lstat(path), mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _sealed(found: os.stat_result, mode: str) -> bool:
    regular = stat.S_ISREG(found.st_mode)
    return regular and stat.S_IMODE(found.st_mode) == SEALED.get(mode) and found.st_mtime_ns == 0


def _write_hashed(path: Path, content: Content, chunks: Iterable[bytes]) -> None:
    digest = hashlib.sha256()
    size = 0

    def checked() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            size += len(chunk)
            if size > content.size:
                break
            digest.update(chunk)
            yield chunk
        if size != content.size or digest.hexdigest() != content.sha256:
            raise HeadwayError("roll.verify_failed", f"The content {content.sha256[:12]}… does not have its sha256.")

    _seal(path, checked(), content.mode)


def _seal(path: Path, chunks: Iterable[bytes], mode: str, *, sync: bool = True) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        out.writelines(chunks)
        out.flush()
        os.fchmod(fd, SEALED[mode])
        os.utime(fd, ns=(0, 0))
        if sync:
            os.fsync(fd)


def _is_whole(path: Path) -> bool:
    sha256, _, mode = path.name.partition("-")
    if not _sealed(os.lstat(path), mode):
        return False
    if mode == "etag":
        return path.read_bytes() == f'"{sha256}"'.encode()
    return _hash(path) == sha256


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_failure(error: OSError) -> HeadwayError:
    """What a failed write means: both can be tried again, a full disk with a code of its own."""
    if error.errno in _FULL:
        return HeadwayError("roll.disk_floor", "The host's disk is full.")
    return HeadwayError("roll.place_failed", f"The host cannot write its store: {error.strerror}.")
