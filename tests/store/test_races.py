"""What SQLite's one writer at a time hides: transactions of READ COMMITTED between each other's lines."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlmodel import Session, col, delete, select

from store import taking
from store.environments import expired, renew
from store.hosts import forget_host, join_host
from store.idempotency import claim_key, keep_outcome
from store.models import Environment, Idempotency, Project, Release, Rollout, utcnow
from store.models_sandboxes import Sandbox
from store.outcomes import append_release, end_rollout
from store.queue import claim_turn, lock_rollout
from store.sandboxes import SandboxLimits, SandboxRequest, expire, make_sandbox, touch
from store.session import Store
from tests.workflows.rows import World, claim_next


@pytest.fixture
def several_writers(store: Store) -> Store:
    if store.engine.dialect.name == "sqlite":
        pytest.skip("a second writer waits at the door")
    return store


def test_an_end_that_comes_late_does_not_overwrite_a_release(several_writers: Store) -> None:
    world = World.make(several_writers)
    job = world.accept_roll(world.artifact("a" * 64))
    several_writers.in_write(lambda session: claim_next(session, world.env_id))
    with several_writers.write() as late:
        seen = late.get_one(Rollout, job.resource_id)
        several_writers.in_write(lambda session: append_release(session, job.resource_id, None).id)
        end_rollout(late, seen, "failed", {"code": "job.lost", "message": "too late"})
    with several_writers.read() as session:
        rollout = session.get_one(Rollout, job.resource_id)
        [release] = session.exec(select(Release)).all()
    assert (rollout.status, rollout.release_id, rollout.error) == ("succeeded", release.id, None)


@pytest.mark.parametrize("listed", [True, False])
def test_what_is_locked_is_as_it_is_then(several_writers: Store, listed: bool) -> None:
    world = World.make(several_writers)
    with several_writers.write() as late:
        seen = late.get_one(Environment, world.env_id)
        seen.idle_hours = 7
        several_writers.in_write(lambda s: setattr(s.get_one(Environment, world.env_id), "fence_seq", 10))
        if listed:
            locked = late.exec(select(Environment).where(Environment.id == world.env_id).with_for_update()).one()
        else:
            locked = late.get_one(Environment, world.env_id, with_for_update=True)
        locked.fence_seq += 2
    assert (world.environment().fence_seq, world.environment().idle_hours) == (12, 7)


def test_what_a_host_takes_has_numbers_of_its_own(several_writers: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.make(several_writers)
    first, second = (world.accept_roll(world.artifact(seal * 64)) for seal in "ab")

    def claim(session: Session, job_id: str, artifact_id: str | None = None, *, seen: Rollout | None = None) -> Rollout:
        several_writers.in_write(lambda other: claim_next(other, world.env_id))
        several_writers.in_write(lambda other: append_release(other, first.resource_id, None).id)
        return claim_turn(session, job_id, artifact_id, seen=seen)

    monkeypatch.setattr(taking, "claim_turn", claim)
    with several_writers.write() as session:
        taken = taking.take(session, second.id, "local")
        before = session.exec(select(Release)).one()
        assert (taken.apply_seq, taken.undo_seq, taken.previous_release_id) == (3, 4, before.id)


def test_two_claims_of_a_key_whose_day_is_over_are_one(several_writers: Store) -> None:
    over = utcnow() - timedelta(hours=25)
    with several_writers.write() as session:
        session.add(
            Idempotency(principal="p", key="k", fingerprint="f", status_code=202, job_id="old", created_at=over)
        )

    def second() -> str | None:
        def claim(session: Session) -> str | None:
            known = claim_key(session, "p", "k", "f")
            return known.job_id if known is not None else None

        return several_writers.in_write(claim)

    with ThreadPoolExecutor(1) as pool:
        with several_writers.write() as session:
            session.get_one(Idempotency, ("p", "k"), with_for_update=True)
            waiting = pool.submit(second)
            time.sleep(0.5)  # it waits for the row now
            session.execute(delete(Idempotency).where(col(Idempotency.key) == "k"))
            session.expunge_all()
            assert claim_key(session, "p", "k", "f") is None
            keep_outcome(session, "p", "k", status=202, body=None, job_id="new")
        assert waiting.result(20) == "new"


def test_what_is_renewed_at_this_moment_does_not_end(several_writers: Store) -> None:
    world = World.make(several_writers)
    with several_writers.write() as session:
        environment = session.get_one(Environment, world.env_id)
        environment.ephemeral, environment.kind, environment.expires_at = True, "preview", utcnow() - timedelta(hours=1)
    with several_writers.write() as renewing:
        renew(renewing, renewing.get_one(Environment, world.env_id, with_for_update=True))
        assert several_writers.in_write(lambda session: len(expired(session))) == 0


def test_a_sandbox_that_is_used_at_this_moment_does_not_end(several_writers: Store) -> None:
    world = World.make(several_writers)
    limits = SandboxLimits()
    with several_writers.write() as session:
        project = session.exec(select(Project).where(Project.team_id == world.team_id)).one()
        wanted = SandboxRequest(None, "miosa-sandbox", {}, None, None, None, None, None)
        made = make_sandbox(session, project, wanted, {}, limits)
        made.expires_at = utcnow() - timedelta(seconds=1)
        sandbox_id = made.id
    with several_writers.write() as using:
        found = using.get_one(Sandbox, sandbox_id, with_for_update=True)
        touch(found, limits)
        using.flush()
        assert several_writers.in_write(expire) == 0


def test_a_claim_and_the_settling_of_what_was_lost_take_their_locks_in_one_order(several_writers: Store) -> None:
    """Who locked the rollout first held what the other waited for, and had what the other held to wait for."""
    world = World.make(several_writers)
    lost = world.accept_roll(world.artifact("a" * 64))
    later = world.accept_roll(world.artifact("b" * 64))
    several_writers.in_write(lambda session: claim_next(session, world.env_id))

    def settle() -> None:
        with several_writers.write() as session:
            lock_rollout(session, lost.resource_id)
            time.sleep(0.2)
            session.get_one(Environment, world.env_id, with_for_update=True)

    def claim() -> None:
        time.sleep(0.1)
        with several_writers.write() as session:
            claim_turn(session, later.id)
            session.get_one(Rollout, lost.resource_id, with_for_update=True)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(settle), pool.submit(claim)]:
            done.result(30)


def test_a_host_that_is_forgotten_takes_no_newer_one_with_it(several_writers: Store) -> None:
    """What an environment's hosts are is read when it is locked."""
    world = World.make(several_writers)
    with several_writers.write() as session:
        join_host(session, "two", [])
        session.get_one(Environment, world.env_id).hosts = ["local", "two"]
    with ThreadPoolExecutor(1) as pool, several_writers.write() as other:
        other.get_one(Environment, world.env_id, with_for_update=True).hosts = ["local", "two", "three"]
        forgetting = pool.submit(several_writers.in_write, lambda session: forget_host(session, "two").id)
        time.sleep(0.3)
        other.commit()
        assert forgetting.result(30) == "two"
    assert world.environment().hosts == ["local", "three"]
