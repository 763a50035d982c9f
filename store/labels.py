"""Labels of a row for the Temporal UI."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, select
from sqlmodel import Session, SQLModel

from headway.labels import Ahead, Labels
from store.models import Job, Rollout
from store.taking import may_begin_on

_SITES, _ENVIRONMENTS = SQLModel.metadata.tables["site"], SQLModel.metadata.tables["environment"]
# On the path of every acceptance: built once, executed below the ORM.
_SLUGS: Final = (
    select(_SITES.c.slug, _ENVIRONMENTS.c.slug)
    .join_from(_ENVIRONMENTS, _SITES, _SITES.c.id == _ENVIRONMENTS.c.site_id)
    .where(_ENVIRONMENTS.c.id == bindparam("of"))
)
_SLUG: Final = select(_SITES.c.slug).where(_SITES.c.id == bindparam("of"))


def labels_of(
    session: Session, env_id: str | None, job: Job | None = None, *, commit: str = "", digest: str = ""
) -> Labels:
    """Of an environment, or of a site's job without one."""
    if session.new:
        session.flush()
    site = environment = ""
    if env_id is not None:
        found = session.connection().execute(_SLUGS, {"of": env_id}).first()
        site, environment = found if found is not None else ("", "")
    elif job is not None and job.site_id is not None:
        site = session.connection().execute(_SLUG, {"of": job.site_id}).scalar() or ""
    return Labels(
        site=site, environment=environment, job_type=job.type if job is not None else "", commit=commit, digest=digest
    )


def labels_of_job(session: Session, job: Job) -> Labels:
    return replace(labels_of(session, job.env_id, job), host=may_begin_on(session, job))


def bell_of(session: Session, rollout: Rollout) -> Ahead:
    """Which run is to look at this rollout again."""
    job = session.get_one(Job, rollout.job_id)
    return Ahead(job.id, rollout.kind, labels_of(session, rollout.env_id, job))
