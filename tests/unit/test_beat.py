"""The beat of a placing: it goes on while the broker, which is told of it, does not answer."""

from __future__ import annotations

import threading

import pytest
from temporalio.testing import ActivityEnvironment

from activities import beating


def test_the_beat_does_not_wait_for_whom_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beating, "BEAT_SECONDS", 0.02)
    told, beats, enough = threading.Event(), 0, threading.Event()
    environment = ActivityEnvironment()

    def heard(*_details: object) -> None:
        nonlocal beats
        beats += 1
        if beats == 5:
            enough.set()

    environment.on_heartbeat = heard

    def tell() -> None:
        told.wait(10)

    def work() -> bool:
        with beating.beating(tell):
            return enough.wait(5)

    try:
        assert environment.run(work)
    finally:
        told.set()
