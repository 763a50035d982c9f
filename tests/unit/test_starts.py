"""What is asked of Temporal when a job is to start: each run once, and again where it may be gone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from temporal import starts
from temporal.messages import Labels
from temporal.starts import TemporalStarts

LABELS = Labels(site="shop", environment="production", job_type="build.run")


class Server:
    """Counts what it is asked for, by workflow id."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.delays: list[timedelta | None] = []
        self.away = False

    async def start_workflow(
        self, _name: str, _arg: Any, *, id: str, start_delay: timedelta | None = None, **_: Any
    ) -> None:
        self.asked.append(id)
        self.delays.append(start_delay)
        if self.away:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def door(server: Server) -> TemporalStarts:
    return TemporalStarts(cast(Client, server))


def start(door: TemporalStarts, *jobs: str) -> list[bool]:
    async def ask() -> list[bool]:
        return [await door.start(job, "build.run", labels=LABELS) for job in jobs]

    return asyncio.run(ask())


def test_a_run_that_was_just_seen_is_not_asked_for_again(server: Server, door: TemporalStarts) -> None:
    assert start(door, "job_1", "job_2", "job_1") == [True, True, True]
    assert server.asked == ["job_1", "job_2"]


@pytest.mark.parametrize("hold", [timedelta(milliseconds=40), timedelta()])
def test_a_run_begins_behind_its_host_where_the_server_counts_in_milliseconds(server: Server, hold: timedelta) -> None:
    door = TemporalStarts(cast(Client, server), hold)
    for job, behind in (("job_1", True), ("job_2", False)):
        assert asyncio.run(door.start(job, "deployment.rollback", labels=LABELS, behind=behind))
    assert server.delays == [hold or None, None]


def test_a_run_is_asked_for_until_the_server_has_it(server: Server, door: TemporalStarts) -> None:
    server.away = True
    assert start(door, "job_1") == [False]
    server.away = False
    assert start(door, "job_1") == [True]
    assert server.asked == ["job_1", "job_1"]


def test_a_run_is_looked_for_again_after_a_while(
    server: Server, door: TemporalStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(door, "job_1")
    monkeypatch.setattr(starts, "BELIEVED_SECONDS", 0.0)
    start(door, "job_1")
    assert server.asked == ["job_1", "job_1"]


def test_what_is_remembered_is_bounded(server: Server, door: TemporalStarts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "MOST_BELIEVED", 2)
    start(door, "job_1", "job_2", "job_3", "job_1")
    assert server.asked == ["job_1", "job_2", "job_3", "job_1"]
