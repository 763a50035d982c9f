"""The lines of an environment's running apps: the last ones, or followed."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Header, Query
from sqlmodel import Session
from starlette.responses import Response

from api.durations import duration
from api.instance_logs import Line, Wanted
from api.managed.answers_around import LogRow
from api.managed.call import Call, CallDep
from api.managed.documents import lists_or_streams
from api.managed.environments import E, env_to_read
from api.paging import EPOCH, decode_cursor, encode_cursor
from api.preferences import number_of, wants_events
from api.streams import PING, as_events, frame
from headway.errors import HeadwayError
from store.models import Environment, utcnow
from store.releases import release_of, releases_by_sequence, sequences_of

router = APIRouter(tags=["observability"])
READ: Final = "observability:read"
LONGEST: Final = timedelta(days=365)
_DURATION: Final = re.compile(r"\d{1,6}[smhdw]")


@router.get(E + "/logs", **lists_or_streams(LogRow, "The last lines of an environment's apps; follows as a stream"))
async def get_logs(
    call: CallDep,
    site_id: str,
    env_id: str,
    tail: Annotated[int, Query(ge=0, le=1000, description="How many lines.")] = 100,
    release: Annotated[str | None, Query(max_length=40, description="Of the instances that serve this one.")] = None,
    instance: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,40}\.\d{1,4}$", description="`web.0`.")] = None,
    since: Annotated[
        str | None, Query(max_length=40, description="A time (RFC 3339), or `10m`: that long ago.")
    ] = None,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next_cursor`: the lines before those.")] = None,
    accept: Annotated[str | None, Header()] = None,
    last_event_id: Annotated[str | None, Header(description="Resume behind it.")] = None,
) -> Response:
    wanted = await call.read(lambda session: _wanted(call, session, site_id, env_id, release, instance, since))
    lines = Lines(call, env_id, wanted)
    if wants_events(accept, "application/json"):
        frames = lines.frames(tail, number_of(last_event_id))
        return as_events(call, frames)
    path = call.request.url.path
    found, more = await lines.last(tail, position_of(path, cursor))
    block = {"next_cursor": cursor_of(path, found[0]["id"]) if more and found else None, "has_more": more}
    return call.many(found, block)


@dataclass
class Lines:
    """What one request may see of an environment's lines."""

    call: Call
    env_id: str
    wanted: Wanted

    async def last(self, count: int, before: int | None = None) -> tuple[list[dict[str, Any]], bool]:
        logs = self.call.parts.logs
        found, more = await anyio.to_thread.run_sync(logs.tail, self.env_id, count, self.wanted, before)
        return await self._rows(found), more

    async def frames(self, tail: int, after: int | None) -> AsyncGenerator[bytes, None]:
        """The last lines, or those behind `after`; then each new one, until the environment is gone."""
        yield b"retry: 2000\n\n"
        watch = self.call.parts.watch
        async with watch.on(self.env_id, 0) as subscription:
            if after is None:
                after = await anyio.to_thread.run_sync(self.call.parts.logs.last_number, self.env_id)
                rows, _ = await self.last(tail, after + 1)
                if rows:
                    yield _framed(rows)
            following = await anyio.to_thread.run_sync(self.call.parts.logs.follow, self.env_id, after, self.wanted)
            pinged = time.monotonic()
            while not watch.closing:
                while (lines := await anyio.to_thread.run_sync(following.read)) is not None:
                    if lines:
                        yield _framed(await self._rows(lines))
                if not await subscription.wait(max(0.05, pinged + PING - time.monotonic())):
                    if await self.call.read(self._is_gone):
                        yield frame("end", {"status": "gone"})
                        return
                    pinged = time.monotonic()
                    yield b": ping\n\n"

    async def _rows(self, lines: list[Line]) -> list[dict[str, Any]]:
        seqs = {line.seq for line in lines}
        releases = await self.call.read(lambda session: releases_by_sequence(session, self.env_id, seqs))
        return [log_row(line, releases.get(line.seq)) for line in lines]

    def _is_gone(self, session: Session) -> bool:
        row = session.get(Environment, self.env_id)
        return row is None or row.deleted_at is not None


def log_row(line: Line, release_id: str | None) -> dict[str, Any]:
    facts = asdict(line)
    shown = {"id": facts["number"], "ts": facts["ts"], "host_id": facts["host_id"], "sequence": facts["seq"]}
    return {**shown, "release_id": release_id, "instance": line.instance, "stream": line.stream, "line": line.text}


def _framed(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(frame("log", row, row["id"] or None) for row in rows)


def _wanted(
    call: Call,
    session: Session,
    site_id: str,
    env_id: str,
    release: str | None,
    instance: str | None,
    since: str | None,
) -> Wanted:
    env_to_read(call, session, site_id, env_id, READ)
    seqs = sequences_of(session, release_of(session, env_id, release, param="release")) if release is not None else None
    return Wanted(seqs, instance, moment_of(since))


def moment_of(since: str | None) -> str | None:
    """As lines carry it: UTC, milliseconds. Raises request.invalid_parameter."""
    if since is None:
        return None
    if _DURATION.fullmatch(since):
        moment = utcnow() - duration(since, param="since", longest=LONGEST)
    else:
        try:
            moment = datetime.fromisoformat(since)
            moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            message = "since is a time like 2026-06-24T14:31:20Z, or a duration like 10m."
            raise HeadwayError("request.invalid_parameter", message, param="since") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def cursor_of(path: str, number: int) -> str:
    return encode_cursor(path, EPOCH, str(number))


def position_of(path: str, cursor: str | None) -> int | None:
    """Raises pagination.invalid_cursor."""
    if cursor is None:
        return None
    _, number = decode_cursor(path, cursor)
    if not number.isdigit() or len(number) > 15:
        raise HeadwayError("pagination.invalid_cursor", "This is not a cursor of ours.", param="cursor")
    return int(number)
