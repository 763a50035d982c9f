"""A cache folder as one object: an index and the contents, compressed, read and written without trusting either.

Shape, inside zstd: `HWCACHE1`, the index's length in 8 bytes, the index as JSON (`[path, "d"|"x"|"f", size, mtime]` or
`[path, "l", target, 0]`, sorted), the contents one after the other. Modes are 755 or 644, links come last when it is
unpacked, so that nothing is ever written through one, and what is neither file, folder nor link is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import zstandard

from adapters.sandbox.removal import FOLDER

MAGIC: Final = b"HWCACHE1"
MAX_INDEX: Final = 128 << 20
CHUNK: Final = 1 << 20
DEPTH: Final = 200
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Row = tuple[str, str, Any, int]
Stopped = Callable[[], bool]


class UnusableCache(Exception):
    """An archive that is not one, or a folder that cannot be made one; the text says why. Never a build's failure."""


@dataclass(frozen=True)
class Bounds:
    size: int
    files: int


@dataclass(frozen=True)
class Packed:
    """`sha256` and `size` of the archive; `held` bytes are in it."""

    sha256: str
    size: int
    held: int


def pack(
    folder: Path,
    target: IO[bytes],
    bounds: Bounds,
    left_out: Collection[str] = (),
    stopped: Stopped = lambda: False,
) -> Packed:
    """Write the folder's archive to `target`. Raises UnusableCache past the bounds, or where `stopped()`."""
    root = os.open(folder, FOLDER)
    try:
        rows = sorted(_rows(root, bounds, frozenset(left_out)))
        index = json.dumps(rows, separators=(",", ":")).encode()
        writer = _Hashing(target)
        with zstandard.ZstdCompressor(level=1).stream_writer(writer, closefd=False) as packer:  # type: ignore[arg-type]
            packer.write(MAGIC + len(index).to_bytes(8, "big") + index)
            for path, kind, size, _ in rows:
                if kind in "fx":
                    _copy_in(root, path, size, packer.write, stopped)
        return Packed(writer.hasher.hexdigest(), writer.size, sum(row[2] for row in rows if row[1] in "fx"))
    except OSError as error:
        raise UnusableCache(f"it cannot be read ({error.strerror})") from error
    finally:
        os.close(root)


def fingerprint(folder: Path, bounds: Bounds) -> str:
    """What would be packed of a folder, by names, sizes and times; "" where there is none."""
    try:
        root = os.open(folder, FOLDER)
    except OSError:
        return ""
    try:
        return hashlib.sha256(json.dumps(sorted(_rows(root, bounds, frozenset()))).encode()).hexdigest()
    finally:
        os.close(root)


def unpack(source: IO[bytes], folder: Path, bounds: Bounds, stopped: Stopped = lambda: False) -> None:
    """Fill the empty folder from an archive. Raises UnusableCache, and leaves what it has written."""
    root = os.open(folder, FOLDER)
    try:
        with zstandard.ZstdDecompressor().stream_reader(source, closefd=False) as reader:
            rows = _read_index(reader, bounds)
            for path, kind, size, mtime in rows:
                if kind == "d":
                    os.close(_folder(root, path))
                elif kind in "fx":
                    _copy_out(root, path, kind, size, mtime, reader, stopped)
            for path, kind, text, _ in rows:
                if kind == "l":
                    with _parent(root, path) as (above, name):
                        os.symlink(os.fsencode(text), name, dir_fd=above)
    except zstandard.ZstdError as error:
        raise UnusableCache("it is damaged") from error
    except (OSError, ValueError) as error:
        raise UnusableCache(f"it cannot be unpacked ({getattr(error, 'strerror', None) or error})") from error
    finally:
        os.close(root)


class _Hashing:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hasher, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.hasher.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _rows(root: int, bounds: Bounds, left_out: frozenset[str]) -> Iterator[Row]:
    """Every entry below an open folder. Folders that this process may not read are as good as empty."""
    count = size = 0
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            here = _open(root, prefix)
        except OSError:
            continue
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    path = f"{prefix}/{entry.name}" if prefix else entry.name
                    if path in left_out or (row := _row(here, entry, path)) is None:
                        continue
                    count, size = count + 1, size + (row[2] if row[1] in "fx" else 0)
                    if count > bounds.files or size > bounds.size or path.count("/") > DEPTH:
                        raise UnusableCache(f"it has more than {bounds.files} files or {bounds.size} bytes")
                    if row[1] == "d":
                        waiting.append(path)
                    yield row
        finally:
            os.close(here)


