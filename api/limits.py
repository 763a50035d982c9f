"""Rate limits (contract section 6): token buckets in memory; a bucket of the key and one of the team must admit."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from headway.errors import HeadwayError

Name = Literal["read", "write", "create", "team"]
_PROVISIONING: Final = re.compile(r"^/v1/sites(/[^/]+/environments)?/?$")
KEPT: Final = 20_000


@dataclass(frozen=True)
class Budgets:
    """Requests a minute. `on` False: everything is admitted, and the headers say so."""

    read: int = 1000
    write: int = 100
    create: int = 5
    team: int = 5000
    on: bool = True


@dataclass(frozen=True)
class Draw:
    """What the headers say. `retry_after` is set where the request was not admitted, in seconds."""

    limit: int
    remaining: int
    reset: int
    retry_after: int | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        shown = [
            (b"x-ratelimit-limit", str(self.limit).encode()),
            (b"x-ratelimit-remaining", str(self.remaining).encode()),
            (b"x-ratelimit-reset", str(self.reset).encode()),
        ]
        return shown if self.retry_after is None else [*shown, (b"retry-after", str(self.retry_after).encode())]


@dataclass
class Bucket:
    tokens: float
    at: float


@dataclass
class RateLimiter:
    """For one event loop. `clock` gives seconds that only grow; `wall` gives Unix seconds for the headers."""

    budgets: Budgets
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _buckets: dict[tuple[str, Name], Bucket] = field(default_factory=dict)

    def draw(self, key_id: str, team_id: str, name: Name, *, exempt: bool) -> Draw:
        """One token of each bucket. Takes none where one of them is empty."""
        if exempt or not self.budgets.on:
            limit = self._limit(name)
            return Draw(limit, limit, math.ceil(self.wall()))
        own, team = self._filled(key_id, name), self._filled(team_id, "team")
        for bucket, of in ((own, name), (team, "team")):
            if bucket.tokens < 1:
                return self._show(bucket, of, refused=True)
        own.tokens -= 1
        team.tokens -= 1
        return self._show(own, name)

    def peek(self, owner: str, name: Name) -> Draw:
        """How a bucket stands, without taking from it."""
        return self._show(self._filled(owner, name), name)

    def _limit(self, name: Name) -> int:
        return int(getattr(self.budgets, name))

    def _filled(self, owner: str, name: Name) -> Bucket:
        now, limit = self.clock(), self._limit(name)
        bucket = self._buckets.get((owner, name))
        if bucket is None:
            if len(self._buckets) >= KEPT:
                self._forget_full(now)
            bucket = self._buckets[(owner, name)] = Bucket(limit, now)
        bucket.tokens = min(limit, bucket.tokens + (now - bucket.at) * limit / 60)
        bucket.at = now
        return bucket

    def _forget_full(self, now: float) -> None:
        for key in [key for key, bucket in self._buckets.items() if now - bucket.at > 60]:
            del self._buckets[key]

    def _show(self, bucket: Bucket, name: Name, *, refused: bool = False) -> Draw:
        limit = self._limit(name)
        full_in = (limit - bucket.tokens) * 60 / limit if limit else 60.0
        retry = max(1, math.ceil((1 - bucket.tokens) * 60 / limit)) if limit else 60
        return Draw(limit, max(0, int(bucket.tokens)), math.ceil(self.wall() + full_in), retry if refused else None)


def bucket_of(method: str, path: str) -> Name:
    """GET is `read`; making sites and environments is `create`; everything else is `write`."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return "read"
    return "create" if method == "POST" and _PROVISIONING.match(path) else "write"


def too_many(draw: Draw) -> HeadwayError:
    return HeadwayError("rate_limit.exceeded", f"Too many requests: try again in {draw.retry_after} s.")
