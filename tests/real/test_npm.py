"""One real npm build: packages from the registry, through the proxy, in the sandbox."""

from __future__ import annotations

import pytest

from bench.client import Caller, Watch
from bench.stack import Stack
from tests.real import deck
from tests.real.conftest import Commit

pytestmark = pytest.mark.slow


def test_a_deck_of_published_packages_is_built_and_served(
    stack: Stack, caller: Caller, commit: Commit, npm: str
) -> None:
    address = commit("deck-npm", deck.files(npm))
    site = caller.new_site("deck-npm", address)
    caller.finish(caller.push(site, site.production))
    with Watch(stack, site.production_host) as watch:
        page = watch.page()
    assert "First slide" in page
    # Vite has put the bundle under a name with a hash of its content.
    assert "/assets/index-" in page
    assert "/main.js" not in page


def test_the_same_commit_has_the_same_digest(caller: Caller, commit: Commit, npm: str) -> None:
    address = commit("deck-twice", deck.files(npm))
    site = caller.new_site("deck-twice", address)
    builds = f"/v1/sites/{site.id}/environments/{site.staging}/builds"
    results = [caller.finish(caller.post(builds, {"ref": "main", "clean": clean}))["result"] for clean in (False, True)]
    assert results[0]["digest"] == results[1]["digest"]
    assert results[0]["build_id"] != results[1]["build_id"]
