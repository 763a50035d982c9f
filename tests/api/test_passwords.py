"""Passwords of previews over the API: kept as a hash, handed to hosts, inherited, gone with what they were for."""

from __future__ import annotations

import json

import pytest

from headway.passwords import Lock
from store.locks import lock_text
from store.models import Job
from store.models_locks import EnvironmentLock
from store.outcomes import retire_environment
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
PASSWORD = "canary-horse-7"


def text_of(api: World, env_id: str) -> str:
    with api.store.read() as session:
        return lock_text(session, env_id)


async def test_a_password_is_kept_as_a_hash_and_told_to_the_hosts_by_a_job(api: World) -> None:
    _, client = await api.tenant("Acme")
    site = await api.site(client)
    preview = await api.environment(client, site["id"], "preview", "feature/x")
    path = f"/v1/sites/{site['id']}/environments/{preview['id']}/password"
    assert data(await client.get(path)) == {"protected": False, "set_at": None}
    answer = await client.put(path, json={"password": PASSWORD})
    job = data(answer)
    assert (answer.status_code, job["type"], job["resource"]["protected"]) == (202, "environment.protect", True)
    assert api.starts.started[-1][:2] == (job["id"], "environment.protect")
    assert Lock.read(text_of(api, preview["id"]).encode()).opens(PASSWORD.encode())
    assert not Lock.read(text_of(api, preview["id"]).encode()).opens(b"other")
    shown = data(await client.get(path))
    assert shown["protected"] is True
    assert PASSWORD not in json.dumps([job, shown, api.one(Job, id=job["id"]).input])
    for file in api.folder.glob("headway.db*"):
        assert PASSWORD.encode() not in file.read_bytes()
    gone = data(await client.delete(path))
    assert gone["resource"]["protected"] is False
    assert text_of(api, preview["id"]) == ""


async def test_what_takes_no_password(api: World) -> None:
    team, client = await api.tenant("Acme")
    site = await api.site(client)
    at = f"/v1/sites/{site['id']}/environments"
    body = {"password": PASSWORD}
    refused = await client.put(f"{at}/{site['production_env_id']}/password", json=body)
    assert error(refused, 409)["code"] == "environment.password_refused"
    for short in ("", "seven77", "x" * 201):
        odd = await client.put(f"{at}/{site['production_env_id']}/password", json={"password": short})
        assert error(odd, 400)["param"] == "password"
    _, other = await api.tenant("Other")
    assert error(await other.put(f"{at}/{site['production_env_id']}/password", json=body), 404)
    reader = api.client(await api.key(team, None, ["environments:read"], kind="service"))
    denied = await reader.put(f"{at}/{site['production_env_id']}/password", json=body)
    assert error(denied, 403)["code"] == "scope.insufficient"
    assert api.count(EnvironmentLock) == 0


async def test_new_previews_have_their_sites_password_from_their_first_moment(api: World) -> None:
    _, client = await api.tenant("Acme")
    site = await api.site(client)
    before = await api.environment(client, site["id"], "preview", "before")
    path = f"/v1/sites/{site['id']}/preview-password"
    assert data(await client.put(path, json={"password": PASSWORD}))["protected"] is True
    job = data(await client.post(f"/v1/sites/{site['id']}/environments", json={"kind": "preview", "branch": "x"}))
    made = job["resource"]["id"]
    assert Lock.read(text_of(api, made).encode()).opens(PASSWORD.encode())
    assert text_of(api, before["id"]) == ""
    staging = data(await client.post(f"/v1/sites/{site['id']}/environments", json={"kind": "staging", "branch": "s"}))
    assert text_of(api, staging["resource"]["id"]) == ""
    with api.store.write() as session:
        retire_environment(session, made)
    assert text_of(api, made) == ""
    assert data(await client.delete(path)) == {"protected": False, "set_at": None}
    assert api.count(EnvironmentLock) == 0
