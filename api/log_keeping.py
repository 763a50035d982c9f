"""Logs of ended jobs: compressed into the object store, dropped from the folder later, brought back when asked for."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

import anyio
import zstandard

from api.events import EventLog
from headway.errors import HeadwayError
from store.job_logs import ended_unkept, forget_log, kept, log_key, log_of, record_log
from store.models import utcnow
from store.models_builds import JobLog
from store.session import Store

LEVEL: Final = 6
MAX_BYTES: Final = 128 << 20
BATCH: Final = 100
log = logging.getLogger("headway.logs")


class Objects(Protocol):
    """Keys are relative to the bucket."""

    def get(self, key: str, max_bytes: int) -> bytes: ...

    def put_new(self, key: str, body: bytes, sha256: str) -> bool: ...

    def delete(self, keys: Iterable[str]) -> None: ...


@dataclass
class LogKeeping:
    """`settle`: how long after its end a job's log is left alone, for what comes late. `local`: how long the file
    stays in the folder although it is kept. In seconds.
    """

    store: Store
    objects: Objects
    events: EventLog
    settle: float = 30.0
    local: float = 24 * 3600.0
    every: float = 20.0

    async def run(self) -> None:
        while True:
            try:
                await anyio.to_thread.run_sync(self.sweep)
            except Exception as error:
                log.warning("logs are kept later: %s", type(error).__name__)
            await asyncio.sleep(self.every)

    def sweep(self) -> tuple[int, int]:
        """How many logs were put into the object store, and how many files were dropped from the folder."""
        stored = dropped = 0
        waiting = self.events.known()
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            with self.store.read() as session:
                due = ended_unkept(session, batch, utcnow() - timedelta(seconds=self.settle))
            for job_id, team_id in due:
                stored += self.keep(job_id, team_id)
            old = [job_id for job_id in batch if time.time() - self.events.touched(job_id) > self.local]
            with self.store.read() as session:
                safe = kept(session, old) if old else set()
            for job_id in sorted(safe):
                self.events.forget(job_id)
            dropped += len(safe)
        return stored, dropped

    def keep(self, job_id: str, team_id: str) -> bool:
        """Put one log into the object store and write down where. What is there of it already stays."""
        try:
            raw = self.events.path(job_id).read_bytes()
        except FileNotFoundError:
            return False
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(raw)
        key, sha256 = log_key(team_id, job_id), hashlib.sha256(packed).hexdigest()
        if not self.objects.put_new(key, packed, sha256):
            raw = self._opened(key)
        row = JobLog(
            job_id=job_id, key=key, sha256=hashlib.sha256(raw).hexdigest(), lines=raw.count(b"\n"), size=len(raw)
        )
        self.store.in_write(lambda session: record_log(session, row))
        return True

    def fetch(self, job_id: str) -> bytes | None:
        """A kept log as it was, None where there is none. Raises service.unavailable."""
        with self.store.read() as session:
            row = log_of(session, job_id)
        if row is None:
            return None
        raw = self._opened(row.key)
        if hashlib.sha256(raw).hexdigest() != row.sha256:
            raise HeadwayError("service.unavailable", "The kept log of this job is damaged.")
        return raw

    def forget(self, job_ids: Iterable[str]) -> None:
        """The jobs are gone: so are their logs, here and there."""
        keys = [key for one in job_ids if (key := self._forget(one)) is not None]
        if keys:
            self.objects.delete(keys)

    def _forget(self, job_id: str) -> str | None:
        return self.store.in_write(lambda session: forget_log(session, job_id))

    def _opened(self, key: str) -> bytes:
        packed = self.objects.get(key, MAX_BYTES)
        try:
            return zstandard.ZstdDecompressor().decompress(packed, max_output_size=MAX_BYTES)
        except zstandard.ZstdError as error:
            raise HeadwayError("service.unavailable", "The kept log of this job is damaged.") from error
