"""Hosts: serving machines, each with a credential of its own and the key that its configuration is sealed to."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.fleet import expect_host
from store.keys import hashed
from store.models import Environment, utcnow
from store.models_configuration import Host
from store.paging import Page, fetch_page

MAX_LABELS: Final = 50
FAMILY: Final = "hwh_"
# A host says that it is there every few seconds; a row is written as seldom as this.
BEAT: Final = timedelta(seconds=15)


def join_host(session: Session, host_id: str, labels: Iterable[str]) -> tuple[Host, str]:
    """Let a machine in: its row, and the credential with which it may register. Raises host.exists."""
    if session.get(Host, host_id) is not None:
        raise HeadwayError("host.exists", f"There is a host {host_id} already.", param="id")
    secret = FAMILY + secrets.token_urlsafe(32)
    made = Host(id=host_id, public_key="", labels=tidy(labels), secret_sha256=hashed(secret))
    session.add(made)
    session.flush()
    return made, secret


def renew_credential(session: Session, host_id: str) -> tuple[Host, str]:
    """A new credential; the one before is refused from now on."""
    found = host(session, host_id, lock=True)
    secret = FAMILY + secrets.token_urlsafe(32)
    found.secret_sha256 = hashed(secret)
    session.add(found)
    return found, secret


def host_by_credential(session: Session, secret: str) -> str | None:
    """Whose credential that is."""
    if not secret.startswith(FAMILY):
        return None
    return session.exec(select(Host.id).where(Host.secret_sha256 == hashed(secret))).first()


def register_host(session: Session, host_id: str, public_key: str, labels: Iterable[str] = ()) -> Host:
    """A host says who it is, and again that it is there. The first key is pinned; another one waits for an operator.

    Labels of its own settings are added to those that an operator gave it. The caller compares `public_key` with the
    answer's after the transaction.
    """
    found = session.get(Host, host_id, with_for_update=True)
    if found is None:
        found = Host(id=host_id, public_key=public_key, last_seen_at=utcnow() - 2 * BEAT)
    first = not found.public_key
    new = first or found.last_seen_at < utcnow() - BEAT
    found.public_key = found.public_key or public_key
    offered = None if public_key == found.public_key else public_key
    wider = tidy([*found.labels, *labels])
    widened = wider != found.labels
    if new or widened or offered != found.offered_key:
        found.labels, found.offered_key, found.last_seen_at = wider, offered, utcnow()
        session.add(found)
        session.flush()
    if widened or first:
        expect_host(session, found)
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


def label_host(session: Session, host_id: str, labels: Iterable[str]) -> Host:
    """Exactly these labels. What it has to serve with them comes to it by itself; what it has no more goes with the
    next rollout of each environment.
    """
    found = host(session, host_id, lock=True)
    found.labels = tidy(labels)
    session.add(found)
    session.flush()
    expect_host(session, found)
    return found


def forget_host(session: Session, host_id: str) -> Host:
    """Its credential and its key are good for nothing any more, and no environment goes to it.

    A rollout that is on its way there goes on without writing it down (`settle_hosts`). Raises host.in_use where an
    environment would be left with nowhere to go.
    """
    found = host(session, host_id, lock=True)
    rows = session.exec(select(Environment).where(col(Environment.deleted_at).is_(None))).all()
    on_it = sorted(row.id for row in rows if host_id in row.hosts) if found.secret_sha256 is not None else []
    for env_id in on_it:
        environment = session.get_one(Environment, env_id, with_for_update=True)
        if environment.hosts == [host_id]:
            message = f"{host_id} is the only host of the environment {environment.id}."
            raise HeadwayError("host.in_use", message, param="host_id")
        environment.hosts = [one for one in environment.hosts if one != host_id]
        session.add(environment)
    session.delete(found)
    return found


def tidy(labels: Iterable[str]) -> list[str]:
    return sorted(set(labels))[:MAX_LABELS]
