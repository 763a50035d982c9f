from __future__ import annotations

import threading
import time

import pytest

from adapters import events
from adapters.events import EventBatcher
from headway.broker import Event, Events, Heard
from headway.errors import HeadwayError


class Broker:
    """Numbers events as the real one does, and loses answers on demand."""

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.heard = 0
        self.batches = 0
        self.lose_answers = 0
        self.away = threading.Event()
        self.refuse: HeadwayError | None = None
        self.cancel = False

    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard:
        assert (job_id, events.source, patience) == ("job_1", "build_1/1", 0.0)
        parsed = Events.model_validate_json(events.model_dump_json())
        if self.refuse is not None:
            raise self.refuse
        if self.away.is_set():
            raise HeadwayError("service.unavailable", "away")
        assert parsed.first <= self.heard + 1
        self.kept += parsed.events[self.heard + 1 - parsed.first :]
        self.heard = max(self.heard, parsed.first + len(parsed.events) - 1)
        self.batches += bool(parsed.events)
        if parsed.events and self.lose_answers:
            self.lose_answers -= 1
            raise HeadwayError("service.unavailable", "lost")
        return Heard(cancel=self.cancel)


def test_everything_arrives_once_and_in_order() -> None:
    broker = Broker()
    broker.lose_answers = 3
    with EventBatcher(broker, "job_1", "build_1/1") as batcher:
        batcher.stage("fetch")
        for i in range(1000):
            batcher.log("stdout", str(i))
    assert [one.line for one in broker.kept[1:]] == [str(i) for i in range(1000)]
    assert broker.kept[0].kind == "stage"
    assert {one.stage for one in broker.kept} == {"fetch"}
    assert broker.batches < 20


def test_lines_are_redacted_before_they_leave() -> None:
    broker = Broker()
    with EventBatcher(broker, "job_1", "build_1/1", redact=lambda line: line.replace("hunter2", "***")) as batcher:
        batcher.log("stderr", "password hunter2")
    assert [one.line for one in broker.kept] == ["password ***"]


def test_a_silent_build_hears_a_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL", 0.02)
    broker = Broker()
    with EventBatcher(broker, "job_1", "build_1/1") as batcher:
        assert not batcher.canceled
        broker.cancel = True
        deadline = time.monotonic() + 10
        while not batcher.canceled and time.monotonic() < deadline:
            time.sleep(0.005)
        assert batcher.canceled


def test_a_refusal_ends_it() -> None:
    broker = Broker()
    broker.refuse = HeadwayError("attempt.stale", "another attempt")
    batcher = EventBatcher(broker, "job_1", "build_1/1")
    with batcher:
        batcher.log("stdout", "x")
    assert batcher.failure is broker.refuse
    batcher.log("stdout", "y")
    assert broker.kept == []


def test_lines_are_dropped_and_counted_while_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CAPACITY", 10)
    monkeypatch.setattr(events, "SLOWED", 0.01)
    broker = Broker()
    broker.away.set()
    with EventBatcher(broker, "job_1", "build_1/1") as batcher:
        for i in range(15):
            batcher.log("stdout", str(i))
        assert batcher.flooded
        batcher.drop(100)
        broker.away.clear()
        deadline = time.monotonic() + 10
        while len(broker.kept) < 10 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not batcher.flooded
        batcher.log("stdout", "after")
    assert [one.line for one in broker.kept[:10]] == [str(i) for i in range(10)]
    assert "105 lines were lost" in (broker.kept[10].line or "")
    assert broker.kept[11].line == "after"


def test_the_rest_goes_along_with_another_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_BATCH", 10)
    broker = Broker()
    with EventBatcher(broker, "job_1", "build_1/1") as batcher:
        for i in range(25):
            batcher.log("stdout", str(i))
        rest = batcher.rest()
        assert rest is not None
        assert rest.job_id == "job_1"
        batcher.log("stdout", "nobody hears this")
        assert 0 < len(rest.events.events) <= 10
        assert len(broker.kept) == rest.events.first - 1
        broker.append("job_1", rest.events, patience=0.0)
    assert [one.line for one in broker.kept] == [str(i) for i in range(25)]
    with EventBatcher(Broker(), "job_1", "build_1/1") as batcher:
        assert batcher.rest() is None


def test_closing_does_not_wait_for_ever() -> None:
    broker = Broker()
    broker.away.set()
    batcher = EventBatcher(broker, "job_1", "build_1/1")
    batcher.__enter__()
    batcher.log("stdout", "x")
    began = time.monotonic()
    batcher.close(timeout=0.05)
    assert time.monotonic() - began < 5
