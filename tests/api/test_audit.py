"""The audit log: what leaves a row, who sees it, and that the chain and its anchors prove it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import api.managed
import api.miosa
from activities.ledger import Ledger
from activities.recorder import Recorder
from adapters.signer.bundle import check_record
from adapters.signer.folder import KeyFolder
from headway.auditing import check_chain
from headway.errors import HeadwayError
from store.models_policy import AuditRow
from tests.api.test_deployments import path_of
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


def test_every_change_of_both_dialects_goes_through_the_one_write_that_notes_it() -> None:
    for package in (api.managed, api.miosa):
        for module in Path(str(package.__file__)).parent.glob("*.py"):
            if module.name == "forges.py":
                continue  # a forge calls, with rows of its own that keep each verdict
            assert not re.search(r"\.in_write\(|store\.write\(", module.read_text()), module


async def rows(api: World, client: Any = None, **params: str) -> list[dict[str, Any]]:
    answer = await (client or api.admin).get("/v1/audit", params={"limit": "100", **params})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


async def test_a_change_leaves_a_row_by_whom_and_from_where(api: World) -> None:
    team, owner = await api.tenant("Acme")
    site = await api.site(owner)
    path = path_of(site["id"], site["production_env_id"])
    answer = await owner.put(f"{path}/policy", json={"refs": ["main"]})
    [row] = await rows(api, owner, action="set_policy")
    assert row["request_id"] == answer.headers["x-request-id"]
    assert (row["method"], row["path"], row["dialect"]) == ("PUT", f"{path}/policy", "managed")
    assert (row["team_id"], row["site_id"], row["env_id"]) == (team, site["id"], site["production_env_id"])
    assert row["actor"]["type"] == "api_key"
    assert row["account_id"].startswith("acct_")
    assert row["address"] == "127.0.0.1"
    # Reading, what is refused and what is replayed change nothing.
    before = api.count(AuditRow)
    await owner.get(f"{path}/policy")
    error(await owner.put(f"{path}/policy", json={"refs": "main"}), 400)
    error(await owner.post(f"{path}/promote", json={"to_env": "nowhere"}), 404)
    assert api.count(AuditRow) == before
    headers = {"Idempotency-Key": "once"}
    for _ in range(3):
        await owner.post(f"{path}/deployments", json={"artifact_id": "art_none"}, headers=headers)
        await owner.post(f"/v1/sites/{site['id']}/deployments", json={"ref": "main", "target": "live"}, headers=headers)
    assert api.count(AuditRow) == before + 1


async def test_the_other_dialect_and_jobs_by_their_site(api: World) -> None:
    _, owner = await api.tenant("Acme")
    site = await api.site(owner)
    path = path_of(site["id"], site["production_env_id"])
    job = data(await owner.post(f"{path}/builds", json={"ref": "main"}))
    await owner.post(f"/v1/jobs/{job['id']}/cancel")
    [row] = await rows(api, owner, action="cancel_job")
    assert (row["site_id"], row["env_id"]) == (site["id"], site["production_env_id"])
    answer = await owner.post("/api/v1/workspaces", json={"name": "W"})
    assert answer.status_code in (200, 201), answer.text
    assert (await rows(api, owner))[0]["dialect"] == "miosa"


async def test_filters_and_pages(api: World) -> None:
    _, owner = await api.tenant("Acme")
    site = await api.site(owner)
    path = path_of(site["id"], site["production_env_id"])
    for number in range(4):
        await owner.put(f"{path}/policy", json={"refs": [str(number)]})
    [*found] = await rows(api, owner, action="set_policy", site_id=site["id"])
    assert len(found) == 4
    one = found[1]
    assert await rows(api, owner, since=one["at"], until=found[0]["at"], action="set_policy") == [one]
    assert len(await rows(api, owner, account_id=one["account_id"], action="set_policy")) == 4
    assert len(await rows(api, owner, key_id=one["actor"]["id"], action="set_policy")) == 4
    assert await rows(api, owner, key_id="key_other") == []
    page = (await owner.get("/v1/audit", params={"limit": "3", "action": "set_policy"})).json()
    cursor = page["pagination"]["next_cursor"]
    rest = await rows(api, owner, limit="3", action="set_policy", cursor=cursor)
    assert [*page["data"], *rest] == found
    error(await owner.get("/v1/audit", params={"since": "yesterday"}), 400)


async def test_who_sees_what(api: World) -> None:
    _, owner = await api.tenant("Acme")
    _, stranger = await api.tenant("Others")
    site = await api.site(owner)
    await api.site(stranger)
    path = path_of(site["id"], site["production_env_id"])
    # What the operator does to a site is seen by its team.
    await api.admin.patch(path, json={"bake_seconds": 5})
    assert [row["action"] for row in await rows(api, owner, site_id=site["id"])] == ["update_environment"]
    assert await rows(api, stranger, site_id=site["id"]) == []
    seen = {row["id"] for row in await rows(api, owner)} & {row["id"] for row in await rows(api, stranger)}
    assert not seen
    assert len(await rows(api)) == api.count(AuditRow)
    _, builder = await api.tenant("Third", scopes=("deployments:write",))
    assert error(await builder.get("/v1/audit"), 403)["code"] == "scope.insufficient"


async def test_the_chain_is_bound_by_the_ledger_and_proves_itself(api: World, tmp_path: Path) -> None:
    _, owner = await api.tenant("Acme")
    await api.site(owner)
    keys = KeyFolder(tmp_path / "keys")
    ledger = Ledger.open(api.store, tmp_path / "ledger", "ledger.test")
    recorder = Recorder(api.store, api.objects, ledger, keys, tmp_path, anchor_every=0)
    recorder.adopt()
    recorder.chain_calls()
    await api.site(owner, "Second")
    recorder.chain_calls()
    recorder.chain_calls()
    links = (await owner.get("/v1/audit/export")).text.splitlines()
    anchors = (await owner.get("/v1/audit/anchors")).text.splitlines()
    assert len(links) == api.count(AuditRow)
    assert len(anchors) == 2
    assert any('"row":null' in line for line in links)
    assert any('"row":{' in line for line in links)
    proven = [
        check_record(json.dumps(json.loads(one)["bundle"]).encode(), keys.ring(), ledger=ledger) for one in anchors
    ]
    bound = {one.statement["predicate"]["seq"]: one.digest for one in proven}
    checked = check_chain(map(json.loads, links), bound)
    assert (checked.links, checked.anchors, checked.last_anchored) == (len(links), 2, len(links))
    # More of what was done than was bound: chained, and bound by the next anchor.
    assert (await owner.get(f"/v1/audit/export?start={len(links) - 1}")).text.count("\n") == 1
    # What is chained stays as it is, by the database itself.
    for statement in ("UPDATE audit_row SET path = 'x'", "DELETE FROM audit_row"):
        with pytest.raises((DBAPIError, HeadwayError)), api.store.write() as session:
            session.execute(text(statement))
