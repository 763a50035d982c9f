"""The API's world, seen through this dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.miosa.org import Org, open_org


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def org(tmp_path: Path) -> AsyncIterator[Org]:
    async with open_org(tmp_path) as made:
        yield made
