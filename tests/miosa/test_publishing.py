"""Publish, promote, rollback: what is frozen, what is numbered, and what a repeated or late request changes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlmodel import select

from adapters.artifact.snapshot import parsed
from api.internal.builds import Builds
from headway.broker import Begin, WantedPacks
from headway.errors import HeadwayError
from store.models import Artifact, Build, Job, Release, Rollout, utcnow
from store.models_retention import Doomed
from store.models_sandbox_packs import Snapshot, SnapshotPack
from store.models_sandboxes import SandboxFile
from store.outcomes import end_rollout
from store.queue import claim_job
from store.sandboxes import snapshot_key
from tests.holder import HOLDER
from tests.miosa.org import Org, problem

pytestmark = pytest.mark.anyio


def snapshot(org: Org, version: dict[str, Any]) -> dict[str, Any]:
    digest = version["source_sha256"]
    raw = org.api.objects.held[snapshot_key(org.team_id, digest)]
    return {one.path: one for one in parsed(raw, digest)}


async def test_a_publish_freezes_what_was_there(org: Org) -> None:
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "one", "sub/a.txt": "a"})
    await org.write(sandbox, {"node_modules/x/index.js": "x", ".next/cache/y": "y", ".git/HEAD": "z"})
    first = (await org.publish(made["id"], sandbox))["version"]
    await org.write(sandbox, {"index.html": "two"})
    second = (await org.publish(made["id"], sandbox))["version"]
    assert (first["version_number"], second["version_number"]) == (1, 2)
    assert first["source_sha256"] != second["source_sha256"]
    assert set(snapshot(org, first)) == {"index.html", "sub/a.txt"}
    assert first["source_sandbox_id"] == sandbox
    again = (await org.publish(made["id"], await org.sandbox({"index.html": "one", "sub/a.txt": "a"})))["version"]
    assert again["source_sha256"] == first["source_sha256"]


async def test_the_answer_has_full_rows_and_follows_the_work(org: Org) -> None:
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "x"})
    result = await org.publish(made["id"], sandbox)
    assert set(result) >= {"deployment", "version", "release", "services", "promoted"}
    assert (result["version"]["state"], result["promoted"], result["services"]) == ("created", False, [])
    keyed = {"headers": {"Idempotency-Key": "k"}}
    body = {"source_sandbox_id": sandbox}
    path = f"/deployments/{made['id']}/publish"
    slow = await org.call("POST", path, body, 202, **keyed)
    org.finish(slow["operation_id"])
    done = await org.call("POST", path, body, 200, **keyed)
    assert done["version"]["id"] == slow["version"]["id"], "the replayed key joins"
    assert (done["version"]["state"], done["promoted"]) == ("ready", True)
    assert done["deployment"]["active_version_id"] == done["version"]["id"]
    assert done["release"]["deployment_version_id"] == done["version"]["id"]
    assert done["services"][0]["state"] == "healthy"
    assert done["version"]["artifact_uri"].startswith("s3://")
    assert org.api.count(Build) == 2
    await org.call("DELETE", f"/sandboxes/{sandbox}")
    assert (await org.call("POST", path, body, 200, **keyed))["version"]["id"] == slow["version"]["id"]
    problem(
        await org.http.post(f"/api/v1{path}", json={**body, "promote": False}, **keyed), 409, "IDEMPOTENCY_KEY_REUSED"
    )


async def test_a_failed_publish_is_told_and_the_old_version_serves(org: Org) -> None:
    made = await org.deployment()
    first = await org.live(made["id"], "f")
    keyed = {"headers": {"Idempotency-Key": "k"}}
    body = {"source_sandbox_id": await org.sandbox({"index.html": "x"})}
    failing = await org.call("POST", f"/deployments/{made['id']}/publish", body, 202, **keyed)
    org.fail(failing["operation_id"])
    told = await org.call("POST", f"/deployments/{made['id']}/publish", body, 200, **keyed)
    assert (told["version"]["state"], told["promoted"]) == ("failed", False)
    assert told["version"]["error_message"].startswith("BUILD_STEP_FAILED: ")
    assert told["deployment"]["active_version_id"] == first["id"]
    refused = await org.http.post(f"/api/v1/deployments/{made['id']}/versions/{told['version']['id']}/promote")
    assert problem(refused, 409, "VERSION_NOT_READY")["retryable"] is False


async def test_a_key_counts_for_its_path(org: Org) -> None:
    one, other = await org.deployment("One"), await org.deployment("Other")
    body, keyed = {"source_sandbox_id": await org.sandbox({"a": "a"})}, {"headers": {"Idempotency-Key": "release-7"}}
    first = await org.call("POST", f"/deployments/{one['id']}/publish", body, 202, **keyed)
    second = await org.call("POST", f"/deployments/{other['id']}/publish", body, 202, **keyed)
    assert first["version"]["deployment_id"] != second["version"]["deployment_id"]


async def test_promote_false_makes_a_version_that_waits(org: Org) -> None:
    made = await org.deployment()
    first = await org.live(made["id"], "f")
    held = await org.publish(made["id"], await org.sandbox({"index.html": "h"}), promote=False)
    path = f"/deployments/{made['id']}/versions/{held['version']['id']}"
    early = await org.http.post(f"/api/v1{path}/promote")
    assert problem(early, 409, "VERSION_NOT_READY")["retryable"] is True
    org.build(held["operation_id"], "b" * 64)
    assert (await org.call("GET", path))["state"] == "ready"
    builds = org.api.count(Build)
    await org.call("POST", f"{path}/promote", status=202)
    org.roll(org.api.starts.started[-1][0])
    row = await org.call("GET", f"/deployments/{made['id']}")
    assert row["active_version_id"] == held["version"]["id"] != first["id"]
    assert org.api.count(Build) == builds, "promote never builds"
    assert (await org.call("POST", f"{path}/promote"))["active_version_id"] == held["version"]["id"]
    assert org.api.count(Release) == 2, "what is active already is not rolled again"


async def test_rollback_by_version_by_release_and_to_the_previous(org: Org) -> None:
    made = await org.deployment()
    path = f"/deployments/{made['id']}"
    problem(await org.http.post(f"/api/v1{path}/rollback"), 409, "NO_ACTIVE_VERSION")
    one = await org.live(made["id"], "1")
    problem(await org.http.post(f"/api/v1{path}/rollback"), 409, "NO_PREVIOUS_VERSION")
    two, three = await org.live(made["id"], "2"), await org.live(made["id"], "3")
    releases = await org.call("GET", f"{path}/releases")
    assert [row["deployment_version_id"] for row in releases] == [three["id"], two["id"], one["id"]]
    assert [row["state"] for row in releases] == ["active", "ready", "ready"]
    asked = [({}, two), ({"version_id": one["id"]}, one), ({"release_id": releases[0]["id"]}, three)]
    for body, expected in asked:
        await org.call("POST", f"{path}/rollback", body, 202)
        job = org.api.starts.started[-1][0]
        assert org.api.one(Rollout, job_id=job).kind == "rollback"
        org.roll(job)
        assert (await org.call("GET", path))["active_version_id"] == expected["id"]
    unknown = {"version_id": "ver_00000000000000000000000000"}
    problem(await org.http.post(f"/api/v1{path}/rollback", json=unknown), 404, "NOT_FOUND")
    org.api.change(Artifact, org.api.one(Artifact, digest="1" * 64).id, collected_at=utcnow())
    gone = await org.http.post(f"/api/v1{path}/rollback", json={"version_id": one["id"]})
    problem(gone, 410, "ARTIFACT_COLLECTED")
    assert (await org.call("GET", f"{path}/versions/{one['id']}"))["state"] == "archived"
    assert [row["id"] for row in await org.call("GET", f"{path}/versions?state=archived")] == [one["id"]]
    assert len(await org.call("GET", f"{path}/versions?state=ready")) == 2


async def test_the_clients_fixed_key_promotes_each_time_it_has_to(org: Org) -> None:
    made = await org.deployment()
    path = f"/deployments/{made['id']}"
    await org.live(made["id"], "1")
    await org.live(made["id"], "2")
    two, one = await org.call("GET", f"{path}/releases")

    async def promote(release: dict[str, Any], status: int) -> str:
        keyed = {"headers": {"Idempotency-Key": f"promote:{made['id']}:{release['id']}"}}
        await org.call("POST", f"{path}/releases/{release['id']}/promote", status=status, **keyed)
        return str(org.api.starts.started[-1][0])

    for release in (one, two, one):
        job = await promote(release, 202)
        assert await promote(release, 202) == job, "an open one is joined"
        org.roll(job)
        await promote(release, 200)
        assert (await org.call("GET", path))["active_release_id"] == release["id"]
    assert org.api.count(Release) == 5


async def test_a_newer_publish_takes_the_place_of_an_older_slow_one(org: Org) -> None:
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "old"})
    old = await org.publish(made["id"], sandbox)
    await org.write(sandbox, {"index.html": "new"})
    new = await org.publish(made["id"], sandbox)
    org.finish(new["operation_id"], "b" * 64)
    org.build(old["operation_id"], "a" * 64)
    with org.api.store.write() as session:
        from tests.workflows.rows import claim_next

        assert claim_next(session, org.job(old["operation_id"]).env_id or "") is None
    row = await org.call("GET", f"/deployments/{made['id']}")
    assert row["active_version_id"] == new["version"]["id"]
    version = await org.call("GET", f"/deployments/{made['id']}/versions/{old['version']['id']}")
    # The other dialect calls a rollout a deployment, and shows its id with the prefix of this one's deployments.
    said = "SUPERSEDED: Another publish was accepted later and has taken its place."
    assert (version["state"], version["error_message"]) == ("ready", said)


async def test_the_bridge_makes_a_deployment_or_a_version(org: Org) -> None:
    sandbox = await org.sandbox({"index.html": "x"}, name="shop")
    made = await org.call("POST", f"/sandboxes/{sandbox}/deploy", {}, 202)
    assert made["deployment"]["name"] == "shop"
    assert made["deployment_id"] == made["id"] == made["deployment"]["id"]
    assert made["version_id"] == made["version"]["id"]
    assert made["url"] == made["public_url"] == made["deployment"]["public_url"]
    body = {"deployment_id": made["id"], "output_path": "/workspace"}
    more = await org.call("POST", f"/sandboxes/{sandbox}/publish", body, 202)
    assert (more["id"], more["version"]["version_number"]) == (made["id"], 2)
    empty = await org.sandbox()
    problem(await org.http.post(f"/api/v1/sandboxes/{empty}/deploy", json={}), 422, "SANDBOX_EMPTY")
    problem(await org.http.post("/api/v1/sandboxes/sbx_none/deploy", json={}), 404, "NOT_FOUND")
    refused = await org.http.post(f"/api/v1/sandboxes/{sandbox}/deploy", json={"domain": "a.test"})
    problem(refused, 409, "NOT_SUPPORTED")
    assert org.api.count(Build) == 2


async def test_what_a_request_says_goes_to_the_builder(org: Org) -> None:
    made = await org.deployment("Built", build_command="make")
    sandbox = await org.sandbox({"src/a": "a", "dist/index.html": "x"})
    one = await org.publish(made["id"], sandbox, output_path="/workspace/dist", entrypoint="/workspace/dist/home.html")
    build = org.api.one(Build, job_id=one["operation_id"])
    assert build.overrides == {"kind": "auto", "build_command": "make", "output": "dist", "entrypoint": "home.html"}
    assert set(snapshot(org, one["version"])) == {"src/a", "dist/index.html"}, "the command runs in all of it"
    none = await org.publish(made["id"], sandbox, output_path="dist", build_command="")
    assert org.api.one(Build, job_id=none["operation_id"]).overrides == {"kind": "auto", "build_command": ""}
    assert set(snapshot(org, none["version"])) == {"index.html"}
    two = await org.publish(made["id"], sandbox, output_path="dist", build_command="npm run build")
    build = org.api.one(Build, job_id=two["operation_id"])
    assert build.overrides == {"kind": "auto", "build_command": "npm run build", "output": "dist"}
    assert set(snapshot(org, two["version"])) == {"src/a", "dist/index.html"}
    problem(
        await org.http.post(
            f"/api/v1/deployments/{made['id']}/publish", json={"source_sandbox_id": sandbox, "kind": "dynamic"}
        ),
        400,
        "MISSING_PARAM",
    )
    outside = {"source_sandbox_id": sandbox, "output_path": "/etc"}
    problem(await org.http.post(f"/api/v1/deployments/{made['id']}/publish", json=outside), 422, "INVALID_FILE_PATH")


async def test_staging_is_made_with_its_first_publish(org: Org) -> None:
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "x"})
    result = await org.publish(made["id"], sandbox, environment="staging")
    assert [kind for _, kind in org.api.starts.started[-2:]] == ["environment.create", "deployment.push"]
    org.finish(result["operation_id"])
    row = await org.call("GET", f"/deployments/{made['id']}")
    assert (row["active_version_id"], row["state"]) == (None, "pending")
    unknown = {"source_sandbox_id": sandbox, "environment": "qa"}
    problem(await org.http.post(f"/api/v1/deployments/{made['id']}/publish", json=unknown), 404, "NOT_FOUND")


async def test_redeploy_builds_the_last_source_again(org: Org) -> None:
    made = await org.deployment()
    problem(await org.http.post(f"/api/v1/deployments/{made['id']}/redeploy", json={}), 409, "NO_SOURCE")
    first = await org.live(made["id"], "r")
    row = await org.call("POST", f"/deployments/{made['id']}/redeploy", {}, 202)
    build = org.api.one(Build, id=row["current_build_id"].replace("ver_", "build_"))
    assert (build.number, (build.source or {})["sha256"]) == (2, first["source_sha256"])
    assert (row["build"]["id"], row["build"]["state"]) == (row["current_build_id"], "queued")
    for workspace, count in ((row["workspace_id"], 2), ("ws_none", 0)):
        listed = await org.call("GET", f"/deployments/{made['id']}/versions?workspace_id={workspace}")
        assert len(listed) == count
    builds = await org.call("GET", f"/deployments/{made['id']}/builds")
    assert [(row["state"], row["id"]) for row in builds] == [
        ("queued", row["current_build_id"]),
        ("succeeded", first["id"]),
    ]
    of_first = f"/deployments/{made['id']}/builds/{first['id']}"
    assert (await org.call("GET", of_first))["state"] == "succeeded"
    for trigger, named in (("publish", "manual"), ("push", "webhook"), ("webhook", "webhook"), ("poll", "scheduled")):
        org.api.change(Build, first["id"].replace("ver_", "build_"), trigger=trigger)
        assert (await org.call("GET", of_first))["triggered_by"] == named


async def test_logs_are_text_and_events(org: Org) -> None:
    from headway.broker import Event

    made = await org.deployment()
    version = await org.live(made["id"], "l")
    job = org.api.one(Build, id=version["id"].replace("ver_", "build_")).job_id
    lines = [("build", "stdout", "hello"), ("build", "system", "noted"), ("place", "stdout", "not of the build")]
    events = [Event(kind="log", ts="t", stage=stage, stream=of, line=line) for stage, of, line in lines]  # type: ignore[arg-type]
    org.api.parts.events.append(job, "b/1", 1, events)
    path = f"/api/v1/deployments/{made['id']}"
    text = await org.http.get(f"{path}/versions/{version['id']}/logs")
    assert (text.text, text.headers["content-type"]) == ("hello\nnoted\n", "text/plain; charset=utf-8")
    stream = (await org.http.get(f"{path}/builds/{version['id']}/logs")).text
    assert "event: log_line" in stream
    assert '"stream":"stderr","line":"noted"' in stream, "there are two streams here"
    odd = await org.http.get(f"{path}/builds/{version['id']}/logs", headers={"Last-Event-ID": "9" * 5000})
    assert (odd.status_code, odd.text) == (200, stream)
    last = [line for line in stream.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["result"] == {"state": "succeeded"}
    assert (await org.call("GET", f"/deployments/{made['id']}/logs"))["lines"] == ["hello", "noted"]
    assert org.api.one(Job, id=job).status == "succeeded"


@pytest.mark.slow
async def test_ten_thousand_files_are_written_and_frozen(org: Org) -> None:
    sandbox = await org.sandbox()
    for part in range(2):
        await org.write(
            sandbox, {f"d{number % 100}/f{part}-{number}.txt": f"{part}-{number}" for number in range(5_000)}
        )
    assert (await org.call("GET", f"/sandboxes/{sandbox}"))["files"] == 10_000
    made = await org.deployment()
    version = (await org.publish(made["id"], sandbox))["version"]
    frozen = snapshot(org, version)
    assert len(frozen) == 10_000
    assert len({one.pack for one in frozen.values()}) == 2


async def test_a_tree_that_is_being_deleted_is_waited_for(org: Org) -> None:
    """The same tree, frozen while a collection deletes its snapshot: it is written anew when that is done."""
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "one"})
    digest = (await org.publish(made["id"], sandbox))["version"]["source_sha256"]
    key = snapshot_key(org.team_id, digest)
    with org.api.store.write() as session:
        session.add(Doomed(site_id=org.team_id, key=key))
    waiting = asyncio.create_task(org.publish(made["id"], sandbox))
    _, pending = await asyncio.wait({waiting}, timeout=0.5)
    assert pending == {waiting}
    org.api.objects.delete([key])
    with org.api.store.write() as session:
        session.delete(session.get_one(Doomed, (org.team_id, key)))
    assert (await waiting)["version"]["source_sha256"] == digest
    assert key in org.api.objects.held


async def test_a_builder_is_told_what_its_snapshot_names_and_no_more(org: Org) -> None:
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "mine"})
    other = await org.sandbox({"secret": "theirs"})
    packs = [org.api.one(SandboxFile, sandbox_id=one).pack_sha256 for one in (sandbox, other)]
    job_id = (await org.publish(made["id"], sandbox))["operation_id"]
    with org.api.store.write() as session:
        claim_job(session, job_id)
    builds = Builds(org.api.store, org.api.objects, org.api.parts.vault)
    build_id = org.api.one(Build, job_id=job_id).id
    spec = builds.begin(build_id, Begin(attempt=1, worker="w"), HOLDER)
    assert spec.snapshot is not None
    wanted = WantedPacks(attempt=spec.attempt, packs=packs)
    assert list(builds.packs(build_id, wanted).packs) == packs[:1]
    with pytest.raises(HeadwayError) as stale:
        builds.packs(build_id, WantedPacks(attempt=7, packs=packs))
    assert stale.value.code == "attempt.stale"
    # One that was frozen before snapshots had rows is read itself.
    with org.api.store.write() as session:
        for table in (SnapshotPack, Snapshot):
            for row in session.exec(select(table)).all():
                session.delete(row)
    assert list(builds.packs(build_id, wanted).packs) == packs[:1]


@pytest.mark.parametrize("code", ["roll.health_failed", "roll.start_failed", "roll.release_command_failed"])
async def test_a_version_whose_app_did_not_come_up_is_failed(org: Org, code: str) -> None:
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "x"})
    result = await org.publish(made["id"], sandbox)
    org.build(result["operation_id"])
    assert (await org.call("GET", f"/deployments/{made['id']}"))["state"] == "building", "it is being rolled"
    error = {"code": code, "message": "It ended. Its last lines: the site's job is done"}
    with org.api.store.write() as session:
        end_rollout(session, session.exec(select(Rollout)).one(), "failed", error)
    path = f"/deployments/{made['id']}/versions"
    row = await org.call("GET", f"{path}/{result['version']['id']}")
    assert (row["state"], row["promoted_at"]) == ("failed", None)
    assert row["error_message"].endswith("the site's job is done"), "an app's own words stay as they were"
    for state, found in (("failed", 1), ("ready", 0)):
        assert len(await org.call("GET", f"{path}?state={state}")) == found
    for state, there in (("failed", [made["id"]]), ("pending", []), ("building", [])):
        assert [one["id"] for one in await org.call("GET", f"/deployments?state={state}")] == there
    promoted = await org.http.post(f"/api/v1{path}/{row['id']}/promote")
    problem(promoted, 409, "VERSION_NOT_READY")


async def test_a_health_path_that_no_manifest_takes_is_refused_at_once(org: Org) -> None:
    made, sandbox = await org.deployment(), await org.sandbox({"index.html": "x"})
    for path in ("nope", "/a b", "/a\r\nX: y", "/#a", "/\u00fc", ""):
        body = {"source_sandbox_id": sandbox, "health_check_path": path}
        answer = await org.http.post(f"/api/v1/deployments/{made['id']}/publish", json=body)
        problem(answer, 422, "VALIDATION_ERROR")


async def test_a_release_of_another_organisation_is_missing_like_one_that_never_was(org: Org) -> None:
    made = await org.deployment()
    release = (await org.live(made["id"], "1")) and (await org.call("GET", f"/deployments/{made['id']}/releases"))[0]
    stranger = await org.other()
    said = [
        problem(await stranger.get(f"/api/v1/releases/{id}"), 404, "NOT_FOUND")["message"]
        for id in (release["id"], "rel_00000000000000000000000000")
    ]
    assert said == ["release not found"] * 2
