"""Webhooks of an organisation, their catalogue of events, and their deliveries (contract section 7.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from adapters.webhooks.targets import check_headers
from api.idempotency import Once
from api.miosa.answers import AnyRow, DeliveryRow, WebhookRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.schemas import Nothing, Replay, WebhookCreate, WebhookUpdate
from api.webhooks import READ, WRITE, pin_of, seen, to_change, to_read
from headway.webhooks import EVENTS, MIOSA, NAMES, check_patterns, named
from store import deliveries, webhooks
from store.models_webhooks import Delivery, Event, WebhookEndpoint
from store.webhooks import EndpointRequest

router = APIRouter(tags=["webhooks"])
Json = dict[str, Any]
W: Final = "/webhooks/{webhook_id}"
HEADERS: Final = ("Miosa-Signature", "X-MIOSA-Signature", "X-MIOSA-Event", "X-MIOSA-Event-Id", "X-MIOSA-Delivery")
SIGNING: Final = {
    "algorithm": "hmac-sha256",
    "headers": {
        "Miosa-Signature": "t=<unix seconds>,v1=<hex of HMAC('<t>.<body>')>",
        "X-MIOSA-Signature": "sha256=<hex of HMAC(body)>",
    },
}
# Where the engine's own words for an event mean something else in this dialect.
SAID: Final = {
    "site.created": "A deployment can be published to.",
    "site.deployed": "A version was published and is live.",
    "deployment.failed": "A publish failed to build or to roll.",
}


def webhook_row(endpoint: WebhookEndpoint) -> Json:
    """Headers by their names alone: their values are secrets."""
    return {
        "id": endpoint.id,
        "tenant_id": endpoint.team_id,
        "name": endpoint.name,
        "url": endpoint.url,
        "events": endpoint.events,
        "enabled": endpoint.enabled,
        "active": endpoint.enabled,
        "state": "active" if endpoint.enabled else "disabled",
        "retry_count": endpoint.retries,
        "header_names": endpoint.header_names,
        "metadata": endpoint.labels or {},
        "secret_preview": endpoint.preview,
        "failing_since": stamp(endpoint.failing_since),
        "disabled_at": stamp(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_reason,
        "created_at": stamp(endpoint.created_at),
    }


def delivery_row(delivery: Delivery, event: Event) -> Json:
    last = delivery.tries[-1] if delivery.tries else {}
    return {
        "id": delivery.id,
        "webhook_id": delivery.endpoint_id,
        "subscription_id": delivery.subscription_id,
        "event_id": event.id,
        "event_type": named(event.type, MIOSA) or event.type,
        "state": delivery.state,
        "status": delivery.state,
        "attempts": len(delivery.tries),
        "attempt_count": len(delivery.tries),
        "response_status": last.get("status"),
        "error": last.get("error"),
        "tries": delivery.tries,
        "replay_of": delivery.replay_of,
        "replay_id": delivery.replay_id,
        "created_at": stamp(delivery.created_at),
        "delivered_at": stamp(delivery.ended_at) if delivery.state == "delivered" else None,
    }


def shown(session: Session, rows: Sequence[Delivery]) -> list[Json]:
    events = deliveries.events_of(session, rows)
    return [delivery_row(row, events[row.event_id]) for row in rows]


def _changeable(call: Call, session: Session, id: str) -> WebhookEndpoint:
    return to_change(call, session, id, MIOSA, call.team_id)


@router.get("/webhooks/events", **gives(AnyRow, "What webhooks can hear of, and how deliveries are signed"))
async def list_webhook_events(call: CallDep) -> Response:
    call.caller.require(READ)
    groups: dict[str, list[Json]] = {}
    for core, name in NAMES.items():
        row = {"name": name, "description": SAID.get(core, EVENTS[core])}
        groups.setdefault(name.partition(".")[0], []).append(row)
    beside: Json = {"events": [*NAMES.values()], "workspace_scoped_categories": ["deployment"], "signing": SIGNING}
    return call.one(groups, delivery_headers=list(HEADERS), **beside)


@router.get("/webhooks", **lists(WebhookRow, "List webhooks"))
async def list_webhooks(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(READ)

    def query(_session: Session) -> SelectOfScalar[WebhookEndpoint]:
        return select(WebhookEndpoint).where(*seen(call.caller, MIOSA, call.team_id))

    return await call.listed(
        paging,
        query,
        lambda _session, rows: [*map(webhook_row, rows)],
        time=WebhookEndpoint.created_at,
        id=WebhookEndpoint.id,
    )


@router.post("/webhooks", **gives(WebhookRow, "Make a webhook; its secret is shown once", 201))
async def create_webhook(call: KeyedDep, body: WebhookCreate) -> Response:
    wanted = _wanted(call, body)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(WRITE)
        pin = pin_of(call.caller, None)
        once.claim(session)
        made, secret = webhooks.create_endpoint(
            session, call.parts.webhook_vault, call.team_id, wanted, pin, call.caller.actor
        )
        return {**webhook_row(made), "secret": secret}, webhook_row(made)

    # The values of headers are secrets, and a key's fingerprint would be a digest of them.
    told = body.model_copy(update={"headers": dict.fromkeys(body.headers, "")})
    return await call.create(told, work, beside=("secret",))


def _wanted(call: Call, body: WebhookCreate) -> EndpointRequest:
    """Raises webhook_endpoint.url_refused and request.invalid_parameter."""
    return EndpointRequest(
        MIOSA,
        call.parts.targets.check(body.url),
        check_patterns(body.events, MIOSA),
        body.retry_count,
        name=body.name,
        headers=check_headers(body.headers),
        labels=body.metadata,
    )


@router.get(W, **gives(WebhookRow, "Get a webhook, without its secret"))
async def get_webhook(call: CallDep, webhook_id: str) -> Response:
    return call.one(
        webhook_row(await call.read(lambda session: to_read(call, session, webhook_id, MIOSA, call.team_id)))
    )


@router.patch(W, **gives(WebhookRow, "Change a webhook"))
async def update_webhook(call: CallDep, webhook_id: str, body: WebhookUpdate) -> Response:
    changes = _changes(call, body)
    headers = check_headers(body.headers) if body.headers is not None else None
    enabled = body.enabled if body.enabled is not None else body.active

    def work(session: Session) -> Json:
        found = _changeable(call, session, webhook_id)
        for name, value in changes.items():
            setattr(found, name, value)
        if headers is not None:
            webhooks.set_headers(call.parts.webhook_vault, found, headers)
        if enabled is not None:
            webhooks.set_enabled(found, enabled)
        return webhook_row(found)

    return call.one(await call.write(work))


def _changes(call: Call, body: WebhookUpdate) -> Json:
    """What was given, by the row's columns. Raises as `_wanted`."""
    given = {
        "url": call.parts.targets.check(body.url) if body.url is not None else None,
        "name": body.name,
        "events": check_patterns(body.events, MIOSA) if body.events is not None else None,
        "retries": body.retry_count,
        "labels": body.metadata,
    }
    return {name: value for name, value in given.items() if value is not None}


