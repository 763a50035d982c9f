"""Host names: one global table; a name belongs to one environment until that is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select

from store.models import Environment, Hostname, Site, utcnow
from store.models_domains import Domain
from store.slugs import LABEL, RESERVED, branch_slug, fitted, short_hash

_TABLE = SQLModel.metadata.tables["hostname"]
_INSERT: Final = {
    "sqlite": sqlite.insert(_TABLE).on_conflict_do_nothing().returning(_TABLE.c.name),
    "postgresql": postgresql.insert(_TABLE).on_conflict_do_nothing().returning(_TABLE.c.name),
}


def claim_hostnames(session: Session, site: Site, environment: Environment, domain: str) -> list[Hostname]:
    """Give a new environment its names; the first is the primary one. Collisions get a hash.

    `<site>-<environment>`; production also `<site>` (its primary); previews also the stable
    `<site>-<branch>-<hash of site and branch>`.
    """
    label = f"{site.slug}-{environment.slug}"
    if environment.kind == "production":
        wanted = [site.slug, label]
    elif environment.kind == "preview":
        wanted = [label, preview_label(site, environment)]
    else:
        wanted = [label]
    return [
        _claim(session, environment, name, domain, is_primary=position == 0)
        for position, name in enumerate(dict.fromkeys(wanted))
    ]


def preview_label(site: Site, environment: Environment) -> str:
    """Stable whatever other branches there are: of site and branch alone, not of a commit or a slug that was free."""
    return fitted(f"{site.slug}-{branch_slug(environment.branch)}", short_hash(site.id, environment.branch))


def _claim(session: Session, environment: Environment, label: str, domain: str, *, is_primary: bool) -> Hostname:
    candidates = [] if label in RESERVED or len(label) > LABEL else [label]
    candidates += [fitted(label, short_hash(environment.id, label, length=n)) for n in (6, 10, 26)]
    for candidate in candidates:
        row = {
            "name": f"{candidate}.{domain}",
            "env_id": environment.id,
            "is_primary": is_primary,
            "created_at": utcnow(),
        }
        if insert_new(session, row):
            return session.get_one(Hostname, row["name"])
    raise AssertionError("a name with a hash of the environment's own id was taken")


def insert_new(session: Session, row: dict[str, object]) -> bool:
    """Whether the name was free. Waits for a concurrent claim of the same name on PostgreSQL."""
    return session.connection().execute(_INSERT[session.get_bind().dialect.name], row).first() is not None


def hostnames_of(session: Session, env_ids: Sequence[str]) -> dict[str, list[Hostname]]:
    """The names of each environment, the primary one first."""
    found: dict[str, list[Hostname]] = {env_id: [] for env_id in env_ids}
    if env_ids:
        rows = session.exec(
            select(Hostname)
            .where(col(Hostname.env_id).in_(env_ids))
            .order_by(col(Hostname.is_primary).desc(), col(Hostname.created_at), col(Hostname.name))
        )
        for row in rows:
            found[row.env_id].append(row)
    return found


def addresses_of(site: Site, environment: Environment, names: Sequence[Hostname]) -> tuple[str | None, str | None]:
    """Of its names the primary one, and of a preview the one that its branch keeps."""
    primary = next((name.name for name in names if name.is_primary), None)
    if environment.kind != "preview":
        return primary, None
    label = preview_label(site, environment)
    return primary, next((name.name for name in names if name.name.startswith(label)), primary)


def release_hostnames(session: Session, env_id: str) -> None:
    for row in session.exec(select(Hostname).where(Hostname.env_id == env_id)).all():
        session.delete(row)


def end_domains_of(session: Session, env_id: str) -> None:
    """The environment is gone, and its names with it: its domains are removed."""
    for domain in session.exec(select(Domain).where(Domain.env_id == env_id, col(Domain.deleted_at).is_(None))).all():
        domain.status, domain.deleted_at = "removed", utcnow()
