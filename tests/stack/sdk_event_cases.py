"""What the client's webhooks, event subscriptions and domains have to do (see tests/stack/sdk_cases.py)."""

from __future__ import annotations

import pytest
from miosa.errors import MiosaError, NotFoundError, ValidationError
from miosa.resources.webhooks import Webhooks

from tests.adapters.receiver import Receiver
from tests.stack.conftest import DNS
from tests.stack.sdk_cases import case, site, until
from tests.stack.sdk_surface import World
from tests.stack.sites import visit


@case("webhooks.create", "webhooks.get", "webhooks.list", "webhooks.update", "webhooks.delete", "webhooks.test")
async def webhooks_from_their_making_to_their_end(world: World) -> None:
    hooks = world.client.webhooks
    with Receiver() as receiver:
        made = await world.do(hooks.create(url=receiver.url, events=["webhook.test"], headers={"X-Mine": "m"}))
        assert (await world.do(hooks.get(made["id"])))["url"] == receiver.url
        assert made["id"] in [row["id"] for row in await world.do(hooks.list())]
        assert (await world.do(hooks.test(made["id"])))["event_type"] == "webhook.test"
        got = (await until(world, lambda: receiver.got, bool))[0]
        for header in ("miosa-signature", "x-miosa-signature"):
            assert Webhooks.verify_signature(got.body, got.headers[header], made["secret"])
        assert (await world.do(hooks.update(made["id"], enabled=False)))["enabled"] is False
        await world.do(hooks.delete(made["id"]))
        with pytest.raises(NotFoundError):
            await world.do(hooks.get(made["id"]))
    with pytest.raises(ValidationError):
        await world.do(hooks.create(url="http://10.0.0.1/", events=[]))


@case("webhooks.deliveries", "event_subscriptions.replay_delivery", "event_subscriptions.webhook_events")
async def a_publish_is_told_again_after_a_failure_and_when_it_is_asked_for(world: World) -> None:
    hooks, subscriptions = world.client.webhooks, world.client.event_subscriptions
    assert "deployment.published" in (await world.do(subscriptions.webhook_events()))["events"]
    with Receiver([500]) as receiver:
        made = await world.do(hooks.create(url=receiver.url, events=["deployment.published"]))
        deployment_id, _, published = await site(world)
        told = await until(
            world,
            lambda: hooks.deliveries(made["id"]),
            lambda rows: [row["state"] for row in rows] == ["delivered"],
        )
        assert len(receiver.got) == 2
        data = receiver.got[-1].event["data"]
        assert (data["deployment_id"], data["version_id"]) == (deployment_id, published.version.id)
        again = await world.do(subscriptions.replay_delivery(made["id"], told[0]["id"], replay_id="one"))
        assert again["replay_of"] == told[0]["id"]
        with pytest.raises(MiosaError) as twice:
            await world.do(subscriptions.replay_delivery(made["id"], told[0]["id"], replay_id="one"))
        assert twice.value.status_code == 409
        await world.do(hooks.delete(made["id"]))


@case(
    *(f"event_subscriptions.{name}" for name in ("create", "get", "list", "update", "delete", "deliveries")),
    "event_subscriptions.redeliver",
)
async def subscriptions_of_a_webhook(world: World) -> None:
    hooks, subscriptions = world.client.webhooks, world.client.event_subscriptions
    with Receiver([410]) as receiver:
        hook = await world.do(hooks.create(url=receiver.url, events=["webhook.test"], retry_count=0))
        facts = {"consumer_kind": "webhook", "consumer_id": hook["id"], "event_type": "deployment.*"}
        made = await world.do(subscriptions.create(**facts))
        assert (await world.do(subscriptions.list(consumer_id=hook["id"])))["total"] == 1
        assert (await world.do(subscriptions.get(made["id"])))["event_type"] == "deployment.*"
        await world.do(world.client.deployments.create(name="Subscribed"))
        failed = await until(
            world,
            lambda: subscriptions.deliveries(made["id"]),
            lambda told: any(row["state"] == "failed" for row in told["data"]),
        )
        delivery = next(row for row in failed["data"] if row["state"] == "failed")
        await world.do(subscriptions.redeliver(delivery["id"]))
        await until(
            world,
            lambda: subscriptions.deliveries(made["id"]),
            lambda told: all(row["state"] == "delivered" for row in told["data"]),
        )
        assert (await world.do(subscriptions.update(made["id"], active=False)))["active"] is False
        await world.do(subscriptions.delete(made["id"]))
        await world.do(hooks.delete(hook["id"]))


@case(
    *(f"deployments.domains.{name}" for name in ("add", "list", "verify", "delete")),
    *(f"custom_domains.{name}" for name in ("create", "list", "delete")),
)
async def a_domain_that_is_proven_and_leads_there(world: World) -> None:
    deployment_id, _, _ = await site(world, "named")
    domains, name = world.client.deployments.domains(deployment_id), f"www.{world.flavour}.example"
    added = await world.do(domains.add(name, redirect_policy="none"))
    assert (added["status"], added["domain"], added["deployment_id"]) == ("pending", name, deployment_id)
    assert (await world.do(domains.verify(added["id"])))["status"] == "pending"
    DNS.set(name, "CNAME", added["verification_target"])
    verified = await world.do(domains.verify(added["id"]))
    assert verified["status"] == "active"
    assert verified["verified_at"] is not None
    assert visit(world.stack, name).text == "named"
    assert name in ((await world.do(world.client.deployments.get(deployment_id))).public_url or "")
    assert [row["id"] for row in await world.do(domains.list())] == [added["id"]]
    flat = world.client.custom_domains
    assert added["id"] in [row["id"] for row in await world.do(flat.list())]
    other = await world.do(flat.create(domain=f"other.{world.flavour}.example", deployment_id=deployment_id))
    await world.do(flat.delete(other["id"]))
    await world.do(domains.delete(added["id"]))
    assert await world.do(domains.list()) == []
    with pytest.raises(NotFoundError):
        await world.do(domains.verify(added["id"]))
    with pytest.raises(ValidationError):
        await world.do(domains.add("not a domain"))
