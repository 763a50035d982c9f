"""Scrubs of the object store: what is looked at next, what was found, who may have it whole, how it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, tuple_
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.artifacts import object_key, pack_key
from store.models import Artifact, ArtifactPack, Content, Environment, Mark, Pack, Release, utcnow
from store.models_integrity import Finding
from store.models_lifecycle import Drift
from store.models_retention import Doomed
from store.paging import Page, fetch_page

PLACES: Final = "scrub.place"
REPORT: Final = "scrub.report"
# A host that misses something of what it serves: the objects behind it are looked at first.
LOST_CONTENTS: Final = ("contents", "release")
Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a scrub has come to: artifacts by id, then packs by site and sha256. Behind the last is the first."""

    artifact: str = ""
    site: str = ""
    pack: str = ""

    def behind(self, artifacts: Sequence[Artifact], packs: Sequence[Pack]) -> Place | None:
        """Where to go on after these; None where there was nothing left of either."""
        if not artifacts and not packs:
            return None
        artifact = artifacts[-1].id if artifacts else self.artifact
        site, pack = (packs[-1].site_id, packs[-1].sha256) if packs else (self.site, self.pack)
        return Place(artifact, site, pack)


def place(session: Session, job_id: str) -> Place:
    """Where the job's scrub has come to, or, without a job, the scheduled ones."""
    row = session.get(Mark, f"{PLACES}.{job_id}")
    return Place(**json.loads(row.value)) if row is not None else Place()


def keep_place(session: Session, job_id: str, at: Place) -> None:
    session.merge(Mark(name=f"{PLACES}.{job_id}", value=json.dumps(vars(at))))


def forget_place(session: Session, job_id: str) -> None:
    if (row := session.get(Mark, f"{PLACES}.{job_id}")) is not None:
        session.delete(row)


def artifacts_behind(session: Session, after: str, limit: int) -> Sequence[Artifact]:
    query = select(Artifact).where(col(Artifact.collected_at).is_(None), col(Artifact.id) > after)
    return session.exec(query.order_by(col(Artifact.id)).limit(limit)).all()


def packs_behind(session: Session, site_id: str, sha256: str, limit: int) -> Sequence[Pack]:
    columns = (col(Pack.site_id), col(Pack.sha256))
    query = select(Pack).where(tuple_(*columns) > tuple_(site_id, sha256))
    return session.exec(query.order_by(*columns).limit(limit)).all()


def suspects(session: Session, limit: int) -> Sequence[Artifact]:
    """Artifacts that run where a host has lost contents of them and waits for others to bring them."""
    waits = select(Drift.env_id).where(col(Drift.mended_at).is_(None), col(Drift.kind).in_(LOST_CONTENTS))
    runs = select(Environment.active_release_id).where(col(Environment.id).in_(waits))
    wanted = select(Release.artifact_id).where(col(Release.id).in_(runs))
    query = select(Artifact).where(col(Artifact.id).in_(wanted), col(Artifact.collected_at).is_(None))
    return session.exec(query.order_by(col(Artifact.id)).limit(limit)).all()


def packs_of_all(session: Session, artifacts: Sequence[Artifact]) -> list[Pack]:
    """The packs that these artifacts are made of, each once."""
    digests = {(one.site_id, one.digest) for one in artifacts}
    named = tuple_(col(ArtifactPack.site_id), col(ArtifactPack.digest)).in_(digests)
    query = select(Pack).join(
        ArtifactPack,
        (col(ArtifactPack.site_id) == col(Pack.site_id)) & (col(ArtifactPack.pack_sha256) == col(Pack.sha256)),
    )
    return list(session.exec(query.where(named).distinct())) if digests else []


def artifact_behind(session: Session, row: Finding) -> Artifact | None:
    """Whose document it is, while that is kept; None for a pack."""
    query = select(Artifact).where(
        Artifact.site_id == row.site_id, Artifact.digest == row.name, col(Artifact.collected_at).is_(None)
    )
    return session.exec(query).first()


def key_of(site_id: str, object: str, name: str) -> str:
    return pack_key(site_id, name) if object == "pack" else object_key(site_id, name, object)


