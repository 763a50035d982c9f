"""Scrubs of the object store: role `control` reads, finds and settles; hosts write what mends (activities/mending.py).

Nothing here writes packs or manifests: those go by addresses that take the right bytes alone (api/internal/mending.py).
Layouts and bundles are made anew from rows, and written only in the place of the damaged ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Final

from sqlmodel import Session
from temporalio import activity

from activities.examining import Damage, Examiner, Objects
from headway.errors import HeadwayError
from store import integrity
from store.integrity import Place, key_of
from store.models import Artifact, Job, Mark, Pack, utcnow
from store.models_integrity import Finding
from store.outcomes import end_job
from store.queue import claim_job
from store.session import Store
from temporal import names
from temporal.failures import mapped
from temporal.messages import (
    Damaged,
    Ended,
    JobRef,
    Looked,
    Mend,
    MendTried,
    Scrubbed,
    ScrubOrder,
    Settled,
)

ARTIFACTS: Final = 500
PACKS: Final = 200
BYTES: Final = 4 << 30
FROM_HOSTS: Final = ("pack", "manifest")
ROWS: Final = "rows"
log = logging.getLogger("headway.scrub")


class Scrubs:
    """`budget`: bytes of packs that one look reads, at least one pack."""

    def __init__(self, store: Store, objects: Objects, *, budget: int = BYTES) -> None:
        self.store = store
        self.objects = objects
        self.budget = budget
        self._examiner = Examiner(store, objects)

    @activity.defn(name="scrub.claim")
    @mapped
    def claim(self, ref: JobRef) -> ScrubOrder:
        """What is to be read; without a job, what the schedule reads."""
        if not ref.job_id:
            return ScrubOrder("")
        if ref.job_id == names.SUSPECTS:
            return ScrubOrder("", suspects=True)
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            return ScrubOrder(job.id, whole=bool((job.input or {}).get("whole")))

    @activity.defn(name="scrub.look")
    @mapped
    def look(self, order: ScrubOrder) -> Looked:
        """Suspects first, then on from where the last look ended; its place is kept behind what it has found."""
        name = order.job_id if order.whole else ""
        with self.store.read() as session:
            at = integrity.place(session, name)
            suspects = [] if order.whole else list(integrity.suspects(session, ARTIFACTS))
            packs = integrity.packs_of_all(session, suspects)
            artifacts = [] if order.suspects else list(integrity.artifacts_behind(session, at.artifact, ARTIFACTS))
            on = [] if order.suspects else self._share(integrity.packs_behind(session, at.site, at.pack, PACKS))
        damaged = [*self._look_at([*suspects, *artifacts], [*packs, *on])]
        more = not order.suspects and self._keep_place(name, at.behind(artifacts, on))
        read = sum(pack.size for pack in (*packs, *on))
        return Looked(len(packs) + len(on) + 3 * len(suspects + artifacts), read, tuple(damaged), order.whole and more)

    def _share(self, packs: Sequence[Pack]) -> list[Pack]:
        """As many as one look reads."""
        taken: list[Pack] = []
        left = self.budget
        for pack in packs:
            if taken and pack.size > left:
                break
            taken.append(pack)
            left -= pack.size
        return taken

    def _look_at(self, artifacts: Sequence[Artifact], packs: Sequence[Pack]) -> Iterator[Damaged]:
        for artifact in artifacts:
            for damage in self._examiner.documents(artifact):
                yield from self._note(artifact.site_id, damage)
        for pack in packs:
            damage_of_pack = self._examiner.pack(pack.site_id, pack.sha256, pack.size)
            if damage_of_pack is not None:
                yield from self._note(pack.site_id, damage_of_pack)

    def _note(self, site_id: str, damage: Damage) -> Iterator[Damaged]:
        """A finding, unless it is being collected."""

        def work(session: Session) -> Damaged | None:
            found = integrity.find(session, site_id, damage.object, damage.name, damage.kind, damage.etag, damage.size)
            hosts = integrity.lenders(session, site_id) if damage.object in FROM_HOSTS else []
            return Damaged(found, damage.object, damage.name, tuple(hosts)) if found is not None else None

        if (noted := self.store.in_write(work)) is not None:
            log.warning("the %s %s of %s is %s", damage.object, damage.name, site_id, damage.kind)
            yield noted

    def _keep_place(self, name: str, at: Place | None) -> bool:
        """Whether there is more to read; if not, the next scrub begins at the first row again."""

        def work(session: Session) -> None:
            if at is None:
                integrity.forget_place(session, name)
            else:
                integrity.keep_place(session, name, at)

        self.store.in_write(work)
        return at is not None

    @activity.defn(name="scrub.remake")
    @mapped
    def remake(self, mend: Mend) -> MendTried:
        """Make a layout or a bundle anew from the rows, and put it in the place of the damaged one."""
        with self.store.read() as session:
            row = integrity.finding(session, mend.finding_id)
            artifact = integrity.artifact_behind(session, row)
        if artifact is None or row.mended_at is not None:
            return MendTried(row.id, ROWS, "" if row.mended_at else "no host has it, or its artifact is gone")
        try:
            body = self._examiner.layout(artifact) if row.object == "layout" else self._examiner.bundle(artifact)
        except HeadwayError as error:
            if error.retryable or error.code == "service.unavailable":
                raise
            return MendTried(row.id, ROWS, error.message)
        self._write(row, body)
        return MendTried(row.id, ROWS)

    def _write(self, row: Finding, body: bytes) -> None:
        """What is there is another by now, or there again: whether it is right is read next, anyway."""
        key, sha256 = key_of(row.site_id, row.object, row.name), hashlib.sha256(body).hexdigest()
        if row.etag is None:
            self.objects.put_new(key, body, sha256)
        else:
            self.objects.replace_that(key, body, sha256, row.etag)

    @activity.defn(name="scrub.settle")
    @mapped
    def settle(self, settled: Settled) -> MendTried:
        """Read the object again: it is mended by what it is now, not by what anybody says."""
        with self.store.read() as session:
            row = integrity.finding(session, settled.finding_id)
            artifact = integrity.artifact_behind(session, row)
        whole = self._is_whole(row, artifact)
        done = next((one.by for one in settled.tried if not one.why), "somebody else")
        tried = [vars(one) for one in settled.tried if one.why]
        why = "" if whole else "; ".join(f"{one['by']}: {one['why']}" for one in tried) or "nobody has it"

        def work(session: Session) -> None:
            integrity.settle(session, row.id, by=done if whole else None, tried=tried)

        self.store.in_write(work)
        if why:
            log.error("the %s %s of %s stays %s: %s", row.object, row.name, row.site_id, row.damage, why)
        return MendTried(row.id, done if whole else "", why)

    def _is_whole(self, row: Finding, artifact: Artifact | None) -> bool:
        if row.object == "pack":
            return self._examiner.pack(row.site_id, row.name, row.size) is None
        return artifact is not None and all(one.object != row.object for one in self._examiner.documents(artifact))

    @activity.defn(name="scrub.report")
    @mapped
    def report(self, order: ScrubOrder, told: Scrubbed) -> Ended:
        """Keep what was done for whoever asks, and end the job."""
        with self.store.write() as session:
            facts = {**vars(told), "at": utcnow().isoformat(timespec="seconds")}
            session.merge(Mark(name=integrity.REPORT, value=json.dumps(facts)))
            if not order.job_id:
                return Ended("", "succeeded")
            integrity.forget_place(session, order.job_id)
            job = session.get_one(Job, order.job_id)
            return Ended(job.id, end_job(session, job, "succeeded", result=facts).status)
