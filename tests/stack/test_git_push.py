"""`git push` from a real git to the whole stack: the page is live when git says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.pusher import Pusher, ended
from tests.stack.sites import visit

BROKEN = '[build]\ncommand = "echo no luck; exit 3"\noutput = "."\n'
SLOW = '[build]\ncommand = "sleep 4"\noutput = "."\n'


def test_a_push_is_live_and_a_failed_one_says_so_and_may_be_repeated(
    caller: Caller, stack: Stack, tmp_path: Path
) -> None:
    pusher = Pusher(caller, stack, tmp_path, "Pushed Site")
    pusher.work.commit({"index.html": "<h1>first</h1>"})
    pushed = pusher.push("main")
    assert pushed.code == 0, pushed.text
    assert "main -> production" in pushed.text
    assert "first" in pusher.page()

    pusher.work.commit({"index.html": "<h1>second</h1>", "headway.toml": BROKEN})
    for _ in range(2):
        refused = pusher.push("main")
        assert refused.code == 1, refused.text
        assert "build.step_failed" in refused.text
        assert "remote: no luck" in refused.text
    assert "first" in pusher.page()

    pusher.work.commit({"headway.toml": ""})
    pushed = pusher.push("main", "main:feature/Checkout")
    assert pushed.code == 0, pushed.text
    assert "second" in pusher.page()
    preview = pusher.environments()["feature/Checkout"]
    assert preview["preview_url"] in pushed.text
    assert "second" in pusher.page("feature/Checkout")
    gone = pusher.push("--delete", "feature/Checkout")
    assert gone.code == 0, gone.text
    assert "feature/Checkout" not in pusher.environments()
    assert visit(stack, preview["hostnames"][-1]).status == 404

    production = f"/v1/sites/{pusher.site['id']}/environments/{pusher.environments()['main']['id']}"
    caller.http.patch(production, json={"pinned": True, "pin_reason": "a demo"}).raise_for_status()
    third = pusher.work.commit({"index.html": "<h1>third</h1>"})
    held = pusher.push("main")
    assert held.code == 1, held.text
    assert "push.held" in held.text
    assert "a demo" in held.text
    assert "second" in pusher.page()
    caller.http.patch(production, json={"pinned": False}).raise_for_status()
    joined = pusher.push("main")
    assert joined.code == 0, joined.text
    assert pusher.branches()["main"] == third
    assert "third" in pusher.page()


@pytest.mark.slow
def test_force_pushed_and_deleted_while_it_builds(caller: Caller, stack: Stack, tmp_path: Path) -> None:
    """What was accepted last is live, and has the branch; a preview whose branch goes is not built to its end."""
    pusher = Pusher(caller, stack, tmp_path, "Forced Site")
    pusher.work.commit({"index.html": "<h1>base</h1>"})
    assert pusher.push("main").code == 0
    pusher.work.commit({"index.html": "<h1>slow</h1>", "headway.toml": SLOW})
    slow, preview = pusher.start("main"), pusher.start("main:topic")
    for line in preview.stdout or ():
        if "queued" in line:
            break
    for line in slow.stdout or ():
        if "queued" in line:
            break
    pusher.work.git("checkout", "-q", "--orphan", "fresh")
    forced = pusher.work.commit({"index.html": "<h1>forced</h1>", "headway.toml": ""})
    pushed = pusher.push("--force", "fresh:main")
    assert pushed.code == 0, pushed.text
    gone = pusher.push("--delete", "topic")
    assert gone.code != 0 or "topic" not in pusher.environments(), gone.text
    ended(slow)
    assert "forced" in pusher.page()
    assert pusher.branches()["main"] == forced
    ended(preview)


@pytest.mark.slow
def test_more_refs_than_a_push_may_bring(caller: Caller, stack: Stack, tmp_path: Path) -> None:
    pusher = Pusher(caller, stack, tmp_path, "Many Refs")
    commit = pusher.work.commit({"index.html": "<h1>one</h1>"})
    lines = "".join(f"create refs/heads/b{number} {commit}\n" for number in range(1_200))
    pusher.work.git("update-ref", "--stdin", stdin=lines.encode())
    refused = pusher.push("refs/heads/*:refs/heads/*")
    assert refused.code == 1
    assert "A push brings at most 1000 refs." in refused.text
    assert pusher.branches() == {}
    assert pusher.push("main").code == 0
