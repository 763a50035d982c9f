"""What leads where on a host, against what the rows say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlmodel import Session, col, select

from headway.broker import leads_digest
from store.domains import redirects_of
from store.fleet import serves
from store.hostnames import hostnames_of
from store.locks import lock_text
from store.models import Environment
from store.models_domains import Domain
from store.models_locks import EnvironmentLock

BATCH: Final = 500


def misled(session: Session, host_id: str, told: Mapping[str, str], site_url: Callable[[str], str]) -> list[str]:
    """Environments of a host whose names, redirects or lock are otherwise than it says."""
    found, ids = list[str](), sorted(told)
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        living = select(Environment.id).where(col(Environment.deleted_at).is_(None), Environment.status != "deleting")
        known = session.exec(living.where(col(Environment.id).in_(some))).all()
        rows = _digests(session, known, site_url)
        found += [env_id for env_id in known if told[env_id] != rows[env_id] and serves(session, env_id, host_id)]
    return sorted(found)


def _digests(session: Session, env_ids: Sequence[str], site_url: Callable[[str], str]) -> dict[str, str]:
    """Few have a lock or a domain of their own: only those are asked for one by one."""
    domains = select(Domain.env_id).where(col(Domain.env_id).in_(env_ids), col(Domain.deleted_at).is_(None))
    locks = select(EnvironmentLock.owner_id).where(col(EnvironmentLock.owner_id).in_(env_ids))
    with_domains, locked = set(session.exec(domains)), set(session.exec(locks))
    found = dict[str, str]()
    for env_id, names in hostnames_of(session, env_ids).items():
        led = redirects_of(session, env_id) if env_id in with_domains else {}
        ways = {one.name: site_url(led[one.name]) if one.name in led else "" for one in names}
        found[env_id] = leads_digest(ways, lock_text(session, env_id) if env_id in locked else "")
    return found
