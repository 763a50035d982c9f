"""Services on the real stack: judged before they are visited, switched without a lost request, kept alive."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.runtime.driver import Status
from adapters.runtime.process.driver import ProcessDriver, Setup
from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewRepository
from tests.stack.service_app import service
from tests.stack.sites import Place

PATIENCE = 60.0


@pytest.fixture
def place(stack: Stack, caller: Caller, new_repository: NewRepository) -> Place:
    repository = new_repository(service("first"))
    site = caller.new_site(f"s-{repository.path.name}", repository.path.as_uri(), runtime="auto")
    return Place(stack, caller, site, repository)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.05)


def instances(place: Place) -> list[Status]:
    driver = ProcessDriver(Setup(state=place.stack.data / "host" / "run"))
    return driver.list(place.site.production)


@pytest.fixture
def loaded(place: Place) -> Iterator[Callable[[], tuple[int, list[str]]]]:
    """Visitors at all times; gives how many there were and what went wrong."""
    seen, faults, over = [0], [], threading.Event()

    def visit() -> None:
        while not over.is_set():
            try:
                page = place.page()
                seen[0] += 1
                if page.status != 200:
                    faults.append(f"{page.status} {page.text[:80]}")
            except (OSError, http.client.HTTPException) as error:
                faults.append(repr(error))
            time.sleep(0.005)

    def end() -> tuple[int, list[str]]:
        over.set()
        for thread in threads:
            thread.join(30)
        return seen[0], faults

    place.push()
    threads = [threading.Thread(target=visit, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield end
    end()


def test_code_and_configuration_go_forth_and_back_without_a_lost_request(
    place: Place, loaded: Callable[[], tuple[int, list[str]]]
) -> None:
    assert place.page().text == "first None None"
    env = place.path(place.site.production)
    assert place.caller.http.put(f"{env}/variables/GREETING", json={"value": "hello"}).status_code == 200
    assert place.caller.http.put(f"{env}/secrets/TOKEN", json={"value": "canary-7f3a9c"}).status_code == 200
    place.repository.commit(service("second"))
    place.push()
    assert place.page().text == "second hello canary-7f3a9c"
    back = place.caller.finish(place.start_rollback(place.site.production))
    assert place.page().text == "first None None"
    # The release before was warm: its own instance took over, and none was started.
    assert {status.ref.seq for status in instances(place)} == {1, 3}
    forth = place.start_rollback(place.site.production, place.releases(place.site.production)[1]["id"])
    place.caller.finish(forth)
    assert place.page().text == "second hello canary-7f3a9c"
    seen, faults = loaded()
    assert (faults, seen > 50) == ([], True)
    assert back["result"]["release_id"] == place.releases(place.site.production)[1]["id"]
    assert not [path for path in files_of(place.stack.data / "host") if b"canary-7f3a9c" in path.read_bytes()]


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize(
    ("fault", "code", "word"),
    [
        (service("sick", status=500, timeout=2), "roll.health_failed", "500"),
        (service("dies", start="sys.exit('cannot find the sea')"), "roll.start_failed", "cannot find the sea"),
        (service("deaf", start="time.sleep(600)", timeout=2), "roll.health_failed", "listen on $PORT (8080)"),
        (
            service("unmigrated", more='release_command = "echo no sea; exit 3"'),
            "roll.release_command_failed",
            "3: the switch was not made. Its last lines: no sea",
        ),
    ],
    ids=["sick", "dies", "deaf", "unmigrated"],
)
def test_what_is_not_healthy_is_never_visited(place: Place, fault: dict[str, str], code: str, word: str) -> None:
    place.push()
    place.repository.commit(fault)
    error = place.failed(place.start_push())
    assert error["code"] == code
    assert word in error["message"]
    assert place.page().text == "first None None"
    until(lambda: {one.ref.seq for one in instances(place)} == {1}, "nothing of the fault is left running")
    place.repository.commit(service("third"))
    place.push()
    assert place.page().text == "third None None"


def test_a_download_goes_on_over_a_switch_and_ends_whole(place: Place) -> None:
    place.push()
    place.repository.commit(service("second"))
    built = place.build(env=place.site.production)["artifact_id"]
    bodies: list[bytes] = []
    visitor = threading.Thread(target=lambda: bodies.append(place.page("/slow").body))
    visitor.start()
    place.roll(built, place.site.production)
    assert place.page().text == "second None None"
    visitor.join(60)
    assert bodies == [b"s" * 40]


@pytest.mark.parametrize("whom", ["app", "keeper", "host worker"])
def test_what_is_killed_is_back(place: Place, whom: str) -> None:
    place.push()
    [before] = instances(place)
    if whom == "host worker":
        os.kill(component(place.stack, "host"), signal.SIGKILL)
        assert place.page().text == "first None None"
        place.repository.commit(service("second"))
        place.push()
        assert place.page().text == "second None None"
        assert before.pid in [one.pid for one in instances(place)]
        return
    os.kill(before.pid if whom == "app" else keeper_of(before), signal.SIGKILL)
    until(lambda: [one.pid for one in instances(place)] != [before.pid] and healthy(place), f"the {whom} is back")
    assert len(instances(place)) == 1


@pytest.mark.slow
def test_one_edition_of_a_worker_runs_at_a_time(place: Place) -> None:
    def working() -> set[int]:
        return {one.ref.seq for one in instances(place) if one.ref.process == "worker" and one.state == "running"}

    def web() -> set[int]:
        return {one.ref.seq for one in instances(place) if one.ref.process == "web"}

    more = '[processes]\nworker = "exec sleep 600"'
    place.repository.commit(service("first", more=more))
    place.push()
    assert (working(), web()) == ({1}, {1})
    place.repository.commit(service("second", more=more))
    place.push()
    until(lambda: working() == {3}, "the worker of what is live alone")
    place.caller.finish(place.start_rollback(place.site.production))
    assert web() == {1, 3}, "the warm instance took over, and none was started"
    until(lambda: working() == {1}, "its worker is back, and the other one rests")
    assert place.get(place.site.production, "drifts") == []


def healthy(place: Place) -> bool:
    return place.page().status == 200


def keeper_of(status: Status) -> int:
    pid = status.pid or 0
    while pid > 1:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"keeper import main" in words:
            return pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    raise AssertionError(f"no keeper above {status.pid}")


def component(stack: Stack, name: str) -> int:
    return int(json.loads((stack.data / "run" / f"{name}.json").read_text())["pid"])
