"""What operators see in the Temporal UI, and what nobody may see anywhere: keys, tokens, signatures."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from adapters.objects import ObjectStore
from bench.client import Caller
from bench.stack import Stack
from headway.supervisor.folder import Folder, read_json, read_record, s3_credentials
from headway.supervisor.plan import Plan
from tests.stack.conftest import NewPlace
from tests.stack.sites import Place, refusal

T = TypeVar("T")
Json = dict[str, Any]
# A stranger's build that looks for what it should not have.
LOOK = "env; cat /proc/*/environ /proc/*/cmdline /tmp/hws-*/data/admin.key; find / -name '*.token' -exec cat {} +"
NOSY = f"{LOOK}; mkdir out; cp index.html out"


def in_temporal(stack: Stack, work: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        return await work(await Client.connect(stack.temporal))

    return asyncio.run(run())


@dataclass(frozen=True)
class Done:
    """A site with a push, a promotion, a rollback and a build that failed behind it."""

    place: Place
    slug: str
    jobs: dict[str, Json]


@pytest.fixture(scope="module")
def done(new_place: NewPlace) -> Done:
    config = f"[build]\ncommand = {json.dumps(NOSY)}\n"
    place = new_place({"index.html": "<h1>one</h1>\n", "headway.toml": config})
    jobs = {"push": place.push(place.site.staging)}
    jobs["promotion"] = place.caller.finish(place.start_promotion())
    place.repository.commit({"index.html": "<h1>two</h1>\n"})
    jobs["build"] = place.caller.finish(place.start_build(env=place.site.production))
    jobs["roll"] = place.roll(jobs["build"]["result"]["artifact_id"], place.site.production)
    jobs["rollback"] = place.caller.finish(place.start_rollback(place.site.production))
    jobs["failure"] = place.ended(place.start_build("nowhere"))
    return Done(place, place.caller.get(f"/v1/sites/{place.site.id}")["slug"], jobs)


@dataclass(frozen=True)
class Run:
    id: str
    type: str
    summary: str
    details: str
    unnamed: list[str]


async def look(client: Client, workflow_id: str) -> Run:
    handle = client.get_workflow_handle(workflow_id)
    description = await handle.describe()
    history = await handle.fetch_history()
    metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    scheduled = [one for one in history.events if one.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED]
    return Run(
        workflow_id,
        description.workflow_type,
        await description.static_summary() or "",
        metadata.current_details,
        [
            one.activity_task_scheduled_event_attributes.activity_type.name
            for one in scheduled
            if not one.user_metadata.summary.data
        ],
    )


def found(stack: Stack, query: str, at_least: int) -> set[str]:
    """Ids of the runs that a query lists; the list may lag behind a little."""

    async def work(client: Client) -> set[str]:
        return {one.id async for one in client.list_workflows(query)}

    deadline = time.monotonic() + 20
    while len(ids := in_temporal(stack, work)) < at_least and time.monotonic() < deadline:
        time.sleep(0.2)
    return ids


def test_runs_are_found_by_what_an_operator_knows(stack: Stack, done: Done) -> None:
    jobs = done.jobs
    ids = found(stack, f'HeadwaySite = "{done.slug}"', len(jobs))
    assert ids >= {job["id"] for job in jobs.values()}
    assert all(re.fullmatch(r"job_\w{26}", one) for one in ids)
    staging = found(stack, f'HeadwaySite = "{done.slug}" AND HeadwayEnvironment = "staging"', 1)
    assert jobs["push"]["id"] in staging
    assert jobs["roll"]["id"] not in staging
    rollbacks = f'HeadwaySite = "{done.slug}" AND HeadwayJobType = "deployment.rollback"'
    assert found(stack, rollbacks, 1) == {jobs["rollback"]["id"]}
    result = jobs["build"]["result"]
    assert jobs["build"]["id"] in found(stack, f'HeadwayCommit = "{result["commit_sha"]}"', 1)
    assert jobs["build"]["id"] in found(stack, f'HeadwayDigest = "{result["digest"]}"', 1)


def test_every_run_says_what_it_is(stack: Stack, done: Done) -> None:
    jobs = done.jobs
    expected = {
        jobs["push"]["id"]: "Push",
        jobs["promotion"]["id"]: "Promote",
        jobs["rollback"]["id"]: "Rollback",
        jobs["failure"]["id"]: "Build",
    }

    async def work(client: Client) -> list[Run]:
        return [await look(client, one) for one in expected]

    for run in in_temporal(stack, work):
        assert run.type == expected[run.id]
        assert done.slug in run.summary, run
        assert run.unnamed == [], run
        assert run.details, run


def test_closed_runs_outlive_their_jobs(stack: Stack) -> None:
    async def work(client: Client) -> int:
        answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        return answer.config.workflow_execution_retention_ttl.ToSeconds()

    assert in_temporal(stack, work) >= 31 * 24 * 3600


def test_a_credential_in_an_address_is_refused_and_kept_nowhere(stack: Stack, caller: Caller) -> None:
    canary = f"canary{secrets.token_hex(12)}"
    body = {"name": "leaky", "repository": f"https://robot:{canary}@git.example.org/x.git"}
    answer = caller.http.post("/v1/sites", json=body, headers={"Idempotency-Key": f"k-{canary[:10]}"})
    assert refusal(answer, 400)["code"] == "repository.invalid"
    assert canary not in answer.text
    assert list(places_with(stack, {"credential": canary.encode()})) == []


def test_no_secret_of_the_platform_is_to_be_seen_anywhere(stack: Stack, caller: Caller, done: Done) -> None:
    folder = Folder(stack.data)
    key = serialization.load_pem_private_key((stack.data / "keys" / "signing.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    minted = caller.post("/v1/api-keys", {"name": "minted", "scopes": ["sites:read"]})
    tokens = {path.stem: path.read_bytes().strip() for path in (stack.data / "secrets").glob("*.token")}
    assert len(tokens) == 4
    needles = {
        "the operator's key": stack.key.encode(),
        "a minted key": minted["secret"].encode(),
        "the object store's secret": s3_credentials(folder)[1].encode(),
        "the signing key": max((stack.data / "keys" / "signing.pem").read_bytes().splitlines(), key=len),
        "the signing key, raw": scalar,
        "the signing key, in hexadecimal": scalar.hex().encode(),
        # Whoever has such an address may read or write that object.
        "a presigned address": b"X-Amz-Signature",
        **tokens,
    }
    log = done.place.caller.http.get(done.place.get(done.place.site.production, "builds")[0]["links"]["log"]).text
    assert "PATH=" in log
    assert list(places_with(stack, needles)) == []


def places_with(stack: Stack, needles: dict[str, bytes]) -> Iterator[str]:
    for place, text in everything(stack):
        for name, needle in needles.items():
            if needle in text:
                yield f"{name} in {place}"


def everything(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Database, logs, event logs, Temporal's histories, command lines, the object store, what is served."""
    with sqlite3.connect(f"file:{stack.data / 'db' / 'headway.db'}?mode=ro", uri=True) as database:
        yield "the database", "\n".join(database.iterdump()).encode("utf-8", "surrogatepass")
    database.close()
    for room in ("logs", "events", "temporal", "host", "caddy", "run"):
        for path in sorted((stack.data / room).rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()
    yield "Temporal", in_temporal(stack, _histories)
    for component in Plan.read(Folder(stack.data)).components:
        pid = read_record(stack.data / "run" / f"{component.name}.json").get("pid")
        if pid and Path(f"/proc/{pid}").exists():
            yield f"the command line of {component.name}", Path(f"/proc/{pid}/cmdline").read_bytes()
    endpoint = read_json(stack.data / "endpoints.json")["s3"]
    objects = ObjectStore(endpoint, "us-east-1", "headway", *s3_credentials(Folder(stack.data)))
    for key, size in objects.list(""):
        yield key, objects.get(key, size)


async def _histories(client: Client) -> bytes:
    texts = []
    async for one in client.list_workflows():
        history = await client.get_workflow_handle(one.id, run_id=one.run_id).fetch_history()
        texts += [event.SerializeToString() for event in history.events]
    assert len(texts) > 100
    return b"\n".join(texts)
