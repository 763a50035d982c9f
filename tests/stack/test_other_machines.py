"""A host and a builder that have nothing of the API's machine but addresses and a credential: the broker by TLS."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.repositories import QUIET, Repository
from tests.stack.second_host import HEADWAY, SecondHost, joined
from tests.stack.service_app import service
from tests.stack.sites import Place
from tests.stack.test_services import until

pytestmark = pytest.mark.slow
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def broker() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def stack(broker: str) -> Iterator[Stack]:
    # A short path: unix sockets below it have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hwm-") as folder:
        made = Stack.start(Path(folder), env={"HEADWAY_BROKER_LISTEN": broker})
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def caller(stack: Stack) -> Iterator[Caller]:
    made = Caller(stack)
    yield made
    made.http.close()


@pytest.fixture(scope="module")
def second(stack: Stack, caller: Caller, broker: str) -> Iterator[SecondHost]:
    with (
        tempfile.TemporaryDirectory(prefix="hwm-") as folder,
        joined(stack, Path(folder), "second", "pair", broker=broker) as made,
    ):
        until(lambda: caller.http.get("/v1/hosts/local").status_code == 200, "the host beside the API is registered")
        caller.http.put("/v1/hosts/local/labels", json={"labels": ["pair"]}).raise_for_status()
        until(lambda: caller.get("/v1/hosts/second")["public_key"] is not None, "the second host is registered")
        yield made


def test_a_release_is_built_and_served_elsewhere(stack: Stack, caller: Caller, second: SecondHost, broker: str) -> None:
    repository = Repository(stack.repos / f"r{next(NUMBERS)}")
    repository.commit(service("first"))
    place = Place(
        stack,
        caller,
        caller.new_site(f"s-{repository.path.name}", repository.path.as_uri(), runtime="auto"),
        repository,
    )
    env = place.path(place.site.production)
    caller.http.patch(env, json={"host_labels": ["pair"]}).raise_for_status()
    caller.http.put(f"{env}/secrets/TOKEN", json={"value": "canary-81c2"}).raise_for_status()
    # Of the builders only the one elsewhere works.
    own = int(json.loads((stack.data / "run" / "builder.json").read_text())["pid"])
    os.kill(own, signal.SIGSTOP)
    try:
        start_builder(stack, second, broker)
        place.push()
        assert caller.get("/v1/builders/third/builds")[0]["builder"] == "third"
        # The site's own repository lies beside the API alone.
        own_site = pushed(stack, caller, repository)
        assert caller.get(f"/v1/sites/{own_site}/environments")[0]["status"] == "active"
        assert caller.get("/v1/builders/third/builds")[0]["site_id"] == own_site
        # A builder that was removed ends itself, and what it would have built is the others'.
        caller.http.delete("/v1/builders/third").raise_for_status()
        place.repository.commit(service("after"))
        place.start_push()
        assert second.processes["builder"].wait(90) == 0
    finally:
        os.kill(own, signal.SIGCONT)
    until(lambda: place.page().text == "after None canary-81c2", "another builder has built it")
    place.repository.commit(service("first"))
    place.push()
    assert place.page().text == "first None canary-81c2"
    assert second.visit(place.site.production_host).text == "first None canary-81c2"

    # One that was removed gets nothing any more; what it serves it serves on.
    caller.http.delete("/v1/hosts/second").raise_for_status()
    place.repository.commit(service("second"))
    place.push()
    assert place.page().text == "second None canary-81c2"
    assert second.visit(place.site.production_host).text == "first None canary-81c2"
    log = second.data / "worker.log"
    until(lambda: "There is no such credential" in log.read_text(), "it is told that it is not known")


def pushed(stack: Stack, caller: Caller, repository: Repository) -> str:
    """A site that the platform hosts, with a commit that git has pushed, and waited for."""
    made = caller.finish(caller.post("/v1/sites", {"name": f"own-{repository.path.name}", "runtime": "auto"}))
    site_id = str(made["resource"]["id"])
    at = str(caller.get(f"/v1/sites/{site_id}")["git_url"]).replace("://", f"://any:{stack.key}@")
    subprocess.run(["git", "push", "-q", at, "main"], cwd=repository.path, env=QUIET, check=True, timeout=280)
    return site_id


def let_in(stack: Stack, papers: Path) -> None:
    asked = {**os.environ, "HEADWAY_API_URL": stack.api, "HEADWAY_TOKEN": stack.key}
    words = ("builders", "add", "third", "--output", str(papers))
    subprocess.run([*HEADWAY, *words], env=asked, check=True, timeout=60)


def start_builder(stack: Stack, second: SecondHost, broker: str) -> None:
    papers = second.data / "builder-papers"
    let_in(stack, papers)
    data = second.data / "builder"
    data.mkdir()
    more = {
        "HEADWAY_DATA_DIR": str(data),
        "HEADWAY_BROKER_ADDRESS": broker,
        "HEADWAY_BROKER_TOKEN_FILE": str(papers / "builder.token"),
        "HEADWAY_BROKER_ROOT_FILE": str(papers / "broker.pem"),
        "HEADWAY_LOCAL_REPOS": json.dumps([str(stack.repos)]),
    }
    before, second.env = second.env, {**second.env, **more}
    second.start("builder", *HEADWAY, "worker", "--role", "builder")
    second.env = before
