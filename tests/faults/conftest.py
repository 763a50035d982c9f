"""A stack to be hurt, and a visitor who must never notice."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from bench.client import Caller, Site
from bench.stack import Stack
from tests.faults.repository import Repository
from tests.stack.sites import Place

NUMBERS = itertools.count(1)
# A replaced service leaves soon, so that its leaving can be disturbed.
SETTINGS = {"HEADWAY_WARM_SECONDS": "3", "HEADWAY_DRAIN_SECONDS": "10"}
SAMPLED = 6
ITSELF = ("test_kill.py", "test_service_kills.py")
# A minute each, for tasks that a stopped worker had asked for.
LONG = {"test_another_worker_takes_over_and_the_first_one_comes_back_too_late"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """HEADWAY_FAULTS=sample: some of them, the same ones for the same HEADWAY_TEST_SEED. Kills sample themselves."""
    if os.environ.get("HEADWAY_FAULTS") != "sample":
        return
    here = Path(__file__).parent
    ours = [one for one in items if one.path.parent == here and one.path.name not in ITSELF]
    candidates = sorted((one for one in ours if one.name not in LONG), key=lambda one: one.nodeid)
    chance = random.Random(int(os.environ.get("HEADWAY_TEST_SEED", "20240917")))
    kept = chance.sample(candidates, min(SAMPLED, len(candidates)))
    left_out = [one for one in ours if one not in kept]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [one for one in items if one not in left_out]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    # A short path: unix sockets below it have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hwf-") as folder:
        made = Stack.start(Path(folder), env=SETTINGS)
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def caller(stack: Stack) -> Iterator[Caller]:
    made = Caller(stack)
    yield made
    made.http.close()


@pytest.fixture
def repository(stack: Stack, request: pytest.FixtureRequest) -> Repository:
    stem = "".join(letter if letter.isalnum() else "-" for letter in request.node.originalname)[:36].strip("-")
    return Repository(stack.repos / f"{stem}-{next(NUMBERS)}")


@pytest.fixture
def site(caller: Caller, repository: Repository) -> Site:
    """A site that serves `first edition` in production."""
    repository.commit("first edition")
    made = caller.new_site(repository.folder.name, repository.folder.as_uri())
    caller.finish(caller.push(made, "production"))
    return made


@pytest.fixture
def place(stack: Stack, caller: Caller, site: Site, repository: Repository) -> Place:
    return Place(stack, caller, site, repository)


class Visitor(threading.Thread):
    """Reads the front page over new connections until told to stop, and keeps what it saw."""

    def __init__(self, stack: Stack, hostname: str) -> None:
        super().__init__(daemon=True)
        self.url, self.hostname = f"http://127.0.0.1:{stack.sites_port}/", hostname
        self.seen: list[str] = []
        self.failures: list[str] = []
        self.ended = threading.Event()

    def look(self) -> str:
        # No certificate is looked at: to load them takes longer than a release may live.
        answer = httpx.get(self.url, headers={"Host": self.hostname}, timeout=10, trust_env=False, verify=False)  # noqa: S501
        assert answer.status_code == 200, f"{answer.status_code} from {self.hostname}"
        return answer.text

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                page = self.look()
                if not self.seen or self.seen[-1] != page:
                    self.seen.append(page)
            except (httpx.HTTPError, AssertionError) as error:
                self.failures.append(repr(error))
            time.sleep(0.02)

    def stop(self) -> None:
        self.ended.set()
        self.join()


@pytest.fixture
def visitor(stack: Stack, site: Site) -> Iterator[Visitor]:
    thread = Visitor(stack, site.production_host)
    thread.seen.append(thread.look())
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def until() -> Callable[[Callable[[], bool], str], None]:
    def wait(good: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not good():
            assert time.monotonic() < deadline, f"gave up waiting until {what}"
            time.sleep(0.01)

    return wait
