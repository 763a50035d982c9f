"""What was sent to an endpoint, the same for webhooks and for notifications. `find` is the caller's way to the row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.call import Call, PagingDep
from api.managed.rows_around import delivery_row
from headway.errors import HeadwayError
from store import deliveries
from store.models_webhooks import Delivery, WebhookEndpoint
from store.paging import Page

Json = dict[str, Any]
Find = Callable[[Session], WebhookEndpoint]


async def send_test(call: Call, body: Any, find: Find) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        found = find(session)
        once.claim(session)
        row = shown_deliveries(session, [deliveries.send_test(session, found)])[0]
        return row, row

    return await call.create(body, work)


async def list_sent(call: Call, paging: PagingDep, find: Find) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Any], bool]:
        rows, more = deliveries.list_deliveries(session, page, endpoint_id=find(session).id)
        return list(zip(rows, shown_deliveries(session, rows), strict=True)), more

    return await call.page(paging, fetch, lambda row: row[1], lambda row: (row[0].created_at, row[0].id))


async def replay(call: Call, body: Any, find: Find, delivery_id: str, noun: str) -> Response:
    """Raises webhook_endpoint.disabled, which calls the row a `noun`."""

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        found = find(session)
        known = deliveries.delivery(session, found.id, delivery_id)
        once.claim(session)
        if not found.enabled:
            raise HeadwayError("webhook_endpoint.disabled", f"This {noun} is disabled.")
        row = shown_deliveries(session, [deliveries.replay(session, known)])[0]
        return row, row

    return await call.create(body, work)


def shown_deliveries(session: Session, rows: Sequence[Delivery]) -> list[Json]:
    events = deliveries.events_of(session, rows)
    return [delivery_row(row, events[row.event_id]) for row in rows]
