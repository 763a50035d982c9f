"""kill -9 of the signing worker while it signs: its beat is missed, and another signs long before the try is over."""

from __future__ import annotations

import os
import signal

import pytest
from temporalio.api.enums.v1 import TimeoutType
from temporalio.client import Client

from tests.faults.parts import Until, frozen, in_hand, in_temporal, patiently, pid_of
from tests.faults.repository import Repository
from tests.stack.sites import Place

pytestmark = pytest.mark.slow


def test_a_killed_one_is_missed_by_its_beat(place: Place, repository: Repository, until: Until) -> None:
    repository.commit("second edition")
    signing = pid_of(place.stack, "signing")
    with frozen(signing):
        job = place.caller.push(place.site, "production")
        until(lambda: in_hand(place.stack, job["id"], "build.sign") == "started", "it is to sign")
        os.kill(signing, signal.SIGKILL)
    ended = patiently(place.caller, job)
    assert ended["status"] == "succeeded", ended["error"]

    async def tries(client: Client) -> list[tuple[int, int]]:
        history = await client.get_workflow_handle(job["id"]).fetch_history()
        signed = {
            event.event_id
            for event in history.events
            if event.activity_task_scheduled_event_attributes.activity_type.name == "build.sign"
        }
        begun = [event.activity_task_started_event_attributes for event in history.events]
        return [
            (one.attempt, one.last_failure.timeout_failure_info.timeout_type)
            for one in begun
            if one.scheduled_event_id in signed
        ]

    assert in_temporal(place.stack, tries) == [(2, TimeoutType.TIMEOUT_TYPE_HEARTBEAT)]
    assert len(place.releases(place.site.production)) == 2
