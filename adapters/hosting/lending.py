"""A damaged object of the object store is put right from what this host has.

Each piece is hashed as it is taken: from the store, or, where that has it no more or not whole, from what is left in
the object store. Together they have the sha256 that the address was made for, or nothing is sent.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import httpx

from adapters.hosting.disk import check_floor
from adapters.hosting.fetch import Downloads, Missing, Short
from adapters.hosting.host import Host
from headway.broker import MendSpec
from headway.errors import HeadwayError

_CHUNK: Final = 1 << 20


class Uploads(Protocol):
    def put(self, url: str, headers: dict[str, str], path: Path) -> None:
        """Raises upload.failed where it is to be tried again, mend.impossible where the store refuses it for good."""


class HttpUploads:
    """Presigned PUTs."""

    def __init__(self, client: httpx.Client | None = None) -> None:
        self._client = client or httpx.Client(timeout=httpx.Timeout(60, connect=5), trust_env=False)

    def close(self) -> None:
        self._client.close()

    def put(self, url: str, headers: dict[str, str], path: Path) -> None:
        try:
            with path.open("rb") as body:
                answer = self._client.put(url, headers=headers, content=_chunks(body))
        except httpx.HTTPError as error:
            # The message of the library may quote the presigned address.
            raise HeadwayError("upload.failed", f"The object store is away ({type(error).__name__}).") from None
        if answer.status_code == 412:
            raise HeadwayError("mend.impossible", "The object is another by now than the one that was found damaged.")
        if not answer.is_success:
            raise HeadwayError("upload.failed", f"The object store answered {answer.status_code} to what mends it.")


class Lender:
    """Synchronous; idempotent: what is right already is not written again (the address then says 412)."""

    def __init__(self, host: Host, downloads: Downloads, uploads: Uploads, *, floor: int = 0) -> None:
        self._host = host
        self._downloads = downloads
        self._uploads = uploads
        self._floor = floor

    def manifest_size(self, digest: str) -> int:
        """Of the whole copy that this host has. Raises mend.impossible where it has none."""
        return len(self._manifest(digest))

    def mend(self, spec: MendSpec, check: Callable[[], None]) -> None:
        """Raises mend.impossible, naming what is whole nowhere; upload.failed; roll.disk_floor."""
        check_floor(self._host.folders.root, spec.size, self._floor)
        temporary = self._host.folders.tmp / f"mend-{secrets.token_hex(8)}"
        try:
            with temporary.open("w+b") as out:
                if spec.object == "manifest":
                    out.write(self._manifest(spec.sha256))
                else:
                    self._assemble(spec, out, check)
                _require(out, spec)
            self._uploads.put(spec.put_url, spec.put_headers, temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def _manifest(self, digest: str) -> bytes:
        raw = self._host.trees.manifest(digest)
        if raw is None or hashlib.sha256(raw).hexdigest() != digest:
            raise HeadwayError("mend.impossible", "This host has no whole copy of that manifest.")
        return raw

    def _assemble(self, spec: MendSpec, out: BinaryIO, check: Callable[[], None]) -> None:
        """What lies between known pieces, and behind them, belongs to nobody any more: as much of it as is left."""
        for sha256, offset, size in spec.pieces:
            check()
            self._fill(spec, out, offset)
            if out.tell() > offset:
                raise HeadwayError("mend.impossible", "Layouts tell different stories of that pack.")
            if not self._from_here(out, sha256, size) and not self._from_there(spec, out, sha256, size):
                message = f"The content {sha256} is whole neither here nor in the object store."
                raise HeadwayError("mend.impossible", message)
        self._fill(spec, out, spec.size)

    def _from_here(self, out: BinaryIO, sha256: str, size: int) -> bool:
        return any(_copied(out, chunks, sha256, size) for chunks in self._host.store.copies(sha256))

    def _from_there(self, spec: MendSpec, out: BinaryIO, sha256: str, size: int) -> bool:
        if spec.get_url is None:
            return False
        with closing(self._range(spec.get_url, out.tell(), size)) as chunks:
            return _copied(out, chunks, sha256, size)

    def _fill(self, spec: MendSpec, out: BinaryIO, upto: int) -> None:
        gap = upto - out.tell()
        if gap > 0 and spec.get_url is not None:
            with closing(self._range(spec.get_url, out.tell(), gap)) as chunks:
                out.writelines(chunks)

    def _range(self, url: str, start: int, length: int) -> Generator[bytes, None, None]:
        """Of an object that is shorter than it should be, what there is of it."""
        try:
            yield from self._downloads.range(url, start, length) if length else ()
        except (Short, Missing):
            return


def _copied(out: BinaryIO, chunks: Iterator[bytes], sha256: str, size: int) -> bool:
    """Whether these are the bytes; if not, nothing of them stays."""
    start, digest, count = out.tell(), hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        count += len(chunk)
        if count > size:
            break
        out.write(chunk)
    if count == size and digest.hexdigest() == sha256:
        return True
    out.seek(start)
    out.truncate()
    return False


def _require(out: BinaryIO, spec: MendSpec) -> None:
    size, digest = out.tell(), hashlib.sha256()
    out.seek(0)
    for chunk in _chunks(out):
        digest.update(chunk)
    out.flush()
    if size != spec.size or digest.hexdigest() != spec.sha256:
        raise HeadwayError("mend.impossible", "What is left of the object does not make it whole.")


def _chunks(body: BinaryIO) -> Iterator[bytes]:
    while chunk := body.read(_CHUNK):
        yield chunk
