"""Attach and detach on a real Temporal server, against a real DNS server."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.domains.records import Plan
from store.domains import DomainRequest, accept_attach, accept_detach, add_domain
from store.models import Environment, Hostname, Job, Site
from store.models_domains import Domain
from tests.adapters.dns_server import DnsServer
from tests.workflows.engine import Engine, run_story

NAME = "www.acme.test"


def attach(engine: Engine, hostname: str = NAME, *, patience: float = 0.0) -> Job:
    with engine.store.write() as session:
        site, env = session.get_one(Site, engine.world.site_id), session.get_one(Environment, engine.world.env_id)
        domain = add_domain(session, site, env, DomainRequest(hostname), {})
        return accept_attach(session, site, domain, {}, patience=patience)


def domain(engine: Engine, job: Job) -> Domain:
    with engine.store.read() as session:
        return session.get_one(Domain, job.resource_id)


def led(engine: Engine, hostname: str = NAME) -> bool:
    with engine.store.read() as session:
        return session.get(Hostname, hostname) is not None


def prove(dns: DnsServer, engine: Engine, job: Job) -> None:
    dns.set(NAME, "CNAME", Plan("localhost").cname(domain(engine, job).token))


def test_a_domain_is_found_routed_certified_and_detached(tmp_path: Path) -> None:
    with DnsServer() as dns:

        async def story(engine: Engine) -> None:
            job = attach(engine, patience=600)
            await engine.start(job)
            await engine.until(lambda: domain(engine, job), lambda row: row.checked_at is not None)
            assert not led(engine)
            prove(dns, engine, job)
            done = await engine.ended(job)
            assert (done.status, done.error) == ("succeeded", None)
            assert done.result is not None
            assert (done.result["hostname"], done.result["certificate"]) == (NAME, "issued")
            row = domain(engine, job)
            assert (row.status, row.points_here) == ("active", True)
            assert row.tls_issued_at is not None
            assert led(engine)
            assert engine.host.routed == [engine.world.env_id]
            assert engine.host.certified == [NAME]
            with engine.store.write() as session:
                site = session.get_one(Site, engine.world.site_id)
                gone = accept_detach(session, site, session.get_one(Domain, job.resource_id), {})
            assert not led(engine)
            assert (await engine.run(gone)).status == "succeeded"
            assert engine.host.routed == [engine.world.env_id] * 2

        run_story(tmp_path, story, dns_servers=[dns.place])


@pytest.mark.slow
def test_without_its_records_a_look_fails_and_says_what_is_missing(tmp_path: Path) -> None:
    with DnsServer() as dns:

        async def story(engine: Engine) -> None:
            once, long = attach(engine, "once.acme.test"), attach(engine, "long.acme.test", patience=0.3)
            for job, status in ((once, "pending"), (long, "failed")):
                ended = await engine.run(job)
                assert ended.status == "failed"
                assert ended.error is not None
                assert ended.error["code"] == "domain.not_verified"
                assert "CNAME" in ended.error["message"]
                assert domain(engine, job).status == status
            assert engine.host.routed == []

        run_story(tmp_path, story, dns_servers=[dns.place])


@pytest.mark.slow
def test_an_authority_that_refuses_leaves_the_domain_attached(tmp_path: Path) -> None:
    with DnsServer() as dns:

        async def story(engine: Engine) -> None:
            engine.host.no_certificate = True
            job = attach(engine, patience=600)
            prove(dns, engine, job)
            done = await engine.run(job)
            assert done.status == "succeeded"
            assert done.result is not None
            assert done.result["certificate"] is None
            assert domain(engine, job).tls_issued_at is None

        run_story(tmp_path, story, dns_servers=[dns.place])


@pytest.mark.slow
def test_a_resolver_that_is_away_is_waited_for_and_a_cancel_ends_the_wait(tmp_path: Path) -> None:
    with DnsServer(refuses=True) as dns:

        async def story(engine: Engine) -> None:
            job = attach(engine, patience=600)
            await engine.start(job)
            await engine.until(lambda: dns.asked_at_all, bool)
            await engine.starts.cancel(job.id)
            ended = await engine.ended(job)
            assert ended.status == "canceled"
            assert domain(engine, job).status == "pending"
            assert not led(engine)

        run_story(tmp_path, story, dns_servers=[dns.place])


@pytest.mark.slow
def test_what_is_detached_while_it_is_looked_for_is_not_attached(tmp_path: Path) -> None:
    with DnsServer() as dns:

        async def story(engine: Engine) -> None:
            job = attach(engine, patience=600)
            await engine.start(job)
            await engine.until(lambda: domain(engine, job), lambda row: row.checked_at is not None)
            with engine.store.write() as session:
                site = session.get_one(Site, engine.world.site_id)
                accept_detach(session, site, session.get_one(Domain, job.resource_id), {})
            prove(dns, engine, job)
            ended = await engine.ended(job)
            assert (ended.status, (ended.error or {})["code"]) == ("failed", "domain.not_found")
            assert not led(engine)

        run_story(tmp_path, story, dns_servers=[dns.place])
