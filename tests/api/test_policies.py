"""Policies through the API: versions, what holds and refuses deployments, who approves, who breaks the glass, pins."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from store.models import Account, Artifact, Build, Job, Rollout, utcnow
from store.models_policy import Approval, Decision
from store.outcomes import record_live
from tests.api.test_deployments import path_of, two_environments
from tests.api.world import World, data, error
from tests.workflows.rows import claim_next

pytestmark = pytest.mark.anyio

ALWAYS = {"start": "2020-01-01T00:00:00Z", "end": "2999-01-01T00:00:00Z", "reason": "the feast"}


class People:
    """A team with an owner and members, each with keys of their own."""

    def __init__(self, api: World, team_id: str) -> None:
        self.api, self.team_id = api, team_id

    async def member(self, name: str, role: str = "site_manager") -> tuple[str, httpx.AsyncClient]:
        body = {"email": f"{name}@example.test", "name": name, "role": role}
        account = data(await self.api.admin.post(f"/v1/teams/{self.team_id}/members", json=body))["account_id"]
        return account, await self.client(account)

    async def client(self, account: str | None, scopes: Any = ("*",)) -> httpx.AsyncClient:
        return self.api.client(await self.api.key(self.team_id, account, scopes))


async def shop(api: World) -> tuple[People, httpx.AsyncClient, str, str, str]:
    """People, their owner's client, a site, the path of its production, and its id."""
    team_id, owner = await api.tenant("Shop")
    site = await api.site(owner)
    env_id = site["production_env_id"]
    return People(api, team_id), owner, site["id"], path_of(site["id"], env_id), env_id


async def deploy(api: World, client: httpx.AsyncClient, path: str, artifact: str) -> Any:
    return data(await client.post(f"{path}/deployments", json={"artifact_id": artifact}))


def look(api: World, env_id: str) -> Rollout | None:
    """What every waiting run does when its bell rings."""
    return api.store.in_write(lambda session: claim_next(session, env_id))


async def test_versions_are_kept_and_the_same_document_is_none(api: World) -> None:
    _, owner, site_id, path, env_id = await shop(api)
    for at, env in ((f"/v1/sites/{site_id}/policy", None), (f"{path}/policy", env_id)):
        assert data(await owner.get(at)) == {
            **dict.fromkeys(("id", "digest", "actor", "created_at")),
            **{"site_id": site_id, "env_id": env, "version": 0, "document": {}},
        }
        for document, version in (({"refs": ["main"]}, 1), ({"refs": ["main"]}, 1), ({}, 2)):
            row = data(await owner.put(at, json=document))
            assert (row["version"], row["document"], row["env_id"]) == (version, document, env)
        listed = await owner.get(f"{at}/versions")
        assert [row["version"] for row in listed.json()["data"]] == [2, 1]


async def test_what_no_policy_may_say_and_who_may_not_set_one(api: World) -> None:
    people, owner, site_id, path, _ = await shop(api)
    wrong = error(await owner.put(f"{path}/policy", json={"refs": "main"}), 400)
    assert (wrong["code"], wrong["param"]) == ("request.invalid_parameter", "refs")
    few = {"approvals": {"needed": 2, "accounts": ["acct_1"]}}
    assert error(await owner.put(f"{path}/policy", json=few), 400)["param"] == "approvals"
    odd = {"weekly_freezes": [{"days": ["fri"], "zone": "Mars/Olympus"}]}
    assert error(await owner.put(f"{path}/policy", json=odd), 400)["code"] == "request.invalid_parameter"
    unknown = error(await owner.put(f"{path}/policy", json={"minimum_release": "rel_nowhere"}), 404)
    assert (unknown["code"], unknown["param"]) == ("release.not_found", "minimum_release")
    _, manager = await people.member("bob")
    for at in (f"/v1/sites/{site_id}/policy", f"{path}/policy"):
        assert error(await manager.put(at, json={}), 403)["code"] == "role.insufficient"
        assert (await manager.get(at)).status_code == 200
    _, stranger = await api.tenant("Others")
    assert error(await stranger.put(f"{path}/policy", json={}), 404)["code"] == "site.not_found"


