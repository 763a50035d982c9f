"""`headway hosts`: for the operator."""

from __future__ import annotations

import click

from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option
from headway.errors import HeadwayError


@click.group()
def hosts() -> None:
    """Serving machines, and the keys that their configuration is sealed to."""


@hosts.command("list")
@limit_option
@connected()
def list_hosts(session: Session, limit: int | None) -> None:
    """List hosts. One that offers another key than its pinned one gets no new configuration until it is accepted."""
    rows = list(session.client.hosts.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "key", "offers", "labels", "last seen"),
        [(row.id, row.public_key, row.offered_key, ", ".join(row.labels), row.last_seen_at) for row in rows],
    )


@hosts.command()
@click.argument("host_id", metavar="HOST")
@connected()
def get(session: Session, host_id: str) -> None:
    """Show one host."""
    row = session.client.hosts.get(host_id).as_dict()
    return print_json(row) if session.as_json else print_fields(row)


@hosts.command()
@click.argument("host_id", metavar="HOST")
@click.option("--key", "public_key", metavar="KEY", help="The key that you compared; what is offered if left out.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected(writes=True)
def accept(session: Session, host_id: str, public_key: str | None, yes: bool) -> None:
    """Pin the key that a host offers now, for example after its disk was replaced."""
    key = public_key or session.client.hosts.get(host_id).offered_key
    if key is None:
        raise HeadwayError("host.key_mismatch", f"The host {host_id} offers no other key than its pinned one.")
    if not yes:
        click.confirm(f"Trust {clean(host_id)} with the key {clean(key)}?", abort=True, err=True)
    row = session.client.hosts.accept(host_id, key, idempotency_key=session.key)
    return print_json(row.as_dict()) if session.as_json else say(f"The key of {clean(host_id)} is {clean(key)} now.")


@hosts.command()
@click.argument("host_id", metavar="HOST")
@connected()
def forget(session: Session, host_id: str) -> None:
    """Forget a host's key. It gets no configuration until it registers again."""
    done = session.client.hosts.forget(host_id)
    return print_json(done) if session.as_json else say(f"Forgot {clean(host_id)}.")
