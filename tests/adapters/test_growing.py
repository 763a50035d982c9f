"""More instances beside those that serve: what is new has to be healthy, what has too much to do need not answer."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from adapters.artifact.manifest import Manifest
from adapters.artifact.run import HealthCheck, RunSettings
from adapters.hosting.services import Plan, Services, Story
from adapters.runtime.driver import InstanceRef, InstanceSpec, Status
from headway.errors import HeadwayError
from tests.adapters.sites import ENV, Machine

MANIFEST = Manifest((), "dynamic", run=RunSettings("serve", health=HealthCheck(timeout=1, interval_ms=20)))


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


@dataclass
class Driver:
    """What is started leads to `endpoint`."""

    endpoint: str
    running: dict[InstanceRef, Status] = field(default_factory=dict)

    def ensure(self, spec: InstanceSpec) -> Status:
        return self.running.setdefault(spec.ref, Status(spec.ref, "running", endpoint=self.endpoint))

    def status(self, ref: InstanceRef) -> Status:
        return self.running.get(ref, Status(ref, "absent"))

    def list(self, _env_id: str | None = None) -> list[Status]:
        return [*self.running.values()]

    def logs(self, *_words: object, **_more: object) -> list[object]:
        return []

    def remove(self, ref: InstanceRef) -> None:
        self.running.pop(ref, None)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[str]:
    with socketserver.UnixStreamServer(str(tmp_path / "s"), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"unix:{tmp_path / 's'}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("now", "wanted", "grows"), [(1, 3, True), (3, 2, False)])
def test_an_app_that_has_too_much_to_do_to_answer_is_grown(
    tmp_path: Path, answering: str, now: int, wanted: int, grows: bool
) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(answering)
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    live, more = machine.deploy({"a": b"a"}), 3
    switch = machine.host.environment(ENV)
    (switch.release(live) / "instances.json").write_text(json.dumps(Plan(live, MANIFEST.digest, 0, now).__dict__))
    for index in range(now):
        ref = InstanceRef(ENV, live, "web", index)
        driver.running[ref] = Status(ref, "running", endpoint=f"unix:{tmp_path / 'busy'}")
    switch.release(more).mkdir()

    def grow() -> None:
        story = Story(lambda: None)
        services.prepare(ENV, more, MANIFEST, 0, "localhost", story, lambda: None, web=wanted, reuse="grow")

    if grows:
        grow()
        assert sorted(ref.index for ref in driver.running) == [0, 1, 2]
    else:
        with pytest.raises(HeadwayError) as refused:
            grow()
        assert refused.value.code == "roll.health_failed"
