"""Builders look at remotes for the polls: which one, and what they have seen. The rows decide what follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlmodel import Session

from adapters.config.vault import Vault
from api.internal.access import access_of
from headway.broker import BeginLook, LookSpec, Seen, Taken
from headway.errors import CODES, HeadwayError
from store import arrivals, polling
from store.arrivals import Arrival
from store.leases import Holder, take
from store.pushes import Previews
from store.session import Store

BATCH: Final = 100


class Looks:
    """What is accepted is started by the outbox within seconds: a poll is in no hurry."""

    def __init__(self, store: Store, vault: Vault, domain: str, previews: Previews, every: timedelta) -> None:
        self.store = store
        self.vault = vault
        self.domain = domain
        self.previews = previews
        self.every = every

    def begin(self, site_id: str, body: BeginLook, holder: Holder) -> LookSpec:
        """Raises attempt.held where another process is at it."""

        def work(session: Session) -> LookSpec:
            site = polling.begin_look(session, site_id, body.attempt)
            take(session, site_id, holder)
            access = access_of(session, self.vault, site)
            return LookSpec(site_id=site.id, repository=site.repository or "", access=access)

        return self.store.in_write(work)

    def seen(self, site_id: str, body: Seen) -> Taken:
        """A transaction for each branch, so that no writer waits long; what a crash leaves is the next look's."""
        if body.code is not None:
            return self._fail(site_id, body)
        with self.store.read() as session:
            _, row = polling.require_look(session, site_id, body.attempt)
            found = polling.news(session, site_id, body.attempt, body.branches)
        if row.seen_at is None:
            self._begin(site_id, body.attempt, found)
        else:
            for arrival in found:
                self._take(site_id, body.attempt, arrival)
        self.store.in_write(lambda session: polling.end(session, site_id, body.attempt, self.every))
        return Taken(news=len(found))

    def _begin(self, site_id: str, attempt: int, found: list[Arrival]) -> None:
        for start in range(0, len(found), BATCH):
            some = found[start : start + BATCH]

            def begin(session: Session, some: list[Arrival] = some) -> None:
                polling.begin(session, site_id, attempt, some)

            self.store.in_write(begin)

    def _take(self, site_id: str, attempt: int, arrival: Arrival) -> None:
        def accept(session: Session) -> None:
            site, _ = polling.require_look(session, site_id, attempt)
            arrivals.accept(session, site, arrival, self.domain, self.previews)

        self.store.in_write(accept)

    def _fail(self, site_id: str, body: Seen) -> Taken:
        code = body.code if body.code in CODES else "repository.unreachable"
        error = HeadwayError(code or "", body.message).as_dict()
        self.store.in_write(lambda session: polling.fail(session, site_id, body.attempt, error))
        return Taken(news=0)
