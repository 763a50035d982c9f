"""Deliveries and reports by the hundred: their rows are waited for on threads of their own."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from activities.reports import Reports
from activities.webhooks import Webhooks
from adapters.webhooks.sending import Sender
from adapters.webhooks.targets import Targets
from temporal.messages import DeliveryRef, Reported, ReportRef, Tried

pytestmark = pytest.mark.anyio


class SlowStore:
    """Whose writes take as long as they take; nothing is due in it."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def in_write(self, _work: Any) -> None:
        self.goes_on.wait(60)


@pytest.mark.parametrize("kind", ["deliveries", "reports"])
async def test_a_flood_keeps_no_thread_that_a_rollout_is_claimed_on(kind: str) -> None:
    store: Any = SlowStore()
    made: Any
    if kind == "deliveries":
        made = Webhooks(store, None, None, Sender(Targets()), "")  # type: ignore[arg-type]
        flood = [made.deliver(DeliveryRef(f"del_{number}")) for number in range(64)]
    else:
        made = Reports(store, None, None, Targets(), "")  # type: ignore[arg-type]
        flood = [made.report(ReportRef(f"rep_{number}")) for number in range(64)]
    waiting = [asyncio.ensure_future(one) for one in flood]
    try:
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "claimed"), 20) == "claimed"
    finally:
        store.goes_on.set()
    assert {type(one) for one in await asyncio.gather(*waiting)} == {Tried if kind == "deliveries" else Reported}