def find(
    session: Session, site_id: str, object: str, name: str, damage: str, etag: str | None, size: int
) -> str | None:
    """The id of the open finding of this object, which is made if there is none; None where it is being collected."""
    if not is_wanted(session, site_id, object, name):
        return None
    open_one = select(Finding).where(
        Finding.site_id == site_id, Finding.object == object, Finding.name == name, col(Finding.mended_at).is_(None)
    )
    row = session.exec(open_one.with_for_update()).first()
    if row is None:
        row = Finding(
            id=new_id("find"), site_id=site_id, object=object, name=name, damage=damage, size=size, tried=[], etag=etag
        )
    row.damage, row.etag, row.size = damage, etag, size
    session.add(row)
    session.flush()
    return row.id


def is_wanted(session: Session, site_id: str, object: str, name: str) -> bool:
    """Whether rows still count on an object: what collection has taken is not missing."""
    if session.get(Doomed, (site_id, key_of(site_id, object, name))) is not None:
        return False
    if object == "pack":
        return session.get(Pack, (site_id, name)) is not None
    there = select(Artifact.id).where(
        Artifact.site_id == site_id, Artifact.digest == name, col(Artifact.collected_at).is_(None)
    )
    return session.exec(there).first() is not None


def finding(session: Session, finding_id: str) -> Finding:
    """Raises finding.not_found."""
    row = session.get(Finding, finding_id)
    if row is None:
        raise HeadwayError("finding.not_found", f"There is no finding {finding_id}.")
    return row


def lenders(session: Session, site_id: str) -> list[str]:
    """The hosts that serve something of a site, and so may have what the object store has lost."""
    rows = session.exec(
        select(Environment).where(Environment.site_id == site_id, col(Environment.deleted_at).is_(None))
    ).all()
    return sorted({host for row in rows for host in row.hosts})


def lent_by(session: Session, finding_id: str, host_id: str) -> Finding:
    """An open finding, for a host that serves the site. Raises finding.not_found, also for any other host."""
    row = finding(session, finding_id)
    if row.mended_at is not None or host_id not in lenders(session, row.site_id):
        raise HeadwayError("finding.not_found", f"There is no open finding {finding_id} for the host {host_id}.")
    return row


def contents_of_pack(session: Session, site_id: str, sha256: str) -> list[tuple[str, int, int]]:
    """`(sha256, offset, size)` of what rows know to lie in a pack, by offset."""
    query = select(Content.sha256, Content.offset, Content.size).where(
        Content.site_id == site_id, Content.pack_sha256 == sha256
    )
    return [(sha, offset, size) for sha, offset, size in session.exec(query.order_by(col(Content.offset)))]


def settle(session: Session, finding_id: str, *, by: str | None, tried: Sequence[Json]) -> Finding:
    """How it ended, to be entered into the ledger; what was beyond what is left may be mended by a later scrub."""
    row = session.get_one(Finding, finding_id, with_for_update=True)
    if row.mended_at is not None:
        return row
    now = utcnow()
    row.tried = list(tried)
    if by is not None:
        row.mended_by, row.mended_at = by, now
    if by is not None or row.settled_at is None:
        row.settled_at, row.log_index = now, None
    session.add(row)
    return row


def list_findings(session: Session, page: Page) -> tuple[Sequence[Finding], bool]:
    return fetch_page(session, select(Finding), page, time=Finding.found_at, id=Finding.id)


def totals(session: Session) -> dict[str, int]:
    """How many findings there were, and how many are not mended."""

    def count(*conditions: Any) -> int:
        return session.exec(select(func.count()).select_from(Finding).where(*conditions)).one()

    return {"findings": count(), "open": count(col(Finding.mended_at).is_(None))}


def unlogged_findings(session: Session, limit: int) -> Sequence[Finding]:
    """Findings whose end the ledger does not hold yet, the oldest first."""
    query = select(Finding).where(col(Finding.log_index).is_(None), col(Finding.settled_at).is_not(None))
    return session.exec(query.order_by(col(Finding.settled_at), col(Finding.id)).limit(limit)).all()
