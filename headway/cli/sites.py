"""`headway sites`."""

from __future__ import annotations

import click

from headway.cli.output import print_fields, print_json, print_table
from headway.cli.session import Session, connected, limit_option


@click.group()
def sites() -> None:
    """Sites: what is deployed, in its environments."""


@sites.command("list")
@limit_option
@connected()
def list_sites(session: Session, limit: int | None) -> None:
    """List sites, newest first."""
    rows = list(session.client.sites.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("slug", "id", "status", "branch", "repository", "created"),
        [
            (row.slug, row.id, row.status, row.default_branch, row.repository or "hosted", row.created_at)
            for row in rows
        ],
    )


@sites.command()
@click.argument("name")
@click.option("--slug", help="Derived from the name if left out.")
@click.option("--repository", metavar="URL", help="A remote one; without it the platform hosts one.")
@click.option("--branch", "default_branch", metavar="NAME", help="The branch of production (main).")
@click.option("--project", "project_id", metavar="ID", help="The team's default project if left out.")
@click.option("--runtime", help="A label: static, node, python, binary or auto.")
@click.option("--profile", help="What its builds are to make: auto, static or dynamic.")
@connected(starts=True)
def create(session: Session, name: str, wait: bool, timeout: float | None, **fields: str | None) -> int:
    """Make a site with its production environment."""
    job = session.client.sites.create(name, idempotency_key=session.key, **fields)
    return session.started(job, wait=wait, timeout=timeout)


@sites.command()
@click.argument("site")
@connected()
def get(session: Session, site: str) -> None:
    """Show one site, by slug or id."""
    found = session.site(site).as_dict()
    if session.as_json:
        return print_json(found)
    return print_fields({name: value for name, value in found.items() if name != "links"})


@sites.command()
@click.argument("site")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected(starts=True)
def delete(session: Session, site: str, yes: bool, wait: bool, timeout: float | None) -> int:
    """Delete a site with all of its environments."""
    found = session.site(site)
    if not yes:
        click.confirm(f"Delete {found.slug} ({found.id}) and all that it serves?", abort=True, err=True)
    return session.started(session.client.sites.delete(found.id), wait=wait, timeout=timeout)
