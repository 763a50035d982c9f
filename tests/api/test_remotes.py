"""Private repositories and polls, as the API and the broker see them."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from api.internal.builds import Builds
from api.internal.looks import Looks
from headway.broker import Begin, BeginLook, Seen
from headway.errors import HeadwayError
from store import polling
from store.models import Build, Job, Rollout, Site, utcnow
from store.models_arrivals import RemoteBranch, RemoteWatch
from store.models_repositories import RepositoryCredential
from store.polling import Look
from tests.api.world import World, data, error
from tests.holder import HOLDER

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
HTTPS, SSH = "https://forge.example/acme/shop.git", "ssh://git@forge.example/acme/shop.git"
TOKEN = "canary-9d1f-token"
A, B, C = "a" * 40, "b" * 40, "c" * 40
MINUTE = timedelta(minutes=1)


async def test_a_token_is_write_only_and_reaches_the_builder_that_fetches(api: World) -> None:
    team, client = await api.tenant("Acme")
    site = await api.site(client, repository=HTTPS)
    path = f"/v1/sites/{site['id']}/repository/credentials"
    made = data(await client.post(path, json={"kind": "token", "token": TOKEN}, headers={"Idempotency-Key": "k"}))
    assert (made["kind"], made["host"], made["public_key"]) == ("token", "forge.example", None)
    texts = [made, data(await client.get(path)), (await client.get("/v1/audit")).text]
    replay = await client.post(path, json={"kind": "token", "token": TOKEN}, headers={"Idempotency-Key": "k"})
    assert data(replay)["id"] == made["id"]
    row = api.one(RepositoryCredential, id=made["id"])
    assert TOKEN.encode() not in row.ciphertext
    assert "canary-9d1f" not in repr([*texts, replay.text, row])
    assert b"canary-9d1f" not in (api.folder / "headway.db").read_bytes()

    broker = Builds(api.store, api.objects, api.parts.vault)
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    build = data(await client.post(f"{env}/builds", json={"ref": "main"}))["resource"]["id"]
    spec = broker.begin(build, Begin(attempt=1, worker="w"), HOLDER)
    assert spec.access is not None
    assert (spec.access.username, spec.access.token) == ("git", TOKEN)
    assert TOKEN not in f"{spec!r} {spec}"
    assert data(await client.get(path))[0]["used_at"] is not None
    rotated = data(await client.post(f"{path}/{made['id']}/rotate", json={"token": "second", "username": "bot"}))
    assert (rotated["id"], rotated["username"]) == (made["id"], "bot")
    access = broker.begin(build, Begin(attempt=2, worker="w"), HOLDER).access
    assert access is not None
    assert (access.username, access.token) == ("bot", "second")
    # Whoever leads the site elsewhere does not get what was given for another host.
    api.change(Site, site["id"], repository="https://elsewhere.example/x.git")
    assert broker.begin(build, Begin(attempt=3, worker="w"), HOLDER).access is None
    api.change(Site, site["id"], repository=HTTPS)
    assert data(await client.delete(f"{path}/{made['id']}"))["deleted"]
    assert broker.begin(build, Begin(attempt=4, worker="w"), HOLDER).access is None

    for body, code in (
        ({"kind": "token"}, "request.missing_parameter"),
        ({"kind": "token", "token": "two\nlines"}, "request.invalid_parameter"),
        ({"kind": "deploy_key", "token": "x"}, "request.invalid_parameter"),
        ({"kind": "password"}, "request.invalid_parameter"),
    ):
        assert error(await client.post(path, json=body), 400)["code"] == code
    assert error(await client.post(path, json={"kind": "deploy_key"}), 409)["code"] == "repository.credential_unfit"
    assert error(await client.delete(f"{path}/cred_none"), 404)["code"] == "repository.credential_not_found"
    _, other = await api.tenant("Other")
    assert error(await other.get(path), 404)["code"] == "site.not_found"
    reader = api.client(await api.key(team, None, ["sites:read"], kind="service"))
    assert error(await reader.post(path, json={"kind": "token", "token": "x"}), 403)["code"] == "scope.insufficient"


async def test_deploy_keys_are_made_here_and_offered_side_by_side(api: World) -> None:
    site = await api.site(api.admin, repository=SSH)
    path = f"/v1/sites/{site['id']}/repository/credentials"
    first = data(await api.admin.post(path, json={"kind": "deploy_key"}))
    assert first["public_key"].startswith("ssh-ed25519 ")
    second = data(await api.admin.post(f"{path}/{first['id']}/rotate", json={}))
    assert (second["id"] != first["id"], second["public_key"] != first["public_key"]) == (True, True)
    with api.store.write() as session:
        polling.claim(session, MINUTE, limit=9)
    data(await api.admin.put(f"/v1/sites/{site['id']}/repository/polling", json={"enabled": True}))
    [look] = api.store.in_write(lambda session: polling.claim(session, MINUTE, limit=9))
    access = looks_of(api).begin(site["id"], BeginLook(attempt=look.attempt), HOLDER).access
    assert access is not None
    assert len(access.keys) == 2
    assert all(key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----") for key in access.keys)
    assert "PRIVATE" not in repr(access)
    for _ in range(2):
        data(await api.admin.post(path, json={"kind": "deploy_key"}))
    assert error(await api.admin.post(path, json={"kind": "deploy_key"}), 402)["code"] == "quota.exceeded"
    own = await api.site(api.admin, "Own")
    body = {"kind": "deploy_key"}
    refused = await api.admin.post(f"/v1/sites/{own['id']}/repository/credentials", json=body)
    assert error(refused, 409)["code"] == "repository.missing"


def looks_of(api: World) -> Looks:
    return Looks(api.store, api.parts.vault, "sites.test", api.parts.previews, MINUTE)


class Polls:
    """A site that is polled, and whoever looks at it."""

    def __init__(self, api: World, client: Any, site: Json) -> None:
        self.api, self.client, self.site, self.looks = api, client, site, looks_of(api)
        self.path = f"/v1/sites/{site['id']}/repository"

    @classmethod
    async def of(cls, api: World) -> Polls:
        site = await api.site(api.admin, repository=HTTPS)
        made = cls(api, api.admin, site)
        data(await api.admin.put(f"{made.path}/polling", json={"enabled": True, "interval_seconds": 60}))
        return made

    def claim(self) -> list[Look]:
        with self.api.store.write() as session:
            if (row := session.get(RemoteWatch, self.site["id"])) is not None:
                row.next_at = utcnow() - MINUTE
        return self.api.store.in_write(lambda session: polling.claim(session, MINUTE, limit=9))

    def see(self, **branches: str) -> int:
        [look] = self.claim()
        self.looks.begin(look.site_id, BeginLook(attempt=look.attempt), HOLDER)
        return self.looks.seen(look.site_id, Seen(attempt=look.attempt, branches=branches)).news

    async def branches(self) -> dict[str, Json]:
        return {row["branch"]: row for row in data(await self.client.get(f"{self.path}/branches"))}

    async def state(self) -> Json:
        return dict(data(await self.client.get(f"{self.path}/polling")))


async def test_a_lost_webhook_still_deploys(api: World) -> None:
    polls = await Polls.of(api)
    assert polls.see(main=A, topic=A) == 2
    assert api.count(Build) == 0
    assert (await polls.branches())["main"]["text"] == "known: it was there when polling began"
    assert polls.see(main=A, topic=A) == 0
    assert polls.see(main=B, topic=A, new=C) == 2
    rows = await polls.branches()
    build = api.one(Build, job_id=rows["main"]["job_id"])
    assert (build.ref, build.commit_sha, build.trigger) == ("main", B, "poll")
    assert rows["new"]["text"] == f"deployed {rows['new']['job_id']}"
    assert api.one(Job, id=rows["new"]["job_id"]).actor["type"] == "poll"
    assert polls.see(main=B, topic=A, new=C) == 0
    assert polls.see(main=A, topic=A) == 2  # forced back; and `new` is gone
    rows = await polls.branches()
    assert api.one(Build, job_id=rows["main"]["job_id"]).commit_sha == A
    assert rows["new"]["text"].startswith("ended job_")
    state = await polls.state()
    assert (state["failures"], state["error"], state["active"], state["interval_seconds"]) == (0, None, True, 60)


@pytest.mark.slow
async def test_a_failed_commit_is_not_tried_each_minute(api: World) -> None:
    polls = await Polls.of(api)
    polls.see(main=A)
    polls.see(main=B)
    job = (await polls.branches())["main"]["job_id"]
    with api.store.write() as session:
        row = session.get_one(Job, job)
        row.status, row.finished_at = "failed", utcnow()
        rollout = session.get_one(Rollout, row.resource_id)
        rollout.status, rollout.finished_at = "failed", utcnow()
    for _ in range(3):
        assert polls.see(main=B) == 0
    assert api.count(Build) == 1


@pytest.mark.slow
async def test_what_was_told_while_the_look_was_on_its_way_counts_for_more(api: World) -> None:
    polls = await Polls.of(api)
    polls.see(main=A)
    [look] = polls.claim()
    polls.looks.begin(look.site_id, BeginLook(attempt=look.attempt), HOLDER)
    with api.store.write() as session:
        row = session.get_one(RemoteBranch, (look.site_id, "main"))
        row.commit_sha, row.heard_at = B, utcnow()
    assert polls.looks.seen(look.site_id, Seen(attempt=look.attempt, branches={"main": A})).news == 0
    assert api.count(Build) == 0


async def test_a_look_that_saw_nothing_changes_nothing_and_comes_later_each_time(api: World) -> None:
    polls = await Polls.of(api)
    polls.see(main=A, topic=A)
    assert polls.see() == 0  # a repository that was made anew: its branches are not gone
    pauses = []
    for _ in range(4):
        [look] = polls.claim()
        told = Seen(attempt=look.attempt, code="repository.unreachable", message="no route to it")
        assert polls.looks.seen(look.site_id, told).news == 0
        pauses.append((api.one(RemoteWatch).next_at - utcnow()).total_seconds())
    assert all(after > 1.5 * before for before, after in itertools.pairwise(pauses))
    state = await polls.state()
    assert (state["failures"], state["error"]["code"]) == (4, "repository.unreachable")
    with pytest.raises(HeadwayError, match="is over"):
        polls.looks.begin(look.site_id, BeginLook(attempt=look.attempt), HOLDER)
    assert polls.see(main=B, topic=A) == 1
    assert (await polls.state())["failures"] == 0
    assert polls.claim() != []
    assert api.store.in_write(lambda session: polling.claim(session, MINUTE, limit=9)) == []


@pytest.mark.slow
async def test_which_sites_are_polled(api: World) -> None:
    def due() -> set[str]:
        with api.store.read() as session:
            return set(session.exec(polling._due(MINUTE)).all())

    plain, own = await api.site(api.admin, "Plain", repository=HTTPS), await api.site(api.admin, "Own")
    hooked = await api.site(api.admin, "Hooked", repository=HTTPS)
    for site in (hooked, own):
        data(await api.admin.post(f"/v1/sites/{site['id']}/hooks", json={"provider": "github"}))
    assert due() == {hooked["id"]}
    path = "/v1/sites/{}/repository/polling"
    data(await api.admin.put(path.format(plain["id"]), json={"enabled": True}))
    off = data(await api.admin.put(path.format(hooked["id"]), json={"enabled": False}))
    assert (off["enabled"], off["active"], off["next_at"]) == (False, False, None)
    assert due() == {plain["id"]}
    api.change(Site, plain["id"], auto_deploy=False)
    assert due() == set()
    assert error(await api.admin.put(path.format(own["id"]), json={}), 409)["code"] == "repository.missing"
    assert error(await api.admin.put(path.format(plain["id"]), json={"interval_seconds": 1}), 400)


@pytest.mark.slow
async def test_many_sites_are_claimed_a_few_at_a_time(api: World) -> None:
    site = await api.site(api.admin, repository=HTTPS)
    with api.store.write() as session:
        like = session.get_one(Site, site["id"]).model_dump()
        for number in range(300):
            session.add(Site(**{**like, "id": f"site_{number:026d}", "slug": f"s{number}", "production_env_id": None}))
        session.flush()
        for number in range(300):
            session.add(RemoteWatch(site_id=f"site_{number:026d}", enabled=True))
    seen: set[str] = set()
    for _ in range(15):
        looks = api.store.in_write(lambda session: polling.claim(session, MINUTE, limit=20))
        assert len(looks) == 20
        seen |= {look.site_id for look in looks}
    assert len(seen) == 300
    with api.store.read() as session:
        assert not polling.any_due(session, MINUTE)
