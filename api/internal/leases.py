"""Builders: what one is at is that one process's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.internal.doorkeeper import Asker
from headway.broker import KnownBuilder, Wire
from store import leases
from store.leases import Holder
from store.session import Store

Do = Callable[[Asker, str, Any], Wire]


class Leases:
    def __init__(self, store: Store) -> None:
        self.store = store

    def check(self, subject_id: str, holder: Holder) -> None:
        """And note now and then that it was heard. Raises attempt.stale where another process is at it, or none."""
        with self.store.read() as session:
            fresh = leases.is_fresh(session, subject_id, holder)
        if not fresh:
            self.store.in_write(lambda session: leases.renew(session, subject_id, holder))

    def held(self, do: Callable[[str, Any], Wire]) -> Do:
        """A question about what the asker has begun."""

        def answer(asker: Asker, subject_id: str, body: Any) -> Wire:
            self.check(subject_id, asker.holder())
            return do(subject_id, body)

        return answer

    def let_go(self, asker: Asker, subject_id: str, _: None) -> Wire:
        self.store.in_write(lambda session: leases.let_go(session, subject_id, asker.holder()))
        return Wire()

    def who(self, asker: Asker, _name: str, _: None) -> KnownBuilder:
        return KnownBuilder(builder_id=asker.holder().builder_id)
