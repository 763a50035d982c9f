"""Event subscriptions: which events go to which webhook, and what became of each."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Query
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.idempotency import Once
from api.miosa.answers import DeliveryRow, SubscriptionRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.deployments import Filter
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.schemas import Flat, Nothing, SubscriptionCreate, SubscriptionUpdate
from api.miosa.webhooks import shown
from api.webhooks import READ, WRITE, seen
from headway.errors import HeadwayError
from headway.ids import new_id
from headway.webhooks import MIOSA, check_patterns
from store import deliveries, webhooks
from store.models_webhooks import Delivery, EventSubscription, WebhookEndpoint

router = APIRouter(tags=["webhooks"])
Json = dict[str, Any]
S: Final = "/event-subscriptions/{subscription_id}"
MAX_KEYS: Final = 8


def subscription_row(one: EventSubscription) -> Json:
    return {
        "id": one.id,
        "tenant_id": one.team_id,
        "consumer_kind": "webhook",
        "consumer_id": one.endpoint_id,
        "event_type": one.event_type,
        "filter": one.filter or {},
        "workspace_id": one.workspace_id,
        "project_id": one.project_id,
        "active": one.active,
        "state": "active" if one.active else "paused",
        "created_at": stamp(one.created_at),
    }


def _visible(call: Call) -> SelectOfScalar[EventSubscription]:
    """Those of webhooks that the caller may see."""
    within = select(WebhookEndpoint.id).where(*seen(call.caller, MIOSA, call.team_id))
    return select(EventSubscription).where(col(EventSubscription.endpoint_id).in_(within))


def _subscription(call: Call, session: Session, id: str, scope: str) -> EventSubscription:
    found = session.exec(_visible(call).where(EventSubscription.id == id)).one_or_none()
    if found is None:
        raise HeadwayError("event_subscription.not_found", f"There is no event subscription {id}.")
    call.caller.require(scope)
    return found


def _check_filter(given: Flat | None) -> Json | None:
    if given is not None and (len(given) > MAX_KEYS or any(len(str(value)) > 255 for value in given.values())):
        raise HeadwayError("event_subscription.filter_invalid", f"A filter has at most {MAX_KEYS} keys.")
    return dict(given) if given else None


@router.get("/event-subscriptions", **lists(SubscriptionRow, "List event subscriptions"))
async def list_event_subscriptions(
    call: CallDep, paging: PagingDep, consumer_kind: Filter = None, consumer_id: Filter = None
) -> Response:
    call.caller.require(READ)

    def query(_session: Session) -> SelectOfScalar[EventSubscription]:
        found = _visible(call)
        if consumer_id is not None:
            found = found.where(EventSubscription.endpoint_id == consumer_id)
        return found if consumer_kind in (None, "webhook") else found.where(col(EventSubscription.id).is_(None))

    return await call.listed(
        paging,
        query,
        lambda _session, rows: [*map(subscription_row, rows)],
        time=EventSubscription.created_at,
        id=EventSubscription.id,
    )


@router.post("/event-subscriptions", **gives(SubscriptionRow, "Send events of a type to a webhook", 201))
async def create_event_subscription(call: KeyedDep, body: SubscriptionCreate) -> Response:
    _check_kinds(body)
    narrowed = _check_filter(body.filter)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(WRITE)
        made = _drafted(call, body, narrowed, _consumer(call, session, body.consumer_id))
        once.claim(session)
        row = subscription_row(webhooks.create_subscription(session, made))
        return row, row

    return await call.create(body, work)


def _check_kinds(body: SubscriptionCreate) -> None:
    """Raises request.unsupported and event_subscription.type_unknown."""
    if body.consumer_kind != "webhook":
        raise HeadwayError("request.unsupported", "Events go to webhooks here.", param="consumer_kind")
    try:
        check_patterns([body.event_type], MIOSA)
    except HeadwayError as error:
        raise HeadwayError("event_subscription.type_unknown", error.message, param="event_type") from None


def _drafted(
    call: Call, body: SubscriptionCreate, narrowed: Json | None, consumer: WebhookEndpoint
) -> EventSubscription:
    return EventSubscription(
        id=new_id("esub"),
        team_id=call.team_id,
        endpoint_id=consumer.id,
        event_type=body.event_type,
        filter=narrowed,
        workspace_id=body.workspace_id,
        project_id=body.project_id,
    )


def _consumer(call: Call, session: Session, consumer_id: str) -> WebhookEndpoint:
    known = seen(call.caller, MIOSA, call.team_id)
    found = session.exec(select(WebhookEndpoint).where(WebhookEndpoint.id == consumer_id, *known)).first()
    if found is None:
        raise HeadwayError("event_subscription.consumer_not_found", "There is no such webhook.")
    return found


@router.get(S, **gives(SubscriptionRow, "Get an event subscription"))
async def get_event_subscription(call: CallDep, subscription_id: str) -> Response:
    return call.one(
        subscription_row(await call.read(lambda session: _subscription(call, session, subscription_id, READ)))
    )


@router.patch(S, **gives(SubscriptionRow, "Pause, resume or narrow an event subscription"))
async def update_event_subscription(call: CallDep, subscription_id: str, body: SubscriptionUpdate) -> Response:
    narrowed = _check_filter(body.filter)

    def work(session: Session) -> Json:
        found = _subscription(call, session, subscription_id, WRITE)
        found.active = found.active if body.active is None else body.active
        found.filter = found.filter if body.filter is None else narrowed
        return subscription_row(found)

    return call.one(await call.write(work))


@router.delete(S, status_code=204, summary="Delete an event subscription", response_class=Response)
async def delete_event_subscription(call: CallDep, subscription_id: str) -> Response:
    await call.write(
        lambda session: webhooks.delete_subscription(session, _subscription(call, session, subscription_id, WRITE))
    )
    return Response(status_code=204)


@router.get(S + "/deliveries", **lists(DeliveryRow, "List what was sent for an event subscription"))
async def list_subscription_deliveries(
    call: CallDep, paging: PagingDep, subscription_id: str, state: str | None = Query(default=None, max_length=20)
) -> Response:
    def query(session: Session) -> SelectOfScalar[Delivery]:
        found = _subscription(call, session, subscription_id, READ)
        rows = select(Delivery).where(col(Delivery.subscription_id) == found.id)
        return rows if state is None else rows.where(Delivery.state == state)

    return await call.listed(paging, query, shown, time=Delivery.created_at, id=Delivery.id)


@router.post("/event-deliveries/{delivery_id}/redeliver", **gives(DeliveryRow, "Try a failed delivery once more", 202))
async def redeliver(call: KeyedDep, delivery_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        within = select(WebhookEndpoint.id).where(*seen(call.caller, MIOSA, call.team_id))
        query = select(Delivery).where(Delivery.id == delivery_id, col(Delivery.endpoint_id).in_(within))
        found = session.exec(query.with_for_update()).one_or_none()
        if found is None:
            raise HeadwayError("delivery.not_found", f"There is no delivery {delivery_id}.")
        call.caller.require(WRITE)
        once.claim(session)
        row = shown(session, [deliveries.requeue(session, found)])[0]
        return row, row

    return await call.create(body, work, status=202)
