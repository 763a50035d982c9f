"""`headway domains`."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, env_option, limit_option, site_option
from headway.errors import HeadwayError

NAME = click.argument("name", metavar="DOMAIN")
POLICY = click.option(
    "--redirect-policy", type=click.Choice(["none", "apex_to_www", "www_to_apex"]), help="Redirect to the sibling name."
)


@click.group()
def domains() -> None:
    """Host names of your own, proven by DNS records and led to an environment."""


@domains.command()
@NAME
@site_option
@env_option
@click.option("--redirect-to-primary", is_flag=True, help="Answer with a redirect to the environment's primary name.")
@POLICY
@connected(starts=True)
def attach(
    session: Session,
    name: str,
    site: str,
    env: str,
    redirect_to_primary: bool,
    redirect_policy: str | None,
    wait: bool,
    timeout: float | None,
) -> int:
    """Attach a domain. Says which DNS records to make; the job looks for them until they are there."""
    where, found = session.place(site, env)
    fields: dict[str, Any] = {"redirect_to_primary": True} if redirect_to_primary else {}
    fields |= {"redirect_policy": redirect_policy} if redirect_policy is not None else {}
    job = session.client.domains.attach(where.id, found.id, name, idempotency_key=session.key, **fields)
    if not session.as_json:
        with contextlib.suppress(HeadwayError):  # what was started is told of whatever becomes of this
            row = session.client.domains.get(where.id, found.id, str(job.resource["id"]))
            for record in row.dns_records:
                say(f"DNS: {clean(record['name'])}  {clean(record['type'])}  {clean(record['value'])}")
    return session.started(job, wait=wait, timeout=timeout)


@domains.command("list")
@site_option
@env_option
@limit_option
@connected()
def list_domains(session: Session, site: str, env: str, limit: int | None) -> None:
    """List an environment's domains."""
    where, found = session.place(site, env)
    rows = list(session.client.domains.list(where.id, found.id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("domain", "id", "status", "primary", "leads here", "missing"),
        [
            (
                row.hostname,
                row.id,
                row.status,
                "yes" if row.primary else "no",
                "yes" if row.points_here else "no",
                row.missing,
            )
            for row in rows
        ],
    )


@domains.command()
@NAME
@site_option
@env_option
@connected()
def get(session: Session, name: str, site: str, env: str) -> None:
    """Show one domain, with the DNS records that it needs and those that were found."""
    where, found = session.place(site, env)
    row = session.client.domains.find(where.id, found.id, name).as_dict()
    return print_json(row) if session.as_json else print_fields(row)


@domains.command()
@NAME
@site_option
@env_option
@connected(starts=True)
def verify(session: Session, name: str, site: str, env: str, wait: bool, timeout: float | None) -> int:
    """Look for a domain's DNS records now."""
    where, found = session.place(site, env)
    row = session.client.domains.find(where.id, found.id, name)
    job = session.client.domains.verify(where.id, found.id, row.id, idempotency_key=session.key)
    return session.started(job, wait=wait, timeout=timeout)


@domains.command()
@NAME
@site_option
@env_option
@click.option("--redirect-to-primary/--no-redirect-to-primary", default=None, help="Redirect to the primary name.")
@POLICY
@connected(starts=True)
def update(
    session: Session,
    name: str,
    site: str,
    env: str,
    redirect_to_primary: bool | None,
    redirect_policy: str | None,
    wait: bool,
    timeout: float | None,
) -> int:
    """Change where a domain redirects to."""
    given = {"redirect_to_primary": redirect_to_primary, "redirect_policy": redirect_policy}
    fields = {name: value for name, value in given.items() if value is not None}
    if not fields:
        raise click.UsageError("Name something to change.")
    where, found = session.place(site, env)
    row = session.client.domains.find(where.id, found.id, name)
    return session.started(
        session.client.domains.update(where.id, found.id, row.id, **fields), wait=wait, timeout=timeout
    )


@domains.command()
@NAME
@site_option
@env_option
@connected(starts=True)
def detach(session: Session, name: str, site: str, env: str, wait: bool, timeout: float | None) -> int:
    """Detach a domain. Its name is free at once."""
    where, found = session.place(site, env)
    row = session.client.domains.find(where.id, found.id, name)
    return session.started(session.client.domains.detach(where.id, found.id, row.id), wait=wait, timeout=timeout)
