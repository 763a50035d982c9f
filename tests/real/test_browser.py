"""A real browser sees what was deployed: scripts run, and the next release is there without a reload trick."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.client import Caller, Site
from bench.stack import Stack
from tests.real import deck
from tests.real.conftest import Commit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def deck_site(caller: Caller, commit: Commit, npm: str) -> Site:
    site = caller.new_site("deck-seen", commit("deck-seen", deck.files(npm)))
    caller.finish(caller.push(site, site.production))
    return site


def dom(address: str, profile: Path) -> str:
    """The page's elements after its scripts have run. `*.localhost` leads to this machine in a browser."""
    browser = shutil.which("chromium")
    assert browser is not None
    seen = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            address,
        ],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=90,
    )
    return seen.stdout.decode()


def test_the_deck_presents_itself(stack: Stack, deck_site: Site, tmp_path: Path) -> None:
    page = dom(f"http://{deck_site.production_host}:{stack.sites_port}/", tmp_path)
    # Both are put there by reveal.js when it starts: the script was served, with the right type, and ran.
    assert "reveal-viewport" in page
    assert "<section" in page
    assert "present" in page


def test_the_next_release_is_seen(
    stack: Stack, caller: Caller, commit: Commit, deck_site: Site, tmp_path: Path
) -> None:
    address = f"http://{deck_site.production_host}:{stack.sites_port}/"
    assert "First slide" in dom(address, tmp_path)
    commit("deck-seen", {"index.html": deck.PAGE.replace("First slide", "Another start")})
    caller.finish(caller.push(deck_site, deck_site.production))
    # The same profile: what the browser has kept must not be shown.
    assert "Another start" in dom(address, tmp_path)
