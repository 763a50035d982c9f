"""Deliveries: which are due, what one sends, what became of a try, and the same event once more.

A pending row whose `due_at` has passed has nobody who looks after it. Whoever starts its run, and each try, moves that
ahead; so what is lost with a run, or with all of Temporal, is started again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from headway.webhooks import Told
from store.events import delivery_of, stamp
from store.models import Site, utcnow
from store.models_webhooks import Delivery, Event, WebhookEndpoint
from store.paging import Page, fetch_page

Json = dict[str, Any]
# How long a run that was started, or whose next try is due, may keep silent before it is taken for lost.
SILENCE: Final = timedelta(seconds=90)
BATCH: Final = 100


@dataclass(frozen=True)
class Pace:
    """Seconds between tries, the last one again and again; an endpoint is disabled after failing for `disable`."""

    waits: tuple[float, ...] = (10, 60, 300, 1800, 7200, 21600, 86400)
    disable: timedelta = timedelta(hours=72)

    def after(self, tries: int) -> float:
        """The wait after that many tries, up to a tenth longer: many that failed together do not come together."""
        wait = self.waits[min(tries, len(self.waits)) - 1]
        return wait * (1 + random.random() / 10)  # noqa: S311


@dataclass(frozen=True)
class Sending:
    """One try: what is told, to whom; `site` is the name of the site that it is about, or empty."""

    delivery_id: str
    number: int
    told: Told
    endpoint: WebhookEndpoint
    site: str = ""


@dataclass(frozen=True)
class Try:
    """How a try went. `status` is the answer's; `error` says why there was none, or why it counts as a failure."""

    at: datetime
    milliseconds: int
    status: int | None = None
    error: str | None = None

    @property
    def good(self) -> bool:
        return self.error is None


def any_due(session: Session, now: datetime) -> bool:
    """Most looks find nothing, and lock nobody out."""
    query = select(Delivery.id).where(col(Delivery.ended_at).is_(None), col(Delivery.due_at) <= now)
    return session.exec(query.limit(1)).first() is not None


def take_due(session: Session, now: datetime) -> list[str]:
    """Deliveries that nobody looks after, oldest first: whoever asks starts their runs."""
    query = select(Delivery).where(col(Delivery.ended_at).is_(None), col(Delivery.due_at) <= now)
    rows = session.exec(query.order_by(col(Delivery.due_at)).limit(BATCH).with_for_update(skip_locked=True)).all()
    for row in rows:
        row.due_at = now + SILENCE
        session.add(row)
    return [row.id for row in rows]


def put_back(session: Session, delivery_id: str, now: datetime) -> None:
    """Its run could not be started: it is due again in a moment."""
    row = session.get(Delivery, delivery_id)
    if row is not None and row.ended_at is None:
        row.due_at = now + timedelta(seconds=2)


