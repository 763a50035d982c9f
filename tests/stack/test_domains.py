"""Domains on the embedded stack, through both dialects: a real DNS server, the real web server, the vendor's client."""

from __future__ import annotations

import os

import pytest
from miosa import Miosa
from miosa.errors import NotFoundError, ValidationError

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import DNS, NewPlace
from tests.stack.sites import end_of, visit

pytestmark = pytest.mark.skipif(
    os.environ.get("HEADWAY_TEST_STACK") == "compose", reason="a stack in containers asks the engine's resolver"
)


def test_a_domain_from_the_records_to_the_redirect_and_back(stack: Stack, caller: Caller, new_place: NewPlace) -> None:
    place = new_place({"index.html": "<h1>domains</h1>"})
    place.push(place.site.production)
    path = f"/v1/sites/{place.site.id}/environments/{place.site.production}/domains"
    job = caller.post(path, {"hostname": "www.domains.example"})
    row = caller.get(f"{path}/{job['resource']['id']}")
    assert row["status"] == "pending"
    assert visit(stack, "www.domains.example").status == 404
    [record] = row["dns_records"]
    DNS.set(record["name"], record["type"], record["value"])
    assert end_of(caller, job)["status"] == "succeeded"
    assert visit(stack, "www.domains.example").text == "<h1>domains</h1>"
    environment = caller.get(path.removesuffix("/domains"))
    assert environment["url"] == f"http://www.domains.example:{stack.sites_port}"

    bare = caller.post(path, {"hostname": "domains.example", "redirect_policy": "apex_to_www"})
    for record in caller.get(f"{path}/{bare['resource']['id']}")["dns_records"]:
        DNS.set(record["name"], record["type"], record["value"])
    assert end_of(caller, bare)["status"] == "succeeded"
    led = visit(stack, "domains.example", "/deep?a=b")
    assert (led.status, led.headers["Location"]) == (301, environment["url"] + "/deep?a=b")

    gone = end_of(caller, caller.http.delete(f"{path}/{job['resource']['id']}").json()["data"])
    assert gone["status"] == "succeeded"
    assert visit(stack, "www.domains.example").status == 404
    # What it redirected to is gone: the bare name serves the site itself.
    assert visit(stack, "domains.example").text == "<h1>domains</h1>"


def test_domains_by_the_client(stack: Stack) -> None:
    with Miosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as client:
        sandbox = client.sandboxes.create(name="named")
        sandbox.files.write("/workspace/index.html", "named")
        deployment = client.deployments.create(name="Named")
        client.deployments.publish(deployment.id, source_sandbox_id=sandbox.id)
        domains = client.deployments.domains(deployment.id)
        added = domains.add("www.named.example", redirect_policy="none")
        assert (added["status"], added["domain"], added["deployment_id"]) == (
            "pending",
            "www.named.example",
            deployment.id,
        )
        assert domains.verify(added["id"])["status"] == "pending"
        DNS.set("www.named.example", "CNAME", added["verification_target"])
        verified = domains.verify(added["id"])
        assert verified["status"] == "active"
        assert verified["verified_at"] is not None
        assert visit(stack, "www.named.example").text == "named"
        public = client.deployments.get(deployment.id).public_url or ""
        assert "www.named.example" in public
        assert [row["id"] for row in domains.list()] == [added["id"]]
        assert added["id"] in [row["id"] for row in client.custom_domains.list()]
        other = client.custom_domains.create(domain="other.named.example", deployment_id=deployment.id)
        client.custom_domains.delete(other["id"])
        domains.delete(added["id"])
        assert domains.list() == []
        with pytest.raises(NotFoundError):
            domains.verify(added["id"])
        with pytest.raises(ValidationError):
            domains.add("not a domain")
