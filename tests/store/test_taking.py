"""A host takes a rollout up by itself: what the order of the rows gives it, or nothing, and then nothing changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlmodel import select

from headway.errors import HeadwayError
from store.fleet import choose_hosts
from store.labels import labels_of_job
from store.models import Artifact, Build, Environment, Job, Rollout, utcnow
from store.models_configuration import Host
from store.outcomes import end_rollout
from store.session import Store
from store.taking import Later, take
from tests.workflows.rows import World, claim_next


@pytest.fixture
def world(store: Store) -> World:
    return World.make(store)


def rows(world: World) -> list[dict[str, Any]]:
    with world.store.read() as session:
        kinds = (Environment, Rollout, Job, Build)
        return [one.model_dump() for kind in kinds for one in session.exec(select(kind).order_by(kind.id)).all()]


def taken(world: World, job: Job, host: str = "local") -> Rollout | None:
    try:
        return world.store.in_write(lambda session: take(session, job.id, host))
    except Later:
        return None


def hint(world: World, job: Job) -> str:
    with world.store.read() as session:
        return labels_of_job(session, job).host


def test_it_is_claimed_as_its_own_run_would(world: World) -> None:
    job = world.accept_roll(world.artifact("a" * 64))
    assert hint(world, job) == "local"
    for _ in range(2):  # an answer may be lost
        rollout = taken(world, job)
        assert rollout is not None
        assert (rollout.id, rollout.status, rollout.apply_seq, rollout.undo_seq) == (job.resource_id, "running", 1, 2)
    assert (world.job(job.id).status, world.environment().fence_seq) == ("running", 2)
    with world.store.read() as session:
        claimed = claim_next(session, world.env_id)
        assert claimed is not None
        assert (claimed.id, claimed.apply_seq) == (rollout.id, 1)


def test_what_is_not_next_is_left_as_it_was(world: World) -> None:
    first, second = (world.accept_roll(world.artifact(seal * 64)) for seal in "ab")
    assert (hint(world, first), hint(world, second)) == ("", "")
    before = rows(world)
    assert taken(world, second) is None
    assert rows(world) == before
    assert taken(world, first) is not None
    running = rows(world)
    back = world.accept_roll(world.artifact("c" * 64), "rollback")
    assert (hint(world, back), taken(world, back)) == ("", None)
    world.store.in_write(lambda session: session.delete(session.get_one(Rollout, back.resource_id)))
    world.store.in_write(lambda session: session.delete(session.get_one(Job, back.id)))
    assert [row for row in rows(world) if "accept_seq" not in row] == [r for r in running if "accept_seq" not in r]


@pytest.mark.parametrize("end", ["canceled", "superseded", "failed"])
def test_what_has_ended_is_not_taken(world: World, end: str) -> None:
    job = world.accept_roll(world.artifact("a" * 64))
    with world.store.write() as session:
        end_rollout(session, session.get_one(Rollout, job.resource_id), end, {"code": "job.canceled", "message": "x"})
    before = rows(world)
    assert taken(world, job) is None
    assert rows(world) == before


def test_a_cancel_that_came_first_is_its_own_runs_to_carry_out(world: World) -> None:
    job = world.accept_roll(world.artifact("a" * 64))
    world.store.in_write(lambda session: setattr(session.get_one(Job, job.id), "cancel_requested_at", utcnow()))
    before = rows(world)
    assert taken(world, job) is None
    assert rows(world) == before


def test_a_push_is_taken_when_it_is_signed(world: World) -> None:
    job = world.accept_push()
    assert hint(world, job) == "local"
    other = world.accept_roll(world.artifact("b" * 64))
    assert hint(world, job) == "local", "by then the other one is over"
    before = rows(world)
    assert taken(world, job) is None
    assert rows(world) == before
    with world.store.write() as session:
        end_rollout(session, session.get_one(Rollout, other.resource_id), "failed", {"code": "x", "message": "x"})
        build = session.exec(select(Build)).one()
        build.artifact_id = world_artifact(session, world, build)
    rollout = taken(world, job)
    assert rollout is not None
    with world.store.read() as session:
        build = session.exec(select(Build)).one()
        assert (build.status, rollout.status, rollout.artifact_id) == ("succeeded", "running", build.artifact_id)


def world_artifact(session: Any, world: World, build: Build) -> str:
    artifact = Artifact(
        id="art_MADE",
        site_id=world.site_id,
        digest="a" * 64,
        kind="static",
        profile="static",
        size_bytes=1,
        files=1,
        build_id=build.id,
        commit_sha="c" * 40,
        ref="main",
        key_hint="k",
        signed_at=utcnow(),
    )
    session.add(artifact)
    session.flush()
    return artifact.id


def test_nobody_takes_what_is_not_its_own_alone(world: World) -> None:
    job = world.accept_roll(world.artifact("a" * 64))
    before = rows(world)
    with pytest.raises(HeadwayError) as caught:
        taken(world, job, "another")
    assert (caught.value.code, rows(world)) == ("deployment.not_found", before)
    world.store.in_write(
        lambda session: setattr(session.get_one(Environment, world.env_id), "hosts", ["local", "another"])
    )
    assert hint(world, job) == ""
    for host in ("local", "another"):
        assert taken(world, job, host) is None
    assert world.job(job.id).status == "queued"


def test_where_labels_choose_the_hosts_nothing_is_guessed(world: World) -> None:
    with world.store.write() as session:
        session.add(Host(id="edge", public_key="k", labels=["edge"], last_seen_at=utcnow()))
        session.flush()
        choose_hosts(session, session.get_one(Environment, world.env_id), ["edge"])
    job = world.accept_roll(world.artifact("a" * 64))
    assert hint(world, job) == ""
    assert taken(world, job, "edge") is not None


@pytest.mark.parametrize(("kind", "goes"), [("deploy", False), ("promote", False), ("rollback", True)])
def test_what_is_to_be_watched_takes_the_longer_way(world: World, kind: str, goes: bool) -> None:
    world.store.in_write(lambda session: setattr(session.get_one(Environment, world.env_id), "bake_seconds", 60))
    job = world.accept_roll(world.artifact("a" * 64), kind)
    assert (hint(world, job) == "local", taken(world, job) is not None) == (goes, goes)


def test_a_job_of_another_kind_begins_nowhere(world: World) -> None:
    stop = world.accept_stop()
    assert hint(world, stop) == ""
    assert hint(world, world.accept_build()) == ""


def test_one_of_many_takers_gets_it_and_the_rest_the_same(world: World) -> None:
    jobs = [world.accept_roll(world.artifact(f"{n:064d}")) for n in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: taken(world, jobs[number % 4]), range(16)))
    assert {one.id for one in found if one is not None} <= {jobs[0].resource_id}
    assert {(one.apply_seq, one.undo_seq) for one in found if one is not None} <= {(1, 2)}
    assert world.environment().fence_seq == 2
