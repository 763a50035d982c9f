"""What SQLite's one writer makes easy has to be right on PostgreSQL too: the same cases, on a database of their own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlmodel import Session

from store.collection import lock_for_collection
from tests.api import (
    test_audit,
    test_bodies,
    test_broker,
    test_configuration,
    test_deployments,
    test_domains,
    test_environments,
    test_forges,
    test_git,
    test_idempotency,
    test_jobs,
    test_keys,
    test_lists,
    test_policies,
    test_tenants,
    test_webhooks,
)
from tests.api.git_server import GitWorld, git_world
from tests.api.world import World, world
from tests.databases import migrated

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
CASES: list[Callable[[World], Awaitable[None]]] = [
    test_audit.test_filters_and_pages,
    test_bodies.test_ids_of_any_shape_are_not_found,
    test_bodies.test_sixteen_writers_meet_no_locked_database,
    test_deployments.test_a_rollout_has_the_next_number_and_becomes_a_release,
    test_deployments.test_promote_rolls_what_runs_there_without_a_build,
    test_deployments.test_rollback_goes_to_the_release_before_that_deployment,
    test_deployments.test_temporal_being_away_does_not_keep_work_from_being_accepted,
    test_domains.test_a_name_goes_to_the_one_who_proves_it,
    test_domains.test_redirects_lead_to_names_of_the_same_environment,
    test_forges.test_a_push_to_production_deploys_that_commit_once,
    test_webhooks.test_whoever_does_not_listen_hears_nothing,
    test_webhooks.test_test_deliveries_and_replay,
    test_webhooks.test_change_disable_enable_delete,
    test_environments.test_a_race_for_a_branch_has_one_winner,
    test_environments.test_canceling_what_has_not_started_puts_everything_back,
    test_environments.test_slugs_are_unique_in_the_team_and_names_in_the_world,
    test_idempotency.test_a_replay_is_the_same_job_as_it_is_now,
    test_idempotency.test_a_replay_comes_before_what_the_first_request_has_changed,
    test_idempotency.test_after_a_day_a_key_is_fresh,
    test_idempotency.test_concurrent_creations_make_one_site_and_one_push,
    test_idempotency.test_concurrent_replays_make_one_job,
    test_jobs.test_a_queued_job_is_canceled_at_once_with_its_rows,
    test_jobs.test_a_stream_tells_the_job_its_lines_its_changes_and_its_end,
    test_keys.test_a_rolled_keys_old_secret_lives_for_its_grace_period,
    test_keys.test_no_key_gives_what_it_does_not_hold,
    test_lists.test_filters,
    test_lists.test_pages_go_on_while_rows_are_added,
    test_policies.test_approvals_let_it_go_and_two_keys_of_one_person_are_one,
    test_policies.test_versions_are_kept_and_the_same_document_is_none,
    test_tenants.test_project_members_see_their_projects_alone,
    test_tenants.test_members_are_managed_and_the_owner_stays,
]


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a database without a row."""
    with migrated() as url:
        yield url


@pytest.fixture
async def postgres(tmp_path: Path, database: str) -> AsyncIterator[World]:
    async with world(tmp_path, url=database) as made:
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.removeprefix("test_"))
async def test_on_postgresql(postgres: World, case: Callable[[World], Awaitable[None]]) -> None:
    await case(postgres)


@pytest.mark.parametrize(
    "case",
    [
        test_git.test_two_pushes_of_a_branch_at_once,
        test_git.test_a_branch_deleted_while_it_builds,
        test_git.test_routes_decide_where_a_branch_goes,
    ],
    ids=lambda case: case.__name__.removeprefix("test_"),
)
async def test_pushes_on_postgresql(tmp_path: Path, database: str, case: Callable[[GitWorld], Awaitable[None]]) -> None:
    async with git_world(tmp_path, url=database) as server:
        await case(server)


async def test_an_output_on_postgresql(postgres: World) -> None:
    roles = test_broker.Roles(postgres)
    await test_broker.test_an_unchanged_tree_uploads_nothing_and_a_changed_one_its_changes(postgres, roles)
    await test_broker.test_begin_numbers_attempts_and_the_last_one_counts(postgres, roles)


async def test_an_earlier_artifact_is_not_collected_between_the_look_and_the_record(
    postgres: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles, site = test_broker.Roles(postgres), await postgres.site(postgres.admin)
    tree, cache = {"index.html": b"one"}, {"hit": True, "key": None, "inputs": "a" * 64}
    first = await test_broker.upload(postgres, roles, site)
    _, digest = await first.output(tree, cache=cache)
    artifact = test_broker.sign(postgres, first.build, digest)
    collected, seen = threading.Event(), []

    def collect(session: Session) -> None:
        lock_for_collection(session, site["id"])
        collected.set()

    thread = threading.Thread(target=postgres.store.in_write, args=(collect,))

    def counts(*_: object) -> bool:
        thread.start()
        seen.append(collected.wait(0.5))
        return True

    monkeypatch.setattr("api.internal.outputs.counts", counts)
    again = await test_broker.upload(postgres, roles, site)
    answer, _ = await again.output(tree, cache=cache, earlier=True)
    thread.join(20)
    assert (answer.json()["artifact_id"], seen, collected.is_set()) == (artifact, [False], True)


async def test_configuration_on_postgresql(postgres: World) -> None:
    _, client = await postgres.tenant("Alice")
    for number, case in enumerate(
        (
            test_configuration.test_the_environment_wins_over_the_site,
            test_configuration.test_a_rollback_restores_code_and_configuration,
            test_configuration.test_a_revoked_version_is_replaced_by_the_newest_and_the_job_says_so,
        )
    ):
        await case(await test_configuration.Place.make(postgres, client, f"Site {number}"))
