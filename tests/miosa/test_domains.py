"""Domains of deployments: whose a name is, what its DNS says, and for whom the web server may get a certificate."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from headway.errors import HeadwayError
from store.domains import Looked
from tests.api.test_domains import HERE, work
from tests.miosa.org import Org, problem

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
NAME = "www.clinic.example"


async def answered(http: httpx.AsyncClient, method: str, path: str, body: Json | None = None, status: int = 200) -> Any:
    answer = await http.request(method, f"/api/v1{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()["data"] if answer.content else None


async def deployed(org: Org, http: httpx.AsyncClient, name: str = "Clinic") -> str:
    """A deployment whose environment is there."""
    made = await answered(http, "POST", "/deployments", {"name": name}, 201)
    org.api.provision(org.api.starts.started[-1][0])
    return str(made["id"])


async def added(org: Org, http: httpx.AsyncClient, name: str = NAME) -> tuple[str, Json]:
    made = await deployed(org, http)
    return made, await answered(http, "POST", f"/deployments/{made}/domains", {"domain": name}, 201)


async def looked(org: Org, http: httpx.AsyncClient, deployment: str, domain: Json, found: Looked = HERE) -> None:
    """What the workflow does after `verify`."""
    await answered(http, "POST", f"/deployments/{deployment}/domains/{domain['id']}/verify")
    job_id, kind = org.api.starts.started[-1]
    assert kind == "domain.attach"
    work(org.api, {"id": job_id, "resource": {"id": domain["id"]}}, found)


async def test_a_name_is_whose_proof_it_is(org: Org) -> None:
    """Two organisations may ask for it, neither learns of the other before one has proven it."""
    other, ask = await org.other(), org.api.client(None)
    first, mine = await added(org, org.http)
    second, theirs = await added(org, other)
    assert mine["id"] != theirs["id"]
    assert mine["dns_records"] != theirs["dns_records"], "each has a target of its own"
    assert (await ask.get("/tls/ask", params={"domain": NAME})).status_code == 404
    await looked(org, other, second, theirs)
    assert (await ask.get("/tls/ask", params={"domain": NAME})).status_code == 200
    row = await answered(other, "GET", f"/deployments/{second}/domains/{theirs['id']}")
    assert (row["status"], row["domain"]) == ("active", NAME)
    assert (await answered(other, "GET", f"/deployments/{second}"))["public_url"].startswith(f"http://{NAME}")
    with pytest.raises(HeadwayError) as taken:
        await looked(org, org.http, first, mine)
    assert taken.value.code == "domain.taken"
    assert (await org.call("GET", f"/deployments/{first}/domains/{mine['id']}"))["status"] == "pending"
    unseen = await org.http.get(f"/api/v1/deployments/{second}/domains/{theirs['id']}")
    problem(unseen, 404, "NOT_FOUND")
    problem(await org.http.delete(f"/api/v1/custom-domains/{theirs['id']}"), 404, "NOT_FOUND")
    path = f"/api/v1/deployments/{await deployed(org, other, 'Third')}/domains"
    problem(await other.post(path, json={"domain": NAME}), 409, "DOMAIN_TAKEN")
    again = await other.post(f"/api/v1/deployments/{second}/domains", json={"domain": NAME.upper() + "."})
    problem(again, 409, "DOMAIN_EXISTS")


async def test_a_name_that_was_let_go_is_free_at_once(org: Org) -> None:
    other, ask = await org.other(), org.api.client(None)
    first, mine = await added(org, org.http)
    second, theirs = await added(org, other)
    await looked(org, org.http, first, mine)
    await answered(org.http, "DELETE", f"/deployments/{first}/domains/{mine['id']}", status=204)
    assert (await ask.get("/tls/ask", params={"domain": NAME})).status_code == 404
    assert await org.call("GET", f"/deployments/{first}/domains") == []
    await looked(org, other, second, theirs)
    assert (await answered(other, "GET", f"/deployments/{second}/domains/{theirs['id']}"))["status"] == "active"


async def test_what_does_not_prove_it_leaves_it_pending(org: Org) -> None:
    deployment, domain = await added(org, org.http)
    await answered(org.http, "POST", f"/deployments/{deployment}/domains/{domain['id']}/verify")
    row = await org.call("GET", f"/deployments/{deployment}/domains/{domain['id']}")
    assert (row["status"], row["verified_at"], row["tls_issued_at"]) == ("pending", None, None)
    for name in ("localhost", "-x.example", "1.2.3.4", "a b.example", "../x.example"):
        refused = await org.http.post(f"/api/v1/deployments/{deployment}/domains", json={"domain": name})
        problem(refused, 422, "INVALID_DOMAIN")
    reserved = await org.http.post(f"/api/v1/deployments/{deployment}/domains", json={"domain": "edge.test"})
    problem(reserved, 422, "DOMAIN_RESERVED")
    own = await org.http.post(f"/api/v1/deployments/{deployment}/domains", json={"domain": "a-site.edge.test"})
    assert own.json()["error"]["message"].startswith("a-site.edge.test is"), "a caller's own words stay as they were"
