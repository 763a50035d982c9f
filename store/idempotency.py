"""Idempotency keys (contract section 4): claimed in the transaction that does the work, kept with its outcome."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import bindparam, delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col

from store.models import Idempotency, utcnow

KEPT: Final = timedelta(hours=24)
IN_PROGRESS: Final = 0

# On the path of every accepted request: built once, executed below the ORM.
_TABLE = SQLModel.metadata.tables["idempotency"]
_INSERT: Final = {
    "sqlite": sqlite.insert(_TABLE).on_conflict_do_nothing().returning(_TABLE.c.key),
    "postgresql": postgresql.insert(_TABLE).on_conflict_do_nothing().returning(_TABLE.c.key),
}
_UPDATE: Final = update(_TABLE).where(_TABLE.c.principal == bindparam("of"), _TABLE.c.key == bindparam("named"))


def claim_key(session: Session, principal: str, key: str, fingerprint: str) -> Idempotency | None:
    """None if the key is fresh and now claimed; else what is known of it.

    On PostgreSQL the insert waits for a concurrent claim of the same key to commit or roll back; on SQLite the
    write transaction has waited already. So an unfinished claim is seen only after a lock timeout.
    """
    while not _inserted(session, principal, key, fingerprint):
        known = session.get(Idempotency, (principal, key), with_for_update=True, populate_existing=True)
        if known is None:
            continue  # its day was over, and another request has put its own in its place
        if known.created_at > utcnow() - KEPT:
            return known
        session.execute(delete(Idempotency).where(col(Idempotency.principal) == principal, col(Idempotency.key) == key))
        session.expire_all()
    return None


def is_known(session: Session, principal: str, key: str) -> bool:
    """Whether a request with this key is remembered. Claims nothing."""
    known = session.get(Idempotency, (principal, key))
    return known is not None and known.created_at > utcnow() - KEPT


def _inserted(session: Session, principal: str, key: str, fingerprint: str) -> bool:
    row = {
        "principal": principal,
        "key": key,
        "fingerprint": fingerprint,
        "status_code": IN_PROGRESS,
        "created_at": utcnow(),
    }
    return session.connection().execute(_INSERT[session.get_bind().dialect.name], row).first() is not None


def keep_outcome(
    session: Session, principal: str, key: str, *, status: int, body: dict[str, Any] | None, job_id: str | None
) -> None:
    row = {"of": principal, "named": key, "status_code": status, "body": body, "job_id": job_id}
    session.connection().execute(_UPDATE, row)


def sweep_keys(session: Session) -> None:
    """Forget the keys whose day is over."""
    session.execute(delete(Idempotency).where(col(Idempotency.created_at) < utcnow() - KEPT))
