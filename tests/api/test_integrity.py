"""Integrity over HTTP: the operator sees what was found, and starts a scrub; hosts of the site are told how to mend."""

from __future__ import annotations

import pytest

from headway.broker import MendSpec
from store.integrity import find, settle
from store.models import Content, Environment, Job, Pack
from tests.api.test_broker import Roles, failure
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
SHA, PIECE = "a" * 64, "b" * 64


async def damaged(api: World) -> tuple[str, str]:
    """A site with a pack that is not what it should be: the ids of the finding and of its environment."""
    site = await api.site(api.admin)
    with api.store.write() as session:
        session.add(Pack(site_id=site["id"], sha256=SHA, size=10))
        session.add(Content(site_id=site["id"], sha256=PIECE, pack_sha256=SHA, offset=0, size=10))
        session.get_one(Environment, site["production_env_id"]).hosts = ["local"]
        found = find(session, site["id"], "pack", SHA, "changed", '"etag"', 10)
    assert found is not None
    return found, site["production_env_id"]


async def test_the_operator_sees_findings_and_starts_a_scrub(api: World) -> None:
    finding, _ = await damaged(api)
    told = data(await api.admin.get("/v1/integrity"))
    assert told == {"totals": {"findings": 1, "open": 1}, "last_run": None}
    [row] = data(await api.admin.get("/v1/integrity/findings"))
    assert (row["id"], row["object"], row["name"], row["state"]) == (finding, "pack", SHA, "open")
    tried = [{"finding_id": finding, "by": "local", "why": "it is whole neither here nor there"}]
    with api.store.write() as session:
        settle(session, finding, by=None, tried=tried)
    [row] = data(await api.admin.get("/v1/integrity/findings"))
    assert (row["state"], row["tried"]) == ("lost", tried)
    with api.store.write() as session:
        settle(session, finding, by="second", tried=[])
    [row] = data(await api.admin.get("/v1/integrity/findings"))
    assert (row["state"], row["mended_by"]) == ("mended", "second")
    answer = await api.admin.post("/v1/integrity/scrubs", json={"whole": True})
    assert answer.status_code == 202
    job = answer.json()["data"]
    assert (job["id"], "integrity.scrub") in api.starts.started
    assert api.one(Job, id=job["id"]).input == {"whole": True}


async def test_it_is_nobody_elses(api: World) -> None:
    _, tenant = await api.tenant("Other")
    for answer in (
        await tenant.get("/v1/integrity"),
        await tenant.get("/v1/integrity/findings"),
        await tenant.post("/v1/integrity/scrubs"),
    ):
        assert error(answer, 403)["code"] == "role.insufficient"


async def test_a_host_of_the_site_learns_how_to_mend_it_and_no_other(api: World) -> None:
    finding, _ = await damaged(api)
    roles = Roles(api)
    spec = MendSpec.model_validate((await roles.ask("host", "POST", f"/findings/{finding}", {})).json())
    assert (spec.object, spec.sha256, spec.pieces) == ("pack", SHA, [(PIECE, 0, 10)])
    assert spec.put_headers["if-match"] == '"etag"'
    assert failure(await roles.ask("host:second", "POST", f"/findings/{finding}", {}), 404) == "finding.not_found"
    assert failure(await roles.ask("builder", "POST", f"/findings/{finding}", {}), 403) == "role.insufficient"
