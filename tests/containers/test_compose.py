"""docker-compose.yml, really run: a deploy, a promotion, a rollback, and parts that go down in the middle of a job."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.repositories import Repository
from tests.containers.compose import REPOS, Compose, docker
from tests.faults.parts import patiently
from tests.stack.sites import Place

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
NUMBERS = itertools.count(1)
PAGE = "<!doctype html><title>{0}</title><h1>{0}</h1>\n"
# Long enough for parts to go away and come back in its middle; the test waits for its lines, not for time.
SLOW = '[build]\ncommand = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo step $n; sleep 1; done"\noutput = "."\n'


@pytest.fixture
def place(stack: Stack, caller: Caller) -> Place:
    repository = Repository(REPOS / f"c{next(NUMBERS)}")
    repository.commit({"index.html": PAGE.format("one")})
    return Place(stack, caller, caller.new_site(f"c-{repository.path.name}", repository.path.as_uri()), repository)


def until(holds: Callable[[], bool], what: str, patience: float = 90) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_nobody_has_more_than_he_needs(compose: Compose) -> None:
    """What stands in the file is what the engine does: users, roots, capabilities, and who may make a sandbox."""
    ours = [one for one in compose.containers() if one["State"] == "running"]
    loose = set()
    for one in ours:
        facts = json.loads(docker("inspect", one["Name"]))[0]
        host, service = facts["HostConfig"], one["Service"]
        assert not host["Privileged"]
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"], service
        if not service.startswith("temporal"):
            assert facts["Config"]["User"] not in ("", "0", "root"), service
            assert host["ReadonlyRootfs"], service
        if any("unconfined" in option for option in host["SecurityOpt"]):
            loose.add(service)
        # No secret in an environment that `docker inspect` shows.
        for secret in (compose.folder / "secrets").iterdir():
            if secret.name != "s3.json":
                assert secret.read_text().strip() not in json.dumps(facts["Config"]), (service, secret.name)
    assert loose == {"builder", "host"}
    assert len(compose.names("api")) == 2


def test_deploy_promote_roll_back(place: Place) -> None:
    artifact = place.build()["artifact_id"]
    place.roll(artifact, place.site.staging)
    assert place.page(env=place.site.staging).text == PAGE.format("one")
    place.caller.finish(place.start_promotion())
    assert place.page().text == PAGE.format("one")
    place.repository.commit({"index.html": PAGE.format("two")})
    place.push()
    assert place.page().text == PAGE.format("two")
    place.caller.finish(place.start_rollback(place.site.production))
    assert place.page().text == PAGE.format("one")
    assert [row["artifact_id"] == artifact for row in place.releases(place.site.production)] == [True, False, True]


def test_an_api_and_a_worker_restarted_in_the_middle_of_a_job(compose: Compose, place: Place) -> None:
    """The builder is killed once the build prints, both replicas are restarted one after the other: one release."""
    place.repository.commit({"index.html": PAGE.format("slow"), "headway.toml": SLOW})
    job = place.start_push()

    def printed(line: str) -> bool:
        return any(
            line in docker("exec", name, "sh", "-c", f"cat /data/events/{job['id']}.jsonl 2>/dev/null || true")
            for name in compose.names("api")[:1]
        )

    until(lambda: printed("step 2"), "the build never printed")
    for name in compose.names("api"):
        docker("restart", "--time", "10", name)
    docker("kill", *compose.names("control"))
    docker("start", *compose.names("control"))
    docker("restart", "--time", "0", *compose.names("builder"))
    ended = patiently(place.caller, job)
    assert ended["status"] == "succeeded", ended
    assert place.page().text == PAGE.format("slow")
    assert len(place.releases(place.site.production)) == 1


def test_one_replica_is_enough(compose: Compose, place: Place) -> None:
    """With a replica stopped every call is answered, and the broker is reached by the other's socket."""
    gone = compose.names("api")[0]
    docker("stop", "--time", "10", gone)
    try:
        for _ in range(20):
            assert place.caller.http.get("/v1/sites").status_code == 200
        place.push()
        assert place.page().text == PAGE.format("one")
    finally:
        docker("start", gone)
