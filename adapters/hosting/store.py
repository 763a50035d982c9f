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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError

SEALED: Final = {"644": 0o444, "755": 0o555, "etag": 0o444}
_CHUNK: Final = 1 << 20
# Of an intake: how many files and bytes wait for one another, and how many are synced side by side.
_AT_ONCE: Final = 512
_BYTES_AT_ONCE: Final = 64 << 20
_SYNCS: Final = 16
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
        return Path(self.name(content))

    def name(self, content: Content) -> str:
        """`path` as a string: where thousands are asked for, making paths costs more than the files do."""
        return self._name(content.sha256, content.mode)

    def _name(self, sha256: str, mode: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}-{mode}"

    def holds(self, content: Content) -> bool:
        """Whether it is here and its seal is whole: size, mode and time; the bytes are `scrub`'s."""
        try:
            found = os.lstat(self.name(content))
        except FileNotFoundError:
            return False
        return _sealed(found, content.mode) and found.st_size == content.size

    def put(self, content: Content, chunks: Iterable[bytes]) -> None:
        """Keep a content. A broken one of that name is replaced.

        Raises roll.verify_failed if the bytes are not those of the sha256, roll.disk_floor if the disk is full.
        """
        with self.intake() as intake:
            intake.put(content, chunks)

    def intake(self) -> Intake:
        """A way in for many contents, as a context: they are in the store when it ends, however it ends."""
        return Intake(self.name, str(self._tmp))

    def mirror(self, content: Content) -> bool:
        """Make a content from the same bytes in the other mode, if those are here."""
        other = Content(content.sha256, content.size, "755" if content.mode == "644" else "644")
        if not self.holds(other):
            return False
        with open(self.name(other), "rb") as file:
            self.put(content, iter(lambda: file.read(_CHUNK), b""))
        return True

    def copies(self, sha256: str) -> Iterator[Iterator[bytes]]:
        """The bytes of each file that has this name, one after the other; unread whether they are right."""
        for mode in ("644", "755"):
            with contextlib.suppress(FileNotFoundError), open(self.path(Content(sha256, 0, mode)), "rb") as file:
                yield iter(lambda file=file: file.read(_CHUNK), b"")  # type: ignore[misc]

    def etag(self, sha256: str) -> str:
        """The sidecar that a content's copies in release trees share: its ETag, quoted.

        Not synced: a power cut could empty it, and Caddy then sends no ETag, which is slow and never wrong.
        """
        name = self._name(sha256, "etag")
        if not is_sealed(name, "etag"):
            temporary = _temporary(self._tmp)
            with _written(temporary):
                _seal(temporary, [f'"{sha256}"'.encode()], "etag")
                _rename(temporary, name)
        return name

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

    def _contents(self) -> Iterator[Path]:
        for folder in sorted(self._root.iterdir()):
            if folder.is_dir():
                yield from sorted(folder.iterdir())


class Intake:
    """Contents on their way into the store: written one by one, made durable side by side, then named.

    A sync waits for the disk, and those of many files that wait together cost little more than one. For one thread.
    """

    def __init__(self, name: Callable[[Content], str], tmp: str) -> None:
        self._name = name
        self._tmp = tmp
        self._waiting: list[tuple[str, str]] = []
        self._bytes = 0

    def put(self, content: Content, chunks: Iterable[bytes]) -> None:
        """As the store's. It may be kept with later ones only, and not before `keep`."""
        temporary = _temporary(self._tmp)
        with _written(temporary):
            _write_hashed(temporary, content, chunks)
        self._waiting.append((temporary, self._name(content)))
        self._bytes += content.size
        if len(self._waiting) >= _AT_ONCE or self._bytes >= _BYTES_AT_ONCE:
            self.keep()

    def keep(self) -> None:
        """Everything that was put is in the store, durably."""
        try:
            with _named_failures():
                _sync([temporary for temporary, _ in self._waiting])
                while self._waiting:
                    _rename(*self._waiting[-1])
                    self._waiting.pop()
        finally:
            self._drop()

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return self.keep()
        # What has arrived whole is kept, so that another try goes on from there; the first failure counts.
        with contextlib.suppress(HeadwayError):
            self.keep()

    def _drop(self) -> None:
        for temporary, _ in self._waiting:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        self._waiting.clear()
        self._bytes = 0


def is_sealed(path: str, mode: str) -> bool:
    """Whether a file still has the mode and the time that it was sealed with."""
    try:
        return _sealed(os.lstat(path), mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _sealed(found: os.stat_result, mode: str) -> bool:
    regular = stat.S_ISREG(found.st_mode)
    return regular and stat.S_IMODE(found.st_mode) == SEALED.get(mode) and found.st_mtime_ns == 0


def _temporary(tmp: Path | str) -> str:
    return f"{tmp}/content-{secrets.token_hex(8)}"


@contextlib.contextmanager
def _named_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_failure(error) from error


@contextlib.contextmanager
def _written(temporary: str) -> Iterator[None]:
    """Whatever stops the writer, nothing half written stays."""
    try:
        with _named_failures():
            yield
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _rename(temporary: str, name: str) -> None:
    try:
        os.rename(temporary, name)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        os.rename(temporary, name)


def _sync(paths: list[str]) -> None:
    """Each file's bytes, on the disk."""
    if len(paths) <= 1:
        for path in paths:
            _sync_file(path)
        return
    with ThreadPoolExecutor(_SYNCS, "headway-sync") as pool:
        for _ in pool.map(_sync_file, paths):
            pass


def _sync_file(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_hashed(path: str, content: Content, chunks: Iterable[bytes]) -> None:
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


def _seal(path: str, chunks: Iterable[bytes], mode: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        out.writelines(chunks)
        out.flush()
        os.fchmod(fd, SEALED[mode])
        os.utime(fd, ns=(0, 0))


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
