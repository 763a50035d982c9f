"""Domains by the contract's section 15: the rows, who gets a name, what redirects, and whom a certificate is for."""

from __future__ import annotations

from typing import Any

import pytest
from sqlmodel import select

from store.domains import Looked, activate, give_up, note_look, redirects_of
from store.hostnames import hostnames_of
from store.models import Hostname, Job
from store.models_domains import Domain
from store.models_webhooks import Event
from store.outcomes import retire_environment
from store.queue import claim_job
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
HERE = Looked(proven=True, points_here=True, seen=[{"type": "CNAME", "name": "x", "value": "y"}])


async def place(client: Any, api: World, name: str = "Acme") -> tuple[Json, str]:
    site = await api.site(client, name)
    return site, f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/domains"


async def attach(client: Any, path: str, hostname: str, **more: Any) -> Json:
    answer = await client.post(path, json={"hostname": hostname, **more})
    assert answer.status_code == 202, answer.text
    return dict(data(answer))


def work(api: World, job: Json, looked: Looked = HERE, *, certified: bool = False) -> None:
    """What the workflow does to the rows."""
    with api.store.write() as session:
        claim_job(session, job["id"])
        note_look(session, job["resource"]["id"], looked)
    with api.store.write() as session:
        activate(session, job["resource"]["id"], session.get_one(Job, job["id"]), certified=certified)


