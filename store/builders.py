"""Building machines elsewhere, each with a credential of its own that ends with it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from sqlmodel import Session, select

from headway.errors import HeadwayError
from store.keys import hashed
from store.leases import end_all
from store.models import Build
from store.models_builders import Builder
from store.paging import Page, fetch_page

FAMILY: Final = "hwb_"
# The machine beside the API: it has the role's credential, and no row.
OWN: Final = "local"


def add_builder(session: Session, builder_id: str) -> tuple[Builder, str]:
    """Let a machine build: its row, and its credential. Raises builder.exists."""
    if builder_id == OWN or session.get(Builder, builder_id) is not None:
        raise HeadwayError("builder.exists", f"There is a builder {builder_id} already.", param="id")
    secret = FAMILY + secrets.token_urlsafe(32)
    made = Builder(id=builder_id, secret_sha256=hashed(secret))
    session.add(made)
    session.flush()
    return made, secret


def renew_credential(session: Session, builder_id: str) -> tuple[Builder, str]:
    """A new credential; the one before is refused from now on, and what was begun with it begins again."""
    found = builder(session, builder_id, lock=True)
    secret = FAMILY + secrets.token_urlsafe(32)
    found.secret_sha256 = hashed(secret)
    session.add(found)
    end_all(session, builder_id)
    return found, secret


def builder_by_credential(session: Session, secret: str) -> str | None:
    """Whose credential that is."""
    if not secret.startswith(FAMILY):
        return None
    return session.exec(select(Builder.id).where(Builder.secret_sha256 == hashed(secret))).first()


def builder(session: Session, builder_id: str, *, lock: bool = False) -> Builder:
    """Raises builder.not_found."""
    found = session.get(Builder, builder_id, with_for_update=lock or None)
    if found is None:
        raise HeadwayError("builder.not_found", f"There is no builder {builder_id}.", param="builder_id")
    return found


def list_builders(session: Session, page: Page) -> tuple[Sequence[Builder], bool]:
    return fetch_page(session, select(Builder), page, time=Builder.created_at, id=Builder.id)


def builds_of(session: Session, builder_id: str, page: Page) -> tuple[Sequence[Build], bool]:
    """What it has begun last, whatever became of it; of one that was removed, too. Raises builder.not_found."""
    query = select(Build).where(Build.builder_id == builder_id)
    rows, more = fetch_page(session, query, page, time=Build.created_at, id=Build.id)
    if not rows and builder_id != OWN:
        builder(session, builder_id)
    return rows, more


def remove_builder(session: Session, builder_id: str) -> Builder:
    """Its credential is good for nothing any more, and nothing that it is at is its own."""
    found = builder(session, builder_id, lock=True)
    end_all(session, builder_id)
    session.delete(found)
    return found
