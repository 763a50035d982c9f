"""Webhook endpoints by the contract's section 17: made, shown, changed, rotated, and who hears of what."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from sqlmodel import select

from store.deliveries import Pace as DeliveryPace
from store.deliveries import Try, keep_try
from store.models import Job, utcnow
from store.models_webhooks import Delivery, Event, WebhookEndpoint
from store.outcomes import end_job
from store.webhooks import open_endpoint
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
HOOK = "https://example.com/hook"
W = "/v1/webhook-endpoints"


async def make(client: Any, *events: str, **more: Any) -> Json:
    answer = await client.post(W, json={"url": HOOK, "events": list(events or ("*",)), **more})
    assert answer.status_code == 201, answer.text
    return dict(data(answer))


async def test_the_secret_is_shown_once_and_kept_hidden(api: World) -> None:
    _, client = await api.tenant("Acme")
    made = await make(client, "site.deployed", "build.*", description="CI")
    secret = made.pop("signing_secret")
    assert made["id"].startswith("whe_")
    assert secret.startswith("whsec_")
    assert made["secret_preview"] == f"whsec_…{secret[-4:]}"
    assert (made["enabled"], made["description"], made["events"]) == (True, "CI", ["site.deployed", "build.*"])
    shown = data(await client.get(f"{W}/{made['id']}"))
    assert shown == made
    listed = await client.get(W)
    assert data(listed) == [made]
    assert secret not in listed.text
    row = api.one(WebhookEndpoint, id=made["id"])
    assert secret.encode() not in row.ciphertext
    assert open_endpoint(api.parts.webhook_vault, row, utcnow()).secrets == (secret,)
    assert secret.encode() not in (api.folder / "headway.db").read_bytes()


async def test_a_replayed_request_makes_one_endpoint_and_shows_no_secret(api: World) -> None:
    _, client = await api.tenant("Acme")
    body, key = {"url": HOOK, "events": ["*"]}, {"Idempotency-Key": "k1"}
    first, again = await client.post(W, json=body, headers=key), await client.post(W, json=body, headers=key)
    assert again.status_code == 201
    assert again.headers["idempotent-replayed"] == "true"
    assert data(again)["id"] == data(first)["id"]
    assert "signing_secret" not in data(again)
    assert api.count(WebhookEndpoint) == 1


REFUSED: tuple[tuple[Json, str, str], ...] = (
    ({"url": "http://example.com/"}, "url", "webhook_endpoint.url_refused"),
    ({"url": "https://10.1.2.3/"}, "url", "webhook_endpoint.url_refused"),
    ({"url": 7}, "url", "request.invalid_parameter"),
    ({"events": []}, "events", "request.invalid_parameter"),
    ({"events": ["site.exploded"]}, "events", "request.invalid_parameter"),
    ({"events": ["nothing.*"]}, "events", "request.invalid_parameter"),
    ({"evnets": ["*"]}, "evnets", "request.unknown_parameter"),
)


async def test_what_is_refused_and_what_the_contract_names(api: World) -> None:
    _, client = await api.tenant("Acme")
    for change, param, code in REFUSED:
        refused = error(await client.post(W, json={"url": HOOK, "events": ["*"], **change}), 400)
        assert (refused["code"], refused["param"]) == (code, param)
    assert api.count(WebhookEndpoint) == 0
    names = ["site.deployed", "deployment.failed", "build.succeeded", "build.failed", "job.succeeded", "job.failed"]
    names += ["job.canceled", "cert.renewed", "quota.exceeded", "malware.detected", "security.site_hacked"]
    names += ["release.activated", "release.rolled_back", "environment.created", "environment.deleted"]
    assert (await make(client, *names))["events"] == names


async def test_change_disable_enable_delete(api: World) -> None:
    _, client = await api.tenant("Acme")
    made = await make(client)
    path = f"{W}/{made['id']}"
    changed = data(await client.patch(path, json={"url": HOOK + "/2", "events": ["job.*"], "enabled": False}))
    assert (changed["url"], changed["events"], changed["enabled"]) == (HOOK + "/2", ["job.*"], False)
    assert changed["disabled_reason"] == "by request"
    assert error(await client.patch(path, json={"url": "http://10.0.0.1"}), 400)["param"] == "url"
    enabled = data(await client.patch(path, json={"enabled": True}))
    assert (enabled["enabled"], enabled["disabled_at"]) == (True, None)
    assert data(await client.delete(path)) == {"id": made["id"], "deleted": True}
    assert error(await client.get(path), 404)["code"] == "webhook_endpoint.not_found"


async def test_rotation_keeps_the_old_secret_for_its_grace(api: World) -> None:
    _, client = await api.tenant("Acme")
    made = await make(client)
    rotated = await client.post(f"{W}/{made['id']}/rotate", json={"grace_period": "1h"})
    assert rotated.status_code == 201
    fresh = data(rotated)["signing_secret"]
    row = api.one(WebhookEndpoint, id=made["id"])
    vault = api.parts.webhook_vault
    assert open_endpoint(vault, row, utcnow()).secrets == (fresh, made["signing_secret"])
    assert row.previous_until is not None
    assert open_endpoint(vault, row, row.previous_until).secrets == (fresh,)
    ended = data(await client.post(f"{W}/{made['id']}/rotate", json={"grace_period": "0s"}))["signing_secret"]
    assert open_endpoint(vault, api.one(WebhookEndpoint, id=made["id"]), utcnow()).secrets == (ended,)


async def test_other_teams_scopes_and_roles(api: World) -> None:
    team, client = await api.tenant("Acme")
    _, other = await api.tenant("Other")
    made = await make(client)
    path = f"{W}/{made['id']}"
    for request in (other.get(path), other.delete(path), other.post(f"{path}/rotate"), other.get(f"{path}/deliveries")):
        assert error(await request, 404)["code"] == "webhook_endpoint.not_found"
    assert data(await other.get(W)) == []
    reader = api.client(await api.key(team, None, ["webhooks:read"], kind="service"))
    assert data(await reader.get(path))["id"] == made["id"]
    for request in (
        reader.delete(path),
        reader.post(W, json={"url": HOOK, "events": ["*"]}),
        reader.post(path + "/test"),
    ):
        assert error(await request, 403)["code"] == "scope.insufficient"
    blind = api.client(await api.key(team, None, ["sites:read"], kind="service"))
    assert error(await blind.get(path), 403)["code"] == "scope.insufficient"


async def told(api: World) -> list[tuple[str, str]]:
    """Endpoint and event of every delivery, in order."""
    with api.store.read() as session:
        rows = session.exec(select(Delivery, Event).where(Delivery.event_id == Event.id)).all()
        return sorted((delivery.endpoint_id, event.type) for delivery, event in rows)


async def test_events_are_told_in_the_transaction_of_the_change(api: World) -> None:
    team, client = await api.tenant("Acme")
    made = await make(client)
    site = await api.site(client)
    env = site["production_env_id"]
    artifact = api.artifact(site["id"], env)
    path = f"/v1/sites/{site['id']}/environments/{env}"
    await client.post(f"{path}/deployments", json={"artifact_id": artifact})
    release = api.roll(env)
    assert [type for _, type in await told(api)] == sorted(
        ["site.created", "environment.created", "job.succeeded", "job.succeeded", "site.deployed", "release.activated"]
    )
    with api.store.read() as session:
        event = session.exec(select(Event).where(Event.type == "site.deployed")).one()
    assert event.data["deployment"] | {"id": "", "job_id": "", "build_id": ""} == {
        "id": "",
        "site_id": site["id"],
        "env_id": env,
        "environment": "production",
        "job_id": "",
        "kind": "deploy",
        "status": "succeeded",
        "ref": "main",
        "build_id": "",
        "artifact_id": artifact,
        "release_id": release,
        "url": None,
        "error": None,
    }
    assert event.team_id == team
    assert {endpoint for endpoint, _ in await told(api)} == {made["id"]}


async def test_what_is_rolled_back_has_told_nothing(api: World) -> None:
    _, client = await api.tenant("Acme")
    await make(client)
    site = await api.site(client)
    before = await told(api)
    job = data(await client.post(f"/v1/sites/{site['id']}/environments", json={"kind": "staging", "branch": "s"}))
    with contextlib.suppress(RuntimeError), api.store.write() as session:
        end_job(session, session.get_one(Job, job["id"]), "failed", error={"code": "job.lost", "message": "x"})
        session.flush()
        assert session.exec(select(Event).where(Event.type == "job.failed")).all() != []
        raise RuntimeError
    assert await told(api) == before


async def test_whoever_does_not_listen_hears_nothing(api: World) -> None:
    team, client = await api.tenant("Acme")
    _, other = await api.tenant("Other")
    everything = await make(client, "*")
    off = await make(client, "*")
    await client.patch(f"{W}/{off['id']}", json={"enabled": False})
    await make(client, "deployment.failed")
    await make(other, "*")
    first, second = await api.site(client, "One"), await api.site(client, "Two")
    assert {endpoint for endpoint, _ in await told(api)} == {everything["id"]}
    pin = {"type": "site", "id": second["id"]}
    pinned = api.client(await api.key(team, None, ["*"], kind="service", resource=pin))
    mine = await make(pinned, "*")
    assert mine["resource"] == pin
    assert [row["id"] for row in data(await pinned.get(W))] == [mine["id"]]
    assert error(await pinned.get(f"{W}/{everything['id']}"), 404)["code"] == "webhook_endpoint.not_found"
    for site in (first, second):
        artifact = api.artifact(site["id"], site["production_env_id"])
        path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/deployments"
        await client.post(path, json={"artifact_id": artifact})
        api.roll(site["production_env_id"])
    with api.store.read() as session:
        heard = session.exec(select(Event.site_id).join(Delivery).where(Delivery.endpoint_id == mine["id"])).all()
    assert set(heard) == {second["id"]}


async def test_nothing_is_kept_where_nobody_listens(api: World) -> None:
    _, client = await api.tenant("Acme")
    await api.site(client)
    assert (api.count(Event), api.count(Delivery)) == (0, 0)


async def test_test_deliveries_and_replay(api: World) -> None:
    _, client = await api.tenant("Acme")
    made = await make(client, "job.failed")
    path = f"{W}/{made['id']}"
    ping = data(await client.post(f"{path}/test"))
    assert (ping["status"], ping["event_type"], ping["attempts"]) == ("pending", "webhook.test", 0)
    with api.store.write() as session:
        keep_try(session, ping["id"], Try(utcnow(), 12, 500, "answered 500"), DeliveryPace())
        keep_try(session, ping["id"], Try(utcnow(), 15, 204), DeliveryPace())
    listed = data(await client.get(f"{path}/deliveries"))
    assert [(row["id"], row["status"], [one["status"] for one in row["tries"]]) for row in listed] == [
        (ping["id"], "delivered", [500, 204])
    ]
    again = data(await client.post(f"{path}/deliveries/{ping['id']}/replay"))
    assert (again["replay_of"], again["event_id"]) == (ping["id"], ping["event_id"])
    assert data(await client.get(f"{path}/deliveries/{again['id']}")) == again
    page = await client.get(f"{path}/deliveries", params={"limit": 1})
    assert page.json()["pagination"]["has_more"] is True
    assert error(await client.get(f"{path}/deliveries/del_none"), 404)["code"] == "delivery.not_found"
    await client.patch(path, json={"enabled": False})
    refused = error(await client.post(f"{path}/deliveries/{ping['id']}/replay"), 409)
    assert refused["code"] == "webhook_endpoint.disabled"


async def test_a_team_has_so_many_endpoints(api: World) -> None:
    _, client = await api.tenant("Acme")
    for _ in range(20):
        await make(client)
    refused = await client.post(W, json={"url": HOOK, "events": ["*"]})
    assert error(refused, 402)["code"] == "quota.exceeded"
