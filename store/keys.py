"""API keys: only the SHA-256 of a secret is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, or_, update
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import secret_digits
from store.models import ApiKey, utcnow
from store.paging import Page, fetch_page

FAMILY: Final = {"personal": "mfk_live_", "service": "mfs_live_", "operator": "mfk_live_"}
# The family of the MIOSA dialect, for clients that want their keys to look so; it opens the same doors.
MSK: Final = "msk_live_"
_BY_SECRET: Final = select(ApiKey).where(
    or_(
        col(ApiKey.secret_sha256) == bindparam("sha256"),
        (col(ApiKey.previous_sha256) == bindparam("sha256")) & (col(ApiKey.previous_expires_at) > bindparam("now")),
    )
)
FAMILIES: Final = tuple(sorted({*FAMILY.values(), MSK}))


def new_secret(kind: str, family: str | None = None) -> str:
    """The family's prefix (None: the kind's own) and 43 base62 characters from 32 random bytes."""
    return (family or FAMILY[kind]) + secret_digits()


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def shown_prefix(secret: str) -> str:
    """What a list shows of a secret: its family and four characters."""
    return secret[:13]


def key_by_secret(session: Session, sha256: str, now: datetime) -> ApiKey | None:
    """The key of this secret; also by the secret before a roll, while its grace period lasts."""
    return session.exec(_BY_SECRET, params={"sha256": sha256, "now": now}).first()


def api_key(session: Session, key_id: str, conditions: Sequence[Any], *, lock: bool = False) -> ApiKey:
    query = select(ApiKey).where(ApiKey.id == key_id, *conditions)
    found = session.exec(query.with_for_update(key_share=True) if lock else query).first()
    if found is None:
        raise HeadwayError("api_key.not_found", f"There is no API key {key_id}.", param="key_id")
    return found


def list_keys(session: Session, conditions: Sequence[Any], page: Page) -> tuple[Sequence[ApiKey], bool]:
    return fetch_page(session, select(ApiKey).where(*conditions), page, time=ApiKey.created_at, id=ApiKey.id)


def roll_key(session: Session, key: ApiKey, grace: timedelta) -> str:
    """A new secret; the old one is good until the grace period ends."""
    secret = new_secret(key.kind, MSK if key.prefix.startswith(MSK) else None)
    key.previous_sha256, key.previous_expires_at = key.secret_sha256, utcnow() + grace
    key.secret_sha256, key.prefix = hashed(secret), shown_prefix(secret)
    session.add(key)
    session.flush()
    return secret


def revoke_key(session: Session, key: ApiKey) -> None:
    key.revoked_at = key.revoked_at or utcnow()
    key.previous_sha256 = key.previous_expires_at = None
    session.add(key)
    session.flush()


def note_use(session: Session, key_ids: Iterable[str], now: datetime) -> None:
    session.execute(update(ApiKey).where(col(ApiKey.id).in_(list(key_ids))).values(last_used_at=now))
