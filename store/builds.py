"""Builds: accepted, listed, and what builders tell about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, update
from sqlmodel import Session, SQLModel, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.jobs import add_job
from store.models import Build, Environment, Job, Site
from store.paging import Page, fetch_page

Json = dict[str, Any]
_SITES = SQLModel.metadata.tables["site"]
# On the path of every build: made once, executed below the ORM.
_COUNT: Final = (
    update(_SITES)
    .where(_SITES.c.id == bindparam("of"))
    .values(build_count=_SITES.c.build_count + 1)
    .returning(_SITES.c.build_count)
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_ref(ref: str, *, param: str = "ref") -> str:
    """Anything that `git rev-parse` may take and that cannot be taken for an option. Raises ref.invalid."""
    if not ref or len(ref) > 255 or ref.startswith("-") or ref != ref.strip() or _CONTROL.search(ref):
        raise HeadwayError(
            "ref.invalid", "A ref is a branch, a tag or a commit, and never starts with a dash.", param=param
        )
    return ref


@dataclass(frozen=True)
class Given:
    """What a request says beside the ref: a source, overrides (see `store.models.Build`), a push's commit."""

    source: Json | None = None
    overrides: Json | None = None
    labels: Json | None = None
    commit: str | None = None


REPOSITORY: Final = Given()


def new_build(
    session: Session,
    site: Site,
    environment: Environment,
    ref: str,
    actor: Json,
    *,
    clean: bool,
    trigger: str,
    given: Given = REPOSITORY,
) -> Build:
    """A queued build, with the next number of its site, that has no job yet."""
    return Build(
        id=new_id("build"),
        site_id=site.id,
        env_id=environment.id,
        job_id="",
        number=_next_number(session, site),
        ref=ref,
        clean=clean,
        source=given.source,
        snapshot_sha256=(given.source or {}).get("sha256"),
        overrides=given.overrides,
        labels=given.labels,
        commit_sha=given.commit,
        trigger=trigger,
        actor=actor,
    )


def _next_number(session: Session, site: Site) -> int:
    if session.new:
        session.flush()
    return int(session.connection().execute(_COUNT, {"of": site.id}).scalar_one())


def accept_build(
    session: Session,
    site: Site,
    environment: Environment,
    actor: Json,
    *,
    ref: str | None,
    clean: bool,
    trigger: str = "api",
    given: Given = REPOSITORY,
) -> Job:
    """A queued build and its job. Without a ref: the tip of the environment's branch."""
    build = new_build(
        session, site, environment, ref or environment.branch, actor, clean=clean, trigger=trigger, given=given
    )
    job = add_job(
        session,
        site=site,
        env_id=environment.id,
        type="build.run",
        resource_type="build",
        resource_id=build.id,
        actor=actor,
        resource={"env_id": environment.id, "site_id": site.id, "ref": build.ref},
    )
    build.job_id = job.id
    session.add(build)
    return job


def list_builds(
    session: Session, env_id: str, page: Page, *, status: str | None, ref: str | None
) -> tuple[Sequence[Build], bool]:
    query = select(Build).where(Build.env_id == env_id)
    if status is not None:
        query = query.where(Build.status == status)
    if ref is not None:
        query = query.where(Build.ref == ref)
    return fetch_page(session, query, page, time=Build.created_at, id=Build.id)


def build_of(session: Session, env_id: str, build_id: str) -> Build:
    found = session.exec(select(Build).where(Build.id == build_id, Build.env_id == env_id)).first()
    if found is None:
        raise HeadwayError("build.not_found", f"There is no build {build_id}.", param="build_id")
    return found


def build_of_site(session: Session, site_id: str, build_id: str) -> Build:
    query = select(Build).where(Build.id == build_id, col(Build.site_id) == site_id)
    found = session.exec(query).first()
    if found is None:
        raise HeadwayError("build.not_found", f"There is no build {build_id}.", param="build_id")
    return found
