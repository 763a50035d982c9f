"""What is shown before its run has done a step: the run ends it right, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from temporalio.client import Client

from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import Json, Until, frozen, in_temporal, kill, patiently, pid_of
from tests.faults.repository import Repository
from tests.stack.sites import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def shown(place: Place, repository: Repository, visitor: Visitor, until: Until) -> Iterator[Json]:
    """A rollback that is live while nobody has worked on its run: the control worker is frozen until the test ends."""
    repository.commit("second edition")
    place.push()
    with frozen(pid_of(place.stack, "control")):
        job = place.start_rollback(place.site.production)
        until(lambda: "first edition" in place.page().text, "the release before is shown")
        yield place.caller.get(f"/v1/jobs/{job['id']}")
    visitor.stop()
    assert visitor.failures == []
    assert ["first edition" in page for page in visitor.seen] == [True, False, True], "once there and once back"


def ends_right(place: Place, job: Json) -> None:
    ended = patiently(place.caller, job)
    assert ended["status"] == "succeeded", ended["error"]
    releases = place.releases(place.site.production)
    assert [row["current"] for row in releases] == [True, False, False]
    assert ended["result"]["release_id"] == releases[0]["id"]
    assert "first edition" in place.page().text


def goes_on(stack: Stack) -> None:
    """The control worker, before the fixture lets it go on at the end."""
    with frozen(pid_of(stack, "control")):
        pass


def test_its_run_joins_what_is_live(place: Place, shown: Json) -> None:
    assert (shown["status"], shown["stage"]) == ("running", "switch")
    goes_on(place.stack)
    ends_right(place, shown)


@pytest.mark.parametrize("victim", ["control", "host", "api", "temporal"])
def test_whoever_is_killed_then(place: Place, shown: Json, victim: str) -> None:
    kill(place.stack, victim)
    if victim != "control":
        goes_on(place.stack)
    ends_right(place, shown)


def test_it_can_no_longer_be_canceled(place: Place, shown: Json) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        place.caller.post(f"/v1/jobs/{shown['id']}/cancel")
    assert (caught.value.response.status_code, caught.value.response.json()["error"]["code"]) == (
        409,
        "job.not_cancelable",
    )
    goes_on(place.stack)
    ends_right(place, shown)


def test_a_run_that_an_operator_terminates_is_ended_by_what_is_live(place: Place, shown: Json) -> None:
    async def terminate(client: Client) -> None:
        await client.get_workflow_handle(shown["id"]).terminate("by an operator")

    in_temporal(place.stack, terminate)
    goes_on(place.stack)
    ends_right(place, shown)
