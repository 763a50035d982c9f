"""What takes long, or waits for strangers, has queues of its own: a way back and an end wait for none of it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from store.models import Environment
from temporal import names, worker
from temporal.messages import DeliveryRef
from tests.adapters.receiver import Receiver
from tests.workflows.engine import Engine, run_story
from tests.workflows.test_deliver import listen, ping


def test_commands_bakes_and_slow_starts_hold_back_no_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One place in each lane: whoever has it holds up what comes behind it there, and nothing else.
    monkeypatch.setattr(worker, "HOST_THREADS", dict.fromkeys(worker.HOST_THREADS, 1))

    async def story(made: Engine) -> None:
        host, world = made.host, made.world
        baked, slow = world.beside("baked"), world.beside("slow")
        artifact = world.artifact("a" * 64, "dynamic")
        gate = host.run_gate = host.bake_gate = asyncio.Event()
        with made.store.write() as session:
            session.get_one(Environment, baked.env_id).bake_seconds = 600
        held = [baked.accept_roll(artifact)]
        await made.start(held[0])
        await made.until(lambda: len(host.baking), lambda seen: seen == 1)
        for one in (artifact, world.artifact("b" * 64, "dynamic")):
            assert (await made.run(world.accept_roll(one))).status == "succeeded"
        held.append(world.accept_command())
        await made.start(held[-1])
        await made.until(lambda: len(host.running), lambda seen: seen == 1)
        host.place_gate, host.place_free = gate, ("rollback", "suspend")
        placed = len(host.placing)
        held.append(slow.accept_roll(artifact))
        await made.start(held[-1])
        await made.until(lambda: len(host.placing), lambda seen: seen == placed + 1)
        more = [world.accept_command(), slow.accept_roll(artifact)]
        for job in more:
            await made.start(job)
        back = await made.run(world.accept_roll(artifact, kind="rollback"))
        assert back.status == "succeeded"
        assert [world.job(job.id).finished_at for job in held] == [None] * 3
        gate.set()
        # The double has one fence for all environments: what is placed last there need not succeed.
        ended = [await made.ended(job) for job in (*held, *more)]
        assert [job.status for job in (ended[0], ended[1], ended[3])] == ["succeeded"] * 3

    run_story(tmp_path, story)


def test_receivers_that_never_answer_hold_back_no_end_of_a_rollout(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        answering = threading.Event()
        # One more than the control worker has places for its own work.
        many = worker.Role(names.CONTROL, []).threads + 1

        def wait() -> int:
            answering.wait(60)
            return 200

        with Receiver([wait] * many) as receiver:
            endpoint, _ = listen(made, receiver.url)
            runs = []
            for _ in range(many):
                ref = DeliveryRef(ping(made, endpoint))
                id = names.delivery_workflow(ref.delivery_id)
                runs.append(await made.client.start_workflow(names.DELIVER, ref, id=id, task_queue=names.CONTROL))
            await made.until(lambda: len(receiver.got), lambda seen: seen == many)
            made.host.refuse = "artifact.signature_invalid"
            ended = await made.run(made.world.accept_roll(made.world.artifact("a" * 64)))
            assert (ended.status, answering.is_set()) == ("failed", False)
            answering.set()
            await asyncio.gather(*(run.result() for run in runs))

    run_story(tmp_path, story)