async def test_who_is_named_has_to_be_somebody_who_can(api: World) -> None:
    people, owner, site_id, path, _ = await shop(api)
    bob, _ = await people.member("bob")
    eve, _ = await people.member("eve", "observer")
    await api.tenant("Others")
    nobody = "nobody@example.test"
    for document, field, said in (
        ({"approvals": {"needed": 1, "accounts": [bob, nobody]}}, "approvals.accounts", f"{nobody} is no member"),
        ({"approvals": {"needed": 1, "accounts": ["acct_none"]}}, "approvals.accounts", "acct_none is no member"),
        # Of another team: its existence is nobody's business.
        ({"approvals": {"needed": 1, "accounts": ["others-owner@example.test"]}}, "approvals.accounts", "no member"),
        ({"approvals": {"needed": 1, "accounts": ["eve@example.test"]}}, "approvals.accounts", "the role observer"),
        ({"approvals": {"needed": 2, "accounts": [bob, "bob@example.test"]}}, "approvals.accounts", "one's"),
        ({"break_glass": [eve]}, "break_glass", f"{eve} has the role observer"),
        ({"actors": ["forge-hook"]}, "actors", "forge-hook is no member"),
        ({"actors": ["key_none"]}, "actors", "no key key_none"),
        ({"actors": ["hook_none"]}, "actors", "hook_none"),
    ):
        for at in (f"/v1/sites/{site_id}/policy", f"{path}/policy"):
            refused = error(await owner.put(at, json=document), 400)
            assert (refused["code"], refused["param"]) == ("policy.invalid", field)
            assert said in refused["message"], refused
    assert data(await owner.get(f"{path}/policy"))["version"] == 0
    key = data(await owner.get("/v1/account"))["key"]["id"]
    taken = {
        "approvals": {"needed": 1, "accounts": ["Bob@Example.test"]},
        "actors": [key, "poll", "forge_hook", "shop-owner@example.test"],
    }
    row = data(await owner.put(f"{path}/policy", json=taken))
    assert row["document"]["approvals"]["accounts"] == ["bob@example.test"]


async def test_who_sees_other_projects_alone_approves_nothing(api: World) -> None:
    people, owner, _, path, _ = await shop(api)
    bob, _ = await people.member("bob")
    other = data(await owner.post("/v1/projects", json={"name": "Other"}))["id"]
    members = f"/v1/teams/{people.team_id}/members"
    assert (await owner.patch(f"{members}/{bob}", json={"project_ids": [other]})).status_code == 200
    rule = {"approvals": {"needed": 1, "accounts": [bob]}}
    assert "limited to other projects" in error(await owner.put(f"{path}/policy", json=rule), 400)["message"]
    assert (await owner.patch(f"{members}/{bob}", json={"project_ids": []})).status_code == 200
    assert (await owner.put(f"{path}/policy", json=rule)).status_code == 200


async def test_what_is_refused_ends_with_the_reason_and_a_decision(api: World) -> None:
    _, owner, site_id, path, env_id = await shop(api)
    policy = data(await owner.put(f"/v1/sites/{site_id}/policy", json={"refs": ["main"], "promote_from": ["staging"]}))
    job = await deploy(api, owner, path, api.artifact(site_id, env_id, ref="feature"))
    assert look(api, env_id) is None
    ended = data(await owner.get(f"/v1/jobs/{job['id']}"))
    assert (ended["status"], ended["error"]["code"]) == ("failed", "policy.refused")
    assert "feature is not among main" in ended["error"]["message"]
    decision = data(await owner.get(f"{path}/deployments/{job['resource']['id']}/decision"))
    assert (decision["outcome"], [one["rule"] for one in decision["findings"]]) == ("refused", ["refs"])
    named = {"id": policy["id"], "version": 1, "digest": policy["digest"], "of": "site"}
    assert decision["policies"] == [named]
    assert decision["decided_at"] is not None
    await deploy(api, owner, path, api.artifact(site_id, env_id, digest="b" * 64))
    assert look(api, env_id) is not None


