"""API keys (contract section 3.6): minted, bounded, rolled, revoked; and rate limits with a small budget."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from api.limits import Budgets, RateLimiter
from api.scopes import ISOLATED, PRESETS
from store.models import ApiKey, utcnow
from tests.api.world import World, data, error, world

pytestmark = pytest.mark.anyio


async def test_a_key_is_metadata_but_for_the_answer_that_makes_it(api: World) -> None:
    made = await api.admin.post("/v1/api-keys", json={"name": "ci", "scopes": ["sites:read"], "kind": "service"})
    assert made.status_code == 201
    row = data(made)
    assert row["secret"].startswith("mfs_live_")
    assert len(row["secret"]) == len("mfs_live_") + 43
    assert row["prefix"] == row["secret"][:13]
    shown = data(await api.admin.get(f"/v1/api-keys/{row['id']}"))
    assert "secret" not in shown
    fields = {"id", "name", "prefix", "scopes", "resource", "ip_allowlist", "created_at", "expires_at"}
    assert set(shown) >= fields | {"last_used_at", "revoked_at"}
    assert row["secret"] not in (await api.admin.get("/v1/api-keys")).text


@pytest.mark.parametrize("preset", sorted(PRESETS))
async def test_presets_are_expanded_when_a_key_is_minted(api: World, preset: str) -> None:
    row = data(await api.admin.post("/v1/api-keys", json={"name": "p", "scopes": preset, "kind": "service"}))
    assert set(row["scopes"]) == PRESETS[preset]
    assert not set(row["scopes"]) & ISOLATED


async def test_a_preset_gives_what_the_role_allows(api: World) -> None:
    team, _ = await api.tenant("Team", "observer")
    member = next(row for row in data(await api.admin.get(f"/v1/teams/{team}/members")) if row["role"] == "observer")
    body = {"name": "p", "scopes": "deploy-bot", "team_id": team, "account_id": member["account_id"]}
    assert set(data(await api.admin.post("/v1/api-keys", json=body))["scopes"]) == {
        "sites:read",
        "domains:read",
        "jobs:read",
        "observability:read",
    }


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"scopes": "everything"}, "scopes"),
        ({"scopes": ["sites:fly"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": 7}, "scopes"),
        ({"expires_in": "2y"}, "expires_in"),
        ({"expires_in": "366d"}, "expires_in"),
        ({"expires_in": "0d"}, "expires_in"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": "999999999y"}, "expires_in"),
        ({"ip_allowlist": ["10.0.0.0/33"]}, "ip_allowlist"),
        ({"ip_allowlist": ["example.com"]}, "ip_allowlist"),
        ({"resource": {"type": "planet", "id": "site_0000"}}, "resource.type"),
        ({"resource": {"type": "site"}}, "resource.id"),
        ({"kind": "operator"}, "kind"),
    ],
)
async def test_odd_keys_are_refused(api: World, change: dict[str, object], param: str) -> None:
    body = {"name": "k", "scopes": ["sites:read"]} | change
    refused = error(await api.admin.post("/v1/api-keys", json=body), 400)
    assert (refused["param"] or "").startswith(param)


async def test_no_key_gives_what_it_does_not_hold(api: World) -> None:
    team, alice = await api.tenant("Alice")
    site, other = await api.site(alice, "One"), await api.site(alice, "Two")
    pin = {"type": "site", "id": site["id"]}
    small = api.client(await api.key(team, None, ["keys:write", "sites:read"], resource=pin))

    async def mint(**body: object) -> object:
        return await small.post("/v1/api-keys", json={"name": "k", "scopes": ["sites:read"], "resource": pin} | body)

    assert data(await mint())["resource"] == pin  # type: ignore[arg-type]
    for body in (
        {"scopes": ["sites:write"]},
        {"scopes": ["*"]},
        {"scopes": ["exec:raw"]},
        {"scopes": "ci-terraform"},
        {"resource": None},
        {"resource": {"type": "team", "id": team}},
    ):
        assert error(await mint(**body), 403)["code"] == "key.escalation"  # type: ignore[arg-type]
    hidden = await mint(resource={"type": "site", "id": other["id"]})
    assert error(hidden, 404)["code"] == "site.not_found"  # type: ignore[arg-type]
    mine = data(await small.get("/v1/api-keys"))
    assert all(row["resource"] == pin for row in mine)


async def test_no_key_takes_over_a_stronger_one(api: World) -> None:
    team, _ = await api.tenant("Alice")
    strong = data(await api.admin.post("/v1/api-keys", json={"name": "s", "scopes": ["*"], "team_id": team}))
    weak = api.client(await api.key(team, None, ["keys:write"]))
    path = f"/v1/api-keys/{strong['id']}"
    assert error(await weak.post(f"{path}/roll"), 403)["code"] == "key.escalation"
    assert error(await weak.patch(path, json={"ip_allowlist": []}), 403)["code"] == "key.escalation"
    own = next(row for row in data(await weak.get("/v1/api-keys")) if row["scopes"] == ["keys:write"])
    raised = await weak.patch(f"/v1/api-keys/{own['id']}", json={"scopes": ["*"]})
    assert error(raised, 403)["code"] == "key.escalation"
    operators = {row["id"] for row in data(await api.admin.get("/v1/api-keys")) if row["kind"] == "operator"}
    assert error(await weak.get(f"/v1/api-keys/{operators.pop()}"), 404)["code"] == "api_key.not_found"


async def test_whoever_is_limited_to_some_projects_gets_no_key_for_the_team(api: World) -> None:
    team, boss = await api.tenant("Team", scopes=["*", "keys:write"])
    project = data(await boss.post("/v1/projects", json={"name": "Side"}))
    inside, outside = await api.site(boss, "Inside", project_id=project["id"]), await api.site(boss, "Outside")
    body = {"email": "m@example.test", "name": "M", "role": "admin", "project_ids": [project["id"]]}
    member = data(await api.admin.post(f"/v1/teams/{team}/members", json=body))["account_id"]
    limited = api.client(await api.key(team, member, ["*", "keys:write"]))
    ours = data(await boss.post("/v1/api-keys", json={"name": "s", "scopes": ["sites:read"], "kind": "service"}))

    wide = {"name": "k", "scopes": ["sites:read"], "kind": "service"}
    for pin in (None, {"type": "team", "id": team}):
        refused = error(await limited.post("/v1/api-keys", json={**wide, "resource": pin}), 403)
        assert (refused["code"], refused["param"]) == ("key.escalation", "resource")
    elsewhere = {"type": "site", "id": outside["id"]}
    assert error(await limited.post("/v1/api-keys", json={**wide, "resource": elsewhere}), 404)
    assert error(await limited.post(f"/v1/api-keys/{ours['id']}/roll"), 404)["code"] == "api_key.not_found"
    assert error(await limited.delete(f"/v1/api-keys/{ours['id']}"), 404)["code"] == "api_key.not_found"

    for kind, pin in (("project", project["id"]), ("site", inside["id"]), ("environment", inside["production_env_id"])):
        made = data(await limited.post("/v1/api-keys", json={**wide, "resource": {"type": kind, "id": pin}}))
        assert data(await limited.get(f"/v1/api-keys/{made['id']}"))["id"] == made["id"]
        seen = data(await api.client(made["secret"]).get("/v1/sites"))
        assert [row["id"] for row in seen] == [inside["id"]]
    personal = data(await limited.post("/v1/api-keys", json={**wide, "kind": "personal"}))
    assert [row["id"] for row in data(await api.client(personal["secret"]).get("/v1/sites"))] == [inside["id"]]


async def test_whoever_is_limited_to_some_projects_does_not_lift_the_limit(api: World) -> None:
    team, boss = await api.tenant("Team")
    project = data(await boss.post("/v1/projects", json={"name": "Side"}))
    body = {"email": "m@example.test", "name": "M", "role": "admin", "project_ids": [project["id"]]}
    member = data(await api.admin.post(f"/v1/teams/{team}/members", json=body))["account_id"]
    limited = api.client(await api.key(team, member, ["*"]))
    pinned = api.client(await api.key(team, None, ["*"], resource={"type": "project", "id": project["id"]}))
    for key in (limited, pinned):
        path = f"/v1/teams/{team}/members/{member}"
        assert error(await key.patch(path, json={"project_ids": []}), 403)["code"] == "role.insufficient"
        assert error(await key.delete(path), 403)["code"] == "role.insufficient"
        assert error(
            await key.post(f"/v1/teams/{team}/members", json={"email": "x@example.test", "role": "admin"}), 403
        )
    rows = data(await boss.get(f"/v1/teams/{team}/members"))
    assert next(row for row in rows if row["account_id"] == member)["project_ids"] == [project["id"]]


async def test_a_key_that_is_good_from_few_addresses_makes_none_that_is_good_from_more(api: World) -> None:
    team, _ = await api.tenant("Alice")
    scopes = ["sites:read", "keys:write"]
    secret = await api.key(team, None, scopes, ip_allowlist=["10.1.0.0/16"])
    free = data(await api.admin.post("/v1/api-keys", json={"name": "f", "scopes": scopes, "team_id": team}))
    bound = api.client(secret, address=("10.1.2.3", 1))
    body = {"name": "k", "scopes": ["sites:read"]}
    for networks in ([], ["0.0.0.0/0"], ["10.1.2.0/24", "10.2.0.0/16"], ["::/0"]):
        refused = error(await bound.post("/v1/api-keys", json={**body, "ip_allowlist": networks}), 403)
        assert (refused["code"], refused["param"]) == ("key.escalation", "ip_allowlist")
    assert error(await bound.post(f"/v1/api-keys/{free['id']}/roll"), 403)["code"] == "key.escalation"
    own = next(row for row in data(await bound.get("/v1/api-keys")) if row["ip_allowlist"])
    path = f"/v1/api-keys/{own['id']}"
    assert error(await bound.patch(path, json={"ip_allowlist": []}), 403)["code"] == "key.escalation"
    made = data(await bound.post("/v1/api-keys", json={**body, "ip_allowlist": ["10.1.2.0/24"]}))
    assert made["ip_allowlist"] == ["10.1.2.0/24"]
    assert data(await bound.post(f"{path}/roll"))["ip_allowlist"] == ["10.1.0.0/16"]


async def test_a_revoked_key_is_refused_at_once(api: World) -> None:
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["*"], "kind": "service"}))
    client = api.client(made["secret"])
    assert (await client.get("/v1/sites")).status_code == 200
    assert data(await api.admin.delete(f"/v1/api-keys/{made['id']}")) == {"id": made["id"], "deleted": True}
    assert error(await client.get("/v1/sites"), 401)["code"] == "auth.revoked_key"


async def test_an_expired_key_is_refused(api: World) -> None:
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["*"], "expires_in": "1h"}))
    client = api.client(made["secret"])
    assert (await client.get("/v1/sites")).status_code == 200
    api.change(ApiKey, made["id"], expires_at=utcnow() - timedelta(seconds=1))
    api.parts.auth.forget()
    assert error(await client.get("/v1/sites"), 401)["code"] == "auth.expired_key"


async def test_a_rolled_keys_old_secret_lives_for_its_grace_period(api: World) -> None:
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["*"], "kind": "service"}))
    rolled = data(await api.admin.post(f"/v1/api-keys/{made['id']}/roll", json={"grace_period": "1h"}))
    assert rolled["id"] == made["id"]
    assert rolled["secret"] != made["secret"]
    old, new = api.client(made["secret"]), api.client(rolled["secret"])
    assert [(await client.get("/v1/sites")).status_code for client in (old, new)] == [200, 200]
    with api.store.write() as session:
        key = session.exec(select(ApiKey).where(ApiKey.id == made["id"])).one()
        key.previous_expires_at = utcnow() - timedelta(seconds=1)
    api.parts.auth.forget()
    assert error(await old.get("/v1/sites"), 401)["code"] == "auth.invalid_key"
    assert (await new.get("/v1/sites")).status_code == 200
    gone = data(await api.admin.post(f"/v1/api-keys/{made['id']}/roll", json={"grace_period": "0s"}))
    assert error(await new.get("/v1/sites"), 401)["code"] == "auth.invalid_key"
    assert (await api.client(gone["secret"]).get("/v1/sites")).status_code == 200


async def test_an_allowlist_bounds_where_a_key_works(api: World) -> None:
    body = {"name": "k", "scopes": ["*"], "ip_allowlist": ["10.1.0.0/16", "::1/128"]}
    made = data(await api.admin.post("/v1/api-keys", json=body))
    assert made["ip_allowlist"] == ["10.1.0.0/16", "::1/128"]
    for address, status in (("10.1.2.3", 200), ("::ffff:10.1.2.3", 200), ("::1", 200), ("10.2.0.1", 403)):
        client = api.client(made["secret"], address=(address, 1))
        answer = await client.get("/v1/sites", headers={"X-Forwarded-For": "10.1.0.1"})
        assert answer.status_code == status
    assert error(answer, 403)["code"] == "key.ip_not_allowed"


async def test_changing_a_key(api: World) -> None:
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["sites:read"]}))
    client = api.client(made["secret"])
    assert error(await client.get("/v1/jobs"), 403)["code"] == "scope.insufficient"
    change = {"name": "n", "scopes": ["jobs:read"], "expires_in": "1y"}
    changed = data(await api.admin.patch(f"/v1/api-keys/{made['id']}", json=change))
    assert (changed["name"], changed["scopes"]) == ("n", ["jobs:read"])
    assert changed["expires_at"] > made["expires_at"]
    assert (await client.get("/v1/jobs")).status_code == 200


async def test_last_use_is_noted_outside_of_requests(api: World) -> None:
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["*"]}))
    await api.client(made["secret"]).get("/v1/sites")
    await api.parts.auth.write_uses()
    first = api.one(ApiKey, id=made["id"]).last_used_at
    assert first is not None
    await api.client(made["secret"]).get("/v1/sites")
    await api.parts.auth.write_uses()
    assert api.one(ApiKey, id=made["id"]).last_used_at == first


async def test_a_small_budget_is_spent_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with world(tmp_path, Budgets(read=3, write=2, create=1, team=100)) as api:
        team, alice = await api.tenant("Alice")
        answers = [await alice.get("/v1/sites") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
        refused = error(answers[-1], 429)
        assert (refused["type"], refused["code"]) == ("rate_limit", "rate_limit.exceeded")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
        assert int(answers[-1].headers["x-ratelimit-reset"]) > 1_700_000_000
        assert "retry-after" not in answers[0].headers
        created = [await alice.post("/v1/sites", json={"name": f"s{n}"}) for n in range(2)]
        assert [answer.status_code for answer in created] == [202, 429]
        assert created[0].headers["x-ratelimit-limit"] == "1"
        other = api.client(await api.key(team, None, ["*"]))
        shown = data(await other.get("/v1/rate-limits"))
        assert shown["key"]["read"]["limit"] == 3
        assert shown["key"]["read"]["remaining"] == 2
        assert set(shown) == {"key", "team"}
        assert [(await api.admin.get("/v1/sites")).status_code for _ in range(5)] == [200] * 5


async def test_a_refused_request_is_not_stored_under_its_key(tmp_path: Path) -> None:
    async with world(tmp_path, Budgets(read=100, write=100, create=1, team=100)) as api:
        _, alice = await api.tenant("Alice")
        await alice.post("/v1/sites", json={"name": "a"})
        key = {"Idempotency-Key": "k"}
        assert (await alice.post("/v1/sites", json={"name": "b"}, headers=key)).status_code == 429
        api.parts.limiter._buckets.clear()
        assert (await alice.post("/v1/sites", json={"name": "c"}, headers=key)).status_code == 202


def test_buckets_fill_with_time_and_the_team_has_one_too() -> None:
    now = [0.0]
    limiter = RateLimiter(Budgets(read=60, write=60, create=60, team=2), clock=lambda: now[0], wall=lambda: 1000.0)
    assert limiter.draw("k1", "t", "read", exempt=False).retry_after is None
    assert limiter.draw("k2", "t", "read", exempt=False).retry_after is None
    refused = limiter.draw("k3", "t", "read", exempt=False)
    assert (refused.retry_after, refused.limit) == (30, 2)
    assert limiter.peek("k3", "read").remaining == 60, "what is refused takes nothing"
    now[0] = 30.0
    assert limiter.draw("k3", "t", "read", exempt=False).retry_after is None
    assert limiter.draw("k3", "other", "read", exempt=False).remaining == 58


async def test_to_roll_a_revoked_key_is_a_conflict_and_says_nothing_of_the_callers_own(api: World) -> None:
    """401 would tell the caller that its own key is no good."""
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["sites:read"]}))
    assert (await api.admin.delete(f"/v1/api-keys/{made['id']}")).status_code == 200
    for method, path, body in (("POST", "/roll", None), ("PATCH", "", {"expires_in": "90d"})):
        answer = await api.admin.request(method, f"/v1/api-keys/{made['id']}{path}", json=body)
        assert error(answer, 409)["code"] == "key.revoked"
        assert "www-authenticate" not in answer.headers


async def test_an_expired_key_is_not_rolled_into_another_that_is_expired(api: World) -> None:
    made = data(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["sites:read"]}))
    path = f"/v1/api-keys/{made['id']}"
    api.change(ApiKey, made["id"], expires_at=utcnow() - timedelta(seconds=1))
    assert error(await api.admin.post(f"{path}/roll"), 409)["code"] == "key.expired"
    assert (await api.admin.patch(path, json={"expires_in": "90d"})).status_code == 200
    rolled = data(await api.admin.post(f"{path}/roll"))
    assert (await api.client(rolled["secret"]).get("/v1/sites")).status_code == 200
