"""Caches of builds: where to read the one to begin with, where to put the one that is left."""

from __future__ import annotations

from typing import Final

from sqlmodel import Session

from api.internal.builds import HEX, UPLOAD_SECONDS
from api.parts import Objects
from headway.broker import KeptCache, StoredCache, Upload, UploadRequest, WantedCache, Wire
from headway.errors import HeadwayError
from store.broker import require_attempt
from store.caches import CacheRules, cache_object, expect_cache, find_cache, keep_cache, leaves_cache
from store.session import Store

MAX_CACHE: Final = 2 << 30


class Caches:
    def __init__(self, store: Store, objects: Objects, rules: CacheRules) -> None:
        self.store = store
        self.objects = objects
        self.rules = rules

    @property
    def most(self) -> int:
        return min(MAX_CACHE, self.rules.size)

    def find(self, build_id: str, body: WantedCache) -> StoredCache:
        """An address that reads that one object, or none."""

        def work(session: Session) -> tuple[int, tuple[str, str, int, bool] | None]:
            build = require_attempt(session, build_id, body.attempt)
            most = self.most if leaves_cache(session, build) else 0
            found = find_cache(session, build, body.key)
            if found is None:
                return most, None
            name = cache_object(found.site_id, found.env_id, found.key, found.sha256)
            return most, (name, found.sha256, found.size, found.env_id == build.env_id)

        most, known = self.store.in_write(work)
        if known is None:
            return StoredCache(most=most)
        name, sha256, size, own = known
        url = self.objects.presign_get(name)
        return StoredCache(sha256=sha256, size=size, url=url, own=own, most=most)

    def upload(self, build_id: str, body: UploadRequest) -> Upload:
        """Where an environment's build may put its own; nowhere if it is there already."""
        if body.cache is None or not HEX.fullmatch(body.sha256) or body.size > self.most:
            message = f"A cache is named by its sha256 and its key, and has at most {self.most} bytes."
            raise HeadwayError("request.invalid_parameter", message, param="cache")
        key = body.cache

        def work(session: Session) -> str:
            return expect_cache(session, require_attempt(session, build_id, body.attempt), key, body.sha256, body.size)

        name = self.store.in_write(work)
        if self.objects.head(name) == body.size:
            return Upload(url=None)
        url, headers = self.objects.presign_put(name, body.sha256, body.size, UPLOAD_SECONDS)
        return Upload(url=url, headers=headers)

    def keep(self, build_id: str, body: KeptCache) -> Wire:
        """It lies there, as large as it was said to be. Raises upload.failed."""

        def work(session: Session) -> None:
            keep_cache(session, require_attempt(session, build_id, body.attempt), body.key, body.sha256, self.rules)

        with self.store.read() as session:
            build = require_attempt(session, build_id, body.attempt)
            name = cache_object(build.site_id, build.env_id, body.key, body.sha256)
        if self.objects.head(name) is None:
            raise HeadwayError("upload.failed", "The cache has not been uploaded.")
        self.store.in_write(work)
        return Wire()
