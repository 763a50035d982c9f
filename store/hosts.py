"""Hosts: serving machines, each with the key that its configuration is sealed to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlmodel import Session, select

from headway.errors import HeadwayError
from store.models import utcnow
from store.models_configuration import Host
from store.paging import Page, fetch_page

MAX_LABELS: Final = 50


def register_host(session: Session, host_id: str, public_key: str, labels: Iterable[str]) -> Host:
    """A host says who it is. The first key is pinned; another one is only kept until an operator accepts it.

    The caller compares `public_key` with the answer's after the transaction.
    """
    found = session.get(Host, host_id, with_for_update=True)
    if found is None:
        found = Host(id=host_id, public_key=public_key)
    found.labels = sorted(set(labels))[:MAX_LABELS]
    found.last_seen_at = utcnow()
    found.offered_key = None if public_key == found.public_key else public_key
    session.add(found)
    session.flush()
    return found


def host(session: Session, host_id: str, *, lock: bool = False) -> Host:
    """Raises host.not_found."""
    found = session.get(Host, host_id, with_for_update=lock or None)
    if found is None:
        raise HeadwayError("host.not_found", f"There is no host {host_id}.", param="host_id")
    return found


def list_hosts(session: Session, page: Page) -> tuple[Sequence[Host], bool]:
    return fetch_page(session, select(Host), page, time=Host.created_at, id=Host.id)


def accept_key(session: Session, host_id: str, public_key: str) -> Host:
    """Pin the key that the host offers. `public_key` is what the operator compared. Raises host.key_mismatch."""
    found = host(session, host_id, lock=True)
    if public_key == found.public_key:
        return found
    if public_key != found.offered_key:
        raise HeadwayError("host.key_mismatch", f"The host {host_id} does not offer that key.", param="public_key")
    found.public_key, found.offered_key = public_key, None
    session.add(found)
    return found


def forget_host(session: Session, host_id: str) -> Host:
    """It gets no configuration any more until it registers again, with whatever key it has then."""
    found = host(session, host_id, lock=True)
    session.delete(found)
    return found
