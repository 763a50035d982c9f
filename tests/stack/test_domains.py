"""Domains on the embedded stack, through both dialects: a real DNS server, the real web server, the vendor's client."""

from __future__ import annotations

import os

import pytest

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
    place.push(place.site.production)
    assert visit(stack, "domains.example").status == 301, "a rollout changes no name"

    gone = end_of(caller, caller.http.delete(f"{path}/{job['resource']['id']}").json()["data"])
    assert gone["status"] == "succeeded"
    assert visit(stack, "www.domains.example").status == 404
    # What it redirected to is gone: the bare name serves the site itself.
    assert visit(stack, "domains.example").text == "<h1>domains</h1>"
