"""The job that lets every host ask an environment's visitors for its password."""

from __future__ import annotations

from typing import Any, Final

from sqlmodel import Session

from headway.errors import HeadwayError
from store.jobs import add_job
from store.locks import set_lock
from store.models import Environment, Job, Site, utcnow

Json = dict[str, Any]
JOB: Final = "environment.protect"


def accept_lock(session: Session, site: Site, environment: Environment, document: Json | None, actor: Json) -> Job:
    """The password from now on, and the job that tells the hosts. Raises environment.not_active and .password_refused.

    The environment's row must be locked.
    """
    if environment.status in ("deleting", "gone"):
        raise HeadwayError("environment.not_active", f"The environment {environment.slug} is {environment.status}.")
    if environment.kind == "production" and document is not None:
        raise HeadwayError("environment.password_refused", "Production is for everybody: it takes no password.")
    set_lock(session, environment.id, document, actor)
    job = add_job(
        session,
        site=site,
        env_id=environment.id,
        type=JOB,
        resource_type="environment",
        resource_id=environment.id,
        actor=actor,
        resource={"site_id": site.id, "slug": environment.slug, "protected": document is not None},
    )
    # The row has changed already: the hosts are to be told in any case.
    job.committed_at = utcnow()
    return job
