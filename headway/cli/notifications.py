"""`headway notifications`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headway.cli.configuration import read_value
from headway.cli.output import clean, last_answer, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option

if TYPE_CHECKING:
    from headway.resources import Delivery, Notification

NOTIFICATION = click.argument("notification_id", metavar="NOTIFICATION")


@click.group()
def notifications() -> None:
    """Events for people, by chat and e-mail. An address is never shown whole."""


@notifications.command()
@click.option("--events", required=True, metavar="A,B", help="Names of events, `prefix.*`, or `*`.")
@click.option("--description", help="What it is for.")
@click.option("--site", metavar="SLUG|ID", help="Only events of this site.")
@connected(writes=True)
def create(session: Session, events: str, description: str | None, site: str | None) -> None:
    """Tell people of events. The address (slack://…) is asked for, or read from stdin; it is never an argument."""
    url = read_value("address", hidden=True)
    pin = {"type": "site", "id": session.site(site).id} if site is not None else None
    made = session.client.notifications.create(
        url, _names(events), description=description, resource=pin, idempotency_key=session.key
    )
    _show(session, made)


@notifications.command("list")
@limit_option
@connected()
def list_notifications(session: Session, limit: int | None) -> None:
    """List notifications, never their addresses."""
    rows = list(session.client.notifications.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "service", "events", "enabled", "failing since"),
        [(row.id, row.url, ",".join(row.events), "yes" if row.enabled else "no", row.failing_since) for row in rows],
    )


@notifications.command()
@NOTIFICATION
@connected()
def get(session: Session, notification_id: str) -> None:
    """Show one notification."""
    _show(session, session.client.notifications.get(notification_id))


@notifications.command()
@NOTIFICATION
@click.option("--new-address", is_flag=True, help="Ask for another address, or read it from stdin.")
@click.option("--events", metavar="A,B", help="Other events: all of them are named.")
@click.option("--description", help="What it is for.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether anything is sent.")
@connected()
def update(session: Session, notification_id: str, new_address: bool, events: str | None, **fields: Any) -> None:
    """Change a notification."""
    given = {name: value for name, value in fields.items() if value is not None}
    if events is not None:
        given["events"] = _names(events)
    if new_address:
        given["url"] = read_value("address", hidden=True)
    if not given:
        raise click.UsageError("Name something to change.")
    _show(session, session.client.notifications.update(notification_id, **given))


@notifications.command()
@NOTIFICATION
@connected()
def delete(session: Session, notification_id: str) -> None:
    """Delete a notification with the history of its deliveries."""
    done = session.client.notifications.delete(notification_id)
    return print_json(done) if session.as_json else say(f"Deleted {clean(notification_id)}.")


@notifications.command()
@NOTIFICATION
@connected(writes=True)
def test(session: Session, notification_id: str) -> None:
    """Send a notice of the type webhook.test."""
    _show_delivery(session, session.client.notifications.test(notification_id, idempotency_key=session.key))


@notifications.command()
@NOTIFICATION
@limit_option
@connected()
def deliveries(session: Session, notification_id: str, limit: int | None) -> None:
    """List what was sent, and what became of it."""
    rows = list(session.client.notifications.deliveries(notification_id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "event", "status", "tries", "last", "created"),
        [(row.id, row.event_type, row.status, row.attempts, last_answer(row.tries), row.created_at) for row in rows],
    )


@notifications.command()
@NOTIFICATION
@click.argument("delivery_id", metavar="DELIVERY")
@connected(writes=True)
def replay(session: Session, notification_id: str, delivery_id: str) -> None:
    """Send a notice once more."""
    made = session.client.notifications.replay(notification_id, delivery_id, idempotency_key=session.key)
    _show_delivery(session, made)


def _names(events: str) -> list[str]:
    return [one.strip() for one in events.split(",") if one.strip()]


def _show(session: Session, row: Notification) -> None:
    return print_json(row.as_dict()) if session.as_json else print_fields(row.as_dict())


def _show_delivery(session: Session, made: Delivery) -> None:
    if session.as_json:
        return print_json(made.as_dict())
    return say(f"{made.id} is on its way: `headway notifications deliveries` says how it ends.")
