"""Notifications over the API: an address that is hidden, services that are refused, tests, deliveries and replay."""

from __future__ import annotations

import json

import pytest

from store.events import tell
from store.models import utcnow
from store.models_webhooks import Delivery, WebhookEndpoint
from store.webhooks import open_endpoint
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
TOKEN = "TIiajkdnlazkcOXrIdevi7FQ"
SLACK = f"slack://T1JJ3T3L2/A1BRTD4JD/{TOKEN}"
PATH = "/v1/notifications"


async def test_an_address_is_hidden_and_the_engine_is_that_of_webhooks(api: World) -> None:
    team, client = await api.tenant("Acme")
    made = data(await client.post(PATH, json={"url": SLACK, "events": ["site.*"], "description": "ops"}))
    assert (made["url"], made["events"], made["enabled"]) == ("slack://…", ["site.*"], True)
    row = api.one(WebhookEndpoint, id=made["id"])
    assert open_endpoint(api.parts.webhook_vault, row, utcnow()).url == SLACK
    for file in api.folder.glob("headway.db*"):
        assert TOKEN.encode() not in file.read_bytes()
    at = f"{PATH}/{made['id']}"
    assert data(await client.get(PATH)) == [made]
    # Neither list shows what is the other one's.
    assert data(await client.get("/v1/webhook-endpoints")) == []
    assert error(await client.get(f"/v1/webhook-endpoints/{made['id']}"), 404)
    with api.store.write() as session:
        tell(session, "site.created", {"site": {"id": "site_1"}}, team_id=team)
        tell(session, "job.failed", {"job": {"id": "job_1"}}, team_id=team)
    test = data(await client.post(f"{at}/test", json={}))
    assert test["event_type"] == "webhook.test"
    shown = data(await client.get(f"{at}/deliveries"))
    assert {row["event_type"] for row in shown} == {"site.created", "webhook.test"}
    again = data(await client.post(f"{at}/deliveries/{test['id']}/replay", json={}))
    assert again["replay_of"] == test["id"]
    changed = data(await client.patch(at, json={"enabled": False, "events": ["*"]}))
    assert (changed["enabled"], changed["disabled_reason"], changed["events"]) == (False, "by request", ["*"])
    assert TOKEN not in json.dumps([made, shown, changed])
    _, other = await api.tenant("Other")
    for answer in (await other.get(at), await other.patch(at, json={"enabled": True}), await other.delete(at)):
        assert error(answer, 404)["code"] == "webhook_endpoint.not_found"
    assert data(await client.delete(at)) == {"id": made["id"], "deleted": True}
    assert (api.count(WebhookEndpoint), api.count(Delivery)) == (0, 0)


async def test_what_is_refused_is_refused_before_anything_is_kept(api: World) -> None:
    team, client = await api.tenant("Acme")
    for url in ("dbus://", "syslog://", "file:///etc/passwd", "mmosts://10.0.0.7/t", f"{SLACK}?verify=no"):
        refused = await client.post(PATH, json={"url": url, "events": ["*"]})
        assert error(refused, 400)["code"] == "notification.url_refused"
        assert TOKEN not in refused.text
    assert error(await client.post(PATH, json={"url": SLACK, "events": ["nothing"]}), 400)["param"] == "events"
    reader = api.client(await api.key(team, None, ["webhooks:read"], kind="service"))
    assert error(await reader.post(PATH, json={"url": SLACK, "events": ["*"]}), 403)["code"] == "scope.insufficient"
    assert api.count(WebhookEndpoint) == 0
