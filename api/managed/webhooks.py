"""Webhook endpoints and their deliveries (contract section 17). A secret is shown once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.durations import duration
from api.idempotency import Once
from api.managed import sent
from api.managed.answers import DeletedRow
from api.managed.answers_around import DeliveryRow, EndpointRow, NewEndpointRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.keys import check_pin
from api.managed.rows_around import endpoint_row
from api.managed.schemas import EndpointCreate, EndpointRotate, EndpointUpdate, Nothing
from api.webhooks import READ, WRITE, pin_of, seen, to_change, to_read
from headway.webhooks import MANAGED, check_patterns
from store import deliveries, webhooks
from store.models import utcnow
from store.models_webhooks import WebhookEndpoint
from store.webhooks import EndpointRequest

router = APIRouter(prefix="/webhook-endpoints", tags=["webhooks"])
Json = dict[str, Any]
# After the first try, at 10 s, 1 and 5 and 30 minutes, 2 and 6 and 24 hours.
RETRIES: Final = 7
LONGEST_GRACE: Final = timedelta(days=30)
W: Final = "/{endpoint_id}"


def _team(call: Call) -> str | None:
    return None if call.caller.operator else call.caller.team_id


def _readable(call: Call, session: Session, id: str) -> WebhookEndpoint:
    return to_read(call, session, id, MANAGED, _team(call))


def _changeable(call: Call, session: Session, id: str) -> WebhookEndpoint:
    return to_change(call, session, id, MANAGED, _team(call))


@router.get("", **lists(EndpointRow, "List webhook endpoints"))
async def list_webhook_endpoints(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(READ)
    visible = seen(call.caller, MANAGED, _team(call))
    return await call.page(paging, lambda session, page: webhooks.list_endpoints(session, visible, page), endpoint_row)


@router.post("", **gives(NewEndpointRow, "Make a webhook endpoint; its secret is shown once", status=201, located=True))
async def create_webhook_endpoint(call: KeyedDep, body: EndpointCreate) -> Response:
    url, events = call.parts.targets.check(body.url), check_patterns(body.events, MANAGED)
    wanted = EndpointRequest(MANAGED, url, events, RETRIES, description=body.description)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(WRITE)
        pin = pin_of(call.caller, check_pin(call, session, body.resource, call.caller.team_id))
        once.claim(session)
        made, secret = webhooks.create_endpoint(
            session, call.parts.webhook_vault, call.caller.team_id, wanted, pin, call.caller.actor
        )
        return {**endpoint_row(made), "signing_secret": secret}, endpoint_row(made)

    return await call.create(body, work, located=True)


@router.get(W, **gives(EndpointRow, "Get a webhook endpoint, without its secret"))
async def get_webhook_endpoint(call: CallDep, endpoint_id: str) -> Response:
    return call.one(endpoint_row(await call.read(lambda session: _readable(call, session, endpoint_id))))


@router.patch(W, **gives(EndpointRow, "Change where a webhook goes, what it hears of, and whether it is enabled"))
async def update_webhook_endpoint(call: CallDep, endpoint_id: str, body: EndpointUpdate) -> Response:
    url = call.parts.targets.check(body.url) if body.url is not None else None
    events = check_patterns(body.events, MANAGED) if body.events is not None else None

    def work(session: Session) -> Json:
        found = _changeable(call, session, endpoint_id)
        found.url, found.events = url or found.url, events or found.events
        if body.description is not None:
            found.description = body.description
        if body.enabled is not None:
            webhooks.set_enabled(found, body.enabled)
        return endpoint_row(found)

    return call.one(await call.write(work))


@router.delete(W, **gives(DeletedRow, "Delete a webhook endpoint with the history of its deliveries"))
async def delete_webhook_endpoint(call: CallDep, endpoint_id: str) -> Response:
    await call.write(lambda session: webhooks.delete_endpoint(session, _changeable(call, session, endpoint_id)))
    return call.one({"id": endpoint_id, "deleted": True})


@router.post(
    W + "/rotate", **gives(NewEndpointRow, "A new secret; the old one signs beside it for a grace period", status=201)
)
async def rotate_webhook_secret(call: KeyedDep, endpoint_id: str, body: EndpointRotate | None = None) -> Response:
    grace = duration((body or EndpointRotate()).grace_period, param="grace_period", longest=LONGEST_GRACE)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        found = _changeable(call, session, endpoint_id)
        once.claim(session)
        secret = webhooks.rotate(session, call.parts.webhook_vault, found, utcnow() + grace)
        return {**endpoint_row(found), "signing_secret": secret}, endpoint_row(found)

    return await call.create(body, work)


@router.post(W + "/test", **gives(DeliveryRow, "Send an event of the type webhook.test", status=201))
async def send_test_event(call: KeyedDep, endpoint_id: str, body: Nothing | None = None) -> Response:
    return await sent.send_test(call, body, lambda session: _changeable(call, session, endpoint_id))


@router.get(W + "/deliveries", **lists(DeliveryRow, "List deliveries, with each try and its outcome"))
async def list_deliveries(call: CallDep, paging: PagingDep, endpoint_id: str) -> Response:
    return await sent.list_sent(call, paging, lambda session: _readable(call, session, endpoint_id))


@router.get(W + "/deliveries/{delivery_id}", **gives(DeliveryRow, "Get a delivery"))
async def get_delivery(call: CallDep, endpoint_id: str, delivery_id: str) -> Response:
    def work(session: Session) -> Json:
        found = _readable(call, session, endpoint_id)
        return sent.shown_deliveries(session, [deliveries.delivery(session, found.id, delivery_id)])[0]

    return call.one(await call.read(work))


@router.post(
    W + "/deliveries/{delivery_id}/replay", **gives(DeliveryRow, "Send a delivery's event once more", status=201)
)
async def replay_delivery(call: KeyedDep, endpoint_id: str, delivery_id: str, body: Nothing | None = None) -> Response:
    return await sent.replay(
        call, body, lambda session: _changeable(call, session, endpoint_id), delivery_id, "endpoint"
    )
