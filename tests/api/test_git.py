"""`git push` by a real git against the API alone; a double ends the jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.models import Build, Environment, Job
from tests.api.git_server import GitWorld, git, git_world

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitWorld]:
    async with git_world(tmp_path) as made:
        yield made


async def test_a_push_deploys_and_its_branch_follows(server: GitWorld) -> None:
    site = await server.site()
    work = server.repository()
    commit = work.commit({"index.html": "one"})
    pushed = await server.push(work, "main")
    print(pushed.text)
    assert pushed.ok, pushed.text
    assert 0
