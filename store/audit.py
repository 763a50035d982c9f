"""The audit log: a row with each change that a caller made, in one transaction; chained behind it, in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import func, insert
from sqlmodel import Session, SQLModel, col, or_, select

from headway.auditing import BEGINNING, leaf_of, link
from headway.ids import new_id
from store import ledger
from store.models import Environment, Job, Mark, Rollout, Site, utcnow
from store.models_policy import AuditRow
from store.paging import Page, fetch_page
from store.sight import Sight

Json = dict[str, Any]
ANCHORED: Final = "audit.anchored"
# On the path of every change: built once, executed below the ORM.
_INSERT: Final = insert(SQLModel.metadata.tables["audit_row"])


@dataclass(frozen=True)
class Called:
    """A call as its edge saw it. `named` are the values in its path; `action` is the name of its route."""

    dialect: str
    method: str
    path: str
    action: str
    named: Sequence[str]
    team_id: str
    actor: Mapping[str, Any]
    account_id: str | None
    address: str | None
    request_id: str


def note_call(session: Session, called: Called) -> str:
    """Keep that this call changed something; the row's id."""
    site_id, env_id = _subject(session, called.named)
    row = {
        "id": new_id("aud"),
        "team_id": called.team_id,
        "site_id": site_id,
        "env_id": env_id,
        "dialect": called.dialect,
        "method": called.method,
        "path": called.path,
        "action": called.action,
        "actor": dict(called.actor),
        "account_id": called.account_id,
        "address": called.address,
        "request_id": called.request_id,
        "created_at": utcnow(),
    }
    session.connection().execute(_INSERT, row)
    return str(row["id"])


def _subject(session: Session, named: Sequence[str]) -> tuple[str | None, str | None]:
    """The site and the environment that a path is about, by the ids in it."""
    site_id = next((one for one in named if one.startswith("site_")), None)
    env_id = next((one for one in named if one.startswith("env_")), None)
    for one in named:
        table = {"job": Job, "dep": Rollout}.get(one.partition("_")[0])
        found: Any = session.get(table, one) if table is not None else None
        if found is not None:
            site_id, env_id = site_id or found.site_id, env_id or found.env_id
    if site_id is None and env_id is not None:
        environment = session.get(Environment, env_id)
        site_id = environment.site_id if environment is not None else None
    return site_id, env_id


@dataclass(frozen=True)
class Wanted:
    """Filters; None is no filter. `account_id` finds every key of a person."""

    site_id: str | None = None
    env_id: str | None = None
    account_id: str | None = None
    key_id: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def list_calls(session: Session, sight: Sight, wanted: Wanted, page: Page) -> tuple[Sequence[AuditRow], bool]:
    query = select(AuditRow).where(*_visible(sight))
    for column, value in (
        (AuditRow.site_id, wanted.site_id),
        (AuditRow.env_id, wanted.env_id),
        (AuditRow.account_id, wanted.account_id),
        (AuditRow.action, wanted.action),
    ):
        if value is not None:
            query = query.where(col(column) == value)
    if wanted.key_id is not None:
        query = query.where(col(AuditRow.actor)["id"].as_string() == wanted.key_id)
    if wanted.since is not None:
        query = query.where(col(AuditRow.created_at) >= wanted.since)
    if wanted.until is not None:
        query = query.where(col(AuditRow.created_at) < wanted.until)
    return fetch_page(session, query, page, time=AuditRow.created_at, id=AuditRow.id)


def links(session: Session, sight: Sight, start: int, limit: int) -> list[Json]:
    """The chain behind its link `start`, in order: the hashes of all, the rows of those that this sight covers."""
    query = select(AuditRow).where(col(AuditRow.seq) > start).order_by(col(AuditRow.seq)).limit(limit)
    rows = session.exec(query).all()
    seen = set(
        session.exec(select(AuditRow.id).where(col(AuditRow.id).in_([row.id for row in rows]), *_visible(sight))).all()
    )
    return [
        {"seq": row.seq, "leaf": row.leaf, "chain": row.chain, "row": document(row) if row.id in seen else None}
        for row in rows
    ]


def document(row: AuditRow) -> Json:
    """What is chained, and shown."""
    at = row.created_at if row.created_at.tzinfo else row.created_at.replace(tzinfo=UTC)
    return {
        "id": row.id,
        "at": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "team_id": row.team_id,
        "site_id": row.site_id,
        "env_id": row.env_id,
        "dialect": row.dialect,
        "method": row.method,
        "path": row.path,
        "action": row.action,
        "actor": row.actor,
        "account_id": row.account_id,
        "address": row.address,
        "request_id": row.request_id,
    }


def chain(session: Session, limit: int) -> int:
    """Give rows that have none their place in the chain, in the order of their ids; how many there were.

    One writer at a time, as in the ledger.
    """
    ledger.lock(session)
    seq, head = head_of(session)
    waiting = select(AuditRow).where(col(AuditRow.seq).is_(None)).order_by(col(AuditRow.id)).limit(limit)
    rows = session.exec(waiting).all()
    for row in rows:
        seq += 1
        row.leaf = leaf_of(document(row))
        head = link(head, row.leaf)
        row.seq, row.chain = seq, head
    session.flush()
    return len(rows)


def waits(session: Session) -> bool:
    """Whether there are rows to chain: looked at often, and without the one writer's lock."""
    return session.exec(select(AuditRow.id).where(col(AuditRow.seq).is_(None)).limit(1)).first() is not None


def head_of(session: Session) -> tuple[int, str]:
    """The last link's number and hash."""
    last = session.exec(select(func.max(AuditRow.seq))).one()
    if last is None:
        return 0, BEGINNING
    row = session.exec(select(AuditRow).where(AuditRow.seq == last)).one()
    return last, row.chain or ""


def anchored(session: Session) -> int:
    """The last link that the ledger holds."""
    mark = session.get(Mark, ANCHORED)
    return int(mark.value) if mark is not None else 0


def note_anchor(session: Session, seq: int) -> None:
    session.merge(Mark(name=ANCHORED, value=str(seq)))


def _visible(sight: Sight) -> list[Any]:
    """A team's own calls, and whatever was done to a site that may be seen; a narrowed sight has its sites' alone."""
    if sight.team_id is None and not sight.nothing:
        return []
    sites = select(Site.id).where(*sight.sites())
    if sight.env_id is not None:
        return [col(AuditRow.site_id).in_(sites), col(AuditRow.env_id) == sight.env_id]
    if sight.nothing or sight.project_ids is not None or sight.site_id is not None:
        return [col(AuditRow.site_id).in_(sites)]
    return [or_(col(AuditRow.team_id) == sight.team_id, col(AuditRow.site_id).in_(sites))]
