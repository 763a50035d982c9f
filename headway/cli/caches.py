"""`headway caches`."""

from __future__ import annotations

import click

from headway.cli.output import print_json, print_table, say
from headway.cli.session import Session, connected, limit_option, site_option


@click.group()
def caches() -> None:
    """What a site's builds keep between them: downloads, and the folders that headway.toml declares."""


@caches.command("list")
@site_option
@limit_option
@connected()
def list_caches(session: Session, site: str, limit: int | None) -> None:
    """List them, the newest first."""
    rows = list(session.client.caches.list(session.site(site).id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("environment", "lock file", "bytes", "left by", "created", "used"),
        [(row.env_id, row.key[:12], row.size_bytes, row.build_id, row.created_at, row.used_at) for row in rows],
    )


@caches.command()
@site_option
@click.option("--env", metavar="SLUG|ID", help="Of this environment alone.")
@connected()
def drop(session: Session, site: str, env: str | None) -> None:
    """Drop them: the next builds begin without."""
    where = session.site(site)
    found = session.client.environments.find(where.id, env).id if env is not None else None
    done = session.client.caches.drop(where.id, found)
    return print_json(done) if session.as_json else say(f"Dropped {done['dropped']}, {done['size_bytes']} bytes.")
