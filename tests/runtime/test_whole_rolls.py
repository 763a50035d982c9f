"""A service's whole roll on a real stack whose apps are kept by somebody else's supervisor than the embedded one."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.runtime.choice import SYSTEMD, driver_of, recorded
from adapters.runtime.docker import DockerDriver
from adapters.runtime.driver import RuntimeDriver, Status
from bench.client import Caller
from bench.stack import Stack
from tests.adapters.repositories import Repository
from tests.runtime import image
from tests.runtime.stage import until
from tests.stack.service_app import service
from tests.stack.sites import Place

NUMBERS = itertools.count(1)
CANARY = "canary-5d1f7b"


@pytest.fixture(
    scope="module",
    params=[pytest.param("docker", marks=pytest.mark.containers), pytest.param("systemd", marks=pytest.mark.slow)],
)
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    chosen = {"HEADWAY_RUNTIME": request.param, "HEADWAY_DRAIN_SECONDS": "20"}
    if request.param == "docker":
        address = os.environ.get("DOCKER_HOST", "")
        if not address.startswith("unix://"):
            pytest.skip("no engine: DOCKER_HOST names no unix socket (see .ci/engine.sh)")
        engine = address.removeprefix("unix://")
        chosen |= {"HEADWAY_ENGINE_SOCKET": engine, "HEADWAY_ENGINE_IMAGE": image.make(Path(engine))}
    elif not SYSTEMD.is_dir() or os.geteuid() != 0:
        pytest.skip("no systemd: it is not PID 1 here, or this is not root (see .ci/systemd.sh)")
    # A short path: unix sockets below it have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hwr-") as folder:
        made = Stack.start(Path(folder), env=chosen)
        try:
            yield made
        finally:
            made.stop()
            keeper = driver(made)
            left = [one for one in keeper.list() if one.state != "stopped"]
            for one in keeper.list():
                keeper.remove(one.ref)
            if isinstance(keeper, DockerDriver):
                keeper.close()
            assert left == [], "`down` stops what others keep, too"


@pytest.fixture(scope="module")
def caller(stack: Stack) -> Iterator[Caller]:
    made = Caller(stack)
    yield made
    made.http.close()


@pytest.fixture
def place(stack: Stack, caller: Caller) -> Place:
    repository = Repository(stack.repos / f"r{next(NUMBERS)}")
    repository.commit(service("first"))
    site = caller.new_site(f"s-{repository.path.name}", repository.path.as_uri(), runtime="auto")
    made = Place(stack, caller, site, repository)
    made.push()
    return made


DRIVERS: dict[Path, RuntimeDriver] = {}


def driver(stack: Stack) -> RuntimeDriver:
    """One for each stack, because an engine's holds a connection."""
    state = stack.data / "host" / "run"
    if state not in DRIVERS:
        DRIVERS[state] = driver_of(recorded(state), state)
    return DRIVERS[state]


def instances(place: Place) -> list[Status]:
    return driver(place.stack).list(place.site.production)


def served(place: Place) -> str:
    try:
        return place.page().text
    except (OSError, http.client.HTTPException):
        return ""


@pytest.fixture
def visitors(place: Place) -> Iterator[Callable[[], tuple[int, list[str]]]]:
    """Somebody at all times; gives how many answers there were, and what went wrong."""
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
            time.sleep(0.01)

    threads = [threading.Thread(target=visit, daemon=True) for _ in range(2)]

    def end() -> tuple[int, list[str]]:
        over.set()
        for thread in threads:
            thread.join(30)
        return seen[0], faults

    for thread in threads:
        thread.start()
    yield end
    end()


