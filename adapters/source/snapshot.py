"""A frozen tree as a source: streamed from packs of the object store, hashed again file by file, and written without
following anything that is there already.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import httpx

from adapters.artifact.paths import escaped, link_fault
from adapters.artifact.snapshot import MAX_BYTES, SnapshotFile, parsed
from adapters.source.pieces import Place, Span, pieces_of, plan_spans
from adapters.source.runner import Canceled
from headway.errors import HeadwayError

AT_ONCE: Final = 8
TRIES: Final = 3
# Packs whose addresses are asked for at once.
PAGE: Final = 200
SMALL: Final = 1 << 20
CHUNK: Final = 256 << 10
# Trees have no time of their own: builds that stamp their output get 1980-01-01, the first that a zip can hold.
SOURCE_TIME: Final = 315_532_800

# Of the builder's disk, and not of the tree.
OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)

T = TypeVar("T")
Addresses = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class Frozen:
    """What now lies in the workspace."""

    sha256: str
    files: int
    size_bytes: int


def fetch_snapshot(
    http: httpx.Client,
    digest: str,
    address: str,
    addresses: Addresses,
    workspace: Path,
    canceled: Canceled = lambda: False,
) -> Frozen:
    """Fill the empty workspace. `address` is of the snapshot; `addresses` tells those of packs, by their sha256.

    Symbolic links come last, so that nothing is written through one, and only those that stay inside. A mebibyte or so
    is in memory for each of the packs that are read side by side, however large they are.

    Raises source.invalid, source.too_large, upload.failed (the object store, retryable), job.canceled.
    """
    files = parsed(_again(lambda: _read(http, address)), digest)
    spans: dict[str, list[Span]] = {}
    for span in plan_spans(files):
        spans.setdefault(span.pack, []).append(span)
    packs = list(spans)
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    filling = _Filling(http, root)
    try:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="snapshot") as pool:
            for start in range(0, len(packs), PAGE):
                page = packs[start : start + PAGE]
                urls = addresses(page)
                work = [pool.submit(filling.fill, span, urls.get(pack)) for pack in page for span in spans[pack]]
                _wait(pool, work, canceled)
        _link_all(root, filling.links)
    finally:
        os.close(root)
    return Frozen(digest, len(files), sum(one.size for one in files))


def _wait(pool: ThreadPoolExecutor, work: list[Future[None]], canceled: Canceled) -> None:
    for done in as_completed(work):
        # Asked here: whether an activity is canceled is known in its own thread only.
        stopped = canceled()
        if stopped or done.exception() is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        if stopped:
            raise HeadwayError("job.canceled", "The job was canceled while its source was fetched.")
        done.result()


class _Filling:
    """Writes what spans of packs hold into the tree; links are only remembered."""

    def __init__(self, http: httpx.Client, root: int) -> None:
        self._http, self._root = http, root
        self.links: dict[str, str] = {}

    def fill(self, span: Span, url: str | None) -> None:
        """What has arrived stays: after a lost connection it goes on behind it."""
        if url is None:
            raise HeadwayError("source.invalid", f"The snapshot names a pack {span.pack[:12]}… that it may not read.")
        left = list(span.places)

        def work() -> None:
            # Closed here: what is left to the garbage collector may be closed under the HTTP library's own lock.
            with contextlib.closing(_chunks(self._http, url, left)) as chunks:
                for place, pieces in pieces_of(chunks, tuple(left)):
                    self._place(place.files, pieces)
                    left.remove(place)

        _again(work)

    def _place(self, files: Sequence[SnapshotFile], pieces: Iterator[bytes]) -> None:
        """One content; every file that has it gets bytes of its own."""
        first, *others = sorted(files, key=lambda one: one.mode == "link")
        if first.size <= SMALL:
            data = b"".join(pieces)
            for one in files:
                self._keep(one, data)
            return
        _write(self._root, first.path, functools.partial(_file, mode=first.mode, pieces=pieces))
        for one in others:
            with _opened(self._root, first.path) as source:
                again = iter(functools.partial(os.read, source, CHUNK), b"")
                _write(self._root, one.path, functools.partial(_file, mode=one.mode, pieces=again))

    def _keep(self, one: SnapshotFile, data: bytes) -> None:
        if one.mode == "link":
            self.links[one.path] = data.decode("utf-8", "replace")
        else:
            _write(self._root, one.path, functools.partial(_file, mode=one.mode, pieces=iter((data,))))


def _read(http: httpx.Client, url: str) -> bytes:
    raw = bytearray()
    with contextlib.closing(_stream(http, url, {})) as chunks:
        for chunk in chunks:
            raw += chunk
            if len(raw) > MAX_BYTES:
                raise HeadwayError("source.too_large", f"A snapshot has at most {MAX_BYTES} bytes.")
    return bytes(raw)


def _chunks(http: httpx.Client, url: str, places: Sequence[Place]) -> Generator[bytes, None, None]:
    """From the first place on; nothing where only empty files are left."""
    start, end = places[0].offset, places[-1].offset + places[-1].size
    if end > start:
        yield from _stream(http, url, {"range": f"bytes={start}-{end - 1}"})


def _stream(http: httpx.Client, url: str, headers: Mapping[str, str]) -> Generator[bytes, None, None]:
    try:
        with http.stream("GET", url, headers={"accept-encoding": "identity", **headers}) as answer:
            if answer.status_code != (206 if headers else 200):
                raise HeadwayError("upload.failed", f"The object store answered {answer.status_code} to a read.")
            yield from answer.iter_bytes(CHUNK)
    except httpx.TransportError as error:
        message = f"The connection to the object store was lost: {type(error).__name__}."
        raise HeadwayError("upload.failed", message) from error


def _again(work: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        try:
            return work()
        except HeadwayError as error:
            if error.code != "upload.failed":
                raise
    return work()


def _link_all(root: int, links: dict[str, str]) -> None:
    for path, target in sorted(links.items()):
        fault = link_fault(path, links)
        if fault:
            raise HeadwayError("source.invalid", f"The snapshot's {escaped(path)} {fault}.")
        _write(root, path, functools.partial(_link, target=target))


def _link(fd: int, name: str, target: str) -> None:
    os.symlink(target, name, dir_fd=fd)


def _file(fd: int, name: str, mode: str, pieces: Iterator[bytes]) -> None:
    """Whole or not there: what breaks off is tried again."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o755 if mode == "755" else 0o644, dir_fd=fd), "wb") as file:
        try:
            for piece in pieces:
                file.write(piece)
        except HeadwayError:
            os.unlink(name, dir_fd=fd)
            raise


def _write(root: int, path: str, make: Callable[[int, str], None]) -> None:
    """`make` gets the folder of the path, opened without following anything, and the name in it."""
    try:
        with _folder(root, path, make=True) as (at, name):
            make(at, name)
    except OSError as error:
        if error.errno in OURS:
            raise
        raise HeadwayError("source.invalid", f"{escaped(path)} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    """A file that was written here, for reading."""
    with _folder(root, path, make=False) as (at, name):
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        try:
            yield source
        finally:
            os.close(source)


@contextlib.contextmanager
def _folder(root: int, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    at = os.dup(root)
    try:
        *above, name = path.split("/")
        for part in above:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=at)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = inner
        yield at, name
    finally:
        os.close(at)
