"""The forge that a site reports to: one for each site, with a token that is never shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.config_values import Hides, Opens
from store.models import Site, utcnow
from store.models_reports import ForgeLink, ForgeReport
from store.reports import want_check

Json = dict[str, Any]


@dataclass(frozen=True)
class LinkRequest:
    """What a caller asked for, checked. `token` None: the one that is there stays."""

    provider: str
    api_url: str
    repository: str
    token: str | None = None
    statuses: bool = True
    comments: bool = True


def link(session: Session, site_id: str, *, lock: bool = False) -> ForgeLink:
    """Raises forge_link.not_found."""
    query = select(ForgeLink).where(ForgeLink.site_id == site_id)
    found = session.exec(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise HeadwayError("forge_link.not_found", "This site reports to no forge.")
    return found


def put_link(session: Session, vault: Hides, site: Site, wanted: LinkRequest, actor: Json) -> ForgeLink:
    """Make or replace it, and have the forge asked. A token goes to no other place than the one it was given for.

    Raises request.missing_parameter where a new place comes without a token, and config.unreadable.
    """
    session.refresh(site, with_for_update=True)
    # Locked, even where there is none: comes behind a rotation that holds the table, or holds one up: see
    # store.config_keys.
    known = session.exec(select(ForgeLink).where(ForgeLink.site_id == site.id).with_for_update()).one_or_none()
    moved = known is None or (known.provider, known.api_url) != (wanted.provider, wanted.api_url)
    if moved and wanted.token is None:
        raise HeadwayError("request.missing_parameter", "A token is needed for that forge.", param="token")
    found = known or ForgeLink(
        id=new_id("frg"),
        team_id=site.team_id,
        site_id=site.id,
        provider="",
        api_url="",
        repository="",
        ciphertext=b"",
        wrapped_key=b"",
        key_id="",
    )
    found.provider, found.api_url, found.repository = wanted.provider, wanted.api_url, wanted.repository
    found.statuses, found.comments, found.actor, found.updated_at = wanted.statuses, wanted.comments, actor, utcnow()
    if wanted.token is not None:
        hidden = vault.hide(wanted.token, bound_to(found.id))
        found.ciphertext, found.wrapped_key, found.key_id = hidden.ciphertext, hidden.wrapped_key, hidden.key_id
    found.failing_since = found.last_error = None
    session.add(found)
    session.flush()
    want_check(session, found)
    return found


def token_of(vault: Opens, link: ForgeLink) -> str:
    """Raises config.unreadable."""
    return vault.open(link.ciphertext, link.wrapped_key, link.key_id, bound_to(link.id))


def bound_to(link_id: str) -> str:
    return f"forge link {link_id}"


def delete_link(session: Session, link: ForgeLink) -> None:
    """With its reports. What the forge shows stays there."""
    session.execute(delete(ForgeReport).where(col(ForgeReport.link_id) == link.id))
    session.delete(link)


def forget_link(session: Session, site_id: str) -> None:
    """The site is gone, and its token with it."""
    found = session.exec(select(ForgeLink).where(ForgeLink.site_id == site_id)).one_or_none()
    if found is not None:
        delete_link(session, found)
