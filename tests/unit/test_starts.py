"""What is asked of Temporal when a job is to start: each run once, and again where it may be gone."""

from __future__ import annotations

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
        self.away = False

    async def start_workflow(self, _name: str, _arg: Any, *, id: str, **_: Any) -> None:
        self.asked.append(id)
        if self.away:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def door(server: Server) -> TemporalStarts:
    return TemporalStarts(cast(Client, server))


async def test_a_run_that_was_just_seen_is_not_asked_for_again(server: Server, door: TemporalStarts) -> None:
    for job in ("job_1", "job_2", "job_1"):
        assert await door.start(job, "build.run", labels=LABELS)
    assert server.asked == ["job_1", "job_2"]


async def test_a_run_is_asked_for_until_the_server_has_it(server: Server, door: TemporalStarts) -> None:
    server.away = True
    assert not await door.start("job_1", "build.run", labels=LABELS)
    server.away = False
    assert await door.start("job_1", "build.run", labels=LABELS)
    assert server.asked == ["job_1", "job_1"]


async def test_a_run_is_looked_for_again_after_a_while(
    server: Server, door: TemporalStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await door.start("job_1", "build.run", labels=LABELS)
    monkeypatch.setattr(starts, "BELIEVED_SECONDS", 0.0)
    assert await door.start("job_1", "build.run", labels=LABELS)
    assert server.asked == ["job_1", "job_1"]


async def test_what_is_remembered_is_bounded(
    server: Server, door: TemporalStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "MOST_BELIEVED", 2)
    for job in ("job_1", "job_2", "job_3", "job_1"):
        await door.start(job, "build.run", labels=LABELS)
    assert server.asked == ["job_1", "job_2", "job_3", "job_1"]
