"""Two teams on one platform: neither can see, touch or even guess the other's rows, in any route that there is."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import DNS, NewRepository
from tests.stack.sites import Place, refusal

Json = dict[str, Any]
Enter = Callable[[Json], Caller]
ALL = ["*", "keys:write"]
KEPT = {"variables": "GREETING", "secrets": "TOKEN"}
# A body that would be right, by the end of the route: what is refused then is the row and not the request.
BODIES: dict[str, Json] = {
    "/environments": {"kind": "preview", "branch": "theirs"},
    "/builds": {"ref": "main"},
    "{env_id}/deployments": {"artifact_id": "art_01J8AA1B2C3D4E5F6G7H8J9K0M"},
    "{site_id}/deployments": {"ref": "main", "target": "production"},
    "/promote": {"to_env": "production"},
    "/scale": {"instances": 2},
    "/run": {"command": "true"},
    "/domains": {"hostname": "theirs.example"},
    "/artifacts/{artifact_id}": {"kept": True},
    "/break-glass": {"reason": "theirs"},
    "/labels": {"labels": ["theirs"]},
    "/hooks": {"provider": "github"},
    "/credentials": {"kind": "deploy_key"},
    "/polling": {"enabled": True},
    "/forge": {"provider": "github", "token": "theirs"},
    "/password": {"password": "theirs-theirs"},
    "/preview-password": {"password": "theirs-theirs"},
    "/variables/{key}": {"value": "theirs"},
    "/secrets/{key}": {"value": "theirs"},
    "/revoke": {"version_id": "cfg_01J8AA1B2C3D4E5F6G7H8J9K0M"},
    "/hosts/{host_id}/accept": {"public_key": "AAAA"},
    "/members": {"email": "stranger@example.test", "name": "S", "role": "admin"},
    "/members/{account_id}": {"role": "observer"},
    "{site_id}": {"name": "taken over"},
    "{key_id}": {"name": "taken over"},
}


@dataclasses.dataclass(frozen=True)
class Tenant:
    """A team with an owner whose key may do anything in it, and one site that is live."""

    team: str
    account: str
    caller: Caller
    place: Place
    ids: dict[str, str]


def new_key(operator: Caller, team: str, account: str | None, scopes: list[str]) -> Json:
    body: Json = {"name": "k", "scopes": scopes, "team_id": team}
    return operator.post("/v1/api-keys", body | ({"account_id": account} if account else {}))


@pytest.fixture(scope="module")
def enter(stack: Stack) -> Iterator[Enter]:
    """A caller with a key of its own, and so with budgets of its own."""
    with contextlib.ExitStack() as doors:

        def make(key: Json) -> Caller:
            caller = Caller(dataclasses.replace(stack, key=key["secret"]))
            doors.callback(caller.http.close)
            return caller

        yield make


def new_tenant(stack: Stack, operator: Caller, enter: Enter, new_repository: NewRepository) -> Tenant:
    repository = new_repository({"index.html": "<h1>private</h1>\n"})
    name = f"team {repository.path.name}"
    team = operator.post("/v1/teams", {"name": name})["id"]
    owner = {"email": f"{repository.path.name}@example.test", "name": name, "role": "owner"}
    account = operator.post(f"/v1/teams/{team}/members", owner)["account_id"]
    key = new_key(operator, team, account, ALL)
    caller = enter(key)
    place = Place(stack, caller, caller.new_site(name, repository.path.as_uri()), repository)
    for owner_of in (f"/v1/sites/{place.site.id}", place.path(place.site.production)):
        for kind, name in KEPT.items():
            caller.http.put(f"{owner_of}/{kind}/{name}", json={"value": "private"}).raise_for_status()
    pushed = place.push()
    result = pushed["result"]
    hook = caller.post(f"/v1/sites/{place.site.id}/hooks", {"provider": "github"})
    endpoint = caller.post("/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/", "events": ["webhook.test"]})
    delivery = caller.post(f"/v1/webhook-endpoints/{endpoint['id']}/test")
    forge = {"provider": "gitea", "api_url": "http://127.0.0.1:9/api/v1", "repository": "a/b", "token": "private"}
    caller.http.put(f"/v1/sites/{place.site.id}/forge", json=forge).raise_for_status()
    address = "mailto://127.0.0.1:9?from=a@acme.test&to=b@acme.test"
    notice = caller.post("/v1/notifications", {"url": address, "events": ["webhook.test"]})
    ids = {
        "report_id": caller.get(f"/v1/sites/{place.site.id}/forge/reports")[0]["id"],
        "notification_id": notice["id"],
        "domain_id": proven_domain(place, caller),
        "hook_id": hook["id"],
        "credential_id": "cred_01J8AA1B2C3D4E5F6G7H8J9K0M",
        "record_id": "rec_01J8AA1B2C3D4E5F6G7H8J9K0M",
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "site_id": place.site.id,
        "env_id": place.site.production,
        "build_id": result["build_id"],
        "artifact_id": result["artifact_id"],
        "deployment_id": result["deployment_id"],
        "release_id": result["release_id"],
        "job_id": pushed["id"],
        "key_id": key["id"],
        "team_id": team,
        "account_id": account,
        "project_id": caller.get("/v1/projects")[0]["id"],
        "key": KEPT["variables"],
        "host_id": "local",
        "builder_id": "local",
        "input_id": caller.post(f"{place.path(place.site.production)}/inputs?end=false")["id"],
    }
    return Tenant(team, account, caller, place, ids)


def proven_domain(place: Place, caller: Caller) -> str:
    path = place.path(place.site.production, "domains")
    job = caller.post(path, {"hostname": f"www.{place.repository.path.name}.example"})
    domain_id = str(job["resource"]["id"])
    for record in caller.get(f"{path}/{domain_id}")["dns_records"]:
        DNS.set(record["name"], record["type"], record["value"])
    caller.finish(job)
    return domain_id


@pytest.fixture(scope="module")
def alice(stack: Stack, caller: Caller, enter: Enter, new_repository: NewRepository) -> Tenant:
    return new_tenant(stack, caller, enter, new_repository)


@pytest.fixture(scope="module")
def bob(stack: Stack, caller: Caller, enter: Enter, new_repository: NewRepository) -> Tenant:
    return new_tenant(stack, caller, enter, new_repository)


@pytest.fixture
def stranger(caller: Caller, bob: Tenant, enter: Enter) -> Caller:
    """Bob with a fresh key, which may do anything in his team."""
    return enter(new_key(caller, bob.team, bob.account, ALL))


@pytest.fixture(scope="module")
def routes(caller: Caller) -> list[tuple[str, str]]:
    """Every method and path of the API that names a row."""
    paths = caller.http.get("/openapi.json").json()["paths"]
    # The ledger is everybody's: its entries are digests and signatures.
    open_to_all = ("/v1/ledger/",)
    found = [
        (method.upper(), path)
        for path, item in paths.items()
        for method in item
        if "{" in path and not path.startswith(open_to_all)
    ]
    assert len(found) > 50
    return found


def body_of(path: str) -> Json | None:
    ends = [end for end in BODIES if path.endswith(end)]
    return BODIES[max(ends, key=len)] if ends else None


def ask(caller: Caller, method: str, path: str, ids: dict[str, str]) -> tuple[str, httpx.Response]:
    filled = path.format(**ids | ({"key": KEPT["secrets"]} if "/secrets/" in path else {}))
    body = (body_of(path) or {}) if method in ("POST", "PATCH", "PUT") else None
    query: Json | None = {"against": "art_01J8AA1B2C3D4E5F6G7H8J9K0M"} if path.endswith("/changes") else None
    query = {"offset": 0} if path.endswith("{input_id}") else query
    return filled, caller.http.request(method, filled, json=body, params=query)


def nameless(error: Json) -> Json:
    """The error without the ids in its words."""
    return {name: re.sub(r"[a-z]+_[0-9A-Z]{26}|\b(local|nowhere)\b", "ID", str(value)) for name, value in error.items()}


def state(tenant: Tenant) -> Json:
    """What a stranger could have changed."""
    caller, place = tenant.caller, tenant.place
    return {
        "site": caller.get(f"/v1/sites/{place.site.id}"),
        "environments": caller.get(f"/v1/sites/{place.site.id}/environments"),
        "jobs": [(job["id"], job["status"]) for job in caller.get("/v1/jobs?limit=100")],
        "releases": place.releases(place.site.production),
        "members": caller.get(f"/v1/teams/{tenant.team}/members"),
        "keys": [(key["id"], key["name"], key["revoked_at"]) for key in caller.get("/v1/api-keys")],
        "variables": place.get(place.site.production, "variables"),
        "secrets": place.get(place.site.production, "secrets"),
    }


def test_every_route_hides_another_tenants_rows(
    alice: Tenant, bob: Tenant, stranger: Caller, routes: list[tuple[str, str]]
) -> None:
    before = state(alice)
    unknown = {name: re.sub(r"_.*", "_01J8AA1B2C3D4E5F6G7H8J9K0M", one) for name, one in alice.ids.items()}
    unknown["host_id"] = unknown["builder_id"] = "nowhere"
    for method, path in routes:
        filled, answer = ask(stranger, method, path, alice.ids)
        hidden = refusal(answer, 404)
        assert hidden["type"] == "not_found", filled
        # A row of somebody else and a row that nobody has look the same.
        assert nameless(hidden) == nameless(refusal(ask(bob.caller, method, path, unknown)[1], 404)), filled
    assert state(alice) == before


def mixed(path: str, own: dict[str, str], foreign: dict[str, str]) -> Iterator[dict[str, str]]:
    """The ids of a path: one's own up to some place, from there on the other's."""
    names = re.findall(r"\{(\w+)\}", path)
    for first in range(1, len(names)):
        if any(foreign[name] != own[name] for name in names[first:]):  # names that both may give are nobody's
            yield own | {name: foreign[name] for name in names[first:]}


def test_rows_of_another_tenant_do_not_belong_to_my_own(
    alice: Tenant, bob: Tenant, stranger: Caller, routes: list[tuple[str, str]]
) -> None:
    before = state(alice)
    for method, path in routes:
        for ids in mixed(path, bob.ids, alice.ids):
            filled, answer = ask(stranger, method, path, ids)
            assert answer.status_code == 404, (method, filled, answer.text)
    assert state(alice) == before


def test_rows_of_another_tenant_are_not_taken_in_a_body(alice: Tenant, bob: Tenant, stranger: Caller) -> None:
    place = bob.place
    production = place.site.production
    pin = {"type": "site", "id": alice.ids["site_id"]}
    asked = [
        (place.path(production, "deployments"), {"artifact_id": alice.ids["artifact_id"]}),
        (f"/v1/sites/{place.site.id}/deployments", {"artifact_id": alice.ids["artifact_id"], "target": "production"}),
        (f"/v1/sites/{place.site.id}/deployments", {"build_id": alice.ids["build_id"], "target": "production"}),
        (f"/v1/sites/{place.site.id}/deployments", {"ref": "main", "target": alice.ids["env_id"]}),
        (place.path(production, "promote"), {"to_env": alice.ids["env_id"]}),
        (
            place.path(production, "deployments", bob.ids["deployment_id"], "rollback"),
            {"release_id": alice.ids["release_id"]},
        ),
        ("/v1/sites", {"name": "intruder", "project_id": alice.ids["project_id"]}),
        ("/v1/projects", {"name": "intruder", "team_id": alice.team}),
        ("/v1/api-keys", {"name": "k", "scopes": ["sites:read"], "resource": pin}),
        ("/v1/api-keys", {"name": "k", "scopes": ["sites:read"], "team_id": alice.team}),
    ]
    before = state(alice)
    for path, body in asked:
        assert stranger.http.post(path, json=body).status_code in (403, 404), (path, body)
        if "/sites" in path:
            assert refusal(stranger.http.post(path, json=body), 404)["type"] == "not_found"
    moved = stranger.http.patch(f"/v1/sites/{place.site.id}", json={"project_id": alice.ids["project_id"]})
    assert refusal(moved, 404)["code"] == "project.not_found"
    assert state(alice) == before


def test_lists_hold_ones_own_rows_alone(alice: Tenant, bob: Tenant) -> None:
    for path in ("/v1/sites", "/v1/projects", "/v1/jobs?limit=100", "/v1/teams", "/v1/api-keys"):
        mine, theirs = ({row["id"] for row in one.caller.get(path)} for one in (alice, bob))
        assert mine
        assert theirs
        assert not mine & theirs


def test_a_key_without_the_scope_is_told_which_and_starts_nothing(caller: Caller, enter: Enter, alice: Tenant) -> None:
    key = new_key(caller, alice.team, alice.account, ["sites:read", "environments:read", "deployments:read"])
    reader = enter(key)
    jobs = alice.caller.get("/v1/jobs?limit=100")
    place = alice.place
    for path, body, scope in (
        (place.path(place.site.staging, "builds"), {}, "deployments:write"),
        (place.path(place.site.staging, "deployments"), {"artifact_id": alice.ids["artifact_id"]}, "deployments:write"),
        (place.path(place.site.production, "promote"), {"to_env": "staging"}, "deployments:write"),
        (f"/v1/sites/{place.site.id}/deployments", {"ref": "main", "target": "staging"}, "deployments:write"),
        (f"/v1/sites/{place.site.id}/environments", {"kind": "preview", "branch": "x"}, "environments:write"),
        ("/v1/sites", {"name": "x"}, "sites:write"),
    ):
        error = refusal(reader.http.post(path, json=body), 403)
        assert (error["code"], error["param"]) == ("scope.insufficient", "scope")
        assert scope in error["message"]
    assert refusal(reader.http.get(f"/v1/jobs/{alice.ids['job_id']}"), 403)["code"] == "scope.insufficient"
    assert reader.get(place.path(place.site.production, "releases"))
    assert alice.caller.get("/v1/jobs?limit=100") == jobs


def test_an_observer_sees_and_cannot_deploy(caller: Caller, enter: Enter, alice: Tenant) -> None:
    member = {"email": f"observer-{alice.team}@example.test", "name": "O", "role": "observer"}
    account = caller.post(f"/v1/teams/{alice.team}/members", member)["account_id"]
    observer = enter(new_key(caller, alice.team, account, ["*"]))
    place = alice.place
    assert observer.get(place.path(place.site.production, "releases")) == place.releases(place.site.production)
    jobs = alice.caller.get("/v1/jobs?limit=100")
    last = alice.ids["deployment_id"]
    for path, body in (
        (place.path(place.site.production, "builds"), {}),
        (place.path(place.site.production, "deployments"), {"artifact_id": alice.ids["artifact_id"]}),
        (place.path(place.site.production, "promote"), {"to_env": "staging"}),
        (place.path(place.site.production, "deployments", last, "rollback"), {}),
        (f"/v1/sites/{place.site.id}/deployments", {"ref": "main", "target": "production"}),
    ):
        assert refusal(observer.http.post(path, json=body), 403)["code"] == "role.insufficient", path
    assert refusal(observer.http.post(f"/v1/jobs/{alice.ids['job_id']}/cancel"), 403)["code"] == "role.insufficient"
    assert alice.caller.get("/v1/jobs?limit=100") == jobs


def test_a_removed_member_is_out_at_once(caller: Caller, enter: Enter, alice: Tenant) -> None:
    member = {"email": f"leaver-{alice.team}@example.test", "name": "L", "role": "site_manager"}
    account = caller.post(f"/v1/teams/{alice.team}/members", member)["account_id"]
    leaver = enter(new_key(caller, alice.team, account, ["*"]))
    assert leaver.http.get(f"/v1/sites/{alice.ids['site_id']}").status_code == 200
    assert caller.http.delete(f"/v1/teams/{alice.team}/members/{account}").status_code == 200
    assert refusal(leaver.http.get(f"/v1/sites/{alice.ids['site_id']}"), 401)["type"] == "authentication"
