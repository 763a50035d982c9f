"""Retention's run: by a job, which tells what was done, and by the schedule, which a lost Temporal cannot lose."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from activities.retention import REPORT
from store.models import Artifact, Mark, utcnow
from temporal import names
from temporal.schedules import ensure_retention
from tests.workflows.engine import Engine, run_story


def old_artifact(made: Engine) -> str:
    artifact_id = made.world.artifact("a" * 64)
    with made.store.write() as session:
        row = session.get_one(Artifact, artifact_id)
        row.created_at = row.signed_at = utcnow() - timedelta(days=31)
    return artifact_id


def marked(made: Engine, artifact_id: str) -> bool:
    with made.store.read() as session:
        return session.get_one(Artifact, artifact_id).marked_at is not None


def test_a_dry_run_counts_and_a_run_marks(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        old = old_artifact(made)
        looked = await made.run(made.world.accept_retention(dry_run=True))
        assert looked.status == "succeeded"
        assert looked.result is not None
        assert (looked.result["marked"], looked.result["dry_run"], marked(made, old)) == (1, True, False)
        done = await made.run(made.world.accept_retention(dry_run=False))
        assert done.result is not None
        assert (done.result["marked"], done.result["collected"], marked(made, old)) == (1, 0, True)

    run_story(tmp_path, story)


def test_the_schedule_is_made_once_kept_paused_and_runs(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        old = old_artifact(made)
        for hours in (5, 6):
            await ensure_retention(made.client, timedelta(hours=hours))
        handle = made.client.get_schedule_handle(names.RETENTION_SCHEDULE)
        found = (await handle.describe()).schedule
        assert [one.every for one in found.spec.intervals] == [timedelta(hours=6)]
        await handle.pause(note="an operator looks into something")
        await ensure_retention(made.client, timedelta(hours=6))
        assert (await handle.describe()).schedule.state.paused
        await handle.trigger()
        report = await made.until(lambda: reported(made), lambda told: told is not None)
        assert (json.loads(report)["marked"], marked(made, old)) == (1, True)

    run_story(tmp_path, story)


def reported(made: Engine) -> str | None:
    with made.store.read() as session:
        row = session.get(Mark, REPORT)
        return row.value if row is not None else None