@router.delete(W, status_code=204, summary="Delete a webhook with its history", response_class=Response)
async def delete_webhook(call: CallDep, webhook_id: str) -> Response:
    await call.write(lambda session: webhooks.delete_endpoint(session, _changeable(call, session, webhook_id)))
    return Response(status_code=204)


@router.post(W + "/test", **gives(DeliveryRow, "Send an event of the type webhook.test", 202))
async def send_test_event(call: KeyedDep, webhook_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        found = _changeable(call, session, webhook_id)
        once.claim(session)
        row = shown(session, [deliveries.send_test(session, found)])[0]
        return row, row

    return await call.create(body, work, status=202)


@router.get(W + "/deliveries", **lists(DeliveryRow, "List a webhook's deliveries"))
async def list_deliveries(call: CallDep, paging: PagingDep, webhook_id: str) -> Response:
    def query(session: Session) -> SelectOfScalar[Delivery]:
        found = to_read(call, session, webhook_id, MIOSA, call.team_id)
        return select(Delivery).where(col(Delivery.endpoint_id) == found.id)

    return await call.listed(paging, query, shown, time=Delivery.created_at, id=Delivery.id)


@router.post(W + "/deliveries/{delivery_id}/replay", **gives(DeliveryRow, "Send a delivery's event once more", 202))
async def replay_delivery(call: KeyedDep, webhook_id: str, delivery_id: str, body: Replay | None = None) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        found = _changeable(call, session, webhook_id)
        known = deliveries.delivery(session, found.id, delivery_id)
        once.claim(session)
        row = shown(session, [deliveries.replay(session, known, body.replay_id if body else None)])[0]
        return row, row

    return await call.create(body, work, status=202)
