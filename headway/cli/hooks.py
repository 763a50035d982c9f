"""`headway hooks`."""

from __future__ import annotations

import click

from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option, site_option

HOOK = click.argument("hook_id", metavar="HOOK")


@click.group()
def hooks() -> None:
    """Addresses that a site's forge calls when it is pushed to. A secret is shown once."""


@hooks.command()
@site_option
@click.option("--provider", type=click.Choice(["github", "gitlab", "gitea"]), required=True, help="gitea: Forgejo too.")
@connected(writes=True)
def create(session: Session, site: str, provider: str) -> None:
    """Make a hook: give the forge its address and its secret, and pushes as JSON."""
    made = session.client.hooks.create(session.site(site).id, provider, idempotency_key=session.key)
    if session.as_json:
        return print_json(made.as_dict())
    print_fields(made.as_dict())
    if made.secret:
        return say("Keep the secret now: it is not shown again.")
    return say("An earlier request with this Idempotency-Key made it, and showed the secret then.")


@hooks.command("list")
@site_option
@limit_option
@connected()
def list_hooks(session: Session, site: str, limit: int | None) -> None:
    """List a site's hooks, never their secrets."""
    rows = list(session.client.hooks.list(session.site(site).id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "provider", "url", "forged calls"), [(row.id, row.provider, row.url, row.forged) for row in rows]
    )


@hooks.command()
@HOOK
@site_option
@connected()
def delete(session: Session, hook_id: str, site: str) -> None:
    """Delete a hook with the history of its calls."""
    done = session.client.hooks.delete(session.site(site).id, hook_id)
    return print_json(done) if session.as_json else say(f"Deleted {clean(hook_id)}.")


@hooks.command()
@HOOK
@site_option
@limit_option
@connected()
def calls(session: Session, hook_id: str, site: str, limit: int | None) -> None:
    """List what a forge called with, and the verdict on each."""
    rows = list(session.client.hooks.calls(session.site(site).id, hook_id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("at", "event", "branch", "verdict", "repeats"),
        [(row.created_at, row.event, row.ref, row.text or row.verdict, row.repeats) for row in rows],
    )