def test_forth_and_back_without_a_lost_request(place: Place, visitors: Callable[[], tuple[int, list[str]]]) -> None:
    assert place.page().text == "first None None"
    [first] = {one.ref.seq for one in instances(place)}
    env = place.path(place.site.production)
    place.caller.http.put(f"{env}/variables/GREETING", json={"value": "hello"}).raise_for_status()
    place.caller.http.put(f"{env}/secrets/TOKEN", json={"value": CANARY}).raise_for_status()
    bodies: list[bytes] = []
    download = threading.Thread(target=lambda: bodies.append(place.page("/slow").body))
    place.repository.commit(service("second"))
    job = place.start_push()
    download.start()
    place.caller.finish(job)
    assert place.page().text == f"second hello {CANARY}"
    running = {one.ref.seq for one in instances(place)}
    place.caller.finish(place.start_rollback(place.site.production))
    assert place.page().text == "first None None"
    assert {one.ref.seq for one in instances(place)} == running, "the warm instance took over, and none was started"
    assert first in running
    download.join(60)
    assert bodies == [b"s" * 40]
    seen, faults = visitors()
    assert (faults, seen > 50) == ([], True)
    until(lambda: "edition second, token [TOKEN redacted]" in lines(place), f"the app's lines: {lines(place)}")
    assert lines(place).count("edition second, token [TOKEN redacted]") == 1
    assert CANARY not in "\n".join(lines(place))
    kept = as_kept(place)
    assert "edition second, token [TOKEN redacted]" in kept
    assert CANARY not in kept


def as_kept(place: Place) -> str:
    """What the engine has on its disk, or the journal, of everything that ran."""
    keeper = driver(place.stack)
    if not isinstance(keeper, DockerDriver):
        words = ["journalctl", "--no-pager", "--output=cat"]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    rows = keeper._http.get("/containers/json?all=true").json()
    paths = [keeper._http.get(f"/containers/{row['Id']}/json").json()["LogPath"] for row in rows]
    return "".join(Path(path).read_text() for path in paths if path)


def lines(place: Place) -> list[str]:
    return [row["line"] for row in place.get(place.site.production, "logs?tail=1000")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives each role a uid of its own")
def test_the_host_worker_alone_is_root(stack: Stack) -> None:
    uids = {}
    for role in ("api", "control", "builder", "signing", "host", "rules", "caddy", "weed", "temporal"):
        pid = json.loads((stack.data / "run" / f"{role}.json").read_text())["pid"]
        uids[role] = Path(f"/proc/{pid}").stat().st_uid
    assert [role for role, uid in uids.items() if uid == 0] == ["host"]
    assert len(set(uids.values())) == len(uids)


def test_what_is_not_healthy_or_wants_out_is_never_visited(place: Place) -> None:
    sick = service("sick", status=500, timeout=2)
    greedy = service("greedy", more='egress = ["example.com"]')
    for files, code in ((sick, "roll.health_failed"), (greedy, "runtime.egress_refused")):
        place.repository.commit(files)
        assert place.failed(place.start_push())["code"] == code
        assert place.page().text == "first None None"
        until(lambda: len(instances(place)) == 1, "nothing of the fault is left")


def test_what_is_killed_is_back(place: Place) -> None:
    [before] = instances(place)
    os.kill(before.pid or 0, signal.SIGKILL)
    until(lambda: pids(place) not in ([], [before.pid]) and served(place) == "first None None", "the app is back")
    for pid in doors(place):
        os.kill(pid, signal.SIGKILL)
    until(lambda: served(place) == "first None None", "its door is back")
    [now] = instances(place)
    record = json.loads((place.stack.data / "run" / "host.json").read_text())
    os.kill(int(record["pid"]), signal.SIGKILL)
    assert place.page().text == "first None None"
    place.repository.commit(service("second"))
    place.push()
    assert place.page().text == "second None None"
    assert now.pid in pids(place), "what a killed worker had started is warm still"


def pids(place: Place) -> list[int | None]:
    return [one.pid for one in instances(place) if one.state == "running"]


def doors(place: Place) -> list[int]:
    """The doors of every instance: there is one for each."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"adapters.runtime.door" in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert found
    return found