def to_send(session: Session, delivery_id: str) -> Sending | None:
    """None: it has ended, or is gone with its endpoint. A disabled endpoint's are canceled."""
    delivery = session.get(Delivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.ended_at is not None:
        return None
    endpoint, event = session.get_one(WebhookEndpoint, delivery.endpoint_id), session.get_one(Event, delivery.event_id)
    if not endpoint.enabled and delivery.replay_of is None and event.type != "webhook.test":
        delivery.state, delivery.ended_at = "canceled", utcnow()
        return None
    told = Told(event.id, event.type, stamp(event.created_at) or "", event.data)
    site = session.get(Site, event.site_id) if event.site_id else None
    return Sending(delivery.id, len(delivery.tries) + 1, told, endpoint, site.name if site else "")


def keep_try(session: Session, delivery_id: str, made: Try, pace: Pace) -> float | None:
    """What became of it. How many seconds until the next try, or None: there is none."""
    delivery = session.get(Delivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.ended_at is not None:
        return None
    facts = {"at": stamp(made.at), "status": made.status, "error": made.error, "ms": made.milliseconds}
    delivery.tries = [*delivery.tries, facts]
    endpoint = session.get_one(WebhookEndpoint, delivery.endpoint_id, with_for_update=True)
    if made.good:
        endpoint.failing_since = None
        delivery.state, delivery.ended_at = "delivered", utcnow()
        return None
    _note_failure(endpoint, pace)
    if len(delivery.tries) > endpoint.retries or not endpoint.enabled:
        delivery.state, delivery.ended_at = "failed", utcnow()
        return None
    wait = pace.after(len(delivery.tries))
    delivery.due_at = utcnow() + timedelta(seconds=wait) + SILENCE
    return wait


def _note_failure(endpoint: WebhookEndpoint, pace: Pace) -> None:
    now = utcnow()
    if endpoint.failing_since is None:
        endpoint.failing_since = now
    elif endpoint.enabled and now - endpoint.failing_since > pace.disable:
        endpoint.enabled, endpoint.disabled_at = False, now
        endpoint.disabled_reason = f"nothing has reached it since {stamp(endpoint.failing_since)}"


def list_deliveries(
    session: Session, page: Page, *, endpoint_id: str | None = None, subscription_id: str | None = None
) -> tuple[Sequence[Delivery], bool]:
    query = select(Delivery)
    if endpoint_id is not None:
        query = query.where(Delivery.endpoint_id == endpoint_id)
    if subscription_id is not None:
        query = query.where(Delivery.subscription_id == subscription_id)
    return fetch_page(session, query, page, time=Delivery.created_at, id=Delivery.id)


def events_of(session: Session, rows: Sequence[Delivery]) -> dict[str, Event]:
    """The events that these are about, by id."""
    ids = {row.event_id for row in rows}
    return {one.id: one for one in session.exec(select(Event).where(col(Event.id).in_(ids))).all()}


def delivery(session: Session, endpoint_id: str, id: str) -> Delivery:
    """Raises delivery.not_found."""
    found = session.get(Delivery, id)
    if found is None or found.endpoint_id != endpoint_id:
        raise HeadwayError("delivery.not_found", f"There is no delivery {id}.", param="delivery_id")
    return found


def replay(session: Session, known: Delivery, replay_id: str | None = None) -> Delivery:
    """The same event once more, as a delivery of its own. Raises delivery.replayed for a `replay_id` that was used."""
    if replay_id is not None:
        used = select(Delivery.id).where(Delivery.endpoint_id == known.endpoint_id, Delivery.replay_id == replay_id)
        if session.exec(used).first() is not None:
            raise HeadwayError("delivery.replayed", f"The replay {replay_id!r} was asked for already.")
    event = session.get_one(Event, known.event_id)
    made = delivery_of(
        event, known.endpoint_id, known.subscription_id, replay_of=known.replay_of or known.id, replay_id=replay_id
    )
    session.add(made)
    session.flush()
    return made


def requeue(session: Session, known: Delivery) -> Delivery:
    """One that was given up is tried once more, as itself. Raises delivery.not_repeatable."""
    if known.state not in ("failed", "canceled"):
        raise HeadwayError("delivery.not_repeatable", f"This delivery is {known.state}.")
    known.state, known.ended_at, known.due_at = "pending", None, utcnow()
    session.add(known)
    return known


def send_test(session: Session, endpoint: WebhookEndpoint) -> Delivery:
    """An event that is for this endpoint alone, whatever it listens to."""
    facts = {"id": endpoint.id, "message": "This is a test."}
    event = Event(id=new_id("evt"), team_id=endpoint.team_id, type="webhook.test", data={"webhook": facts})
    session.add(event)
    session.flush()
    made = delivery_of(event, endpoint.id)
    session.add(made)
    session.flush()
    return made


def forget_deliveries(session: Session, before: datetime) -> None:
    """What was sent or given up before `before`, and events that no delivery is left of."""
    session.execute(delete(Delivery).where(col(Delivery.ended_at) < before))
    kept = select(Delivery.event_id)
    session.execute(delete(Event).where(col(Event.created_at) < before, ~col(Event.id).in_(kept)))
