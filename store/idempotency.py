"""Idempotency keys (contract section 4): claimed in the transaction that does the work, kept with its outcome."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete, update
from sqlalchemy import insert as core_insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlmodel import Session, col

from store.models import Idempotency, utcnow

KEPT: Final = timedelta(hours=24)
IN_PROGRESS: Final = 0


def claim_key(session: Session, principal: str, key: str, fingerprint: str) -> Idempotency | None:
    """None if the key is fresh and now claimed; else what is known of it.

    On PostgreSQL the insert waits for a concurrent claim of the same key to commit or roll back; on SQLite the
    write transaction has waited already. So an unfinished claim is seen only after a lock timeout.
    """
    if _inserted(session, principal, key, fingerprint):
        return None
    known = session.get(Idempotency, (principal, key), with_for_update=True, populate_existing=True)
    if known is not None and known.created_at > utcnow() - KEPT:
        return known
    session.execute(delete(Idempotency).where(col(Idempotency.principal) == principal, col(Idempotency.key) == key))
    session.expire_all()
    _inserted(session, principal, key, fingerprint)
    return None


def _inserted(session: Session, principal: str, key: str, fingerprint: str) -> bool:
    insert = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}.get(
        session.get_bind().dialect.name, core_insert
    )
    row = {
        "principal": principal,
        "key": key,
        "fingerprint": fingerprint,
        "status_code": IN_PROGRESS,
        "created_at": utcnow(),
    }
    statement = insert(Idempotency).values(row)
    result = session.execute(statement.on_conflict_do_nothing())  # type: ignore[attr-defined]
    return isinstance(result, CursorResult) and result.rowcount == 1


def keep_outcome(
    session: Session, principal: str, key: str, *, status: int, body: dict[str, Any] | None, job_id: str | None
) -> None:
    session.execute(
        update(Idempotency)
        .where(col(Idempotency.principal) == principal, col(Idempotency.key) == key)
        .values(status_code=status, body=body, job_id=job_id)
    )


def sweep_keys(session: Session) -> None:
    """Forget the keys whose day is over."""
    session.execute(delete(Idempotency).where(col(Idempotency.created_at) < utcnow() - KEPT))
