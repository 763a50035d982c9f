"""Deliveries on a real Temporal server, to a real receiver: retried, once known by one id, lost by nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlmodel import col, select

from activities.webhooks import Webhooks
from adapters.config.vault import Vault
from adapters.webhooks.sending import Sender
from adapters.webhooks.signing import timed
from adapters.webhooks.targets import Targets
from headway.webhooks import MANAGED
from store import deliveries, webhooks
from store.deliveries import Pace
from store.events import tell
from store.models import utcnow
from store.models_webhooks import Delivery, WebhookEndpoint
from store.outcomes import fail_build
from store.queue import claim_build
from store.webhooks import EndpointRequest
from temporal import names
from temporal.worker import Role, offered, with_outside, working
from tests.adapters.receiver import Receiver
from tests.workflows.engine import Engine, run_story
from workflows.deliver import Deliver

QUEUE = "deliveries"
QUICK = Pace(waits=(0.05, 0.1))


@asynccontextmanager
async def delivering(engine: Engine, pace: Pace = QUICK) -> AsyncIterator[Webhooks]:
    """The control worker's part in it, beside the engine's own worker, which has another pace."""
    made = Webhooks(
        engine.store,
        engine.client,
        Vault(engine.settings.webhook_keys),
        Sender(Targets(["127.0.0.1"]), 5.0),
        "https://docs.test",
        pace,
    )
    for worker in engine.workers[:2]:
        await worker.shutdown()
    role = with_outside(Role(names.CONTROL, offered(made), [Deliver]))
    async with working(engine.client, [role]):
        watch = asyncio.create_task(made.watch(every=0.02))
        try:
            yield made
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch


def listen(engine: Engine, url: str, *events: str, retries: int = 7) -> tuple[str, str]:
    """An endpoint's id and its secret."""
    vault = Vault(engine.settings.webhook_keys)
    wanted = EndpointRequest(MANAGED, url, list(events or ("*",)), retries, headers={"X-Mine": "canary-header"})
    with engine.store.write() as session:
        made, secret = webhooks.create_endpoint(session, vault, engine.world.team_id, wanted, None, {})
        return made.id, secret


def sent(engine: Engine) -> list[Delivery]:
    with engine.store.read() as session:
        return list(session.exec(select(Delivery).order_by(col(Delivery.created_at), col(Delivery.id))).all())


def ping(engine: Engine, endpoint_id: str) -> str:
    with engine.store.write() as session:
        return deliveries.send_test(session, session.get_one(WebhookEndpoint, endpoint_id)).id


async def all_ended(engine: Engine, count: int) -> list[Delivery]:
    def good(rows: list[Delivery]) -> bool:
        return len(rows) == count and all(row.ended_at for row in rows)

    return list(await engine.until(lambda: sent(engine), good))


