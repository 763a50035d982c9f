"""Passwords of environments: set, taken away, inherited by new previews, gone with what they were for."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col

from store.models import Environment, Site, utcnow
from store.models_locks import EnvironmentLock

Json = dict[str, Any]


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
