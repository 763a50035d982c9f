"""Whose turn it is to build, among the sites of a team; and what is not begun any more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlmodel import select

from headway.ids import new_id
from store.models import Build, Environment, Job, Project, Rollout, Site, utcnow
from store.outcomes import fail_build
from store.session import Store
from store.turns import Shares, must_wait, outdated, supersede
from tests.workflows.rows import World


@pytest.fixture
def world(store: Store) -> World:
    return World.make(store)


def another_site(world: World) -> World:
    site, env = new_id("site"), new_id("env")
    with world.store.write() as session:
        project = session.exec(select(Project)).one()
        session.add(
            Site(id=site, team_id=world.team_id, project_id=project.id, name=site, slug=site.lower(), status="active")
        )
        session.flush()
        session.add(
            Environment(id=env, site_id=site, kind="production", slug="production", branch="main", status="active")
        )
    return replace(world, site_id=site, env_id=env)


def build_of(world: World, job: Job) -> str:
    with world.store.read() as session:
        return session.exec(select(Build).where(Build.job_id == job.id)).one().id


def going(world: World, jobs: list[Job], shares: Shares) -> list[bool]:
    """Of each, whether it may build."""
    with world.store.read() as session:
        builds = [session.exec(select(Build).where(Build.job_id == job.id)).one() for job in jobs]
        return [not must_wait(session, build, shares) for build in builds]


def ends(world: World, build_id: str) -> bool:
    return world.store.in_write(lambda session: outdated(session, build_id))


def test_what_waits_for_its_own_site_keeps_no_other_site_of_the_team(world: World) -> None:
    flood = [world.accept_build() for _ in range(12)]
    other = another_site(world)
    one, two, three = (other.accept_build() for _ in range(3))
    assert going(world, flood, Shares(2, 6)) == [True, True, *[False] * 10]
    assert going(world, [one, two, three], Shares(2, 6)) == [True, True, False]
    assert going(world, [one, two], Shares(2, 3)) == [True, False], "the team's own limit holds"
    assert going(world, [one], Shares(0, 6)) == [False], "without a limit of sites all twelve come first"
    assert all(going(world, [*flood, one, two, three], Shares(0, 0)))


def test_a_place_that_gets_free_goes_to_the_next_of_the_site_and_no_more_than_the_limit_run(world: World) -> None:
    flood = [world.accept_build() for _ in range(4)]
    other, last = another_site(world), another_site(world)
    second, third = other.accept_build(), last.accept_build()
    everybody = [*flood, second, third]
    shares = Shares(2, 3)
    assert going(world, everybody, shares) == [True, True, False, False, True, False]
    with world.store.write() as session:
        fail_build(session, build_of(world, flood[0]), {"code": "x", "message": "x"}, canceled=False)
    assert going(world, everybody[1:], shares) == [True, True, False, True, False]
    with world.store.write() as session:
        fail_build(session, build_of(world, second), {"code": "x", "message": "x"}, canceled=True)
    assert going(world, [*flood[1:], third], shares) == [True, True, False, True]


def test_a_push_that_no_builder_has_begun_makes_way_for_a_newer_one_of_its_branch(world: World) -> None:
    first, elsewhere = world.accept_push("a"), world.accept_push("b", branch="b")
    begun, newest = world.accept_push("c"), world.accept_push("d")
    with world.store.write() as session:
        session.get_one(Build, build_of(world, begun)).attempt = 1
    ids = [build_of(world, job) for job in (first, elsewhere, begun, newest)]
    assert [ends(world, build_id) for build_id in ids] == [True, False, False, False]
    ended = world.job(first.id)
    assert (ended.status, ended.result) == ("canceled", {"superseded_by": begun.id})
    with world.store.read() as session:
        assert session.get_one(Build, ids[0]).status == "superseded"
        assert session.exec(select(Rollout).where(Rollout.job_id == first.id)).one().status == "superseded"
    assert not ends(world, ids[0])


def test_what_was_canceled_while_one_waited_for_the_environment_stays_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = world.accept_push("a"), world.accept_push("b")
    with world.store.write() as session:
        build = session.get_one(Build, build_of(world, first))

        def meanwhile(row: object, *_fields: object, **_lock: object) -> None:
            assert isinstance(row, Rollout)
            row.status, row.finished_at = "canceled", utcnow()

        monkeypatch.setattr(session, "refresh", meanwhile)
        assert not supersede(session, build)
        assert (build.status, build.finished_at) == ("queued", None)


def test_what_was_frozen_from_a_sandbox_is_built_whatever_came_later(world: World) -> None:
    frozen, _ = world.accept_push("a"), world.accept_push("b")
    with world.store.write() as session:
        session.get_one(Build, build_of(world, frozen)).source = {"sandbox_id": "sbx_1"}
    assert not ends(world, build_of(world, frozen))
    assert world.job(frozen.id).status == "queued"
