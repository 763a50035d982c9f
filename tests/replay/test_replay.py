"""Running histories of earlier versions must replay: a change of a workflow that breaks one is caught here, offline."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from activities import references as act
from temporal import names, policies
from temporal.messages import BuildRef, JobRef, Signed
from temporal.worker import workflow_runner
from workflows.stories import ALL

# Not imported from the recorder: the sandbox loads this module again, and what it imports with it.
HISTORIES = Path(__file__).parent / "histories"
CORPUS = sorted(HISTORIES.glob("*.json"))


def replay(path: Path, workflows: list[type], *, strict: bool = True) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    runner = workflow_runner(strict=strict)
    asyncio.run(Replayer(workflows=workflows, workflow_runner=runner).replay_workflow(history))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_recorded_history_replays(path: Path) -> None:
    replay(path, list(ALL))


@pytest.mark.parametrize("name", ["push", "rollback", "roll-two-hosts-go-back"])
def test_it_replays_as_the_worker_runs_it(name: str) -> None:
    replay(HISTORIES / f"{name}.json", list(ALL), strict=False)


def test_every_workflow_has_a_recorded_history() -> None:
    recorded = set()
    for path in CORPUS:
        history = WorkflowHistory.from_json(path.stem, path.read_text())
        recorded.add(history.events[0].workflow_execution_started_event_attributes.workflow_type.name)
    wanted = {workflow._Definition.must_from_class(cls).name for cls in ALL}
    assert recorded == wanted


@workflow.defn(name=names.BUILD)
class SignsBeforeItBuilds:
    """The story in another order: what the corpus must catch."""

    @workflow.run
    async def run(self, ref: JobRef) -> Signed:
        order = await workflow.execute_local_activity(act.claim_build, ref, **policies.RECORD)
        signed = await workflow.execute_activity(act.sign, order, task_queue=names.SIGNING, **policies.SIGN)
        await workflow.execute_activity(act.produce, order, task_queue=names.BUILDERS, **policies.BUILD)
        await workflow.execute_activity(act.succeed_build, BuildRef(order.build_id), **policies.RECORD)
        return signed


def test_a_reordering_is_caught() -> None:
    with pytest.raises(workflow.NondeterminismError):
        replay(HISTORIES / "build-succeeds.json", [SignsBeforeItBuilds])


@workflow.defn(name=names.BUILD)
class ReadsTheClock:
    @workflow.run
    async def run(self, _ref: JobRef) -> float:
        return time.time()


def test_the_clock_is_out_of_reach_of_workflows() -> None:
    with pytest.raises(Exception, match=r"Cannot access time\.time"):
        replay(HISTORIES / "build-succeeds.json", [ReadsTheClock])