async def test_bytes_that_were_built_again_from_an_allowed_branch_are_allowed(api: World) -> None:
    """A preview's build and the merge's make the same artifact: its statement names the first."""
    _, owner, site_id, path, env_id = await shop(api)
    await owner.put(f"{path}/policy", json={"refs": ["main"]})
    artifact = api.artifact(site_id, env_id, ref="feature")
    merged = api.artifact(site_id, env_id, digest="b" * 64, ref="main")
    with api.store.write() as session:
        build = session.get_one(Build, session.get_one(Artifact, merged).build_id)
        build.artifact_id = artifact
    await deploy(api, owner, path, artifact)
    assert look(api, env_id) is not None


async def test_a_promote_of_what_another_branch_made_and_back_to_it(api: World) -> None:
    site_id, env_id, staging = await two_environments(api)
    production = path_of(site_id, env_id)
    document = {"refs": ["main"], "promote_from": ["staging"]}
    assert (await api.admin.put(f"{production}/policy", json=document)).status_code == 200
    await deploy(api, api.admin, path_of(site_id, staging), api.artifact(site_id, staging, ref="next"))
    api.roll(staging)
    await api.admin.post(f"{path_of(site_id, staging)}/promote", json={"to_env": "production"})
    promoted = api.roll(env_id)
    later = await deploy(api, api.admin, production, api.artifact(site_id, env_id, digest="b" * 64))
    api.roll(env_id)
    await api.admin.post(f"{production}/deployments/{later['resource']['id']}/rollback", json={"release_id": promoted})
    assert api.roll(env_id)


async def test_never_back_below_the_minimum_release(api: World) -> None:
    _, owner, site_id, path, env_id = await shop(api)
    made = []
    for digest in "abc":
        job = await deploy(api, owner, path, api.artifact(site_id, env_id, digest=digest * 64))
        made.append((job["resource"]["id"], api.roll(env_id)))
    (_, oldest), (_, minimum), (latest, _) = made
    assert (await owner.put(f"{path}/policy", json={"minimum_release": minimum})).status_code == 200
    job = data(await owner.post(f"{path}/deployments/{latest}/rollback", json={"release_id": oldest}))
    assert look(api, env_id) is None
    ended = data(await owner.get(f"/v1/jobs/{job['id']}"))
    assert ended["error"]["code"] == "policy.refused"
    assert minimum in ended["error"]["message"]
    await owner.post(f"{path}/deployments/{latest}/rollback", json={"release_id": minimum})
    assert api.roll(env_id)


async def test_approvals_let_it_go_and_two_keys_of_one_person_are_one(api: World) -> None:
    people, owner, site_id, path, env_id = await shop(api)
    bob, bobs = await people.member("bob")
    bobs_other = await people.client(bob)
    _, eves = await people.member("eve")
    rule = {"needed": 2, "accounts": [bob, "eve@example.test", "shop-owner@example.test"]}
    await owner.put(f"{path}/policy", json={"approvals": rule})
    job = await deploy(api, owner, path, api.artifact(site_id, env_id))
    assert error(await bobs.post(f"{path}/deployments/{job['resource']['id']}/approvals"), 409)["code"] == (
        "approval.not_held"
    )
    assert look(api, env_id) is None
    held = data(await owner.get(f"/v1/jobs/{job['id']}"))
    assert (held["status"], held["stage"]) == ("queued", "hold")
    [reason] = held["waits_for"]["reasons"]
    assert (reason["rule"], reason["needed"], reason["given"]) == ("approvals", 2, 0)
    deployment = f"{path}/deployments/{job['resource']['id']}"
    assert data(await owner.get(deployment))["status"] == "held"

    async def approve(client: httpx.AsyncClient) -> bool:
        row = data(await client.post(f"{deployment}/approvals", json={"note": "looked at it"}))
        assert row["deployment_id"] == job["resource"]["id"]
        assert api.starts.rung[-1] == job["id"]
        return look(api, env_id) is not None

    assert not await approve(owner)  # the author
    assert not await approve(bobs)
    assert not await approve(bobs_other)
    assert api.count(Approval) == 2
    assert await approve(eves)
    decision = data(await owner.get(f"{deployment}/decision"))
    assert (decision["outcome"], len(decision["approvals"]), len(decision["given"])) == ("allowed", 2, 3)
    assert data(await owner.get(f"/v1/jobs/{job['id']}"))["waits_for"] is None


