"""The ledger over HTTP: what is served verifies, every release is entered once, and tenants stay apart."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from activities.ledger import About, Ledger
from activities.recorder import Recorder
from adapters.ledger import tree
from adapters.ledger.entry import Entry
from adapters.ledger.note import open_note
from adapters.ledger.proofs import check_consistency, root_from_inclusion
from adapters.ledger.root import TrustedLog, parse_root
from adapters.signer.keys import SigningKey, create_key
from adapters.signer.records import DECISION_TYPE, ROLLOUT_TYPE
from store.models import Artifact, Release
from store.models_ledger import LedgerEntry
from tests.api.world import World, data, error
from tests.workflows.rows import claim_next

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


@dataclass
class Signing:
    """The signing worker of a world."""

    ledger: Ledger
    key: SigningKey
    recorder: Recorder

    def enter(self, count: int, name: str = "x") -> None:
        for number in range(count):
            entry = Entry(f"{name} {number}".encode(), b"signature", self.key.pem)
            self.ledger.append(entry, About(f"test:{name}:{number}", "test"))


@pytest.fixture
def signing(api: World) -> Signing:
    folder = api.folder / "ledger"
    ledger = Ledger.open(api.store, folder, "ledger.example.test")
    key = create_key(api.folder / "keys")
    made = Signing(ledger, key, Recorder(api.store, api.objects, ledger, key, folder))
    made.recorder.adopt()
    return made


async def raw(client: httpx.AsyncClient, path: str) -> bytes:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.content


async def trusted(client: httpx.AsyncClient) -> TrustedLog:
    return parse_root(await raw(client, "/v1/ledger/trusted_root.json"))


def b64(text: str) -> bytes:
    return base64.b64decode(text)


async def test_before_the_signing_worker_there_is_no_ledger(api: World) -> None:
    for path in ("checkpoint", "trusted_root.json", "entries"):
        assert error(await api.admin.get(f"/v1/ledger/{path}"), 503)["code"] == "service.unavailable"


async def test_proofs_lead_to_the_signed_checkpoint(api: World, signing: Signing) -> None:
    signing.enter(11)
    log = (await trusted(api.admin)).log
    head = open_note((await raw(api.admin, "/v1/ledger/checkpoint")).decode(), log)
    assert head.size == 11
    lines = [json.loads(line) for line in (await raw(api.admin, "/v1/ledger/entries?limit=2000")).splitlines()]
    assert [line["log_index"] for line in lines] == list(range(11))
    assert tree.grow(0, (), [tree.leaf_hash(b64(line["canonicalized_body"])) for line in lines]).root == head.root
    for index in (0, 6, 10):
        assert data(await api.admin.get(f"/v1/ledger/entries/{index}")) == lines[index]
        proof = data(await api.admin.get(f"/v1/ledger/inclusion?index={index}"))
        assert open_note(proof["checkpoint"], log) == head
        hashes = [b64(one) for one in proof["hashes"]]
        leaf = tree.leaf_hash(b64(lines[index]["canonicalized_body"]))
        assert root_from_inclusion(index, proof["tree_size"], leaf, hashes) == head.root
    older = open_note((await raw(api.admin, "/v1/ledger/checkpoint?size=7")).decode(), log)
    between = data(await api.admin.get("/v1/ledger/consistency?first=7"))
    check_consistency(7, 11, older.root, head.root, [b64(one) for one in between["hashes"]])


MISSING = [
    ("entries/4", 404, "ledger.entry_not_found"),
    ("entries/-1", 404, "ledger.entry_not_found"),
    (f"entries/{1 << 80}", 404, "ledger.entry_not_found"),
    ("entries/x", 400, "request.invalid_parameter"),
    ("inclusion?index=4", 404, "ledger.entry_not_found"),
    ("inclusion?index=3&size=2", 400, "request.invalid_parameter"),
    ("inclusion?index=1&size=9", 404, "ledger.entry_not_found"),
    ("inclusion", 400, "request.missing_parameter"),
    ("consistency?first=0", 400, "request.invalid_parameter"),
    ("consistency?first=3&second=2", 400, "request.invalid_parameter"),
    ("consistency?first=9", 404, "ledger.entry_not_found"),
    ("checkpoint?size=9", 404, "ledger.entry_not_found"),
    ("entries?limit=5000", 400, "request.invalid_parameter"),
]


async def test_what_is_not_there(api: World, signing: Signing) -> None:
    signing.enter(4)
    for path, status, code in MISSING:
        assert error(await api.admin.get(f"/v1/ledger/{path}"), status)["code"] == code, path


async def live(api: World, client: httpx.AsyncClient, signing: Signing) -> tuple[Json, Json, str]:
    """A site whose artifact was entered, deployed onto staging, and promoted to production."""
    site = await api.site(client)
    staging = await api.environment(client, site["id"], "staging", "next")
    artifact = api.artifact(site["id"], staging["id"])
    signing.enter(1, "artifact")
    api.change(Artifact, artifact, log_index=0)
    path = f"/v1/sites/{site['id']}/environments/{staging['id']}"
    await client.post(f"{path}/deployments", json={"artifact_id": artifact})
    api.roll(staging["id"])
    await client.post(f"{path}/promote", json={"to_env": "production"})
    api.roll(site["production_env_id"])
    return site, staging, artifact


async def test_every_release_is_entered_once_in_order(api: World, signing: Signing) -> None:
    _, client = await api.tenant("Acme")
    site, staging, _ = await live(api, client, signing)
    why = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/why"
    before = data(await client.get(why))
    assert (before["release"]["log_index"], before["release"]["integrated_time"]) == (None, None)
    assert [signing.recorder.record() for _ in range(2)] == [2, 0]
    assert [api.one(Release, env_id=env).log_index for env in (staging["id"], site["production_env_id"])] == [1, 2]
    signing.recorder.record()
    assert api.count(LedgerEntry) == 3
    api.change(Release, api.one(Release, log_index=1).id, log_index=None)  # as if it had never been noted
    signing.recorder.record()
    assert api.count(LedgerEntry) == 3
    assert api.one(Release, env_id=staging["id"]).log_index == 1


async def test_why_is_this_live(api: World, signing: Signing) -> None:
    _, client = await api.tenant("Acme")
    site, staging, artifact = await live(api, client, signing)
    signing.recorder.record()
    production = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    found = data(await client.get(f"{production}/why"))
    assert found["commit"]["commit_sha"] == "c" * 40
    assert found["artifact"] == {"artifact_id": artifact, "digest": f"sha256:{'a' * 64}", "files": 1}
    assert (found["signature"]["log_index"], found["release"]["log_index"]) == (0, 2)
    assert (found["deployment"]["kind"], found["deployment"]["source_env_id"]) == ("promote", staging["id"])
    for link in ("build", "artifact", "deployment", "release"):
        assert (await client.get(found["links"][link])).status_code == 200
    record = json.loads(await raw(client, found["links"]["record"]))
    statement = b64(record["dsseEnvelope"]["payload"])
    entry = Entry(statement, b64(record["dsseEnvelope"]["signatures"][0]["sig"]), signing.key.pem)
    (await trusted(client)).check(record["verificationMaterial"]["tlogEntries"], entry)
    said = json.loads(statement)
    assert said["predicateType"] == ROLLOUT_TYPE
    assert said["subject"] == [{"name": "manifest.json", "digest": {"sha256": "a" * 64}}]
    assert said["predicate"]["release"]["id"] == found["release"]["release_id"]
    assert said["predicate"]["kind"] == "promote"
    older = found["deployment"]["source_release_id"]
    staged = f"/v1/sites/{site['id']}/environments/{staging['id']}"
    assert data(await client.get(f"{staged}/why?release_id={older}"))["deployment"]["kind"] == "deploy"


async def test_a_promotions_record_proves_what_was_decided_and_with_which_values(api: World, signing: Signing) -> None:
    _, client = await api.tenant("Acme")
    site, staging, _ = await live(api, client, signing)
    production = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    staged = f"/v1/sites/{site['id']}/environments/{staging['id']}"
    value = data(await client.put(f"{production}/variables/COLOUR", json={"value": "blue"}))
    owner = "acme-owner@example.test"
    document = {"promote_from": ["staging"], "approvals": {"needed": 1, "accounts": [owner], "author": True}}
    policy = data(await client.put(f"{production}/policy", json=document))
    job = data(await client.post(f"{staged}/promote", json={"to_env": "production"}))
    with api.store.write() as session:
        assert claim_next(session, site["production_env_id"]) is None
    deployment = f"{production}/deployments/{job['resource']['id']}"
    await client.post(f"{deployment}/approvals")
    release = api.roll(site["production_env_id"])
    assert signing.recorder.record_decisions() == 1
    signing.recorder.record()
    source = api.one(Release, env_id=staging["id"])
    result = data(await client.get(f"/v1/jobs/{job['id']}"))["result"]
    assert result["digest"] == f"sha256:{'a' * 64}"
    assert result["promoted"] == {
        "env_id": staging["id"],
        "environment": "staging",
        "release_id": source.id,
        "sequence": source.seq,
    }
    record = json.loads(await raw(client, f"{production}/releases/{release}/record"))
    said = json.loads(b64(record["dsseEnvelope"]["payload"]))
    predicate = said["predicate"]
    assert said["subject"][0]["digest"]["sha256"] == "a" * 64
    assert predicate["source"] == {"environment": staging["id"], "release": source.id}
    assert predicate["configVersions"] == [value["version_id"]]
    decision = data(await client.get(f"{deployment}/decision"))
    assert predicate["decision"]["id"] == decision["id"]
    assert (predicate["decision"]["outcome"], len(predicate["decision"]["approvals"])) == ("allowed", 1)
    named = {"id": policy["id"], "version": 1, "digest": policy["digest"], "of": "environment"}
    assert predicate["decision"]["policies"] == [named]
    why = data(await client.get(f"{production}/why"))
    assert why["decision"]["log_index"] == decision["log_index"] < why["release"]["log_index"]
    # The decision is a record of its own: one that was refused has no release.
    entry = api.one(LedgerEntry, subject=f"decision:{decision['id']}")
    own = json.loads(b64(json.loads(entry.envelope)["payload"]))
    assert (own["predicateType"], own["predicate"]["deployment"]) == (DECISION_TYPE, job["resource"]["id"])
    assert own["predicate"]["approvals"] == predicate["decision"]["approvals"]
    assert signing.recorder.record_decisions() == 0


async def test_nothing_is_live_and_nothing_is_shown_to_others(api: World, signing: Signing) -> None:
    _, client = await api.tenant("Acme")
    _, stranger = await api.tenant("Other")
    site = await api.site(client)
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    assert error(await client.get(f"{path}/why"), 409)["code"] == "release.none"
    assert error(await stranger.get(f"{path}/why"), 404)["code"] == "site.not_found"
    other, _, _ = await live(api, stranger, signing)
    signing.recorder.record()
    shown = await raw(client, "/v1/ledger/entries")
    assert b"site_" not in shown
    bodies = [b64(json.loads(line)["canonicalized_body"]) for line in shown.splitlines()]
    assert not any(other["id"].encode() in body for body in bodies)