def _row(here: int, entry: os.DirEntry[str], path: str) -> Row | None:
    info = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return path, "l", os.readlink(entry.name, dir_fd=here), 0
    if stat.S_ISDIR(info.st_mode):
        return path, "d", 0, 0
    if not stat.S_ISREG(info.st_mode):
        return None
    return path, "x" if info.st_mode & stat.S_IXUSR else "f", info.st_size, int(info.st_mtime)


def _copy_in(root: int, path: str, size: int, write: Callable[[bytes], int], stopped: Stopped) -> None:
    with _parent(root, path) as (above, name):
        fd = os.open(name, _FILE, dir_fd=above)
    try:
        left = size
        while left:
            if stopped():
                raise UnusableCache("the build is over")
            chunk = os.read(fd, min(CHUNK, left))
            if not chunk:
                raise UnusableCache("it changed while it was read")
            write(chunk)
            left -= len(chunk)
    finally:
        os.close(fd)


def _copy_out(
    root: int, path: str, kind: str, size: int, mtime: int, reader: zstandard.ZstdDecompressionReader, stopped: Stopped
) -> None:
    with _parent(root, path) as (above, name):
        fd = os.open(name, _NEW, 0o755 if kind == "x" else 0o644, dir_fd=above)
    with os.fdopen(fd, "wb") as file:
        left = size
        while left:
            if stopped():
                raise UnusableCache("the build is over")
            chunk = reader.read(min(CHUNK, left))
            if not chunk:
                raise UnusableCache("it is cut off")
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        os.utime(fd, (mtime, mtime))


def _read_index(reader: zstandard.ZstdDecompressionReader, bounds: Bounds) -> list[Row]:
    head = _exactly(reader, len(MAGIC) + 8)
    length = int.from_bytes(head[len(MAGIC) :], "big")
    if not head.startswith(MAGIC) or length > MAX_INDEX:
        raise UnusableCache("it is of another kind")
    try:
        raw = json.loads(_exactly(reader, length))
    except (ValueError, RecursionError) as error:
        raise UnusableCache("its index is damaged") from error
    if not isinstance(raw, list) or len(raw) > bounds.files:
        raise UnusableCache(f"it has more than {bounds.files} files")
    rows = [_checked(one) for one in raw]
    if sum(row[2] for row in rows if row[1] in "fx") > bounds.size:
        raise UnusableCache(f"it has more than {bounds.size} bytes")
    return rows


def _checked(raw: object) -> Row:
    match raw:
        case [str(path), "l", str(target), 0] if _inside(path) and 0 < len(target) < 4096 and "\0" not in target:
            return path, "l", target, 0
        case [str(path), ("d" | "f" | "x") as kind, int(size), int(mtime)] if (
            _inside(path) and 0 <= size < 1 << 50 and 0 <= mtime < 1 << 40
        ):
            return path, kind, size, mtime
    raise UnusableCache("its index names something that a cache cannot hold")


def _inside(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= DEPTH + 1 and "\0" not in path and not any(part in ("", ".", "..") for part in parts)


def _exactly(reader: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        chunk = reader.read(min(CHUNK, size - len(out)))
        if not chunk:
            raise UnusableCache("it is cut off")
        out += chunk
    return bytes(out)


def _open(root: int, path: str) -> int:
    """The folder at a path, no link followed."""
    at = os.dup(root)
    for part in path.split("/") if path else ():
        try:
            inner = os.open(os.fsencode(part), FOLDER, dir_fd=at)
        finally:
            os.close(at)
        at = inner
    return at


def _folder(root: int, path: str) -> int:
    """The same, made where it is missing."""
    at = os.dup(root)
    for part in path.split("/") if path else ():
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.fsencode(part), 0o755, dir_fd=at)
            inner = os.open(os.fsencode(part), FOLDER, dir_fd=at)
        finally:
            os.close(at)
        at = inner
    return at


@contextlib.contextmanager
def _parent(root: int, path: str) -> Iterator[tuple[int, bytes]]:
    above, _, name = path.rpartition("/")
    at = _folder(root, above)
    try:
        yield at, os.fsencode(name)
    finally:
        os.close(at)
