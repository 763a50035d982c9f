"""A frozen tree as a source: fetched from packs of the object store, hashed again file by file, and written without
following anything that is there already.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from adapters.artifact.paths import escaped, link_fault
from adapters.artifact.snapshot import MAX_BYTES, SnapshotFile, parsed
from adapters.source.runner import Canceled
from headway.errors import HeadwayError

AT_ONCE: Final = 8
TRIES: Final = 3
# Trees have no time of their own: builds that stamp their output get 1980-01-01, the first that a zip can hold.
SOURCE_TIME: Final = 315_532_800


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
    packs: Mapping[str, str],
    workspace: Path,
    canceled: Canceled = lambda: False,
) -> Frozen:
    """Fill the empty workspace. `address` is of the snapshot, `packs` maps a pack's sha256 to its address.

    Symbolic links come last, so that nothing is written through one, and only those that stay inside.

    Raises source.invalid, source.too_large, upload.failed (the object store, retryable), job.canceled.
    """
    files = parsed(_read(http, address, MAX_BYTES), digest)
    by_pack: dict[str, list[SnapshotFile]] = {}
    for one in files:
        by_pack.setdefault(one.pack, []).append(one)
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    links: dict[str, str] = {}

    def fill(pack: str) -> None:
        wanted = by_pack[pack]
        if pack not in packs:
            raise HeadwayError("source.invalid", f"The snapshot names a pack {pack[:12]}… that it may not read.")
        raw = _read(http, packs[pack], max(one.offset + one.size for one in wanted), ranged=True)
        for one in wanted:
            data = _checked(one, raw[one.offset : one.offset + one.size])
            if one.mode == "link":
                links[one.path] = data.decode("utf-8", "replace")
            else:
                _write(root, one.path, functools.partial(_file, mode=one.mode, data=data))

    try:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="snapshot") as pool:
            for _ in pool.map(fill, sorted(by_pack)):
                # Asked here: whether an activity is canceled is known in its own thread only.
                if canceled():
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise HeadwayError("job.canceled", "The job was canceled while its source was fetched.")
        _link_all(root, links)
    finally:
        os.close(root)
    return Frozen(digest, len(files), sum(one.size for one in files))


def _read(http: httpx.Client, url: str, most: int, *, ranged: bool = False) -> bytes:
    if most == 0:
        return b""
    headers = {"range": f"bytes=0-{most - 1}"} if ranged else {}
    return _again(lambda: _once(http, url, most, headers))


def _once(http: httpx.Client, url: str, most: int, headers: Mapping[str, str]) -> bytes:
    raw = bytearray()
    try:
        with http.stream("GET", url, headers=dict(headers)) as answer:
            if not answer.is_success:
                raise HeadwayError("upload.failed", f"The object store answered {answer.status_code} to a read.")
            for chunk in answer.iter_bytes():
                raw += chunk
                if len(raw) > most and not headers:
                    raise HeadwayError("source.too_large", f"A snapshot has at most {most} bytes.")
    except httpx.TransportError as error:
        message = f"The connection to the object store was lost: {type(error).__name__}."
        raise HeadwayError("upload.failed", message) from error
    return bytes(raw)


def _again(work: Callable[[], bytes]) -> bytes:
    for _ in range(TRIES - 1):
        try:
            return work()
        except HeadwayError as error:
            if error.code != "upload.failed":
                raise
    return work()


def _checked(one: SnapshotFile, data: bytes) -> bytes:
    if len(data) != one.size or hashlib.sha256(data).hexdigest() != one.sha256:
        raise HeadwayError("source.invalid", f"{escaped(one.path)} is not what the snapshot says.")
    return data


def _link_all(root: int, links: dict[str, str]) -> None:
    for path, target in sorted(links.items()):
        fault = link_fault(path, links)
        if fault:
            raise HeadwayError("source.invalid", f"The snapshot's {escaped(path)} {fault}.")
        _write(root, path, functools.partial(_link, target=target))


def _link(fd: int, name: str, target: str) -> None:
    os.symlink(target, name, dir_fd=fd)


def _file(fd: int, name: str, mode: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o755 if mode == "755" else 0o644, dir_fd=fd), "wb") as file:
        file.write(data)


def _write(root: int, path: str, make: Callable[[int, str], None]) -> None:
    """`make` gets the folder of the path, opened without following anything, and the name in it."""
    at = os.dup(root)
    try:
        *above, name = path.split("/")
        for part in above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=at)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = inner
        make(at, name)
    except OSError as error:
        raise HeadwayError("source.invalid", f"{escaped(path)} cannot be written: {error.strerror}.") from error
    finally:
        os.close(at)
