"""Push, API, webhook and poll at once, each in a thread of its own, on both databases: one commit is one job."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlmodel import Session, select

from headway.ids import new_id
from store import arrivals, forges, joining, pushes
from store.arrivals import Arrival
from store.forges import Pushed
from store.models import Build, Environment, Job, Rollout, Site
from store.models_webhooks import ForgeCall, ForgeHook
from store.pushes import BranchPush, Previews
from store.rollouts import accept_push
from store.session import Store
from store.sight import Sight
from tests.workflows.rows import World

A, B = "a" * 40, "b" * 40
DOMAIN = "sites.test"
Way = Callable[[Session, World, str, str], str | None]


def by_push(session: Session, world: World, branch: str, commit: str) -> str | None:
    site = session.get_one(Site, world.site_id)
    pushed = BranchPush(branch, None, commit, "live" if branch == "main" else "preview")
    sight = Sight(team_id=world.team_id)
    accepted = pushes.accept(session, site, pushed, {"id": "k"}, DOMAIN, sight, lambda _: None, Previews())
    return accepted.job.id if accepted.job is not None else None


def by_api(session: Session, world: World, branch: str, commit: str) -> str | None:
    if branch != "main":
        return by_push(session, world, branch, commit)
    site, environment = session.get_one(Site, world.site_id), session.get_one(Environment, world.env_id)
    joining.lock(session, environment)
    known = joining.of_ref(session, environment, commit, clean=False)
    job = known or accept_push(session, site, environment, commit, {}, clean=False)
    return job.id


def by_webhook(session: Session, world: World, branch: str, commit: str) -> str | None:
    pushed = Pushed(new_id("x"), "push", branch, commit)
    call, _ = forges.take_call(session, "hook_1", pushed, DOMAIN, Previews())
    return call.job_id


def by_poll(session: Session, world: World, branch: str, commit: str) -> str | None:
    site = session.get_one(Site, world.site_id)
    judged = arrivals.accept(session, site, Arrival(branch, commit, "poll", {}), DOMAIN, Previews())
    return judged.job.id if judged.job is not None else None


WAYS: tuple[Way, ...] = (by_push, by_api, by_webhook, by_poll)


@pytest.fixture
def world(store: Store) -> World:
    made = World.make(store)
    with store.write() as session:
        hook = {"ciphertext": b"", "wrapped_key": b"", "key_id": "k", "preview": "p"}
        session.add(ForgeHook(id="hook_1", team_id=made.team_id, site_id=made.site_id, provider="github", **hook))
    return made


def at_once(store: Store, world: World, wanted: list[tuple[Way, str, str]]) -> list[str | None]:
    gate = Barrier(len(wanted))

    def one(way: Way, branch: str, commit: str) -> str | None:
        gate.wait(30)
        return store.in_write(lambda session: way(session, world, branch, commit), tries=12)

    with ThreadPoolExecutor(len(wanted)) as pool:
        return [found.result(60) for found in [pool.submit(one, *words) for words in wanted]]


@pytest.mark.parametrize("branch", ["main", "topic/new"])
def test_arrivals_of_a_commit_at_once_are_one_job(store: Store, world: World, branch: str) -> None:
    """Of a branch that has no preview yet, too: it is made once."""
    jobs = at_once(store, world, [(way, branch, A) for way in WAYS for _ in range(4)])
    with store.read() as session:
        [build] = session.exec(select(Build)).all()
        environments = session.exec(select(Environment)).all()
        making = session.exec(select(Job).where(Job.type == "environment.create")).all()
    assert set(jobs) == {build.job_id}
    assert build.ref in (branch, A)
    assert (len(environments), len(making)) == ((1, 0) if branch == "main" else (2, 1))


def test_two_commits_at_once_are_ordered_and_none_is_built_twice_in_a_row(store: Store, world: World) -> None:
    wanted = [(way, "main", commit) for way in WAYS for commit in (A, B) for _ in range(2)]
    random.Random(7).shuffle(wanted)
    jobs = at_once(store, world, wanted)
    with store.read() as session:
        rows = session.exec(select(Rollout, Build).join(Build, Build.id == Rollout.build_id)).all()
    assert {rollout.job_id for rollout, _ in rows} == set(jobs)
    order = [build.commit_sha or build.ref for _, build in sorted(rows, key=lambda row: row[0].accept_seq)]
    assert all(one != after for one, after in itertools.pairwise(order))
    assert sorted(rollout.accept_seq for rollout, _ in rows) == list(range(1, len(rows) + 1))


def test_repeated_deliveries_at_once_have_one_verdict(store: Store, world: World) -> None:
    def again(session: Session, world: World, branch: str, commit: str) -> str | None:
        call, _ = forges.take_call(session, "hook_1", Pushed("same", "push", branch, commit), DOMAIN, Previews())
        return call.job_id

    jobs = at_once(store, world, [(again, "main", A)] * 12)
    assert len(set(jobs)) == 1
    with store.read() as session:
        [call] = session.exec(select(ForgeCall)).all()
    assert (call.repeats, call.job_id, call.verdict) == (11, jobs[0], "accepted")
