"""A host says that it is ready when the platform knows it, and does not wait for a platform that is away."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.hosting import configuration
from adapters.hosting.configuration import Configuration
from headway.broker import HostHello, Known
from headway.errors import HeadwayError
from headway.ready import YOUNG
from headway.settings import Settings
from temporal import worker

pytestmark = pytest.mark.anyio


class Broker:
    """Answers with these, one after the other, and with the last one ever after."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.known = False

    def hello(self, host_id: str, _hello: HostHello, *, patience: float | None = None) -> Known:
        assert (host_id, patience) == ("local", 1.0)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer == "a bug":
            raise OSError(24, "Too many open files")
        if answer:
            raise HeadwayError(answer, "no")
        self.known = True
        return Known(host_id=host_id, labels=[])

    def get_config(self, rollout_id: str) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def without_temporal(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def working(*_asked: Any) -> AsyncIterator[list[Any]]:
        yield []

    async def client(_settings: Settings) -> None: ...

    monkeypatch.setattr(worker, "working", working)
    monkeypatch.setattr(worker, "_patiently", client)
    monkeypatch.setattr(configuration, "FIRST_SECONDS", 0.01)


async def ready(monkeypatch: pytest.MonkeyPatch, folder: Path, broker: Broker) -> bool:
    """Whether the platform knew the host when it said that it was ready."""
    said = asyncio.get_running_loop().create_future()
    host = Configuration("local", folder / "identity.key", broker)
    role = worker.Role("host/local", (), beside=[host.stay_registered], first=host.answered)
    monkeypatch.setitem(worker.ROLES, "host", lambda *_given: role)
    monkeypatch.setattr(worker, "announce", lambda: said.set_result(broker.known))
    serving = asyncio.create_task(worker.serve("host", Settings()))
    try:
        return bool(await asyncio.wait_for(said, 30))
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_it_is_known_by_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert await ready(monkeypatch, tmp_path, Broker("service.unavailable", "a bug", ""))


async def test_a_refusal_is_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker, "FIRST_SECONDS", 3600.0)
    assert not await ready(monkeypatch, tmp_path, Broker("host.key_changed"))


async def test_who_is_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker, "FIRST_SECONDS", 0.05)
    assert not await ready(monkeypatch, tmp_path, Broker("service.unavailable"))


def test_what_was_loaded_is_not_looked_through_again(tmp_path: Path) -> None:
    code = (
        "import gc; from headway.ready import announce; announce(); print(gc.get_freeze_count(), gc.get_threshold()[0])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    frozen, young = map(int, said.split())
    assert frozen > 1_000
    assert young == YOUNG
