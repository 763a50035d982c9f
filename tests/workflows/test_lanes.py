"""What takes long on a host has queues of its own: a way back waits for none of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from store.models import Environment
from temporal import worker
from tests.workflows.engine import Engine, run_story


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
