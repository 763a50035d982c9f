"""Claims under concurrency: one rollout at a time, numbers that only grow, terminal states that stay."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, text, update
from sqlmodel import col, select

from headway.errors import HeadwayError
from store import queue
from store.jobs import cancel_job, note_progress
from store.models import Build, Environment, Job, Release, Rollout, utcnow
from store.outcomes import append_release, end_job, end_rollout, fail_build, located
from store.session import Store
from tests.workflows.rows import World, claim_next


@pytest.fixture
def world(store: Store) -> World:
    return World.make(store)


def claim(world: World) -> Rollout | None:
    return world.store.in_write(lambda session: claim_next(session, world.env_id))


def test_many_claimers_get_one_rollout(world: World) -> None:
    artifact = world.artifact("a" * 64)
    jobs = [world.accept_roll(artifact) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim(world), range(16)))
    assert {rollout.id for rollout in claimed if rollout} == {jobs[0].resource_id}
    assert {(rollout.apply_seq, rollout.undo_seq) for rollout in claimed if rollout} == {(1, 2)}


def test_sixteen_writers_are_never_told_that_the_database_is_locked(world: World) -> None:
    artifact = world.artifact("a" * 64)

    def write(number: int) -> int:
        for _ in range(12):
            world.accept_roll(artifact)
        return number

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(write, range(16))) == list(range(16))
    with world.store.read() as session:
        numbers = [rollout.accept_seq for rollout in session.exec(select(Rollout)).all()]
        assert session.get_one(Environment, world.env_id).accept_seq == 16 * 12
    assert sorted(numbers) == list(range(1, 16 * 12 + 1))


def test_a_word_that_comes_late_does_not_bring_back_a_step_before_the_switch(world: World) -> None:
    job = world.accept_roll(world.artifact("a" * 64))
    rollout = claim(world)
    assert rollout is not None

    def tell(stage: str) -> str | None:
        world.store.in_write(lambda session: note_progress(session, job.id, stage, None))
        return world.job(job.id).stage

    assert tell("health") == "health"
    assert tell("place") == "place"  # another try
    world.store.in_write(lambda session: queue.commit_rollout(session, rollout.id))
    assert tell("place") == "switch"
    world.store.in_write(lambda session: queue.begin_bake(session, rollout.id))
    assert tell("place") == "bake"
    with world.store.write() as session:
        assert cancel_job(session, session.get_one(Job, job.id)).cancel_requested_at is not None
    assert tell("drain") == "drain"


def test_on_sqlite_a_transaction_reads_a_row_once(world: World) -> None:
    """A lock is the transaction itself there, and nothing changes beside it; elsewhere a lock is asked for."""
    job = world.accept_roll(world.artifact("a" * 64))
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    with world.store.write() as session:
        event.listen(world.store.engine, "before_cursor_execute", note)
        for _ in range(3):
            row = session.get_one(Job, job.id, with_for_update=True)
            session.refresh(row, with_for_update=True)
        session.execute(update(Job).where(col(Job.id) == job.id).values(stage="changed"))
        assert session.get_one(Job, job.id, with_for_update=True).stage == "changed"
        event.remove(world.store.engine, "before_cursor_execute", note)
    reads = [one for one in asked if one.startswith("SELECT")]
    assert len(reads) == (1 if world.store.engine.dialect.name == "sqlite" else 7)


def test_the_threads_of_a_process_never_wait_at_sqlites_own_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.session.BUSY_TIMEOUT_MS", 0)
    store = Store.open(f"sqlite:///{tmp_path / 'counted.sqlite'}")
    with store.write() as session:
        session.execute(text("CREATE TABLE counted (number INTEGER)"))

    def write(number: int) -> None:
        for _ in range(12):
            with store.write() as session:
                session.execute(text("INSERT INTO counted VALUES (:number)"), {"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with store.read() as session:
        assert session.execute(text("SELECT count(*) FROM counted")).scalar_one() == 8 * 12
    store.close()


def test_a_release_is_appended_once(world: World) -> None:
    job = world.accept_roll(world.artifact("a" * 64))
    claim(world)

    def append(_: int) -> str:
        return world.store.in_write(lambda session: append_release(session, job.resource_id, "http://x").id)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(append, range(12)))) == 1
    with world.store.read() as session:
        assert len(session.exec(select(Release)).all()) == 1
        assert session.get_one(Job, job.id).status == "succeeded"


def test_an_end_is_final(world: World) -> None:
    job = world.accept_roll(world.artifact("a" * 64))
    claim(world)
    world.store.in_write(lambda session: append_release(session, job.resource_id, None).id)
    with world.store.write() as session:
        end_rollout(session, session.get_one(Rollout, job.resource_id), "failed", {"code": "job.lost"})
        end_job(session, session.get_one(Job, job.id), "failed", error={"code": "job.lost"})
    row = world.job(job.id)
    assert (row.status, row.error) == ("succeeded", None)
    with world.store.read() as session:
        assert session.get_one(Rollout, job.resource_id).status == "succeeded"


def test_the_cancel_flag_and_the_point_of_no_return_exclude_each_other(world: World) -> None:
    early, late = (world.accept_roll(world.artifact(digit * 64)) for digit in "ab")
    claim(world)
    with world.store.write() as session:
        session.get_one(Job, early.id).cancel_requested_at = utcnow()
    with pytest.raises(HeadwayError) as refused:
        world.store.in_write(lambda session: queue.commit_rollout(session, early.resource_id))
    assert refused.value.code == "job.canceled"
    with world.store.write() as session:
        end_rollout(session, session.get_one(Rollout, early.resource_id), "canceled", {"code": "job.canceled"})
    claim(world)
    committed = world.store.in_write(lambda session: queue.commit_rollout(session, late.resource_id))
    assert committed.stage == "switch"
    assert world.job(late.id).committed_at is not None


def test_an_older_rollout_of_a_branch_is_superseded(world: World) -> None:
    old, new = world.accept_push("a"), world.accept_push("b")
    artifact = world.artifact("a" * 64)
    world.store.in_write(lambda session: queue.ready_rollout(session, new.resource_id, artifact))
    claimed = claim(world)
    assert claimed is not None
    assert claimed.id == new.resource_id
    world.store.in_write(lambda session: append_release(session, new.resource_id, None).id)
    world.store.in_write(lambda session: queue.ready_rollout(session, old.resource_id, artifact))
    assert claim(world) is None
    ended = world.job(old.id)
    assert (ended.status, ended.error) == (
        "canceled",
        {
            "code": "job.superseded",
            "message": f"Deployment {new.resource_id} was accepted later and has taken its place.",
        },
    )
    assert ended.result == {"superseded_by": new.id}


def test_other_branches_and_plain_deploys_are_not_superseded(world: World) -> None:
    artifact = world.artifact("a" * 64)
    first, other, plain = world.accept_push(branch="x"), world.accept_push(branch="y"), world.accept_roll(artifact)
    for job in (other, first):
        world.store.in_write(lambda session, job=job: queue.ready_rollout(session, job.resource_id, artifact))
    order = []
    while (rollout := claim(world)) is not None:
        order.append(rollout.id)
        world.store.in_write(lambda session, rollout=rollout: append_release(session, rollout.id, None).id)
    assert order == [first.resource_id, other.resource_id, plain.resource_id]


def test_a_build_that_ends_late_does_not_undo_a_rollback(world: World) -> None:
    artifact = world.artifact("a" * 64)
    push, rollback = world.accept_push("slow"), world.accept_roll(artifact, kind="rollback")
    assert claim(world) is not None
    world.store.in_write(lambda session: append_release(session, rollback.resource_id, None).id)
    world.store.in_write(lambda session: queue.ready_rollout(session, push.resource_id, artifact))
    assert claim(world) is None
    ended = world.job(push.id)
    assert (ended.status, (ended.error or {})["code"]) == ("canceled", "job.superseded")


def test_a_failed_build_names_the_stage_that_it_had_come_to(world: World) -> None:
    job = world.accept_build()
    with world.store.write() as session:
        session.get_one(Build, job.resource_id).stage = "fetch"
    with world.store.write() as session:
        error = {"code": "repository.empty", "message": "There is no commit.", "stage": "build"}
        build = fail_build(session, job.resource_id, error, canceled=False)
        assert build.error is not None
        assert build.error["stage"] == "fetch"
        ended = session.get_one(Job, job.id).error
        assert ended is not None
        assert ended["stage"] == "fetch"
        assert located({"code": "sign.failed", "stage": "sign"}, build)["stage"] == "sign"
