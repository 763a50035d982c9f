"""Webhooks and event subscriptions in this dialect's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlmodel import col, select

from headway.webhooks import Told, body_of
from store.deliveries import Pace, Try, keep_try
from store.events import stamp
from store.models import utcnow
from store.models_webhooks import Delivery, Event, WebhookEndpoint
from store.webhooks import open_endpoint
from tests.miosa.org import Org, problem

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
HOOK = "https://example.com/hook"


async def make(org: Org, **fields: Any) -> Json:
    return dict(await org.call("POST", "/webhooks", {"url": HOOK, "events": [], **fields}, 201))


def told(org: Org) -> list[tuple[str, str]]:
    """Name and data of every event that is sent, as its receiver would see them."""
    with org.api.store.read() as session:
        rows = session.exec(select(Delivery, Event).where(Delivery.event_id == Event.id).order_by(col(Event.id))).all()
    return [(delivery.endpoint_id, event.type) for delivery, event in rows]


async def test_the_secret_stands_in_both_places_once(org: Org) -> None:
    answer = await org.http.post("/api/v1/webhooks", json={"url": HOOK, "events": ["deployment.*"], "name": "CI"})
    assert answer.status_code == 201
    body = answer.json()
    assert body["secret"] == body["data"]["secret"]
    made = body["data"]
    secret = made.pop("secret")
    assert (made["retry_count"], made["events"], made["name"]) == (3, ["deployment.*"], "CI")
    shown = await org.call("GET", f"/webhooks/{made['id']}")
    assert shown == made
    assert await org.call("GET", "/webhooks") == [made]
    row = org.api.one(WebhookEndpoint, id=made["id"])
    assert open_endpoint(org.api.parts.webhook_vault, row, utcnow()).secrets == (secret,)


async def test_headers_are_kept_hidden_and_changed(org: Org) -> None:
    made = await make(org, headers={"Authorization": "Bearer canary"}, retry_count=0, metadata={"a": 1})
    assert (made["header_names"], made["metadata"], made["retry_count"]) == (["Authorization"], {"a": 1}, 0)
    vault = org.api.parts.webhook_vault
    before = open_endpoint(vault, org.api.one(WebhookEndpoint, id=made["id"]), utcnow())
    assert before.headers == {"Authorization": "Bearer canary"}
    changed = await org.call("PATCH", f"/webhooks/{made['id']}", {"headers": {"X-A": "b"}, "events": ["webhook.test"]})
    assert (changed["header_names"], changed["events"]) == (["X-A"], ["webhook.test"])
    after = open_endpoint(vault, org.api.one(WebhookEndpoint, id=made["id"]), utcnow())
    assert (after.headers, after.secrets) == ({"X-A": "b"}, before.secrets)
    for path in org.api.folder.glob("headway.db*"):
        assert b"canary" not in path.read_bytes()


async def test_no_fingerprint_is_made_of_a_header(org: Org) -> None:
    keyed = {"headers": {"Idempotency-Key": "k"}}
    one, two = [
        await org.call("POST", "/webhooks", {"url": HOOK, "headers": {"Authorization": value}}, 201, **keyed)
        for value in ("one", "two")
    ]
    assert (one["id"], "secret" in two) == (two["id"], False)


async def test_what_is_refused(org: Org) -> None:
    url = "/api/v1/webhooks"
    problem(await org.http.post(url, json={"url": "https://10.0.0.1/", "events": []}), 422, "INVALID_URL")
    unknown = await org.http.post(url, json={"url": HOOK, "events": ["site.deployed"]})
    said = unknown.json()["error"]
    assert (unknown.status_code, said["code"]) == (422, "VALIDATION_ERROR")
    assert said["message"].startswith("There is no event 'site.deployed': *, deployment.created, ")
    problem(await org.http.post(url, json={"events": []}), 400, "MISSING_PARAM")
    refused = {"url": HOOK, "events": [], "headers": {"Host": "x"}}
    problem(await org.http.post(url, json=refused), 422, "VALIDATION_ERROR")
    problem(await org.http.post(url, json={"url": HOOK, "events": [], "retry_count": 11}), 422, "VALIDATION_ERROR")
    made = await make(org)
    other = await org.other()
    problem(await other.get(f"{url}/{made['id']}"), 404, "NOT_FOUND")
    # An endpoint of the other dialect is none of this one's.
    managed = await org.http.post("/v1/webhook-endpoints", json={"url": HOOK, "events": ["*"]})
    problem(await org.http.get(f"{url}/{managed.json()['data']['id']}"), 404, "NOT_FOUND")


async def test_the_catalogue(org: Org) -> None:
    answer = (await org.http.get("/api/v1/webhooks/events")).json()
    assert {"deployment.created", "deployment.published", "deployment.domain_attached"} <= set(answer["events"])
    assert set(answer["data"]) == {"deployment", "webhook"}
    assert "site" not in json.dumps(answer["data"])
    assert "X-MIOSA-Signature" in answer["delivery_headers"]
    assert answer["signing"]["algorithm"] == "hmac-sha256"


async def test_a_publish_is_told_in_this_dialects_words(org: Org) -> None:
    made = await make(org)
    deployment = await org.deployment()
    version = await org.live(deployment["id"])
    assert [type for _, type in told(org)] == ["build.succeeded", "site.deployed"]
    with org.api.store.read() as session:
        event = session.exec(select(Event).where(Event.type == "site.deployed")).one()
    body = body_of(Told(event.id, event.type, stamp(event.created_at) or "", event.data), "miosa", "").decode()
    assert '"type":"deployment.published"' in body
    for name, value in (("deployment_id", deployment["id"]), ("version_id", version["id"])):
        assert f'"{name}":"{value}"' in body
    for trace in ("site_", "build_0", "art_0"):
        assert trace not in body
    listed = await org.call("GET", f"/webhooks/{made['id']}/deliveries")
    assert {row["event_type"] for row in listed} == {"deployment.build_succeeded", "deployment.published"}


async def test_test_replay_and_redeliver(org: Org) -> None:
    made = await make(org, events=["deployment.created"], retry_count=0)
    path = f"/webhooks/{made['id']}"
    keyed = {"headers": {"Idempotency-Key": "k"}}
    ping = await org.call("POST", f"{path}/test", None, 202, **keyed)
    assert await org.call("POST", f"{path}/test", None, 202, **keyed) == ping
    assert org.api.count(Delivery) == 1
    assert (ping["event_type"], ping["state"]) == ("webhook.test", "pending")
    again = f"/event-deliveries/{ping['id']}/redeliver"
    problem(await org.http.post(f"/api/v1{again}"), 409, "NOT_REDELIVERABLE")
    with org.api.store.write() as session:
        assert keep_try(session, ping["id"], Try(utcnow(), 3, 500, "answered 500"), Pace()) is None
    [row] = await org.call("GET", f"{path}/deliveries")
    assert (row["state"], row["attempts"], row["response_status"]) == ("failed", 1, 500)
    assert (await org.call("POST", again, None, 202))["state"] == "pending"
    replayed = await org.call("POST", f"{path}/deliveries/{ping['id']}/replay", {"replay_id": "r1"}, 202)
    assert replayed["replay_of"] == ping["id"]
    for _ in range(2):
        keyed_too = await org.call("POST", f"{path}/deliveries/{ping['id']}/replay", None, 202, **keyed)
    assert (keyed_too["replay_of"], org.api.count(Delivery)) == (ping["id"], 3)
    twice = await org.http.post(f"/api/v1{path}/deliveries/{ping['id']}/replay", json={"replay_id": "r1"})
    problem(twice, 409, "ALREADY_REPLAYED")
    problem(await org.http.post(f"/api/v1{path}/deliveries/del_none/replay"), 404, "DELIVERY_NOT_FOUND")
    assert (await org.http.delete(f"/api/v1{path}")).status_code == 204
    assert org.api.count(Delivery) == 0


async def test_subscriptions_route_events_to_a_webhook(org: Org) -> None:
    made = await make(org, events=["webhook.test"])
    subscribe = {"consumer_kind": "webhook", "consumer_id": made["id"], "event_type": "deployment.published"}
    url = "/api/v1/event-subscriptions"
    problem(await org.http.post(url, json={**subscribe, "event_type": "x.y"}), 422, "UNKNOWN_EVENT_TYPE")
    missing = problem(
        await org.http.post(url, json={**subscribe, "consumer_id": "whe_none"}), 404, "CONSUMER_NOT_FOUND"
    )
    assert missing["message"] == "webhook not found"
    problem(await org.http.post(url, json={**subscribe, "consumer_kind": "agent"}), 409, "NOT_SUPPORTED")
    many = {str(n): n for n in range(9)}
    problem(await org.http.post(url, json={**subscribe, "filter": many}), 422, "INVALID_FILTER")
    wide = await org.call("POST", "/event-subscriptions", subscribe, 201)
    first, second = await org.deployment("One"), await org.deployment("Two")
    narrow = {**subscribe, "filter": {"deployment_id": second["id"]}}
    tight = await org.call("POST", "/event-subscriptions", narrow, 201)
    await org.call("PATCH", f"/event-subscriptions/{wide['id']}", {"active": False})
    await org.live(first["id"], "a")
    assert told(org) == []
    await org.live(second["id"], "b")
    assert told(org) == [(made["id"], "site.deployed")]
    listed = await org.http.get(f"{url}/{tight['id']}/deliveries")
    assert [row["subscription_id"] for row in listed.json()["data"]] == [tight["id"]]
    assert listed.json()["next_cursor"] is None
    every = (await org.http.get(url)).json()
    assert (every["total"], {row["id"] for row in every["data"]}) == (2, {wide["id"], tight["id"]})
    other = await org.other()
    problem(await other.get(f"{url}/{tight['id']}"), 404, "SUBSCRIPTION_NOT_FOUND")
    assert (await org.http.delete(f"{url}/{tight['id']}")).status_code == 204
    problem(await org.http.get(f"{url}/{tight['id']}"), 404, "SUBSCRIPTION_NOT_FOUND")


async def test_each_subscription_has_what_it_asked_for_and_a_webhook_hears_by_one_of_them(org: Org) -> None:
    """Whoever lists a subscription sees what it sent; a webhook's own list adds nothing to that."""
    made = await make(org)
    subscribe = {"consumer_kind": "webhook", "consumer_id": made["id"], "event_type": "deployment.*"}
    first = await org.call("POST", "/event-subscriptions", subscribe, 201)
    deployment = await org.deployment()
    narrow = {**subscribe, "event_type": "deployment.published", "filter": {"deployment_id": deployment["id"]}}
    second = await org.call("POST", "/event-subscriptions", narrow, 201)
    await org.live(deployment["id"])
    listed = {
        one["id"]: await org.call("GET", f"/event-subscriptions/{one['id']}/deliveries") for one in (first, second)
    }
    sent = {id: sorted(row["event_type"] for row in rows) for id, rows in listed.items()}
    assert sent == {
        first["id"]: ["deployment.build_succeeded", "deployment.published"],
        second["id"]: ["deployment.published"],
    }
    every = await org.call("GET", f"/webhooks/{made['id']}/deliveries")
    assert len(every) == 3
    assert {row["subscription_id"] for row in every} == {first["id"], second["id"]}
