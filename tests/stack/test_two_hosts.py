"""Two real hosts: one release on both or on neither, whichever of them dies; who was away catches up by itself."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from typing import Any

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewRepository
from tests.stack.second_host import SecondHost, joined
from tests.stack.service_app import service
from tests.stack.sites import Place
from tests.stack.test_services import until

Json = dict[str, Any]


@pytest.fixture(scope="module")
def second(stack: Stack, caller: Caller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondHost]:
    with joined(stack, tmp_path_factory.mktemp("h"), "second", "pair") as made:
        until(lambda: caller.http.get("/v1/hosts/local").status_code == 200, "the host beside the API is registered")
        caller.http.put("/v1/hosts/local/labels", json={"labels": ["pair"]}).raise_for_status()
        until(lambda: caller.get("/v1/hosts/second")["public_key"] is not None, "the second host is registered")
        yield made


@pytest.fixture
def place(stack: Stack, caller: Caller, new_repository: NewRepository) -> Place:
    repository = new_repository(service("first"))
    site = caller.new_site(f"s-{repository.path.name}", repository.path.as_uri(), runtime="auto")
    return Place(stack, caller, site, repository)


def change(place: Place, **fields: Any) -> None:
    place.caller.http.patch(place.path(place.site.production), json=fields).raise_for_status()


def served(place: Place, second: SecondHost) -> tuple[str, str]:
    """What visitors get on each."""
    there = second.visit(place.site.production_host)
    return place.page().text, there.text if there.status == 200 else str(there.status)


def deployment(place: Place, job: Json) -> Json:
    found: Json = place.get(place.site.production, "deployments", job["resource"]["id"])
    return found


@pytest.mark.slow
def test_two_hosts_serve_one_release_and_who_was_away_catches_up(place: Place, second: SecondHost) -> None:
    place.push()
    change(place, host_labels=["pair"])
    until(lambda: served(place, second) == ("first None None",) * 2, "the environment comes to the new host by itself")

    place.repository.commit(service("second"))
    both = deployment(place, place.push())
    assert (both["hosts"], both["hosts_away"]) == (["local", "second"], [])
    assert served(place, second) == ("second None None",) * 2

    # Past the gate one of them dies in its switch: all go back, and it, too, once it is there again.
    place.repository.commit(service("third"))
    with (second.environment(place.site.production) / "lock").open("rb+") as lock:
        env = second.environment(place.site.production)
        before = {path.name for path in (env / "r").iterdir()}
        job = place.start_push()
        until(lambda: {path.name for path in (env / "r").iterdir()} > before, "the third release is placed there")
        until(lambda: place.caller.get(f"/v1/jobs/{job['id']}")["stage"] in ("health", "switch"), "it is judged")
        fcntl.flock(lock, fcntl.LOCK_EX)
        until(lambda: place.caller.get(f"/v1/jobs/{job['id']}")["stage"] == "switch", "the gate is passed")
        second.kill_worker()
    error = place.failed(job)
    assert error["code"] == "host.away"
    assert "second" in error["message"]
    assert served(place, second) == ("second None None",) * 2
    second.start_worker()
    until(lambda: not unmended(place), "the second host was told what is live")
    assert served(place, second) == ("second None None",) * 2

    # It is away for a whole rollout, and the environment goes on without it.
    change(place, away="skip")
    second.kill_worker()
    place.repository.commit(service("fourth"))
    alone = deployment(place, place.push())
    assert (alone["status"], alone["hosts_away"]) == ("succeeded", ["second"])
    assert served(place, second) == ("fourth None None", "second None None")
    second.start_worker()
    until(lambda: served(place, second) == ("fourth None None",) * 2, "it has caught up by itself")
    until(lambda: not unmended(place), "and that is known")
    kinds = [row["kind"] for row in place.get(place.site.production, "deployments?limit=100")]
    assert kinds.count("repair") >= 2


def unmended(place: Place) -> list[Json]:
    rows: list[Json] = place.get(place.site.production, "drifts?limit=100")
    return [row for row in rows if row["kind"] == "host" and row["mended_at"] is None]
