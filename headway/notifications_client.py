"""The client's noun of events for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headway.resources import Delivery, Notification
from headway.transport import Transport

Json = dict[str, Any]
_N = "/v1/notifications"


class Notifications:
    """Chat and e-mail that tell of events. `url` is an address as Apprise takes it; only its service is shown again."""

    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def create(
        self,
        url: str,
        events: Sequence[str],
        *,
        description: str | None = None,
        resource: Json | None = None,
        idempotency_key: str | None = None,
    ) -> Notification:
        body: Json = {"url": url, "events": [*events]}
        body |= {"description": description} if description is not None else {}
        body |= {"resource": resource} if resource is not None else {}
        return Notification.model_validate(self._t.post(_N, body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[Notification]:
        return (Notification.model_validate(row) for row in self._t.pages(_N, limit=limit))

    def get(self, notification_id: str) -> Notification:
        return Notification.model_validate(self._t.get(f"{_N}/{notification_id}").data)

    def update(self, notification_id: str, **fields: Any) -> Notification:
        return Notification.model_validate(self._t.patch(f"{_N}/{notification_id}", fields).data)

    def delete(self, notification_id: str) -> Json:
        return dict(self._t.delete(f"{_N}/{notification_id}").data)

    def test(self, notification_id: str, *, idempotency_key: str | None = None) -> Delivery:
        answer = self._t.post(f"{_N}/{notification_id}/test", {}, idempotency_key=idempotency_key)
        return Delivery.model_validate(answer.data)

    def deliveries(self, notification_id: str, *, limit: int | None = None) -> Iterator[Delivery]:
        return (
            Delivery.model_validate(row) for row in self._t.pages(f"{_N}/{notification_id}/deliveries", limit=limit)
        )

    def replay(self, notification_id: str, delivery_id: str, *, idempotency_key: str | None = None) -> Delivery:
        path = f"{_N}/{notification_id}/deliveries/{delivery_id}/replay"
        return Delivery.model_validate(self._t.post(path, {}, idempotency_key=idempotency_key).data)
