"""`headway webhooks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headway.cli.output import clean, last_answer, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option

if TYPE_CHECKING:
    from headway.resources import Delivery, WebhookEndpoint

ENDPOINT = click.argument("endpoint_id", metavar="ENDPOINT")


@click.group()
def webhooks() -> None:
    """Endpoints to which events are sent. A signing secret is shown once."""


@webhooks.command()
@click.option("--url", required=True, help="An https:// address.")
@click.option("--events", required=True, metavar="A,B", help="Names of events, `prefix.*`, or `*`.")
@click.option("--description", help="What it is for.")
@click.option("--site", metavar="SLUG|ID", help="Only events of this site.")
@connected(writes=True)
def create(session: Session, url: str, events: str, description: str | None, site: str | None) -> None:
    """Make an endpoint and show its signing secret, once."""
    names = [one.strip() for one in events.split(",") if one.strip()]
    pin = {"type": "site", "id": session.site(site).id} if site is not None else None
    made = session.client.webhooks.create(
        url, names, description=description, resource=pin, idempotency_key=session.key
    )
    _show_secret(session, made)


@webhooks.command("list")
@limit_option
@connected()
def list_endpoints(session: Session, limit: int | None) -> None:
    """List endpoints, never their secrets."""
    rows = list(session.client.webhooks.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "url", "events", "enabled", "failing since"),
        [(row.id, row.url, ",".join(row.events), "yes" if row.enabled else "no", row.failing_since) for row in rows],
    )


@webhooks.command()
@ENDPOINT
@connected()
def get(session: Session, endpoint_id: str) -> None:
    """Show one endpoint."""
    _show(session, session.client.webhooks.get(endpoint_id).as_dict())


@webhooks.command()
@ENDPOINT
@click.option("--url", help="Another address.")
@click.option("--events", metavar="A,B", help="Other events: all of them are named.")
@click.option("--description", help="What it is for.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether anything is sent.")
@connected()
def update(session: Session, endpoint_id: str, events: str | None, **fields: Any) -> None:
    """Change an endpoint."""
    given = {name: value for name, value in fields.items() if value is not None}
    if events is not None:
        given["events"] = [one.strip() for one in events.split(",") if one.strip()]
    if not given:
        raise click.UsageError("Name something to change.")
    _show(session, session.client.webhooks.update(endpoint_id, **given).as_dict())


@webhooks.command()
@ENDPOINT
@connected()
def delete(session: Session, endpoint_id: str) -> None:
    """Delete an endpoint with the history of its deliveries."""
    done = session.client.webhooks.delete(endpoint_id)
    return print_json(done) if session.as_json else say(f"Deleted {clean(endpoint_id)}.")


@webhooks.command()
@ENDPOINT
@click.option("--grace", "grace_period", metavar="24h", help="How long the old secret signs beside the new one.")
@connected(writes=True)
def rotate(session: Session, endpoint_id: str, grace_period: str | None) -> None:
    """Make a new signing secret."""
    _show_secret(
        session,
        session.client.webhooks.rotate(endpoint_id, grace_period=grace_period, idempotency_key=session.key),
    )


@webhooks.command()
@ENDPOINT
@connected(writes=True)
def test(session: Session, endpoint_id: str) -> None:
    """Send an event of the type webhook.test."""
    _show_delivery(session, session.client.webhooks.test(endpoint_id, idempotency_key=session.key))


@webhooks.command()
@ENDPOINT
@limit_option
@connected()
def deliveries(session: Session, endpoint_id: str, limit: int | None) -> None:
    """List what was sent to an endpoint, and what became of it."""
    rows = list(session.client.webhooks.deliveries(endpoint_id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "event", "status", "tries", "last", "created"),
        [(row.id, row.event_type, row.status, row.attempts, last_answer(row.tries), row.created_at) for row in rows],
    )


@webhooks.command()
@ENDPOINT
@click.argument("delivery_id", metavar="DELIVERY")
@connected(writes=True)
def replay(session: Session, endpoint_id: str, delivery_id: str) -> None:
    """Send a delivery's event once more."""
    _show_delivery(session, session.client.webhooks.replay(endpoint_id, delivery_id, idempotency_key=session.key))


def _show(session: Session, row: dict[str, Any]) -> None:
    return print_json(row) if session.as_json else print_fields(row)


def _show_delivery(session: Session, made: Delivery) -> None:
    if session.as_json:
        return print_json(made.as_dict())
    return say(f"{made.id} is on its way: `headway webhooks deliveries` says how it ends.")


def _show_secret(session: Session, made: WebhookEndpoint) -> None:
    if session.as_json:
        return print_json(made.as_dict())
    print_fields(made.as_dict())
    if made.signing_secret:
        return say("Keep the secret now: it is not shown again.")
    return say("An earlier request with this Idempotency-Key made it, and showed the secret then.")
