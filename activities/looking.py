"""A builder's look at a remote: `git ls-remote` in the sandbox that fetches, with what the broker hands out for it."""

from __future__ import annotations

import time
from typing import Final, Protocol

from temporalio import activity

from activities.beginning import begun
from activities.producing.production import Places
from adapters.source.access import Access
from adapters.source.address import parse_address
from adapters.source.git import FetchSpec, GitSource
from headway.broker import BeginLook, LookSpec, Seen, Taken
from headway.errors import HeadwayError
from temporal.failures import mapped
from temporal.messages import LookRef

# How long a look waits for the site's mirror, which a build may be filling.
PATIENCE: Final = 20.0
MOST_BRANCHES: Final = 5_000
LONGEST: Final = 250


class Broker(Protocol):
    def begin_look(self, site_id: str, begin: BeginLook) -> LookSpec: ...

    def let_go(self, subject_id: str) -> None: ...

    def tell_seen(self, site_id: str, seen: Seen) -> Taken: ...


class Looker:
    """What was seen goes to the broker, failures too: the run learns a number."""

    def __init__(self, broker: Broker, source: GitSource, places: Places) -> None:
        self._broker = broker
        self._source = source
        self._places = places

    @activity.defn(name="remote.look")
    @mapped
    def look(self, ref: LookRef) -> LookRef:
        with begun(self._broker, ref.site_id):
            spec = self._broker.begin_look(ref.site_id, BeginLook(attempt=ref.attempt))
            try:
                seen = Seen(attempt=ref.attempt, branches=self._look(spec))
            except HeadwayError as error:
                seen = Seen(attempt=ref.attempt, code=error.code, message=error.message[:1000])
            taken = self._broker.tell_seen(ref.site_id, seen)
        return LookRef(ref.site_id, ref.attempt, taken.news)

    def _look(self, spec: LookSpec) -> dict[str, str]:
        places, given, until = self._places, spec.access, time.monotonic() + PATIENCE
        remote = parse_address(
            spec.repository, hosted=places.hosted, local_repos=places.local_repos, private_ok=places.private_ok
        )
        access = Access(given.username, given.token, tuple(given.keys)) if given is not None else None
        fetch = FetchSpec(spec.site_id, remote, "", access=access)
        found = self._source.look(fetch, lambda: time.monotonic() > until)
        if len(found) > MOST_BRANCHES:
            message = f"{remote.shown} has {len(found)} branches: at most {MOST_BRANCHES} are looked at."
            raise HeadwayError("source.too_large", message)
        return {name: commit for name, commit in found.items() if len(name) <= LONGEST}
