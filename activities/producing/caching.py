"""What a build begins with, and what it leaves for the next one, by way of the object store.

A cache saves time and decides nothing: what goes wrong with it is a line of the log, and the build goes on without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import IO, Final, Protocol

import httpx

from activities.producing.upload import Uploader
from adapters.cache import LEFT_OUT, BuildCache, Cached
from adapters.cache_archive import CHUNK, Bounds, UnusableCache, pack, unpack
from adapters.source.runner import Canceled
from headway.broker import BuildSpec, KeptCache, StoredCache, WantedCache
from headway.errors import HeadwayError

# Downloads that are used again are touched a little: an archive is worth sending anew once so much has been added.
GROWN: Final = 1.1
GROWN_BYTES: Final = 1 << 20
_ENDS: Final = ("job.canceled", "attempt.stale", "build.not_found")


class Broker(Protocol):
    def find_cache(self, build_id: str, wanted: WantedCache) -> StoredCache: ...

    def keep_cache(self, build_id: str, kept: KeptCache) -> None: ...


class Exchange:
    """Between a builder's folder and the object store, for one build."""

    def __init__(
        self,
        broker: Broker,
        http: httpx.Client,
        uploader: Uploader,
        spec: BuildSpec,
        canceled: Canceled,
        say: Callable[[str], None],
    ) -> None:
        self._broker, self._http, self._uploader = broker, http, uploader
        self._spec, self._canceled, self._say = spec, canceled, say
        self._stored = StoredCache()

    def fill(self, cache: BuildCache, cached: Cached) -> None:
        """Make the folder what the object store has, unless it is that already. Raises what ends the build."""

        def work() -> None:
            wanted = WantedCache(attempt=self._spec.attempt, key=cached.key)
            self._stored = self._broker.find_cache(self._spec.build_id, wanted)
            note = cached.note
            if not self._spec.leaves_cache:
                self._say("cache: read only, since this build is not of production's branch")
            if self._stored.sha256 is None and note is not None:
                # Dropped there, so here too.
                cached.empty()
            if self._stored.sha256 is None or (note is not None and note.sha256 == self._stored.sha256):
                return
            self._bring(cache, cached, self._stored.sha256)

        if not self._try("restored", work) and self._stored.sha256 is not None:
            cached.empty()
            # Of no use to anybody: what this build leaves takes its place.
            self._stored = StoredCache(most=self._stored.most)

    def _bring(self, cache: BuildCache, cached: Cached, sha256: str) -> None:
        cached.empty()
        with cache.scratch() as file:
            self._download(file, sha256)
            file.seek(0)
            unpack(file, cached.folder, cached.bounds, self._canceled)
        cached.remember(sha256)
        whose = "" if self._stored.own else " of production"
        self._say(f"cache{whose}: {self._stored.size} bytes from the object store")

    def _download(self, file: IO[bytes], sha256: str) -> None:
        hasher, size = hashlib.sha256(), 0
        with self._http.stream("GET", self._stored.url) as answer:
            if not answer.is_success:
                raise UnusableCache(f"the object store answered {answer.status_code}")
            for chunk in answer.iter_bytes(CHUNK):
                size += len(chunk)
                if size > self._stored.size or self._canceled():
                    break
                hasher.update(chunk)
                file.write(chunk)
        if size != self._stored.size or hasher.hexdigest() != sha256:
            raise UnusableCache("it is not what its name says")

    def keep(self, cache: BuildCache, cached: Cached) -> None:
        """Send what the build has left, if it is new. Raises what ends the build."""

        def work() -> None:
            if not self._stored.most or not cached.hit or not self._is_new(cached):
                return
            bounds = Bounds(cached.bounds.size, cached.bounds.files)
            with cache.scratch() as file:
                packed = pack(cached.folder, file, bounds, LEFT_OUT, self._canceled)
                if packed.size > self._stored.most:
                    raise UnusableCache(f"it is larger than {self._stored.most} bytes")
                self._uploader.send_cache(cached.key, packed.sha256, packed.size, lambda: _chunks(file))
            kept = KeptCache(attempt=self._spec.attempt, key=cached.key, sha256=packed.sha256)
            self._broker.keep_cache(self._spec.build_id, kept)
            cached.remember(packed.sha256)
            self._say(f"cache: {packed.held} bytes kept for the next build, {packed.size} sent")

        self._try("kept", work)

    def _is_new(self, cached: Cached) -> bool:
        note = cached.note
        if note is None or self._stored.sha256 != note.sha256:
            return True
        now = cached.look(note.sha256)
        return now.folders != note.folders or now.size > note.size * GROWN + GROWN_BYTES

    def _try(self, what: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except HeadwayError as error:
            if error.code in _ENDS:
                raise
            why = error.message
        except (UnusableCache, httpx.HTTPError, OSError) as error:
            why = f"{error}" if isinstance(error, UnusableCache) else type(error).__name__
        else:
            return True
        self._say(f"cache: not {what}: {why.rstrip('.')}; the build goes on without")
        return False


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK):
        yield chunk