def test_a_failed_build_is_told_retried_and_arrives_signed(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with Receiver([503, 302]) as receiver:
            _, secret = listen(engine, receiver.url, "build.*")
            async with delivering(engine):
                job = engine.world.accept_build()
                with engine.store.write() as session:
                    build, *_ = claim_build(session, job.resource_id)
                    fail_build(session, build.id, {"code": "build.timeout", "message": "Too slow."}, canceled=False)
                rows = await all_ended(engine, 2)
            assert [row.state for row in rows] == ["delivered", "delivered"]
            assert sorted(len(row.tries) for row in rows) in ([1, 3], [2, 2])
            by_type = {got.event["type"]: got for got in receiver.got}
            assert set(by_type) == {"build.started", "build.failed"}
            failed = by_type["build.failed"]
            build_facts = failed.event["data"]["build"]
            assert build_facts["status"] == "failed"
            assert build_facts["error"] == {
                "type": "invalid_request",
                "code": "build.timeout",
                "message": "Too slow.",
                "doc_url": "https://docs.test/reference/error-codes/#build.timeout",
            }
            moment = int(failed.headers["forge-signature"].split(",")[0][2:])
            assert failed.headers["forge-signature"] == timed([secret], failed.body, moment)
            assert failed.headers["x-mine"] == "canary-header"
            tries = [got for got in receiver.got if got.event["id"] == failed.event["id"]]
            assert len({got.headers["forge-delivery"] for got in tries}) == 1
            assert len({got.body for got in tries}) == 1

    run_story(tmp_path, story)


def test_neither_secret_nor_body_reaches_temporal(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with Receiver([500]) as receiver:
            endpoint, secret = listen(engine, receiver.url)
            async with delivering(engine):
                id = ping(engine, endpoint)
                await all_ended(engine, 1)
                handle = engine.client.get_workflow_handle(names.delivery_workflow(id))
                await handle.result()
                history = json.dumps((await handle.fetch_history()).to_json_dict())
            assert id in history
            for canary in (secret, secret[-12:], "canary-header", "This is a test.", receiver.url):
                assert canary not in history

    run_story(tmp_path, story)


@pytest.mark.slow
def test_tries_are_used_up_and_a_replay_is_a_delivery_of_its_own(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with Receiver([500] * 3) as receiver:
            endpoint, _ = listen(engine, receiver.url, retries=2)
            async with delivering(engine):
                id = ping(engine, endpoint)
                [row] = await all_ended(engine, 1)
                assert (row.state, [one["status"] for one in row.tries]) == ("failed", [500, 500, 500])
                with engine.store.read() as session:
                    assert session.get_one(WebhookEndpoint, endpoint).failing_since is not None
                with engine.store.write() as session:
                    deliveries.replay(session, session.get_one(Delivery, id))
                _, again = await all_ended(engine, 2)
            assert (again.state, again.replay_of, again.event_id) == ("delivered", id, row.event_id)
            assert receiver.got[-1].body == receiver.got[0].body
            assert receiver.got[-1].headers["forge-delivery"] != receiver.got[0].headers["forge-delivery"]
            with engine.store.read() as session:
                assert session.get_one(WebhookEndpoint, endpoint).failing_since is None

    run_story(tmp_path, story)


@pytest.mark.slow
def test_an_endpoint_that_fails_for_long_is_disabled_and_hears_no_more(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with Receiver([500] * 100) as receiver:
            endpoint, _ = listen(engine, receiver.url)
            pace = Pace(waits=(0.02,), disable=timedelta(seconds=0.2))
            async with delivering(engine, pace):
                ping(engine, endpoint)
                while True:
                    with engine.store.read() as session:
                        row = session.get_one(WebhookEndpoint, endpoint)
                    if not row.enabled or all(one.ended_at for one in sent(engine)):
                        break
                    await asyncio.sleep(0.02)
                if row.enabled:  # a slow machine: the tries were used up before the time was
                    ping(engine, endpoint)
                await engine.until(lambda: sent(engine), lambda rows: all(one.ended_at for one in rows))
            with engine.store.read() as session:
                row = session.get_one(WebhookEndpoint, endpoint)
            assert not row.enabled
            assert "nothing has reached it since" in (row.disabled_reason or "")
            known = len(sent(engine))
            with engine.store.write() as session:
                tell(session, "site.created", {"site": {}}, team_id=engine.world.team_id)
            assert len(sent(engine)) == known

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_run_that_is_lost_is_started_again_with_the_same_delivery(tmp_path: Path) -> None:
    """Terminated in the Temporal UI, or gone with its database: the row is due again, and the id is the same."""

    async def story(engine: Engine) -> None:
        with Receiver([500]) as receiver:
            endpoint, _ = listen(engine, receiver.url)
            async with delivering(engine, Pace(waits=(3600.0,))):
                id = ping(engine, endpoint)
                await engine.until(lambda: sent(engine), lambda rows: len(rows[0].tries) == 1)
                await engine.client.get_workflow_handle(names.delivery_workflow(id)).terminate()
                with engine.store.write() as session:
                    row = session.get_one(Delivery, id)
                    # What keeps silent past its next try is looked after by nobody.
                    assert row.due_at > utcnow() + timedelta(seconds=3600)
                    row.due_at = utcnow()
                [row] = await all_ended(engine, 1)
            assert (row.state, len(row.tries)) == ("delivered", 2)
            assert len({got.headers["forge-delivery"] for got in receiver.got}) == 1

    run_story(tmp_path, story)


@pytest.mark.slow
def test_what_happened_while_temporal_was_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with Receiver() as receiver:
            endpoint, _ = listen(engine, receiver.url)
            id = ping(engine, endpoint)

            class Away:
                async def start_workflow(self, *_: object, **__: object) -> None:
                    raise httpx.ConnectError("away")

            async with delivering(engine) as made:
                back, made.client = made.client, Away()  # type: ignore[assignment]
                await engine.until(lambda: sent(engine)[0].due_at, lambda due: due > utcnow() + timedelta(seconds=1))
                assert receiver.got == []
                made.client = back
                with engine.store.write() as session:
                    session.get_one(Delivery, id).due_at = utcnow()
                [row] = await all_ended(engine, 1)
            assert row.state == "delivered"
            run = await engine.client.get_workflow_handle(names.delivery_workflow(id)).describe()
            assert run.workflow_type == "Deliver"

    run_story(tmp_path, story)


def test_a_try_whose_end_was_not_written_is_made_again(tmp_path: Path) -> None:
    """A worker that is killed after it has sent: at least once, under the same id."""

    async def story(engine: Engine) -> None:
        with Receiver() as receiver:
            endpoint, _ = listen(engine, receiver.url)
            async with delivering(engine) as made:
                keep, lost = made._keep, [True]

                def losing(delivery_id: str, one: deliveries.Try) -> float | None:
                    if lost:
                        lost.clear()
                        raise RuntimeError("killed")
                    return keep(delivery_id, one)

                made._keep = losing  # type: ignore[method-assign]
                ping(engine, endpoint)
                [row] = await all_ended(engine, 1)
            assert (row.state, len(row.tries), len(receiver.got)) == ("delivered", 1, 2)
            assert len({(got.headers["forge-delivery"], got.body) for got in receiver.got}) == 1

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_deleted_endpoint_ends_its_runs(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with Receiver([500] * 9) as receiver:
            endpoint, _ = listen(engine, receiver.url)
            async with delivering(engine, Pace(waits=(0.3,))):
                id = ping(engine, endpoint)
                await engine.until(lambda: sent(engine), lambda rows: len(rows[0].tries) == 1)
                with engine.store.write() as session:
                    webhooks.delete_endpoint(session, session.get_one(WebhookEndpoint, endpoint))
                await engine.client.get_workflow_handle(names.delivery_workflow(id), result_type=None).result()
            assert sent(engine) == []

    run_story(tmp_path, story)
