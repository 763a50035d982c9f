"""`headway keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option

if TYPE_CHECKING:
    from headway.resources import Key


@click.group()
def keys() -> None:
    """API keys. A secret is shown once."""


@keys.command()
@click.argument("name")
@click.option("--scopes", metavar="A,B", help="Literal scopes, with commas between them.")
@click.option("--preset", help="read-only, deploy-bot, ci-terraform, observability or wp-automation.")
@click.option("--expires-in", metavar="90d", help="At most 1y (90d if left out).")
@click.option("--project", metavar="ID", help="Pin the key to this project.")
@click.option("--site", metavar="SLUG|ID", help="Pin the key to this site.")
@click.option("--env", metavar="SLUG|ID", help="Pin it to this environment of the site.")
@click.option("--kind", type=click.Choice(["personal", "service"]), help="Acts as you, or as the team.")
@click.option("--team", "team_id", metavar="ID", help="For the operator: another team.")
@click.option("--account", "account_id", metavar="ID", help="For the operator: the account of a personal key.")
@click.option("--msk", is_flag=True, help="A secret that begins with msk_live_, for clients of /api/v1.")
@click.option("--allow-ip", "ip_allowlist", multiple=True, metavar="CIDR", help="Only from there; may be repeated.")
@connected(writes=True)
def create(
    session: Session,
    name: str,
    scopes: str | None,
    preset: str | None,
    project: str | None,
    site: str | None,
    env: str | None,
    msk: bool,
    ip_allowlist: tuple[str, ...],
    **fields: Any,
) -> None:
    """Make an API key and show its secret, once."""
    if (scopes is None) == (preset is None):
        raise click.UsageError("Give one of --scopes and --preset.")
    wanted: list[str] | str = preset or [one.strip() for one in (scopes or "").split(",") if one.strip()]
    key = session.client.keys.create(
        name,
        wanted,
        idempotency_key=session.key,
        resource=_pin(session, project, site, env),
        ip_allowlist=list(ip_allowlist) or None,
        family="msk" if msk else None,
        **fields,
    )
    _show_secret(session, key)


def _pin(session: Session, project: str | None, site: str | None, env: str | None) -> dict[str, str] | None:
    if (project is not None and site is not None) or (env is not None and site is None):
        raise click.UsageError("Pin the key by --project, by --site, or by --site with --env.")
    if project is not None:
        return {"type": "project", "id": project}
    if site is None:
        return None
    if env is None:
        return {"type": "site", "id": session.site(site).id}
    return {"type": "environment", "id": session.place(site, env)[1].id}


@keys.command("list")
@limit_option
@connected()
def list_keys(session: Session, limit: int | None) -> None:
    """List keys, never their secrets."""
    rows = list(session.client.keys.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "name", "prefix", "expires", "last used", "revoked"),
        [(row.id, row.name, row.prefix, row.expires_at, row.last_used_at, row.revoked_at) for row in rows],
    )


@keys.command()
@click.argument("key_id", metavar="KEY")
@connected()
def get(session: Session, key_id: str) -> None:
    """Show one key's metadata."""
    key = session.client.keys.get(key_id).as_dict()
    return print_json(key) if session.as_json else print_fields(key)


@keys.command()
@click.argument("key_id", metavar="KEY")
@click.option("--grace", "grace_period", metavar="24h", help="How long the old secret still works.")
@connected(writes=True)
def roll(session: Session, key_id: str, grace_period: str | None) -> None:
    """Make a new secret for a key."""
    _show_secret(session, session.client.keys.roll(key_id, grace_period=grace_period, idempotency_key=session.key))


@keys.command()
@click.argument("key_id", metavar="KEY")
@connected()
def revoke(session: Session, key_id: str) -> None:
    """End a key at once."""
    done = session.client.keys.revoke(key_id)
    return print_json(done) if session.as_json else say(f"Revoked {clean(key_id)}.")


def _show_secret(session: Session, key: Key) -> None:
    if session.as_json:
        return print_json(key.as_dict())
    print_fields(key.as_dict())
    if key.secret:
        return say("Keep the secret now: it is not shown again.")
    return say("An earlier request with this Idempotency-Key made it, and showed the secret then.")
