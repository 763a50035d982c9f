"""`headway repository`: the remote that a site is built from."""

from __future__ import annotations

from typing import Any

import click

from headway.cli.configuration import read_value
from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option, site_option
from headway.errors import HeadwayError

Json = dict[str, Any]
CREDENTIAL = click.argument("credential_id", metavar="CREDENTIAL")


@click.group()
def repository() -> None:
    """A site's remote repository: what a private one is read with, how it is polled, its branches."""


@repository.command()
@site_option
@limit_option
@connected()
def credentials(session: Session, site: str, limit: int | None) -> None:
    """List what the repository is read with, never the secrets."""
    rows = list(session.client.repository.credentials(session.site(site).id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "kind", "host", "fingerprint", "made", "used"),
        [(row.id, row.kind, row.host, row.fingerprint, row.created_at, row.used_at) for row in rows],
    )


@repository.command("add-key")
@site_option
@connected(writes=True)
def add_key(session: Session, site: str) -> None:
    """Make a deploy key for ssh, and show its public half: give that to the forge, to read with."""
    _show(session, session.client.repository.add_key(session.site(site).id, idempotency_key=session.key).as_dict())


@repository.command("set-token")
@site_option
@click.option("--username", help="Where the forge wants a certain one with its tokens.")
@connected(writes=True)
def set_token(session: Session, site: str, username: str | None) -> None:
    """Give a token for https, or replace the one that is there. It is asked for, or read from stdin."""
    site_id, calls = session.site(site).id, session.client.repository
    known = [row.id for row in calls.credentials(site_id) if row.kind == "token"]
    token = read_value("token", hidden=True).strip()
    try:
        if known:
            made = calls.rotate(site_id, known[0], token=token, username=username, idempotency_key=session.key)
        else:
            made = calls.add_token(site_id, token, username=username, idempotency_key=session.key)
    except HeadwayError as error:
        if not known or error.code != "idempotency.key_reused":
            raise
        # Under this key it was given when there was none yet.
        made = calls.add_token(site_id, token, username=username, idempotency_key=session.key)
    _show(session, made.as_dict())


@repository.command()
@CREDENTIAL
@site_option
@connected(writes=True)
def rotate(session: Session, credential_id: str, site: str) -> None:
    """Make another deploy key. Both are offered: give the forge the new one, then remove the old one here."""
    site_id = session.site(site).id
    made = session.client.repository.rotate(site_id, credential_id, idempotency_key=session.key)
    _show(session, made.as_dict())
    if not session.as_json:
        say(f"When the forge has it: headway repository remove {clean(credential_id)} --site {clean(site)}")


@repository.command()
@CREDENTIAL
@site_option
@connected()
def remove(session: Session, credential_id: str, site: str) -> None:
    """Delete a credential."""
    done = session.client.repository.delete(session.site(site).id, credential_id)
    return print_json(done) if session.as_json else say(f"Deleted {clean(credential_id)}.")


@repository.command()
@site_option
@click.option("--on/--off", "enabled", default=None, help="Poll it, or do not.")
@click.option("--interval", type=click.IntRange(10, 86_400), metavar="SECONDS", help="Between two looks.")
@click.option("--default", "defaults", is_flag=True, help="As the installation has it: while the site has a hook.")
@connected()
def polling(session: Session, site: str, enabled: bool | None, interval: int | None, defaults: bool) -> None:
    """Show or change how the repository is polled: the safety net for webhooks that are lost."""
    site_id, calls = session.site(site).id, session.client.repository
    if defaults and (enabled is not None or interval is not None):
        raise click.UsageError("--default stands alone.")
    body: Json = {"enabled": None, "interval_seconds": None} if defaults else {}
    if enabled is not None:
        body["enabled"] = enabled
    if interval is not None:
        body["interval_seconds"] = interval
    found = calls.set_polling(site_id, body) if body else calls.polling(site_id)
    return print_json(found) if session.as_json else print_fields(found)


@repository.command()
@site_option
@limit_option
@connected()
def branches(session: Session, site: str, limit: int | None) -> None:
    """List the branches that were heard of, by webhooks and polls, each with what was done about it."""
    rows = list(session.client.repository.branches(session.site(site).id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("branch", "commit", "by", "verdict", "at"),
        [(row.branch, (row.commit_sha or "")[:12], row.via, row.text, row.heard_at) for row in rows],
    )


def _show(session: Session, row: Json) -> None:
    return print_json(row) if session.as_json else print_fields(row)
