"""Notifications: events for people, by chat and e-mail, on the engine of webhooks. An address is never shown whole."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from pydantic import Field
from sqlmodel import Session
from starlette.responses import Response

from adapters.notices.schemes import shown
from api.idempotency import Once
from api.managed import sent
from api.managed.answers import DeletedRow, Row
from api.managed.answers_around import DeliveryRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.keys import check_pin
from api.managed.schemas import Body, EventNames, Nothing, Pin
from api.managed.webhooks import RETRIES
from api.webhooks import READ, WRITE, pin_of, seen, to_change, to_read
from headway.webhooks import NOTICE, check_patterns
from store import webhooks
from store.events import stamp
from store.models_webhooks import WebhookEndpoint
from store.webhooks import EndpointRequest

router = APIRouter(prefix="/notifications", tags=["notifications"])
Json = dict[str, Any]
N: Final = "/{notification_id}"
_URL: Final = "An address as Apprise takes it, as `slack://…` or `mailtos://…`. Never shown whole."


class NotificationCreate(Body):
    url: str = Field(min_length=1, max_length=2000, description=_URL)
    events: EventNames
    description: str | None = Field(default=None, max_length=500)
    resource: Pin | None = Field(default=None, description="Only events of this; as the calling key is pinned.")


class NotificationUpdate(Body):
    url: str | None = Field(default=None, min_length=1, max_length=2000, description=_URL)
    events: EventNames | None = None
    description: str | None = Field(default=None, max_length=500)
    enabled: bool | None = None


class NotificationRow(Row):
    """`failing_since`: the first failure after the last success."""

    id: str
    url: str = Field(description="The service alone.")
    events: list[str]
    description: str | None
    enabled: bool
    resource: Json | None
    failing_since: str | None
    disabled_at: str | None
    disabled_reason: str | None
    created_at: str


def notification_row(endpoint: WebhookEndpoint) -> Json:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": endpoint.events,
        "description": endpoint.description,
        "enabled": endpoint.enabled,
        "resource": endpoint.pin,
        "failing_since": stamp(endpoint.failing_since),
        "disabled_at": stamp(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_reason,
        "created_at": stamp(endpoint.created_at),
    }


def _team(call: Call) -> str | None:
    return None if call.caller.operator else call.caller.team_id


def _readable(call: Call, session: Session, id: str) -> WebhookEndpoint:
    return to_read(call, session, id, NOTICE, _team(call))


def _changeable(call: Call, session: Session, id: str) -> WebhookEndpoint:
    return to_change(call, session, id, NOTICE, _team(call))


@router.get("", **lists(NotificationRow, "List notifications"))
async def list_notifications(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(READ)
    visible = seen(call.caller, NOTICE, _team(call))
    return await call.page(
        paging, lambda session, page: webhooks.list_endpoints(session, visible, page), notification_row
    )


@router.post("", **gives(NotificationRow, "Tell people of events, by chat or e-mail", status=201, located=True))
async def create_notification(call: KeyedDep, body: NotificationCreate) -> Response:
    call.caller.require(WRITE)
    events = check_patterns(body.events, NOTICE)
    url = await call.parts.notifier.check(body.url)
    wanted = EndpointRequest(NOTICE, shown(url), events, RETRIES, description=body.description, hidden_url=url)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        pin = pin_of(call.caller, check_pin(call, session, body.resource, call.caller.team_id))
        once.claim(session)
        made, _ = webhooks.create_endpoint(
            session, call.parts.webhook_vault, call.caller.team_id, wanted, pin, call.caller.actor
        )
        return notification_row(made), notification_row(made)

    # An address holds its secret, and a key's fingerprint would be a digest of it.
    return await call.create(body.model_copy(update={"url": ""}), work, located=True)


@router.get(N, **gives(NotificationRow, "Get a notification, without its address"))
async def get_notification(call: CallDep, notification_id: str) -> Response:
    return call.one(notification_row(await call.read(lambda session: _readable(call, session, notification_id))))


@router.patch(N, **gives(NotificationRow, "Change where notices go, what they tell of, and whether they are sent"))
async def update_notification(call: CallDep, notification_id: str, body: NotificationUpdate) -> Response:
    await call.read(lambda session: _readable(call, session, notification_id))
    url = await call.parts.notifier.check(body.url) if body.url is not None else None
    events = check_patterns(body.events, NOTICE) if body.events is not None else None

    def work(session: Session) -> Json:
        found = _changeable(call, session, notification_id)
        found.events = events or found.events
        if url is not None:
            webhooks.set_hidden_url(call.parts.webhook_vault, found, url, shown(url))
        found.description = found.description if body.description is None else body.description
        if body.enabled is not None:
            webhooks.set_enabled(found, body.enabled)
        return notification_row(found)

    return call.one(await call.write(work))


@router.delete(N, **gives(DeletedRow, "Delete a notification with the history of its deliveries"))
async def delete_notification(call: CallDep, notification_id: str) -> Response:
    await call.write(lambda session: webhooks.delete_endpoint(session, _changeable(call, session, notification_id)))
    return call.one({"id": notification_id, "deleted": True})


@router.post(N + "/test", **gives(DeliveryRow, "Send a notice of the type webhook.test", status=201))
async def send_test_notification(call: KeyedDep, notification_id: str, body: Nothing | None = None) -> Response:
    return await sent.send_test(call, body, lambda session: _changeable(call, session, notification_id))


@router.get(N + "/deliveries", **lists(DeliveryRow, "List notices, with each try and its outcome"))
async def list_notices(call: CallDep, paging: PagingDep, notification_id: str) -> Response:
    return await sent.list_sent(call, paging, lambda session: _readable(call, session, notification_id))


@router.post(N + "/deliveries/{delivery_id}/replay", **gives(DeliveryRow, "Send a notice once more", status=201))
async def replay_notice(
    call: KeyedDep, notification_id: str, delivery_id: str, body: Nothing | None = None
) -> Response:
    return await sent.replay(
        call, body, lambda session: _changeable(call, session, notification_id), delivery_id, "notification"
    )
