"""Send what is new: one pack of missing contents, then the manifest. What is there already is not sent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from typing import Final, Literal, Protocol

import httpx

from adapters.artifact.folder import Folder
from adapters.artifact.manifest import Manifest
from adapters.artifact.pack import Pack, make_pack
from adapters.artifact.tree import Tree
from adapters.broker import packed
from adapters.source.runner import Canceled
from headway.broker import Contents, Missing, NewPack, PackEntry, Upload, UploadRequest
from headway.errors import HeadwayError

TRIES: Final = 4
INLINE: Final = 64 << 10
INLINE_MOST: Final = 32 << 20


class Broker(Protocol):
    def missing(self, build_id: str, contents: Contents) -> Missing: ...

    def upload(self, build_id: str, request: UploadRequest) -> Upload: ...


class Uploader:
    """Uploads of one attempt at one build, by presigned PUTs that the object store takes once."""

    def __init__(self, broker: Broker, http: httpx.Client, build_id: str, attempt: int, canceled: Canceled) -> None:
        self._broker = broker
        self._http = http
        self._build_id = build_id
        self._attempt = attempt
        self._canceled = canceled
        self.uploaded_bytes = 0

    def send_contents(self, folder: Folder, tree: Tree, manifest: Manifest) -> NewPack | None:
        """Upload the contents that the site does not hold; None where it holds them all."""
        return self.send_missing(folder, tree, self.missing(manifest))

    def missing(self, manifest: Manifest) -> list[str]:
        """The contents that the site does not hold."""
        contents = Contents(attempt=self._attempt, contents=list(manifest.contents.items()))
        return self._broker.missing(self._build_id, contents).missing

    def send_missing(self, folder: Folder, tree: Tree, missing: Collection[str]) -> NewPack | None:
        pack = make_pack(folder, tree, missing)
        if pack is None:
            return None
        self._send("pack", pack.sha256, pack.size, pack.chunks)
        return _new_pack(pack)

    def hand_in(self, manifest: Manifest, pack: NewPack | None) -> str | None:
        """The manifest's text, to go with the output: as long as it is not huge, and new contents make it new.

        Otherwise it may be there already: then it is sent here, and there is nothing to hand in.
        """
        if pack is None or len(manifest.raw) > INLINE_MOST:
            self.send_manifest(manifest)
            return None
        self.uploaded_bytes += len(packed(manifest.raw)[0] or b"")
        return manifest.raw.decode()

    def send_manifest(self, manifest: Manifest) -> None:
        """A long one goes with the question, compressed: it names every file, and mostly the same as ever."""
        raw = manifest.raw
        if not INLINE <= len(raw) <= INLINE_MOST:
            self._send("manifest", manifest.digest, len(raw), lambda: iter([raw]))
            return
        request = UploadRequest(attempt=self._attempt, kind="manifest", sha256=manifest.digest, size=len(raw))
        if self._broker.upload(self._build_id, request).url is None:
            return
        self._broker.upload(self._build_id, request.model_copy(update={"body": raw.decode()}))
        self.uploaded_bytes += len(packed(raw)[0] or b"")

    def send_bill(self, raw: bytes, manifest: Manifest) -> str:
        """Upload the bill of materials of that manifest; its sha256."""
        sha256 = hashlib.sha256(raw).hexdigest()
        self._send("sbom", sha256, len(raw), lambda: iter([raw]), artifact=manifest.digest)
        return sha256

    def send_cache(self, key: str, sha256: str, size: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        """Upload what the build leaves for the next one: no part of what it makes, and not counted as such."""
        before = self.uploaded_bytes
        self._send("cache", sha256, size, chunks, cache=key)
        self.uploaded_bytes = before

    def _send(
        self,
        kind: Literal["pack", "manifest", "sbom", "cache"],
        sha256: str,
        size: int,
        chunks: Callable[[], Iterator[bytes]],
        artifact: str | None = None,
        cache: str | None = None,
    ) -> None:
        """Raises upload.failed when the last try failed, job.canceled."""
        request = UploadRequest(
            attempt=self._attempt, kind=kind, sha256=sha256, size=size, artifact=artifact, cache=cache
        )
        for tries in range(1, TRIES + 1):
            upload = self._broker.upload(self._build_id, request)
            if upload.url is None:
                return
            try:
                self._put(upload.url, upload.headers, size, chunks)
            except HeadwayError as error:
                if error.code != "upload.failed" or tries == TRIES:
                    raise
                time.sleep(0.1 * 2**tries)
            else:
                self.uploaded_bytes += size
                return

    def _put(self, url: str, headers: dict[str, str], size: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        fields = {**headers, "content-length": str(size)}
        try:
            answer = self._http.put(url, content=self._checked(chunks()), headers=fields)
        except httpx.TransportError as error:
            message = f"The connection to the object store was lost: {type(error).__name__}."
            raise HeadwayError("upload.failed", message) from error
        # 412: somebody, perhaps an earlier try of ours, has put the same bytes there.
        if not answer.is_success and answer.status_code != 412:
            raise HeadwayError("upload.failed", f"The object store answered {answer.status_code} to an upload.")

    def _checked(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._canceled():
                raise HeadwayError("job.canceled", "The job was canceled during an upload.")
            yield chunk


def _new_pack(pack: Pack) -> NewPack:
    entries = [PackEntry(sha256=sha, offset=at.offset, size=at.size) for sha, at in pack.locations.items()]
    return NewPack(sha256=pack.sha256, size=pack.size, entries=entries)
