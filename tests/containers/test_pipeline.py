"""The main way of a site, the tests of the embedded stack as they are, on docker-compose.yml."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.repositories import Repository
from tests.stack.conftest import NewPlace
from tests.stack.sites import Place
from tests.stack.test_pipeline import (  # noqa: F401
    first,
    place,
    test_a_deleted_site_is_not_served_any_more,
    test_a_deploy_that_is_sent_twice_happens_once,
    test_a_page_is_fresh_after_a_change_of_equal_size_and_after_a_rollback,
    test_a_repository_that_the_platform_hosts,
    test_an_unchanged_commit_uploads_nothing_and_is_the_same_artifact,
    test_every_accepted_call_says_where_its_job_is,
    test_from_staging_to_production_and_back,
    test_the_rules_of_a_site_are_served_and_come_and_go_with_its_releases,
    test_the_stream_of_a_push_is_whole_and_resumes_where_it_was,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def new_place(stack: Stack, caller: Caller) -> NewPlace:
    def make(files: Mapping[str, str]) -> Place:
        repository = Repository(stack.repos / f"p{next(NUMBERS)}")
        if files:
            repository.commit(dict(files))
        site = caller.new_site(f"p-{repository.path.name}", repository.path.as_uri())
        return Place(stack, caller, site, repository)

    return make
