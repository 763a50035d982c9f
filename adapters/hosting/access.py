"""Caddy's access log as this host reads it: new requests, counted by environment and minute, told to the broker.

Nothing is kept here: a place in the log is the time of its file's first line and an offset in it, so places grow, and
the broker knows of each environment up to which place it has heard. After a restart all kept files are read again,
and what was heard is left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from headway.broker import RequestBatch, RequestLine, RequestMinute, RequestsHeard
from headway.buckets import bucket_of
from headway.errors import HeadwayError

EVERY: Final = 2.0
CHUNK: Final = 4 << 20
# Listed of one environment in one round; all are counted.
LISTED: Final = 200
LONGEST_PATH: Final = 512
log = logging.getLogger("headway.access")

Place = tuple[float, int]
START: Final[Place] = (0.0, 0)


class Broker(Protocol):
    def ship_requests(self, env_id: str, batch: RequestBatch) -> RequestsHeard: ...


@dataclass(frozen=True)
class Request:
    """One line of the log, and where it ends."""

    place: Place
    ts: float
    host: str
    method: str
    path: str
    status: int
    milliseconds: float
    size: int


@dataclass
class Count:
    """One minute of one environment."""

    classes: list[int] = field(default_factory=lambda: [0] * 6)
    size: int = 0
    durations: dict[int, int] = field(default_factory=dict)

    def add(self, request: Request) -> None:
        self.classes[min(5, request.status // 100)] += 1
        self.size += request.size
        bucket = bucket_of(request.milliseconds)
        self.durations[bucket] = self.durations.get(bucket, 0) + 1


class AccessLog:
    """`path` and what Caddy has rolled away from it: `access.log`, `access-<time>.log`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, after: Place) -> tuple[list[Request], Place]:
        """The next requests behind a place, a few megabytes of log at most, and the place where they end."""
        rolled = sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"))
        for path in [*rolled, self.path]:
            found, after = self._read(path, after)
            if found:
                return found, after
        return [], after

    def place_of(self, since: float) -> Place:
        """A place behind which all is that was logged since that time: files that ended before it are skipped."""
        place = START
        for path in sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}")):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if status.st_mtime < since:
                    with path.open("rb") as file:
                        place = (float(str(_parsed(file.readline()).get("ts", 0))), status.st_size)
        return place

    def _read(self, path: Path, after: Place) -> tuple[list[Request], Place]:
        try:
            with path.open("rb") as file:
                first = _parsed(file.readline())
                name = float(str(first.get("ts", 0)))
                if name < after[0] or name == 0:
                    return [], after
                offset = after[1] if name == after[0] else 0
                file.seek(offset)
                chunk = file.read(CHUNK)
        except FileNotFoundError:
            return [], after
        found = []
        for raw in chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True):
            offset += len(raw)
            if (request := _request(_parsed(raw), (name, offset))) is not None:
                found.append(request)
        return found, (name, offset)


@dataclass
class Tally:
    """What was asked of one environment since a time, up to a place in the log."""

    since: float
    place: Place
    requests: int = 0
    errors: int = 0


class Visits:
    """Requests and server errors of an environment since a Unix time, as the access log has them. Thread-safe.

    Asked again with the same time it reads on from where it was.
    """

    def __init__(self, access: AccessLog, env_of: Callable[[], dict[str, str]]) -> None:
        self._access = access
        self._env_of = env_of
        self._tallies: dict[str, Tally] = {}
        self._lock = threading.Lock()

    def __call__(self, env_id: str, since: float) -> tuple[int, int]:
        with self._lock:
            tally = self._tallies.get(env_id)
            if tally is None or tally.since != since:
                tally = self._tallies[env_id] = Tally(since, START)
            while self._count(env_id, tally):
                pass
            return tally.requests, tally.errors

    def _count(self, env_id: str, tally: Tally) -> bool:
        """Whether there was anything to read."""
        if tally.place == START:
            tally.place = self._access.place_of(tally.since)
        requests, tally.place = self._access.read(tally.place)
        ours = {name for name, env in self._env_of().items() if env == env_id} if requests else set()
        for request in requests:
            if request.host in ours and request.ts >= tally.since:
                tally.requests += 1
                tally.errors += request.status >= 500
        return bool(requests)