async def test_an_approval_expires(api: World) -> None:
    people, owner, site_id, path, env_id = await shop(api)
    bob, bobs = await people.member("bob")
    rule = {"needed": 1, "accounts": [bob], "expire_after": 60}
    await owner.put(f"{path}/policy", json={"approvals": rule, "freezes": [ALWAYS]})
    job = await deploy(api, owner, path, api.artifact(site_id, env_id))
    look(api, env_id)
    approval = data(await bobs.post(f"{path}/deployments/{job['resource']['id']}/approvals"))
    api.change(Approval, approval["id"], given_at=utcnow() - timedelta(seconds=61))
    await owner.put(f"{path}/policy", json={"approvals": rule})
    assert look(api, env_id) is None
    await bobs.post(f"{path}/deployments/{job['resource']['id']}/approvals")
    assert look(api, env_id) is not None


async def test_who_may_not_approve(api: World) -> None:
    people, owner, site_id, path, env_id = await shop(api)
    bob, _ = await people.member("bob")
    await owner.put(f"{path}/policy", json={"approvals": {"needed": 1, "accounts": [bob]}})
    job = await deploy(api, owner, path, api.artifact(site_id, env_id))
    look(api, env_id)
    at = f"{path}/deployments/{job['resource']['id']}/approvals"
    _, eves = await people.member("eve")
    service = await people.client(None)
    for client in (eves, service):
        assert error(await client.post(at), 403)["code"] == "approval.not_named"
    reader = await people.client(bob, ["deployments:read"])
    assert error(await reader.post(at), 403)["code"] == "scope.insufficient"
    _, stranger = await api.tenant("Others")
    assert error(await stranger.post(at), 404)["code"] == "site.not_found"
    assert api.count(Approval) == 0


async def test_a_freeze_holds_and_breaking_the_glass_needs_a_person_and_a_reason(api: World) -> None:
    people, owner, site_id, path, env_id = await shop(api)
    await owner.put(f"{path}/policy", json={"freezes": [ALWAYS]})
    job = await deploy(api, owner, path, api.artifact(site_id, env_id))
    assert look(api, env_id) is None
    at = f"{path}/deployments/{job['resource']['id']}/break-glass"
    reasons = data(await owner.get(f"/v1/jobs/{job['id']}"))["waits_for"]["reasons"]
    assert [one["until"] for one in reasons] == ["2999-01-01T00:00:00Z"]
    bob, manager = await people.member("bob")
    assert error(await manager.post(at, json={"reason": "now"}), 403)["code"] == "approval.not_named"
    service = await people.client(None)
    assert error(await service.post(at, json={"reason": "now"}), 403)["code"] == "approval.not_named"
    assert error(await owner.post(at, json={}), 400)["code"] == "request.missing_parameter"
    decision = data(await owner.post(at, json={"reason": "the shop is down"}))
    assert decision["override"]["reason"] == "the shop is down"
    assert look(api, env_id) is not None
    kept = api.one(Decision, id=decision["id"])
    assert (kept.outcome, [one["rule"] for one in kept.findings]) == ("allowed", ["freeze"])
    # Where the policy names who may, an owner is not enough.
    await owner.put(f"{path}/policy", json={"freezes": [ALWAYS], "break_glass": [bob]})
    second = await deploy(api, owner, path, api.artifact(site_id, env_id, digest="b" * 64))
    with api.store.write() as session:
        record_live(session, job["resource"]["id"], None)
    look(api, env_id)
    at = f"{path}/deployments/{second['resource']['id']}/break-glass"
    assert error(await owner.post(at, json={"reason": "now"}), 403)["code"] == "approval.not_named"
    assert (await manager.post(at, json={"reason": "now"})).status_code == 201


