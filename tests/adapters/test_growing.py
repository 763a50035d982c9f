"""More instances beside those that serve: what is new has to be healthy, what has too much to do need not answer."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from adapters.artifact.manifest import Manifest
from adapters.artifact.run import HealthCheck, RunSettings
from adapters.hosting.probing import Probe
from adapters.hosting.services import Plan, Services, Story
from adapters.hosting.turns import Turns
from adapters.runtime.driver import InstanceRef, InstanceSpec, Lines, LogLine, Status
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


@pytest.mark.parametrize(("origin", "web", "taken_over"), [(1, 1, True), (9, 1, False), (1, 2, False), (0, 0, False)])
def test_only_the_instances_that_have_just_answered_are_taken_over_without_a_look(
    tmp_path: Path, answering: str, origin: int, web: int, taken_over: bool
) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(answering)
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    warm, back = machine.deploy({"a": b"a"}), 3
    switch = machine.host.environment(ENV)
    (switch.release(warm) / "instances.json").write_text(json.dumps(Plan(warm, MANIFEST.digest, 0, 1).__dict__))
    (switch.release(warm) / "config.sealed").touch()
    ref = InstanceRef(ENV, warm, "web", 0)
    driver.running[ref] = Status(ref, "running", endpoint=f"unix:{tmp_path / 'silent'}")
    switch.release(back).mkdir()
    judged = Plan(origin, MANIFEST.digest, 0, web) if origin else None
    services.prepare(ENV, back, MANIFEST, 0, "localhost", Story(lambda: None), lambda: None, judged=judged)
    made = services.plan_of(ENV, back)
    assert made is not None
    assert made.origin == (warm if taken_over else back)


def test_of_instances_that_hang_one_is_waited_for(
    tmp_path: Path, answering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, driver, looked = Machine(tmp_path / "h"), Driver(answering), list[str]()
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    live = machine.deploy({"a": b"a"})
    release = machine.host.environment(ENV).release(live)
    (release / "instances.json").write_text(json.dumps(Plan(live, MANIFEST.digest, 0, 3).__dict__))
    (release / "config.sealed").touch()
    for index in range(3):
        ref = InstanceRef(ENV, live, "web", index)
        driver.running[ref] = Status(ref, "running", endpoint=f"unix:{index}")

    def hangs(endpoint: str, *_words: object) -> Probe:
        looked.append(endpoint)
        return Probe(0.0, 5.0, None, "TimeoutError")

    monkeypatch.setattr("adapters.hosting.services.look", hangs)
    monkeypatch.setattr(services, "_run_of", lambda *_: MANIFEST.run)
    assert (services.warm(ENV, MANIFEST.digest, "localhost"), looked) == (None, ["unix:0"])


@pytest.mark.parametrize("live", [True, False])
def test_a_try_that_is_stopped_stops_nothing_that_is_live(tmp_path: Path, answering: str, live: bool) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(answering)
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    switch = machine.host.environment(ENV)
    machine.deploy({"a": b"a"})
    switch.release(3).mkdir()
    services.prepare(ENV, 3, MANIFEST, 0, "localhost", Story(lambda: None), lambda: None)
    if live:
        switch.switch(3)

    def stop() -> None:
        raise HeadwayError("job.canceled", "another try has taken over")

    with pytest.raises(HeadwayError, match="taken over"):
        services.prepare(ENV, 3, MANIFEST, 0, "localhost", Story(stop), lambda: None)
    assert (InstanceRef(ENV, 3, "web", 0) in driver.running) is live


@pytest.mark.parametrize(("now", "wanted", "grows"), [(1, 3, True), (3, 2, False)])
def test_an_app_that_has_too_much_to_do_to_answer_is_grown(
    tmp_path: Path, answering: str, now: int, wanted: int, grows: bool
) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(answering)
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    live, more = machine.deploy({"a": b"a"}), 3
    switch = machine.host.environment(ENV)
    (switch.release(live) / "instances.json").write_text(json.dumps(Plan(live, MANIFEST.digest, 0, now).__dict__))
    (switch.release(live) / "config.sealed").touch()
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


@pytest.mark.parametrize(("again", "code"), [(0, None), (3, "roll.start_failed")])
def test_what_serves_has_died_before_and_is_scaled_down_all_the_same(
    tmp_path: Path, answering: str, again: int, code: str | None
) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(answering)
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    live, fewer = machine.deploy({"a": b"a"}), 3
    switch = machine.host.environment(ENV)
    (switch.release(live) / "instances.json").write_text(json.dumps(Plan(live, MANIFEST.digest, 0, 2).__dict__))
    first, second = (InstanceRef(ENV, live, "web", index) for index in range(2))
    for ref in (first, second):
        driver.running[ref] = Status(ref, "running", endpoint=answering, restarts=7)
    switch.release(fewer).mkdir()

    def dies(text: str) -> None:
        if text.startswith("started "):
            driver.running[first] = replace(driver.running[first], restarts=7 + again)

    def shrink() -> None:
        story = Story(lambda: None, dies)
        services.prepare(ENV, fewer, MANIFEST, 0, "localhost", story, lambda: None, web=1, reuse="grow")

    if code is None:
        shrink()
    else:
        with pytest.raises(HeadwayError) as refused:
            shrink()
        assert (refused.value.code, "ended 3 times" in refused.value.message) == (code, True)


class Greeting(socketserver.StreamRequestHandler):
    said = b""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(self.said)


@pytest.mark.parametrize(
    ("said", "told"), [(b"SSH-2.0-x\r\n", "it has to answer them by HTTP"), (b"", "it has to listen on $PORT (8080)")]
)
def test_what_gives_no_answer_is_told_what_it_lacks(tmp_path: Path, said: bytes, told: str) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(f"unix:{tmp_path / 's'}")
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    machine.deploy({"a": b"a"})
    machine.host.environment(ENV).release(3).mkdir()
    with socketserver.UnixStreamServer(str(tmp_path / "s"), type("Said", (Greeting,), {"said": said})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        with pytest.raises(HeadwayError) as refused:
            services.prepare(ENV, 3, MANIFEST, 0, "localhost", Story(lambda: None), lambda: None)
        server.shutdown()
        thread.join()
    assert (refused.value.code, told in refused.value.message) == ("roll.health_failed", True), refused.value.message


@dataclass
class Migrating(Driver):
    """As the keepers: a run has one result until it is removed."""

    code: int = 0
    runs: int = 0

    def run_once(
        self, spec: InstanceSpec, _timeout: float, *, canceled: Callable[[], bool] = lambda: False
    ) -> tuple[int, Lines]:
        if spec.ref not in self.running:
            self.runs += 1
            self.running[spec.ref] = Status(spec.ref, "running")
        assert not canceled()
        self.running[spec.ref] = Status(spec.ref, "stopped", exit_code=self.code)
        return self.code, [LogLine(number, "", "stdout", f"row {number}") for number in range(1, 5_000)]


def test_a_release_command_runs_once_however_often_a_rollout_is_tried(tmp_path: Path, answering: str) -> None:
    machine, driver = Machine(tmp_path / "h"), Migrating(answering)
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    live = machine.deploy({"a": b"a"})
    machine.host.environment(ENV).release(live + 1).mkdir()
    manifest = replace(MANIFEST, run=RunSettings("serve", release_command="migrate"))
    said: list[str] = []

    def attempt(check: Callable[[], None]) -> None:
        story = Story(check, said.append)
        services.prepare(
            ENV,
            live + 1,
            manifest,
            0,
            "localhost",
            story,
            lambda: services.run_release_command(ENV, live + 1, manifest, story),
        )

    def worker_ends() -> None:
        raise HeadwayError("service.unavailable", "the host worker is stopped")

    with pytest.raises(HeadwayError):
        attempt(worker_ends)
    attempt(lambda: None)
    assert driver.runs == 1
    assert "row 4999" in said
    assert len(said) < 4_100, "the last two thousand lines are enough of each try"


def test_a_rollout_that_is_canceled_waits_for_no_release_command(tmp_path: Path, answering: str) -> None:
    machine, driver = Machine(tmp_path / "h"), Migrating(answering)
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    live = machine.deploy({"a": b"a"})
    manifest = replace(MANIFEST, run=RunSettings("serve", release_command="migrate"))

    def canceled() -> None:
        raise HeadwayError("job.canceled", "canceled")

    for seq, story in ((live + 1, Story(canceled)), (live + 3, Story(lambda: None))):
        machine.host.environment(ENV).release(seq).mkdir()
        if seq == live + 1:
            with pytest.raises(HeadwayError, match="canceled"):
                services.run_release_command(ENV, seq, manifest, story)
            assert [(ref.seq, one.state) for ref, one in driver.running.items()] == [(seq, "running")]
        else:
            services.run_release_command(ENV, seq, manifest, story)
    assert [ref.seq for ref in driver.running] == [live + 3], "one migration at a time"
    assert driver.runs == 2


def test_an_instance_that_is_gone_while_it_is_looked_at_is_started_again(tmp_path: Path, answering: str) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(f"unix:{tmp_path / 'nobody'}")
    services = Services(machine.host.folders, driver)  # type: ignore[arg-type]
    live = machine.deploy({"a": b"a"})
    machine.host.environment(ENV).release(live + 1).mkdir()
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 4:
            driver.running.clear()
            driver.endpoint = answering
            (tmp_path / "nobody").symlink_to(tmp_path / "s")

    services.prepare(ENV, live + 1, MANIFEST, 0, "localhost", Story(look), lambda: None)
    assert [*driver.running] == [InstanceRef(ENV, live + 1, "web", 0)]


def test_slow_apps_of_one_team_hold_neither_anothers_app_nor_a_way_back_nor_files(
    tmp_path: Path, answering: str
) -> None:
    machine, driver = Machine(tmp_path / "h"), Driver(f"unix:{tmp_path / 'nobody'}")
    turns = Turns(at_once=2, waiting=2, share=0.5, noun="releases", code="roll.host_busy")
    services = Services(machine.host.folders, driver, turns)  # type: ignore[arg-type]
    machine.deploy({"a": b"a"})
    slow = replace(MANIFEST, run=RunSettings("serve", health=HealthCheck(timeout=60, interval_ms=20)))
    over, started, told = threading.Event(), threading.Event(), list[str]()

    def prepare(seq: int, owner: str, manifest: Manifest = MANIFEST, story: Story | None = None) -> None:
        release = machine.host.environment(ENV).release(seq)
        release.mkdir(exist_ok=True)
        services.prepare(
            *(ENV, seq, manifest, seq, "localhost", story or Story(lambda: None)),
            (release / "config.sealed").touch,
            owner=owner,
        )

    def check() -> None:
        started.set()
        if over.is_set():
            raise HeadwayError("job.canceled", "enough")

    def hold() -> None:
        with pytest.raises(HeadwayError, match="enough"):
            prepare(11, "slow", slow, Story(check))

    holding = threading.Thread(target=hold, daemon=True)
    holding.start()
    assert started.wait(10)
    driver.endpoint = answering
    prepare(12, "other")
    prepare(13, "")

    def stop() -> None:
        raise HeadwayError("job.canceled", "was waiting")

    with pytest.raises(HeadwayError, match="was waiting"):
        prepare(14, "slow", MANIFEST, Story(stop, told.append))
    assert told == ["waits for its turn: this host starts 2 releases at once"]
    assert not [ref for ref in driver.running if ref.seq == 14]
    machine.deploy({"b": b"b"})
    over.set()
    holding.join(10)
