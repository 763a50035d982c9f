"""Domains: which records prove a name, against a real DNS server; and redirects by a real web server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.domains.lookup import Lookup
from adapters.domains.records import Plan
from headway.errors import HeadwayError
from tests.adapters.dns_server import DnsServer

PLAN = Plan("edge.test", ("192.0.2.7", "2001:db8::7"))
TOKEN = "abc234"
LED = "dom-abc234.edge.test"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def lookup(server: DnsServer, plan: Plan = PLAN) -> Lookup:
    return Lookup(plan, [server.place], seconds=2.0)


def test_what_a_caller_is_asked_to_make() -> None:
    assert PLAN.records("www.acme.test", TOKEN) == [{"type": "CNAME", "name": "www.acme.test", "value": LED}]
    bare = PLAN.records("acme.test", TOKEN)
    assert [one["type"] for one in bare] == ["TXT", "A", "AAAA"]
    assert bare[0]["name"] == "_headway-verify.acme.test"
    assert bare[0]["value"] == "headway-verification=abc234"
    assert [one["type"] for one in Plan("edge.test").records("acme.test", TOKEN)] == ["TXT", "ALIAS"]
    for name in ("www.acme.test", "acme.test"):
        assert "headway-verification=abc234" in PLAN.instructions(name, TOKEN)


def test_a_cname_to_the_domains_own_target_proves_and_leads(dns: DnsServer) -> None:
    dns.set("www.acme.test", "CNAME", LED)
    found = lookup(dns).look("www.acme.test", TOKEN)
    assert (found.proven, found.points_here, found.why) == (True, True, "")
    assert found.seen == [{"type": "CNAME", "name": "www.acme.test", "value": LED}]


def test_a_chain_of_aliases_is_followed(dns: DnsServer) -> None:
    dns.set("www.acme.test", "CNAME", "web.acme.test")
    dns.set("web.acme.test", "CNAME", LED)
    dns.set(LED, "A", "192.0.2.7")
    assert lookup(dns).look("www.acme.test", TOKEN).proven


def test_a_circle_of_aliases_ends(dns: DnsServer) -> None:
    dns.set("a.acme.test", "CNAME", "b.acme.test")
    dns.set("b.acme.test", "CNAME", "a.acme.test")
    found = lookup(dns).look("a.acme.test", TOKEN)
    assert (found.proven, found.points_here) == (False, False)
    assert len(found.seen) == 8


def test_another_domains_target_proves_nothing(dns: DnsServer) -> None:
    """A record that somebody forgot leads to us, and belongs to nobody who asks for it."""
    dns.set("www.acme.test", "CNAME", "dom-another.edge.test")
    dns.set("dom-another.edge.test", "A", "192.0.2.7")
    found = lookup(dns).look("www.acme.test", TOKEN)
    assert (found.proven, found.points_here) == (False, True)
    assert LED in found.why


def test_the_address_alone_proves_nothing_and_the_text_alone_leads_nowhere(dns: DnsServer) -> None:
    dns.set("acme.test", "A", "192.0.2.7")
    assert not lookup(dns).look("acme.test", TOKEN).proven
    dns.set("_headway-verify.acme.test", "TXT", "other", "headway-verification=abc234")
    both = lookup(dns).look("acme.test", TOKEN)
    assert (both.proven, both.points_here) == (True, True)
    dns.set("acme.test", "A", "198.51.100.1")
    moved = lookup(dns).look("acme.test", TOKEN)
    assert (moved.proven, moved.points_here) == (True, False)
    assert {one["type"] for one in moved.seen} == {"TXT", "A"}


def test_without_addresses_of_its_own_the_targets_count(dns: DnsServer) -> None:
    dns.set("edge.test", "A", "203.0.113.9")
    dns.set("acme.test", "A", "203.0.113.9")
    dns.set("_headway-verify.acme.test", "TXT", "headway-verification=abc234")
    assert lookup(dns, Plan("edge.test")).look("acme.test", TOKEN).points_here


def test_what_is_not_there_is_an_answer(dns: DnsServer) -> None:
    found = lookup(dns).look("www.nothing.test", TOKEN)
    assert (found.proven, found.points_here, found.seen) == (False, False, [])


def test_a_resolver_that_fails_is_no_answer(dns: DnsServer) -> None:
    dns.refuses = True
    with pytest.raises(HeadwayError) as failed:
        lookup(dns).look("www.acme.test", TOKEN)
    assert failed.value.code == "domain.resolver_failed"
    assert failed.value.retryable


def test_each_look_asks_anew(dns: DnsServer) -> None:
    looking = lookup(dns)
    assert not looking.look("www.acme.test", TOKEN).proven
    dns.set("www.acme.test", "CNAME", LED)
    assert looking.look("www.acme.test", TOKEN).proven
