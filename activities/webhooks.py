"""Deliveries: one try each, and the watch that starts what nobody looks after. Role `control`.

Neither a secret nor a body leaves this process but to its receiver: Temporal learns an id, and how long to wait.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from temporalio import activity
from temporalio.client import Client

from activities.outbox import Due, Outbox
from adapters.notices.notifier import Notice, Notifier
from adapters.webhooks.sending import Outcome, Sender
from adapters.webhooks.signing import headers_of
from headway.errors import HeadwayError
from headway.notices import words_of
from headway.webhooks import NOTICE, body_of, named
from store.config_values import Opens
from store.deliveries import Pace, Sending, Try, any_due, keep_try, put_back, take_due, to_send
from store.models import utcnow
from store.session import Store
from store.webhooks import open_endpoint
from temporal import names
from temporal.failures import mapped
from temporal.messages import DeliveryRef, Labels, Tried


class Webhooks(Outbox):
    """`docs_url` is the base of `doc_url` in failures that are told."""

    def __init__(
        self,
        store: Store,
        client: Client,
        vault: Opens,
        sender: Sender,
        docs_url: str,
        pace: Pace | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.store = store
        self.client = client
        self.vault = vault
        self.sender = sender
        self.docs_url = docs_url
        self.pace = pace or Pace()
        self.notifier = notifier or Notifier()

    @activity.defn(name="webhook.deliver")
    @mapped
    async def deliver(self, ref: DeliveryRef) -> Tried:
        sending = await self.rows(self._next, ref.delivery_id)
        if sending is None:
            return Tried(ref.delivery_id)
        at = utcnow()
        outcome = await self._send(sending)
        made = Try(at, outcome.milliseconds, outcome.status, outcome.error)
        wait = await self.rows(self._keep, ref.delivery_id, made)
        return Tried(ref.delivery_id, sending.number, wait)

    def _next(self, delivery_id: str) -> Sending | None:
        return self.store.in_write(lambda session: to_send(session, delivery_id))

    def _keep(self, delivery_id: str, made: Try) -> float | None:
        return self.store.in_write(lambda session: keep_try(session, delivery_id, made, self.pace))

    async def _send(self, sending: Sending) -> Outcome:
        endpoint, told = sending.endpoint, sending.told
        try:
            opened = open_endpoint(self.vault, endpoint, utcnow())
        except HeadwayError as error:
            return Outcome(0, None, error.message)
        if endpoint.dialect == NOTICE:
            words = words_of(told, sending.site)
            return await self.notifier.send(opened.url, Notice(words.title, words.body, words.level))
        body = body_of(told, endpoint.dialect, self.docs_url)
        signed = headers_of(
            endpoint.dialect,
            opened.secrets,
            body,
            int(time.time()),
            event=named(told.type, endpoint.dialect) or told.type,
            event_id=told.id,
            delivery_id=sending.delivery_id,
        )
        return await self.sender.send(endpoint.url, body, {**opened.headers, **signed})

    def take(self) -> Sequence[Due]:
        with self.store.read() as session:
            if not any_due(session, utcnow()):
                return []
        return [_due(id) for id in self.store.in_write(lambda session: take_due(session, utcnow()))]

    def put_back(self, id: str) -> None:
        self.store.in_write(lambda session: put_back(session, id, utcnow()))


def _due(id: str) -> Due:
    return Due(
        id,
        names.DELIVER,
        names.delivery_workflow(id),
        DeliveryRef(id),
        f"webhook {id}",
        labels=Labels(job_type="webhook.deliver"),
    )