async def test_what_is_held_is_out_of_the_way(api: World) -> None:
    """A rollback waits behind nothing that is held, and is not held itself."""
    _, owner, site_id, path, env_id = await shop(api)
    first = api.artifact(site_id, env_id)
    for artifact in (first, api.artifact(site_id, env_id, digest="b" * 64)):
        live = await deploy(api, owner, path, artifact)
        api.roll(env_id)
    await owner.put(f"{path}/policy", json={"freezes": [ALWAYS]})
    held = await deploy(api, owner, path, api.artifact(site_id, env_id, digest="c" * 64))
    assert look(api, env_id) is None
    back = data(await owner.post(f"{path}/deployments/{live['resource']['id']}/rollback"))
    taken = look(api, env_id)
    assert taken is not None
    assert (taken.id, taken.artifact_id) == (back["resource"]["id"], first)
    canceled = data(await owner.post(f"/v1/jobs/{held['id']}/cancel"))
    assert (canceled["status"], canceled["waits_for"]) == ("canceled", None)


async def test_a_pin_holds_what_is_new_until_it_is_taken_away(api: World) -> None:
    _, owner, site_id, path, env_id = await shop(api)
    row = data(await owner.patch(path, json={"pinned": True, "pin_reason": "a demo"}))
    assert row["pin"]["reason"] == "a demo"
    job = await deploy(api, owner, path, api.artifact(site_id, env_id))
    assert look(api, env_id) is None
    [reason] = data(await owner.get(f"/v1/jobs/{job['id']}"))["waits_for"]["reasons"]
    assert reason == {"rule": "pin", "message": "The environment is pinned (a demo)."}
    assert data(await owner.patch(path, json={"bake_seconds": 0}))["pin"] is not None
    assert data(await owner.patch(path, json={"pinned": False}))["pin"] is None
    assert api.starts.rung == [job["id"]]
    assert look(api, env_id) is not None


async def test_a_newer_push_takes_the_place_of_one_that_is_held(api: World) -> None:
    _, owner, site_id, path, env_id = await shop(api)
    await owner.patch(path, json={"pinned": True})
    jobs = []
    for digest in "ab":
        job = data(await owner.post(f"/v1/sites/{site_id}/deployments", json={"target": "production", "ref": "main"}))
        rollout = api.one(Rollout, job_id=job["id"])
        api.change(Rollout, rollout.id, status="queued", artifact_id=api.artifact(site_id, env_id, digest=digest * 64))
        api.change(Job, job["id"], status="running")
        look(api, env_id)
        jobs.append(job)
    look(api, env_id)
    first, second = [api.one(Rollout, job_id=job["id"]) for job in jobs]
    assert (first.status, second.status) == ("superseded", "held")
    assert api.one(Job, id=jobs[1]["id"]).waits_for is not None


async def test_without_a_policy_nothing_is_decided(api: World) -> None:
    _, owner, site_id, path, env_id = await shop(api)
    job = await deploy(api, owner, path, api.artifact(site_id, env_id))
    api.roll(env_id)
    missing = await owner.get(f"{path}/deployments/{job['resource']['id']}/decision")
    assert error(missing, 404)["code"] == "decision.not_found"
    assert api.count(Decision) == 0
    assert api.count(Account) > 0


async def test_nobody_else_learns_of_a_policy_or_a_decision(api: World) -> None:
    _, owner, site_id, path, env_id = await shop(api)
    await owner.put(f"{path}/policy", json={"freezes": [ALWAYS]})
    job = await deploy(api, owner, path, api.artifact(site_id, env_id))
    look(api, env_id)
    deployment = f"{path}/deployments/{job['resource']['id']}"
    _, stranger = await api.tenant("Others")
    for at in (f"/v1/sites/{site_id}/policy", f"{path}/policy"):
        for suffix in ("", "/versions"):
            assert error(await stranger.get(at + suffix), 404)["code"] == "site.not_found"
    assert error(await stranger.get(f"{deployment}/decision"), 404)["code"] == "site.not_found"
    assert error(await stranger.post(f"{deployment}/break-glass", json={"reason": "x"}), 404)["code"] == (
        "site.not_found"
    )
    assert api.one(Decision).override is None
