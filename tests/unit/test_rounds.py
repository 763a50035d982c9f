"""A host tells its broker again and again, whatever becomes of one time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from adapters.hosting import rounds
from headway.errors import HeadwayError


def test_it_goes_on_and_comes_again_sooner_where_the_broker_was_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [None, HeadwayError("service.unavailable", "away"), RuntimeError("a fault"), None]
    pauses: list[float] = []

    def work() -> None:
        if (fault := faults.pop(0)) is not None:
            raise fault

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if not faults:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with caplog.at_level(logging.DEBUG), pytest.raises(asyncio.CancelledError):
        asyncio.run(rounds.now_and_then(work, 60.0, logging.getLogger("headway.host"), "it is told", again=5.0))
    assert pauses == [60.0, 5.0, 60.0, 60.0]
    said = [(one.levelname, one.getMessage()) for one in caplog.records if one.name == "headway.host"]
    assert said == [("DEBUG", "it is told later: service.unavailable"), ("ERROR", "it is told later")]
