"""What goes out of the embedded stack: reports to a forge, a notice by mail; and a preview that asks for a password."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.forge_server import REPOSITORY, TOKEN, ForgeServer
from tests.adapters.mail_server import MailServer
from tests.stack.conftest import NewPlace
from tests.stack.sites import Place, end_of, visit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("HEADWAY_TEST_STACK") == "compose", reason="a stack in containers does not reach this loopback"
    ),
]
PASSWORD = "correct horse"


def until(good: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := good()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def preview_of(place: Place, branch: str) -> dict[str, Any]:
    path = f"/v1/sites/{place.site.id}/environments"
    job = place.caller.finish(place.caller.post(path, {"kind": "preview", "branch": branch}))
    found: dict[str, Any] = place.caller.get(f"{path}/{job['resource']['id']}")
    return found


def test_a_preview_is_told_to_its_forge_and_to_people(stack: Stack, caller: Caller, new_place: NewPlace) -> None:
    place = new_place({"index.html": "<h1>told</h1>"})
    preview = preview_of(place, "feature/x")
    commit = place.repository.commit({"index.html": "<h1>told again</h1>"})
    with ForgeServer("gitea") as forge, MailServer() as mail:
        forge.open_pull(3, "feature/x")
        body = {"provider": "gitea", "api_url": forge.api_url, "repository": REPOSITORY, "token": TOKEN}
        caller.http.put(f"/v1/sites/{place.site.id}/forge", json=body).raise_for_status()
        address = f"mailto://127.0.0.1:{mail.port}?from=headway@acme.test&to=team@acme.test"
        pin = {"type": "site", "id": place.site.id}
        caller.post("/v1/notifications", {"url": address, "events": ["site.deployed"], "resource": pin})
        done = place.push(preview["id"], commit)
        until(lambda: "success" in forge.said())
        [text] = until(lambda: [one for one in forge.comments[3].values() if "Deployed" in one])
        assert done["result"]["url"] in text
        assert forge.statuses[0]["state"] == "pending"
        assert {row["sha"] for row in forge.statuses} == {commit}
        until(lambda: mail.mails)
        assert "site.deployed" in mail.mails[0]
        rows = caller.get(f"/v1/sites/{place.site.id}/forge/reports")
        assert {row["kind"] for row in rows} == {"check", "status", "comment"}
        caller.finish(caller.http.delete(place.path(preview["id"])).json()["data"])
        until(lambda: "This preview has ended" in next(iter(forge.comments[3].values())))
        assert len(forge.comments[3]) == 1


def test_a_preview_asks_for_its_password_until_it_ends(stack: Stack, caller: Caller, new_place: NewPlace) -> None:
    place = new_place({"index.html": "<h1>draft</h1>"})
    site = f"/v1/sites/{place.site.id}"
    caller.http.put(f"{site}/preview-password", json={"password": "from the start"}).raise_for_status()
    preview = preview_of(place, "feature/y")
    host = preview["hostnames"][0]
    assert visit(stack, host).status == 401
    place.push(preview["id"], "main")
    right = {"Authorization": "Basic " + base64.b64encode(b":from the start").decode()}
    assert visit(stack, host, **right).text == "<h1>draft</h1>"
    assert visit(stack, host).status == 401

    path = place.path(preview["id"], "password")
    other = {"Authorization": "Basic " + base64.b64encode(f"x:{PASSWORD}".encode()).decode()}
    end_of(caller, caller.http.put(path, json={"password": PASSWORD}).json()["data"])
    assert [visit(stack, host, **one).status for one in (right, other)] == [401, 200]
    place.repository.commit({"index.html": "<h1>second</h1>"})
    place.push(preview["id"], "main")
    assert visit(stack, host).status == 401
    assert visit(stack, host, **other).text == "<h1>second</h1>"
    # Nobody else is asked.
    place.push(place.site.production, "main")
    assert place.page().text == "<h1>second</h1>"

    end_of(caller, caller.http.delete(path).json()["data"])
    assert visit(stack, host).text == "<h1>second</h1>"
    end_of(caller, caller.http.put(path, json={"password": PASSWORD}).json()["data"])
    caller.finish(caller.http.delete(place.path(preview["id"])).json()["data"])
    assert visit(stack, host, **other).status == 404
