"""Caddy's access log on its way: each request counted once, across rotations and restarts of either side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.hosting import access
from adapters.hosting.access import AccessLog, RequestShipper, Visits
from api.requests import Requests, total
from headway.broker import RequestBatch, RequestsHeard
from headway.buckets import bucket_of, percentile
from headway.errors import HeadwayError

ENV, OTHER = "env_01KVT00000000000000000000A", "env_01KVT00000000000000000000B"
NOON = 1_795_694_400.0
MINUTE = int(NOON // 60)


class Web:
    """What Caddy writes, and how it rolls."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.log"
        folder.mkdir()
        self.at = NOON
        self.rolled = 0

    def serve(self, *paths: str, host: str = "shop.localhost:7071", status: int = 200, seconds: float = 0.01) -> None:
        with self.path.open("a") as file:
            for path in paths:
                self.at += 0.001
                asked = {"method": "GET", "host": host, "uri": path}
                line = {"ts": self.at, "request": asked, "duration": seconds, "size": 10, "status": status}
                file.write(json.dumps(line) + "\n")

    def roll(self) -> None:
        self.rolled += 1
        self.path.rename(self.path.with_name(f"access-2026-01-01T00-00-{self.rolled:02d}.log"))


class Api:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.away = self.deaf = False
        self.restart()

    def restart(self) -> None:
        self.requests = Requests(self.folder)

    def ship_requests(self, env_id: str, batch: RequestBatch) -> RequestsHeard:
        if self.away:
            raise HeadwayError("service.unavailable", "away")
        if env_id not in (ENV, OTHER):
            raise HeadwayError("environment.not_found", "gone")
        heard = self.requests.hear(env_id, RequestBatch.model_validate_json(batch.model_dump_json()))
        if self.deaf:
            raise HeadwayError("service.unavailable", "the answer was lost")
        return heard

    def count(self, env_id: str = ENV) -> int:
        return total(self.requests.tallies(env_id, 0, 1 << 40).values()).requests

    def paths(self, env_id: str = ENV) -> list[str]:
        return [record[3] for _, record in self.requests.last(env_id, 1000, None)[0]]


class Side:
    def __init__(self, tmp_path: Path) -> None:
        self.web, self.api = Web(tmp_path / "caddy"), Api(tmp_path / "api")
        self.names = {"shop.localhost": ENV, "other.localhost": OTHER, "gone.localhost": "env_01GONE"}
        self.restart()

    def restart(self) -> None:
        self.shipper = RequestShipper("local", AccessLog(self.web.path), lambda: self.names, self.api)

    def look(self) -> None:
        while self.shipper.look():
            pass


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side(tmp_path)


def test_requests_are_counted_where_they_belong(side: Side) -> None:
    side.look()
    side.web.serve("/a", "/b?token=secret")
    side.web.serve("/gone", host="gone.localhost")
    side.web.serve("/nobody", host="nobody.localhost")
    side.web.serve("/c", host="other.localhost", status=404)
    side.look()
    assert side.api.paths() == ["/a", "/b"]
    assert side.api.paths(OTHER) == ["/c"]
    tally = side.api.requests.tallies(OTHER, MINUTE, MINUTE)[MINUTE]
    assert (tally.classes, tally.size) == ([0, 0, 0, 0, 1, 0], 10)


@pytest.mark.parametrize("who", ["host", "api", "both"])
def test_a_restart_counts_nothing_twice(side: Side, who: str) -> None:
    side.web.serve("/a", "/b")
    side.look()
    side.web.serve("/c")
    if who in ("host", "both"):
        side.restart()
    if who in ("api", "both"):
        side.api.restart()
    side.web.serve("/d")
    side.look()
    assert (side.api.paths(), side.api.count()) == (["/a", "/b", "/c", "/d"], 4)


def test_a_log_that_is_rolled_is_read_to_its_end(side: Side) -> None:
    side.web.serve("/a")
    side.look()
    side.web.serve("/b")
    side.web.roll()
    side.web.serve("/c")
    side.web.roll()
    side.web.serve("/d")
    side.look()
    side.restart()
    side.look()
    assert (side.api.paths(), side.api.count()) == (["/a", "/b", "/c", "/d"], 4)


@pytest.mark.parametrize("how", ["away", "deaf"])
def test_requests_wait_while_the_api_is_away(side: Side, how: str) -> None:
    side.web.serve("/a")
    side.look()
    side.web.serve("/b")
    setattr(side.api, how, True)
    with pytest.raises(HeadwayError):
        side.look()
    setattr(side.api, how, False)
    side.web.serve("/c")
    side.look()
    assert (side.api.paths(), side.api.count()) == (["/a", "/b", "/c"], 3)


def test_a_line_that_is_being_written_is_waited_for(side: Side) -> None:
    side.web.serve("/a")
    whole = side.web.path.read_bytes()
    side.web.path.write_bytes(whole + whole[:40])
    side.look()
    assert side.api.count() == 1
    with side.web.path.open("ab") as file:
        file.write(whole[40:])
    side.look()
    assert side.api.count() == 2


def test_all_are_counted_and_the_last_are_listed(side: Side) -> None:
    side.web.serve(*(f"/{n}" for n in range(access.LISTED + 50)))
    side.look()
    found, _ = side.api.requests.last(ENV, 1000, None)
    assert (side.api.count(), len(found)) == (access.LISTED + 50, access.LISTED)
    assert (found[0][1][3], found[0][1][-1], found[1][1][-1]) == ("/50", 50, 0)


def test_percentiles_are_at_most_a_tenth_too_high() -> None:
    durations = [0.05, *(n / 3 for n in range(1, 3000))]
    counts: dict[int, int] = {}
    for one in durations:
        counts[bucket_of(one)] = counts.get(bucket_of(one), 0) + 1
    for part in (0.5, 0.95, 0.99, 1.0):
        true = sorted(durations)[int(part * len(durations)) - 1]
        found = percentile(counts, part)
        assert found is not None
        assert true <= found * 1.001 <= true * 1.12
    assert percentile({}, 0.5) is None


def test_visits_since_a_time_are_counted_on_from_where_they_were(side: Side) -> None:
    visits = Visits(AccessLog(side.web.path), lambda: side.names)
    side.web.serve("/before", status=500)
    side.web.roll()
    began = side.web.at + 0.0001
    assert visits(ENV, began) == (0, 0)
    side.web.serve("/a", "/b")
    side.web.serve("/c", status=502)
    side.web.serve("/d", host="other.localhost", status=500)
    assert visits(ENV, began) == (3, 1)
    side.web.roll()
    side.web.serve("/e", status=404)
    assert visits(ENV, began) == (4, 1)
    assert visits(OTHER, began) == (1, 1)
    assert Visits(AccessLog(side.web.path), lambda: side.names)(ENV, began) == (4, 1)
