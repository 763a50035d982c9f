"""Hooks of forges: signatures of three of them, calls that repeat, calls that are forged, and what is deployed."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from adapters.webhooks.forges import is_genuine, read_call
from adapters.webhooks.signing import mac
from store.models import Build, Environment, Job, Rollout
from store.models_webhooks import ForgeCall, ForgeHook
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
COMMIT = "a" * 40


def push(branch: str = "main", after: str = COMMIT) -> bytes:
    return json.dumps({"ref": f"refs/heads/{branch}", "after": after}).encode()


def signed(provider: str, secret: str, body: bytes, call: str = "c1", event: str | None = None) -> dict[str, str]:
    if provider == "gitlab":
        own = {"X-Gitlab-Token": secret, "X-Gitlab-Event": event or "Push Hook", "X-Gitlab-Event-UUID": call}
    elif provider == "github":
        own = {"X-Hub-Signature-256": f"sha256={mac(secret, body)}", "X-GitHub-Event": event or "push"}
        own["X-GitHub-Delivery"] = call
    else:
        own = {"X-Gitea-Signature": mac(secret, body), "X-Gitea-Event": event or "push", "X-Gitea-Delivery": call}
    return {"Content-Type": "application/json", **own}


async def make(api: World, client: Any, provider: str = "github") -> tuple[Json, Json]:
    site = await api.site(client)
    made = data(await client.post(f"/v1/sites/{site['id']}/hooks", json={"provider": provider}))
    return site, made


async def call(api: World, hook: Json, body: bytes, headers: dict[str, str]) -> Any:
    return await api.client(None).post(f"/hooks/{hook['id']}", content=body, headers=headers)


def test_signatures_are_each_forges_own() -> None:
    body = push()
    for provider in ("github", "gitlab", "gitea"):
        headers = {name.lower(): value for name, value in signed(provider, "s3cret", body).items()}
        assert is_genuine(provider, "s3cret", headers, body)
        assert not is_genuine(provider, "other", headers, body)
        assert not is_genuine(provider, "s3cret", {}, body)
        if provider != "gitlab":
            assert not is_genuine(provider, "s3cret", headers, body + b" ")
        said = read_call(provider, headers, body)
        assert (said.id, said.branch, said.commit) == ("c1", "main", COMMIT)
    # What GitHub and Gitea send where nobody has chosen JSON.
    form = urlencode({"payload": push("f\u00fcr/a+b c").decode()}).encode()
    assert read_call("github", {"x-github-event": "push"}, form).branch == "f\u00fcr/a+b c"
    # GitHub's own example of a signed body.
    example = {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    assert is_genuine("github", "It's a Secret to Everybody", example, b"Hello, World!")


async def test_a_call_comes_as_json_or_as_the_form_that_is_sent_where_nobody_has_chosen(api: World) -> None:
    site, hook = await make(api, api.admin)
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    async def tells(body: bytes, call_id: str, **media: str) -> Any:
        headers = {**signed("github", hook["secret"], body, call_id), **form, **media}
        return await call(api, hook, body, headers)

    taken = await tells(urlencode({"payload": push().decode()}).encode(), "one")
    assert (taken.status_code, data(taken)["verdict"]) == (202, "accepted")
    assert api.one(Build, site_id=site["id"]).commit_sha == COMMIT
    for number, odd in enumerate(("a\0b", "a\ud800", "\udfff")):
        odd_push = urlencode({"payload": push(odd).decode()}).encode()
        refused = await tells(odd_push, f"odd{number}")
        assert (refused.status_code, refused.json()["data"]["verdict"]) == (409, "refused"), odd
    assert error(await tells(b"payload=" + b"a" * (1 << 20), "large"), 413)["code"] == "request.too_large"
    plain = await tells(push(), "plain", **{"Content-Type": "text/plain"})
    assert error(plain, 415)["code"] == "request.unsupported_media_type"
    assert error(await tells(b"{", "half", **{"Content-Type": "application/json"}), 400)["code"] == (
        "request.malformed_json"
    )


def test_what_is_no_push_has_no_branch() -> None:
    for body in (b"[]", b"nonsense", b"{}", b'{"ref": 7}', b'{"ref": "refs/tags/v1", "after": "' + b"a" * 40 + b'"}'):
        assert read_call("github", {"x-github-event": "push"}, body).branch is None
    gone = read_call("github", {"x-github-event": "push"}, push(after="0" * 40))
    assert (gone.commit, gone.deleted) == (None, True)
    for odd in ("--upload-pack=x", "0" * 39, ""):
        said = read_call("github", {"x-github-event": "push"}, push(after=odd))
        assert (said.commit, said.deleted) == (None, False)
    told = json.dumps({"ref": "topic", "ref_type": "branch"}).encode()
    assert read_call("gitea", {"x-gitea-event": "delete"}, told).deleted
    assert read_call("github", {"x-github-event": "push"}, push()).id == read_call("github", {}, push()).id


def test_pull_requests_that_were_opened() -> None:
    told = {"action": "opened", "pull_request": {"head": {"ref": "topic"}}}
    merge = {"object_attributes": {"action": "open", "source_branch": "topic"}}
    for provider, event, body, closed in (
        ("github", "pull_request", told, {**told, "action": "closed"}),
        ("gitea", "pull_request", told, {**told, "action": "synchronized"}),
        ("gitlab", "Merge Request Hook", merge, {"object_attributes": {"action": "merge", "source_branch": "topic"}}),
    ):
        headers = {name.lower(): value for name, value in signed(provider, "s", b"", event=event).items()}
        said = read_call(provider, headers, json.dumps(body).encode())
        assert (said.opened, said.branch) == ("topic", None)
        for other in (closed, {"action": "opened"}, {"action": "opened", "pull_request": {"head": {"ref": 7}}}):
            assert read_call(provider, headers, json.dumps(other).encode()).opened is None


async def test_a_push_to_production_deploys_that_commit_once(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, hook = await make(api, client)
    assert hook["url"] == f"http://api.test/hooks/{hook['id']}"
    secret = hook.pop("secret")
    assert data(await client.get(f"/v1/sites/{site['id']}/hooks")) == [hook]
    assert secret.encode() not in api.one(ForgeHook, id=hook["id"]).ciphertext
    headers = signed("github", secret, push())
    first = await call(api, hook, push(), headers)
    assert first.status_code == 202
    job_id = first.json()["data"]["job_id"]
    build = api.one(Build, job_id=job_id)
    assert (build.ref, build.commit_sha, build.trigger) == ("main", COMMIT, "webhook")
    assert build.env_id == site["production_env_id"]
    assert api.one(Rollout, job_id=job_id).branch == "main"
    assert api.one(Job, id=job_id).actor == {"type": "forge_hook", "id": hook["id"], "label": "github"}
    assert api.starts.started[-1][:2] == (job_id, "deployment.push")
    answers = await asyncio.gather(*(call(api, hook, push(), headers) for _ in range(5)))
    assert {answer.json()["data"]["job_id"] for answer in answers} == {job_id}
    assert api.count(Build) == 1
    [kept] = data(await client.get(f"/v1/sites/{site['id']}/hooks/{hook['id']}/calls"))
    assert (kept["verdict"], kept["repeats"], kept["call_id"]) == ("accepted", 5, "c1")


async def test_forged_calls_are_refused_counted_and_not_kept(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, hook = await make(api, client)
    for headers in (signed("github", "wrong", push()), {"Content-Type": "application/json"}):
        assert error(await call(api, hook, push(), headers), 401)["code"] == "forge_hook.forged"
    assert data(await client.get(f"/v1/sites/{site['id']}/hooks/{hook['id']}"))["forged"] == 2
    assert (api.count(ForgeCall), api.count(Build)) == (0, 0)
    unknown = await call(api, {"id": "hook_none"}, push(), signed("github", "x", push()))
    assert error(unknown, 404)["code"] == "forge_hook.not_found"


async def test_verdicts_on_what_is_not_deployed(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, hook = await make(api, client, "gitea")
    secret = hook["secret"]
    for number, (body, event, reason) in enumerate(
        (
            (push(after="0" * 40), None, "what the default branch has deployed stays"),
            (push("feature", after="0" * 40), None, "the branch is gone, and has no preview"),
            (b"{}", "ping", "ping is no push to a branch"),
            (
                json.dumps({"action": "opened", "pull_request": {"head": {"ref": "feature"}}}).encode(),
                "pull_request",
                "a pull request was opened: no preview of it is known yet",
            ),
            (json.dumps({"ref": "refs/tags/v1", "after": COMMIT}).encode(), None, "v1 is a tag: tags deploy nothing"),
        )
    ):
        answer = await call(api, hook, body, signed("gitea", secret, body, f"c{number}", event))
        assert answer.status_code == 202
        assert (answer.json()["data"]["verdict"], answer.json()["data"]["reason"]) == ("ignored", reason)
    with api.store.write() as session:
        session.get_one(Environment, site["production_env_id"]).status = "suspended"
    refused = await call(api, hook, push(), signed("gitea", secret, push(), "again"))
    assert (refused.status_code, refused.json()["data"]["verdict"]) == (409, "refused")
    with api.store.write() as session:
        session.get_one(Environment, site["production_env_id"]).status = "active"
    taken = await call(api, hook, push(), signed("gitea", secret, push(), "again"))
    assert (taken.status_code, taken.json()["data"]["verdict"]) == (202, "accepted")


async def test_hooks_of_other_tenants_and_scopes(api: World) -> None:
    team, client = await api.tenant("Acme")
    site, hook = await make(api, client)
    path = f"/v1/sites/{site['id']}/hooks"
    _, other = await api.tenant("Other")
    assert error(await other.get(path), 404)["code"] == "site.not_found"
    reader = api.client(await api.key(team, None, ["sites:read"], kind="service"))
    assert error(await reader.post(path, json={"provider": "github"}), 403)["code"] == "scope.insufficient"
    assert error(await client.post(path, json={"provider": "sourceforge"}), 400)["param"] == "provider"
    assert data(await client.delete(f"{path}/{hook['id']}")) == {"id": hook["id"], "deleted": True}
    gone = await call(api, hook, push(), signed("github", hook["secret"], push()))
    assert gone.status_code == 404
