"""Every method of the vendor's client that is not out of scope, synchronous and not, on the embedded stack.

The cases are in tests/stack/sdk_cases.py and sdk_event_cases.py. A method without a case fails, and so does a case that
does not call it.
"""

from __future__ import annotations

from typing import Any

import pytest
from miosa import AsyncMiosa, Miosa

from bench.stack import Stack
from tests.stack import sdk_event_cases  # noqa: F401 - its cases join the others
from tests.stack.sdk_cases import CASES
from tests.stack.sdk_surface import Facts, World, prepare, wanted


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def facts(stack: Stack) -> Facts:
    return prepare(stack)


@pytest.mark.anyio
@pytest.mark.parametrize("flavour", ["sync", pytest.param("async", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(CASES))
async def test_the_client_has_it(stack: Stack, facts: Facts, name: str, flavour: str) -> None:
    methods, run = CASES[name]
    flavours: dict[str, Any] = {"sync": Miosa, "async": AsyncMiosa}
    made = flavours[flavour](api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0)
    world = World.of(stack, made, facts)
    try:
        await run(world)
    finally:
        await world.do(made.close())
    assert set(methods) <= world.called, "a case that does not call what it is about"


def test_every_method_has_a_case() -> None:
    covered = [name for methods, _ in CASES.values() for name in methods]
    assert wanted() - set(covered) == set()
    assert set(covered) - wanted() == set()
