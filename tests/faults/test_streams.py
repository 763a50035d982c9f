"""A reader of a job's events loses the API, twice: each line comes once, in order, and the end too."""

from __future__ import annotations

import pytest

from bench.stack import Stack
from headway.client import Client
from tests.faults.conftest import Visitor
from tests.faults.parts import kill
from tests.faults.repository import CONFIG, Repository
from tests.stack.sites import Place

pytestmark = pytest.mark.slow
LINES = 60


def test_the_api_is_killed_while_a_client_follows_a_push(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor
) -> None:
    command = f"for n in $(seq {LINES}); do echo line $n; sleep 0.1; done; mkdir -p site; cp page.html site/index.html"
    (repository.folder / "headway.toml").write_text(CONFIG.format(command=command))
    (repository.folder / "page.html").write_text("<h1>second edition</h1>\n")
    repository.git("commit", "-qam", "talks")
    said: list[str] = []
    numbers: list[int] = []
    with Client(stack.api, stack.key) as client:
        job = client.deployments.deploy(place.site.id, target="production", ref="main")
        for event in client.jobs.stream(job.id, timeout=120):
            if event.job is not None:
                last = event.job
            if event.line is not None and event.line["stream"] == "stdout":
                said.append(event.line["line"])
                if said[-1] in ("line 10", "line 30"):
                    numbers.append(kill(stack, "api"))
    assert last.status == "succeeded", last.error
    assert said == [f"line {n}" for n in range(1, LINES + 1)]
    assert len(set(numbers)) == 2
    assert "second edition" in place.page().text
    assert len(place.releases(place.site.production)) == 2
    visitor.stop()
    assert visitor.failures == []