async def test_attach_says_which_records_to_make(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path = await place(client, api)
    job = await attach(client, path, "WWW.Example.com.")
    assert (job["type"], job["status"]) == ("domain.attach", "queued")
    assert job["resource"]["type"] == "domain"
    assert job["resource"]["hostname"] == "www.example.com"
    assert api.starts.started[-1][1] == "domain.attach"
    row = data(await client.get(f"{path}/{job['resource']['id']}"))
    token = api.one(Domain, id=row["id"]).token
    assert (row["status"], row["primary"], row["points_here"]) == ("pending", False, False)
    assert row["dns_records"] == [{"type": "CNAME", "name": "www.example.com", "value": f"dom-{token}.edge.test"}]
    assert data(await client.get(path)) == [row]
    assert api.one(Job, id=job["id"]).input == {"patience": 86_400.0}
    assert [name.name for name in _names(api, site["production_env_id"])] == [
        "acme.sites.test",
        "acme-production.sites.test",
    ]


async def test_a_proven_domain_leads_here_and_becomes_the_primary_name(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path = await place(client, api)
    job = await attach(client, path, "www.example.com")
    ask = api.client(None)
    assert (await ask.get("/tls/ask", params={"domain": "www.example.com"})).status_code == 404
    work(api, job)
    row = data(await client.get(f"{path}/{job['resource']['id']}"))
    assert (row["status"], row["primary"], row["points_here"]) == ("active", True, True)
    assert row["found_records"] == HERE.seen
    assert (await ask.get("/tls/ask", params={"domain": "WWW.example.com"})).status_code == 200
    environment = data(await client.get(path.removesuffix("/domains")))
    assert environment["url"] == "http://www.example.com:7071"
    done = data(await client.get(f"/v1/jobs/{job['id']}"))
    assert (done["status"], done["result"]["hostname"]) == ("succeeded", "www.example.com")
    detached = data(await client.delete(f"{path}/{row['id']}"))
    assert detached["type"] == "domain.detach"
    assert (await ask.get("/tls/ask", params={"domain": "www.example.com"})).status_code == 404
    assert data(await client.get(path)) == []
    assert _names(api, site["production_env_id"])[0].name == "acme.sites.test"
    assert error(await client.get(f"{path}/{row['id']}"), 404)["code"] == "domain.not_found"


async def test_a_name_goes_to_the_one_who_proves_it(api: World) -> None:
    _, first = await api.tenant("First")
    _, second = await api.tenant("Second")
    (_, one), (_, two) = await place(first, api, "One"), await place(second, api, "Two")
    mine, theirs = await attach(first, one, "www.example.com"), await attach(second, two, "www.example.com")
    work(api, theirs)
    with api.store.write() as session:
        claim_job(session, mine["id"])
    with pytest.raises(Exception, match="leads to another environment"), api.store.write() as session:
        note_look(session, mine["resource"]["id"], HERE)
    assert api.one(Hostname, name="www.example.com").env_id == two.split("/")[5]
    third = await first.post(one.replace("/domains", "") + "/domains", json={"hostname": "www.example.com"})
    assert error(third, 409)["code"] == "domain.exists"
    _, other = await place(first, api, "Other")
    assert error(await first.post(other, json={"hostname": "www.example.com"}), 409)["code"] == "domain.taken"


async def test_what_is_refused(api: World) -> None:
    team, client = await api.tenant("Acme")
    _, path = await place(client, api)
    for name, code in (
        ("localhost", "domain.invalid"),
        ("exa mple.com", "domain.invalid"),
        ("-x.example.com", "domain.invalid"),
        ("1.2.3.4", "domain.invalid"),
        ("b\u00fccher.example", "domain.invalid"),
        ("../../etc.example", "domain.invalid"),
        ("x" * 64 + ".example.com", "domain.invalid"),
        ("other.sites.test", "domain.reserved"),
        ("edge.test", "domain.reserved"),
        ("dom-x.edge.test", "domain.reserved"),
        ("api.test", "domain.reserved"),
    ):
        refused = error(await client.post(path, json={"hostname": name}), 400)
        assert (refused["code"], refused["param"]) == (code, "hostname"), name
    reader = api.client(await api.key(team, None, ["domains:read", "environments:read"], kind="service"))
    assert data(await reader.get(path)) == []
    assert error(await reader.post(path, json={"hostname": "a.example.com"}), 403)["code"] == "scope.insufficient"
    _, other = await api.tenant("Other")
    assert error(await other.get(path), 404)["code"] == "site.not_found"
    assert api.count(Domain) == 0


async def test_what_is_not_found_stays_pending_or_has_failed(api: World) -> None:
    _, client = await api.tenant("Acme")
    _, path = await place(client, api)
    job = await attach(client, path, "www.example.com")
    one = f"{path}/{job['resource']['id']}"
    again = data(await client.post(f"{one}/verify"))
    assert again["id"] == job["id"]
    absent = Looked(proven=False, points_here=False, seen=[], why="There is no CNAME.")
    failure = {"code": "domain.not_verified", "message": "There is no CNAME."}
    with api.store.write() as session:
        claim_job(session, job["id"])
        assert not note_look(session, job["resource"]["id"], absent)
        give_up(session, job["resource"]["id"], failure, final=True)
        session.get_one(Job, job["id"]).finished_at = session.get_one(Job, job["id"]).created_at
    row = data(await client.get(one))
    assert (row["status"], row["missing"], row["error"]["code"]) == ("failed", "There is no CNAME.", failure["code"])
    look = data(await client.post(f"{one}/verify"))
    assert look["id"] != job["id"]
    assert api.one(Job, id=look["id"]).input == {"patience": 0}
    work(api, look)
    assert data(await client.get(one))["status"] == "active"
    assert data(await client.get(one))["error"] is None


async def test_redirects_lead_to_names_of_the_same_environment(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path = await place(client, api)
    env = site["production_env_id"]
    apex = await attach(client, path, "example.com", redirect_policy="apex_to_www")
    work(api, apex)
    assert _redirects(api, env) == {}
    work(api, await attach(client, path, "www.example.com"))
    assert _redirects(api, env) == {"example.com": "www.example.com"}
    work(api, await attach(client, path, "old.example.org", redirect_to_primary=True))
    assert _redirects(api, env) == {"example.com": "www.example.com", "old.example.org": "www.example.com"}
    assert _names(api, env)[0].name == "www.example.com"
    changed = await client.patch(f"{path}/{apex['resource']['id']}", json={"redirect_policy": "none"})
    assert changed.status_code == 202
    assert _redirects(api, env) == {"old.example.org": "example.com"}


async def test_a_circle_of_redirects_is_none(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path = await place(client, api)
    work(api, await attach(client, path, "example.com", redirect_policy="apex_to_www"))
    work(api, await attach(client, path, "www.example.com", redirect_policy="www_to_apex"))
    assert _redirects(api, site["production_env_id"]) == {}


async def test_a_domain_that_does_not_lead_here_yet_is_not_the_primary_name(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path = await place(client, api)
    job = await attach(client, path, "www.example.com")
    work(api, job, Looked(proven=True, points_here=False, seen=[]))
    assert data(await client.get(f"{path}/{job['resource']['id']}"))["status"] == "active"
    assert _names(api, site["production_env_id"])[0].name == "acme.sites.test"


async def test_attaching_is_told_with_the_certificate(api: World) -> None:
    _, client = await api.tenant("Acme")
    await client.post("/v1/webhook-endpoints", json={"url": "https://example.com/", "events": ["domain.*", "cert.*"]})
    _, path = await place(client, api)
    job = await attach(client, path, "www.example.com")
    work(api, job, certified=True)
    with api.store.read() as session:
        told = {event.type: event.data for event in session.exec(select(Event)).all()}
    assert set(told) == {"cert.renewed", "domain.attached"}
    assert told["domain.attached"]["domain"]["hostname"] == "www.example.com"
    assert told["domain.attached"]["domain"]["status"] == "active"
    assert told["cert.renewed"]["certificate"]["issued_at"] is not None
    assert data(await client.get(f"{path}/{job['resource']['id']}"))["tls_issued_at"] is not None


async def test_domains_end_with_their_environment(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path = await place(client, api)
    job = await attach(client, path, "www.example.com")
    work(api, job)
    with api.store.write() as session:
        retire_environment(session, site["production_env_id"])
    assert api.one(Domain, id=job["resource"]["id"]).status == "removed"
    assert (await api.client(None).get("/tls/ask", params={"domain": "www.example.com"})).status_code == 404


def _names(api: World, env_id: str) -> list[Hostname]:
    with api.store.read() as session:
        return hostnames_of(session, [env_id])[env_id]


def _redirects(api: World, env_id: str) -> dict[str, str]:
    with api.store.read() as session:
        return redirects_of(session, env_id)
