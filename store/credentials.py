"""What a site's private repository is read with: hidden at rest, opened for the builder that fetches, never shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from sqlmodel import Session, col, delete, func, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.config_values import Hides, Opens
from store.models import Site, utcnow
from store.models_repositories import RepositoryCredential
from store.paging import Page, fetch_page

Json = dict[str, Any]
DEPLOY_KEY, TOKEN = "deploy_key", "token"
# Keys are offered one after the other, and servers hang up after a few.
MOST: Final = 4
_OF: Final = {"ssh": DEPLOY_KEY, "https": TOKEN}


@dataclass(frozen=True)
class Credential:
    """`secret` is a private key or a token."""

    kind: str
    secret: str = field(repr=False)
    username: str | None = None
    public_key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Opened:
    """What fetching is given: all of a kind, the newest first."""

    username: str = ""
    token: str = field(default="", repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)


def origin_of(site: Site) -> tuple[str | None, str]:
    """The kind of credential that the repository's address takes (None: none), and the host that it is for."""
    parts = urlsplit(site.repository or "")
    host = (parts.hostname or "").lower()
    return _OF.get(parts.scheme), f"{host}:{parts.port}" if parts.port else host


def create(session: Session, vault: Hides, site: Site, given: Credential, actor: Json) -> RepositoryCredential:
    """Raises repository.missing, repository.credential_unfit, quota.exceeded and config.unreadable."""
    kind, host = origin_of(site)
    if site.repository is None:
        raise HeadwayError("repository.missing", "The site's repository is its own: nobody else's is read for it.")
    if kind != given.kind:
        what = f"a {kind.replace('_', ' ')}" if kind else "nothing"
        raise HeadwayError("repository.credential_unfit", f"This repository is read with {what}.", param="kind")
    most = 1 if given.kind == TOKEN else MOST
    session.refresh(site, with_for_update=True)
    of_site = select(func.count()).where(col(RepositoryCredential.site_id) == site.id)
    if session.exec(of_site.where(col(RepositoryCredential.kind) == given.kind)).one() >= most:
        hint = "rotate it" if most == 1 else "delete one that the forge does not have any more"
        raise HeadwayError("quota.exceeded", f"A site has at most {most} of a kind: {hint}.")
    id = new_id("cred")
    # Comes behind a rotation that holds the table, or holds one up: see store.config_keys.
    session.get(RepositoryCredential, id, with_for_update=True)
    hidden = vault.hide(given.secret, bound_to(id))
    made = RepositoryCredential(
        id=id,
        site_id=site.id,
        kind=given.kind,
        host=host,
        username=given.username,
        public_key=given.public_key,
        fingerprint=given.fingerprint,
        ciphertext=hidden.ciphertext,
        wrapped_key=hidden.wrapped_key,
        key_id=hidden.key_id,
        actor=actor,
    )
    session.add(made)
    session.flush()
    return made


def replace_token(
    session: Session, vault: Hides, row: RepositoryCredential, token: str, username: str | None
) -> RepositoryCredential:
    """Under the same id, for the same host. Raises repository.credential_unfit for a key: make another one."""
    if row.kind != TOKEN:
        raise HeadwayError("repository.credential_unfit", "A key is not given but made: leave the token out.")
    hidden = vault.hide(token, bound_to(row.id))
    row.ciphertext, row.wrapped_key, row.key_id = hidden.ciphertext, hidden.wrapped_key, hidden.key_id
    row.username, row.rotated_at = username or row.username, utcnow()
    session.add(row)
    session.flush()
    return row


def bound_to(id: str) -> str:
    return f"repository credential {id}"


def credential(session: Session, site_id: str, id: str, *, lock: bool = False) -> RepositoryCredential:
    """Raises repository.credential_not_found."""
    found = session.get(RepositoryCredential, id, with_for_update=lock or None)
    if found is None or found.site_id != site_id:
        raise HeadwayError("repository.credential_not_found", f"There is no credential {id}.", param="credential_id")
    return found


def list_credentials(session: Session, site_id: str, page: Page) -> tuple[Sequence[RepositoryCredential], bool]:
    query = select(RepositoryCredential).where(RepositoryCredential.site_id == site_id)
    return fetch_page(session, query, page, time=RepositoryCredential.created_at, id=RepositoryCredential.id)


def fitting(session: Session, site: Site) -> list[RepositoryCredential]:
    """Those of the repository's kind that were made for its host: nobody else's host is told them. Newest first."""
    kind, host = origin_of(site)
    query = select(RepositoryCredential).where(
        RepositoryCredential.site_id == site.id, RepositoryCredential.kind == kind, RepositoryCredential.host == host
    )
    return list(session.exec(query.order_by(col(RepositoryCredential.created_at).desc())).all())


def opened(vault: Opens, rows: Sequence[RepositoryCredential]) -> Opened | None:
    """None where there is nothing. Raises config.unreadable."""
    if not rows:
        return None
    secrets = [vault.open(row.ciphertext, row.wrapped_key, row.key_id, bound_to(row.id)) for row in rows]
    if rows[0].kind == TOKEN:
        return Opened(username=rows[0].username or "git", token=secrets[0])
    return Opened(keys=tuple(secrets))


def note_use(session: Session, rows: Sequence[RepositoryCredential]) -> None:
    for row in rows:
        row.used_at = utcnow()
        session.add(row)


def forget(session: Session, site_ids: Sequence[str]) -> None:
    session.execute(delete(RepositoryCredential).where(col(RepositoryCredential.site_id).in_(site_ids)))
