"""Retention: the role `control` marks, collects and repacks; rows first, then objects, each step idempotent.

Order of a collection: the rows say that an object is doomed, the object goes, the word goes. Whoever dies in between
is succeeded by the next run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import partial
from typing import Final, Protocol

from sqlmodel import Session
from temporalio import activity

from activities.sandbox_retention import SandboxRetention
from adapters.artifact.layout import MAX_BYTES, Layout, Location, parse_layout
from headway.errors import HeadwayError
from store import caches, collection, repacking
from store.artifacts import object_key, pack_key
from store.caches import CacheRules
from store.collection import Rules
from store.models import Job, Mark, utcnow
from store.models_caches import BuildCache
from store.models_retention import Repack
from store.outcomes import end_job
from store.queue import claim_job
from store.repacking import Loose
from store.retention import totals
from store.session import Store
from temporal.failures import mapped
from temporal.messages import Ended, JobRef, Retained, RetentionOrder

BATCH: Final = 200
OBJECTS: Final = 500
PACKS: Final = 20
REPORT: Final = "retention.report"
# A pack is copied where less than half of it counts, and where that is worth it; in memory, so not a huge one.
ALIVE: Final = 0.5
SMALLEST: Final = 1 << 20
LARGEST: Final = 256 << 20


class Objects(Protocol):
    """What retention asks of the object store."""

    def get(self, key: str, max_bytes: int) -> bytes: ...

    def get_range(self, key: str, offset: int, size: int) -> bytes: ...

    def put_new(self, key: str, body: bytes | bytearray, sha256: str) -> bool: ...

    def stat(self, key: str) -> tuple[int, str] | None: ...

    def replace_that(self, key: str, body: bytes, sha256: str, etag: str) -> bool: ...

    def delete(self, keys: Iterable[str]) -> None: ...


class Retention:
    def __init__(
        self,
        store: Store,
        objects: Objects,
        rules: Rules,
        caches: CacheRules | None = None,
        *,
        smallest: int = SMALLEST,
    ) -> None:
        self.store = store
        self.objects = objects
        self.rules = rules
        self.caches = caches or CacheRules()
        self.smallest = smallest
        self.sandboxes = SandboxRetention(store, objects, rules, smallest)

    @activity.defn(name="retention.claim")
    @mapped
    def claim(self, ref: JobRef) -> RetentionOrder:
        """What is to be done; without a job, what the schedule does."""
        if not ref.job_id:
            return RetentionOrder("")
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            return RetentionOrder(job.id, bool((job.input or {}).get("dry_run")))

    @activity.defn(name="retention.mark")
    @mapped
    def mark(self, order: RetentionOrder) -> Retained:
        """Mark what nothing needs any more; of a dry run, what would be marked and collected."""
        marked = size = 0
        after = ""
        while True:
            found, after = self._mark(after, order.dry_run)
            marked += len(found)
            size += sum(found)
            if not after:
                break
        told = Retained(marked=marked, bytes=size)
        if not order.dry_run:
            self.sandboxes.mark()
            return told
        with self.store.read() as session:
            collected = len(collection.due(session, self.rules, 100_000))
        return told.plus(Retained(collected=collected)).plus(self.sandboxes.count())

    def _mark(self, after: str, dry_run: bool) -> tuple[list[int], str]:
        def work(session: Session) -> tuple[list[int], str]:
            found, on = collection.mark(session, self.rules, after, BATCH, dry_run=dry_run)
            return [one.size_bytes for one in found], on

        if dry_run:
            with self.store.read() as session:
                return work(session)
        return self.store.in_write(work)

    @activity.defn(name="retention.collect")
    @mapped
    def collect(self, _order: RetentionOrder) -> Retained:
        """Look again at what was marked long enough ago, and take it; and packs and caches that nobody needs."""
        leases = self.store.in_write(collection.sweep_leases)
        collected = spared = packs = 0
        while True:
            with self.store.read() as session:
                due = collection.due(session, self.rules, BATCH)
            if not due:
                break
            for artifact_id in due:
                taken = self._collect(artifact_id)
                collected += taken
                spared += not taken
        with self.store.read() as session:
            stray = collection.stray_packs(session, self.rules, BATCH)
        for site_id, sha256 in stray:
            packs += self._drop(site_id, sha256)
        self._forget_caches()
        # Deleted at once: whoever freezes the same tree again waits for it.
        told = self.sandboxes.collect()
        told = told.plus(self._delete()) if told.snapshots or told.sandbox_packs else told
        return told.plus(Retained(collected=collected, spared=spared, packs=packs, leases=leases))

    def _forget_caches(self) -> None:
        since = utcnow()

        def drop(session: Session, one: BuildCache) -> bool:
            return caches.drop_cache(session, one, since)

        while True:
            with self.store.read() as session:
                found = caches.unused_caches(session, self.caches, self.rules.wait, BATCH)
            dropped = [self.store.in_write(partial(drop, one=one)) for one in found]
            if len(found) < BATCH or not any(dropped):
                return

    def _collect(self, artifact_id: str) -> bool:
        return self.store.in_write(lambda session: collection.collect(session, self.rules, artifact_id))

    def _drop(self, site_id: str, sha256: str) -> bool:
        return self.store.in_write(lambda session: collection.drop_pack(session, site_id, sha256))

    @activity.defn(name="retention.delete")
    @mapped
    def delete(self, _order: RetentionOrder) -> Retained:
        """Delete the objects that are doomed, then the word that they are."""
        return self._delete()

    def _delete(self) -> Retained:
        count = 0
        while True:
            with self.store.read() as session:
                rows = collection.doomed(session, OBJECTS)
            if not rows:
                return Retained(objects=count)
            self.objects.delete([row.key for row in rows])
            self.store.in_write(lambda session, rows=rows: collection.forget_doomed(session, rows))  # type: ignore[misc]
            count += len(rows)

    @activity.defn(name="retention.repack")
    @mapped
    def repack(self, _order: RetentionOrder) -> Retained:
        """Let layouts follow the copies of last time, and copy what counts of packs that are mostly dead."""
        with self.store.read() as session:
            copies = repacking.copied(session, self.rules, PACKS)
            loose = repacking.loose_packs(session, PACKS)
        for copy in copies:
            self._follow(copy)
        return Retained(repacked=sum(self._copy(one) for one in loose) + self.sandboxes.repack())

    def _copy(self, loose: Loose) -> bool:
        contents = self._counts(loose)
        size = sum(at.size for at in contents.values())
        if not contents or loose.size < self.smallest or size > min(ALIVE * loose.size, LARGEST):
            self.store.in_write(lambda session: repacking.settle(session, loose))
            return False
        key = pack_key(loose.site_id, loose.sha256)
        body, index = bytearray(), {}
        for sha256, at in sorted(contents.items(), key=lambda one: one[1].offset):
            index[sha256] = (len(body), at.size)
            body += self.objects.get_range(key, at.offset, at.size)
        new = hashlib.sha256(body).hexdigest()
        self.objects.put_new(pack_key(loose.site_id, new), bytes(body), new)
        return self.store.in_write(lambda session: repacking.note_copy(session, loose, (new, len(body)), index))

    def _counts(self, loose: Loose) -> dict[str, Location]:
        """What the layouts of its artifacts say of a pack."""
        found: dict[str, Location] = {}
        for digest in loose.digests:
            layout = self._layout(loose.site_id, digest)
            found |= {sha: at for sha, at in layout.contents.items() if at.pack == loose.sha256}
        return found

    def _layout(self, site_id: str, digest: str) -> Layout:
        return parse_layout(self.objects.get(object_key(site_id, digest, "layout"), MAX_BYTES))

    def _follow(self, repack: Repack) -> None:
        """Layouts name the new pack for all that it holds; the old one loses those that need no more of it."""
        with self.store.read() as session:
            digests = repacking.users_of(session, repack)
        moved = [digest for digest in digests if self._rewrite(repack, digest)]
        self.store.in_write(lambda session: repacking.end_repack(session, repack, moved))

    def _rewrite(self, repack: Repack, digest: str) -> bool:
        """Whether the layout is free of the old pack now. Written only in the place of what was read: another run, or
        a try that was given up, may be at the same layout for another pack.
        """
        key = object_key(repack.site_id, digest, "layout")
        known = self.objects.stat(key)
        try:
            layout = self._layout(repack.site_id, digest)
        except HeadwayError as error:
            if error.code == "artifact.collected":
                return False
            raise
        places = {sha: at for sha, at in layout.contents.items() if at.pack == repack.old_sha256}
        if not places:
            return True
        if known is None or not all(sha in repack.contents for sha in places):
            return False
        if not self.store.in_write(lambda session: repacking.name_copy(session, repack, digest)):
            return False
        new = {sha: Location(repack.new_sha256, *repack.contents[sha]) for sha in places}
        raw = Layout({**layout.contents, **new}).raw
        return self.objects.replace_that(key, raw, hashlib.sha256(raw).hexdigest(), known[1])

    @activity.defn(name="retention.report")
    @mapped
    def report(self, order: RetentionOrder, told: Retained) -> Ended:
        """Keep what was done for whoever asks, and end the job."""
        with self.store.write() as session:
            facts = {**vars(told), "dry_run": order.dry_run, "at": utcnow().isoformat(timespec="seconds")}
            session.merge(Mark(name=REPORT, value=json.dumps({**facts, "totals": totals(session)})))
            job = session.get(Job, order.job_id) if order.job_id else None
            if job is None:
                return Ended("", "succeeded")
            return Ended(job.id, end_job(session, job, "succeeded", result=facts).status)
