"""Passwords of environments: set, taken away, inherited by new previews, gone with what they were for."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import delete
from sqlmodel import Session, col

from headway.errors import HeadwayError
from store.jobs import add_job
from store.models import Environment, Job, Site, utcnow
from store.models_locks import EnvironmentLock

Json = dict[str, Any]
JOB: Final = "environment.protect"


def lock_of(session: Session, owner_id: str) -> EnvironmentLock | None:
    return session.get(EnvironmentLock, owner_id)


def lock_text(session: Session, env_id: str) -> str:
    """What a host is handed; empty where everybody may visit."""
    found = lock_of(session, env_id)
    return json.dumps(found.document, sort_keys=True) if found is not None else ""


def set_lock(session: Session, owner_id: str, document: Json | None, actor: Json) -> EnvironmentLock | None:
    """None: everybody may visit. The owner's row must be locked."""
    found = session.get(EnvironmentLock, owner_id)
    if document is None:
        if found is not None:
            session.delete(found)
        return None
    found = found or EnvironmentLock(owner_id=owner_id, document=document)
    found.document, found.actor, found.created_at = document, actor, utcnow()
    session.add(found)
    return found


def inherit_lock(session: Session, site: Site, environment: Environment) -> None:
    """A new preview has its site's password from its first moment on."""
    found = lock_of(session, site.id) if environment.kind == "preview" else None
    if found is not None:
        set_lock(session, environment.id, found.document, found.actor or {})


def forget_lock(session: Session, owner_id: str) -> None:
    session.execute(delete(EnvironmentLock).where(col(EnvironmentLock.owner_id) == owner_id))


def accept_lock(session: Session, site: Site, environment: Environment, document: Json | None, actor: Json) -> Job:
    """The password from now on, and the job that tells the hosts. Raises environment.not_active and .password_refused.

    The environment's row must be locked.
    """
    if environment.status in ("deleting", "gone"):
        raise HeadwayError("environment.not_active", f"The environment {environment.slug} is {environment.status}.")
    if environment.kind == "production" and document is not None:
        raise HeadwayError("environment.password_refused", "Production is for everybody: it takes no password.")
    set_lock(session, environment.id, document, actor)
    return add_job(
        session,
        site=site,
        env_id=environment.id,
        type=JOB,
        resource_type="environment",
        resource_id=environment.id,
        actor=actor,
        resource={"site_id": site.id, "slug": environment.slug, "protected": document is not None},
    )