class RequestShipper:
    """`env_of` says which environment a host name leads to. `run` is the loop for a thread."""

    def __init__(self, host_id: str, access: AccessLog, env_of: Callable[[], dict[str, str]], broker: Broker) -> None:
        self._host_id = host_id
        self._access = access
        self._env_of = env_of
        self._broker = broker
        self._place: Place = START
        self._heard: dict[str, Place] = {}
        self._closed = threading.Event()
        self._away = False

    def run(self) -> None:
        """Until `close`."""
        while True:
            more = False
            try:
                more = self.look()
                self._away = False
            except HeadwayError as error:
                if not self._away:
                    log.warning("requests are counted later: %s", error.message)
                self._away = True
            except Exception:
                log.exception("requests are counted later")
            if self._closed.wait(0 if more else EVERY):
                return

    def close(self) -> None:
        self._closed.set()

    def look(self) -> bool:
        """Tell of the next requests; whether there were any. Raises what the broker answers: then nothing is lost."""
        requests, upto = self._access.read(self._place)
        if requests:
            envs, found = self._env_of(), dict[str, list[Request]]()
            for request in requests:
                if (env_id := envs.get(request.host)) is not None:
                    found.setdefault(env_id, []).append(request)
            for env_id, of_env in found.items():
                self._tell(env_id, of_env)
        self._place = upto
        return bool(requests)

    def _tell(self, env_id: str, requests: list[Request]) -> None:
        try:
            if env_id not in self._heard:
                asked = RequestBatch(host_id=self._host_id, upto=START)
                self._heard[env_id] = self._broker.ship_requests(env_id, asked).upto
            fresh = [request for request in requests if request.place > self._heard[env_id]]
            if fresh:
                # Whether it was heard is not known until the answer is there.
                del self._heard[env_id]
                self._heard[env_id] = self._broker.ship_requests(env_id, self._batch(fresh)).upto
        except HeadwayError as error:
            if error.code != "environment.not_found":
                raise

    def _batch(self, requests: list[Request]) -> RequestBatch:
        minutes: dict[int, Count] = {}
        for request in requests:
            minutes.setdefault(int(request.ts // 60), Count()).add(request)
        listed = requests[-LISTED:]
        return RequestBatch(
            host_id=self._host_id,
            upto=requests[-1].place,
            minutes=[
                RequestMinute(minute=minute, classes=one.classes, size=one.size, durations=one.durations)
                for minute, one in minutes.items()
            ],
            lines=[
                RequestLine(
                    ts=_timestamp(one.ts),
                    hostname=one.host,
                    method=one.method,
                    path=one.path,
                    status=one.status,
                    duration_ms=round(one.milliseconds, 3),
                    size=one.size,
                )
                for one in listed
            ],
            unlisted=len(requests) - len(listed),
        )


def _parsed(raw: bytes) -> dict[str, object]:
    try:
        line = json.loads(raw)
    except ValueError:
        return {}  # it is being written, or its writer was killed
    return line if isinstance(line, dict) else {}


def _request(line: dict[str, object], place: Place) -> Request | None:
    asked = line.get("request")
    try:
        assert isinstance(asked, dict)  # noqa: S101
        return Request(
            place,
            ts=float(str(line["ts"])),
            host=str(asked["host"]).partition(":")[0],
            method=str(asked["method"])[:32],
            path=str(asked["uri"]).partition("?")[0][:LONGEST_PATH],
            status=int(str(line["status"])),
            milliseconds=1000 * float(str(line["duration"])),
            size=int(str(line["size"])),
        )
    except (AssertionError, KeyError, ValueError):
        return None


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
