"""Doubles at the edges of the API: the door to Temporal and the object store. Everything behind the routes is real."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from headway.errors import HeadwayError
from temporal.messages import Ahead, Labels


@dataclass
class RecordingStarts:
    """Says what was asked of Temporal; `away` makes it behave like a server that does not answer.

    As there, starting a run that is there is no second start: the outbox may ask again at any time.
    """

    started: list[tuple[str, str]] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    rung: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    away: bool = False

    async def start(self, job_id: str, job_type: str, *, labels: Labels, behind: bool = False) -> bool:
        if behind:
            self.behind.append(job_id)
        if not self.away and (job_id, job_type) not in self.started:
            self.started.append((job_id, job_type))
            self.labels.append(labels)
        return not self.away

    async def cancel(self, job_id: str) -> None:
        self.canceled.append(job_id)

    async def give_turn(self, ahead: Ahead) -> None:
        self.rung.append(ahead.job_id)


@dataclass
class MemoryObjects:
    """Objects in memory, with the errors of the real store."""

    held: dict[str, bytes] = field(default_factory=dict)

    def presign_put(
        self, key: str, sha256: str, size: int, expires: int, *, instead_of: str | None = None
    ) -> tuple[str, dict[str, str]]:
        only = {"if-match": instead_of} if instead_of is not None else {}
        headers = {"content-length": str(size), "x-sha256": sha256, **only}
        return f"http://objects.test/{key}?expires={expires}", headers

    def presign_get(self, key: str, expires: int = 60) -> str:
        return f"http://objects.test/{key}?expires={expires}"

    def head(self, key: str) -> int | None:
        return len(self.held[key]) if key in self.held else None

    def stat(self, key: str) -> tuple[int, str] | None:
        return (len(self.held[key]), _etag(self.held[key])) if key in self.held else None

    def get(self, key: str, max_bytes: int) -> bytes:
        if key not in self.held:
            raise HeadwayError("artifact.collected", f"There is no object {key}.")
        return self.held[key][: max_bytes + 1]

    def get_range(self, key: str, offset: int, size: int) -> bytes:
        return self.get(key, 1 << 40)[offset : offset + size]

    def read_range(self, key: str, offset: int, size: int) -> Iterator[bytes]:
        return iter((self.get_range(key, offset, size),))

    def replace(self, key: str, body: bytes, sha256: str) -> None:
        assert hashlib.sha256(body).hexdigest() == sha256
        self.held[key] = body

    def replace_that(self, key: str, body: bytes, sha256: str, etag: str) -> bool:
        if key not in self.held or _etag(self.held[key]) != etag:
            return False
        self.replace(key, body, sha256)
        return True

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self.held.pop(key, None)

    def put_new(self, key: str, body: bytes, sha256: str) -> bool:
        assert hashlib.sha256(body).hexdigest() == sha256
        if key in self.held:
            return False
        self.held[key] = bytes(body)
        return True


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
