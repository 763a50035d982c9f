"""What a site's repository is read with, opened for one request of a builder."""

from __future__ import annotations

from sqlmodel import Session

from headway.broker import RepositoryAccess
from store import credentials
from store.config_values import Opens
from store.models import Site


def access_of(session: Session, vault: Opens, site: Site) -> RepositoryAccess | None:
    """None for a repository that is open to everybody, or the site's own. Raises config.unreadable."""
    rows = credentials.fitting(session, site) if site.repository is not None else []
    found = credentials.opened(vault, rows)
    if found is None:
        return None
    credentials.note_use(session, rows)
    return RepositoryAccess(username=found.username, token=found.token, keys=list(found.keys))
