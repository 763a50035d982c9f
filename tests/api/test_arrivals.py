"""Remote repositories: a forge's push goes by the branch routes, and one commit is one job whoever asks for it."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from sqlmodel import select

from api.internal.builds import Builds
from api.managed.forges import write_forgeries
from headway.broker import Begin, Fetched
from headway.errors import HeadwayError
from store.forges import forget_calls
from store.models import Build, Environment, Job, Rollout, Site, utcnow
from store.models_arrivals import RemoteBranch
from store.models_webhooks import ForgeCall
from store.pushes import Previews
from tests.api.test_forges import call, make, push, signed
from tests.api.world import World, data
from tests.holder import HOLDER

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
A, B, C = "a" * 40, "b" * 40, "c" * 40


class Forge:
    """A hook's other end: each call has an id of its own, unless it is said."""

    def __init__(self, api: World, client: Any, site: Json, hook: Json) -> None:
        self.api, self.client, self.site, self.hook = api, client, site, hook
        self.calls = 0

    @classmethod
    async def of(cls, api: World) -> Forge:
        _, client = await api.tenant("Acme")
        return cls(api, client, *await make(api, client))

    async def tell(
        self, branch: str, commit: str, *, id: str | None = None, ref: str | None = None, before: str | None = None
    ) -> Json:
        self.calls += 1
        said = {"ref": f"refs/heads/{branch}" if ref is None else ref, "after": commit}
        body = json.dumps(said if before is None else {**said, "before": before}).encode()
        headers = signed("github", self.hook["secret"], body, id or f"n{self.calls}")
        answer = await call(self.api, self.hook, body, headers)
        assert answer.status_code in (202, 409), answer.text
        return dict(answer.json()["data"])

    async def deploy(self, ref: str, **more: Any) -> Json:
        path = f"/v1/sites/{self.site['id']}/deployments"
        return dict(data(await self.client.post(path, json={"ref": ref, "target": "production", **more})))

    def end(self, job_id: str, status: str = "succeeded") -> None:
        with self.api.store.write() as session:
            session.get_one(Job, job_id).status = status
            rollout = session.exec(select(Rollout).where(Rollout.job_id == job_id)).one()
            now = session.get_one(Job, job_id).created_at
            session.get_one(Job, job_id).finished_at, rollout.finished_at, rollout.status = now, now, status

    def environments(self) -> dict[str, Environment]:
        with self.api.store.read() as session:
            rows = session.exec(select(Environment).where(Environment.site_id == self.site["id"])).all()
            return {row.branch: row for row in rows if row.deleted_at is None}


async def test_routes_of_headway_toml_as_the_default_branch_was_built_last(api: World) -> None:
    forge = await Forge.of(api)
    routes = {"routes": [{"pattern": "main", "target": "live"}, {"pattern": "*", "target": "preview"}]}
    path = f"/v1/sites/{forge.site['id']}/branch-routes"

    async def put(body: Json) -> None:
        assert (await forge.client.put(path, json=body)).status_code == 200

    async def built(branch: str, commit: str, given: list[Json] | None) -> Json:
        said = await forge.tell(branch, commit)
        with api.store.write() as session:
            build = session.exec(select(Build).where(Build.job_id == said["job_id"])).one()
            build.status, build.plan = "succeeded", {} if given is None else {"routes": given}
        forge.end(said["job_id"])
        return said

    await put({**routes, "from_repository": True})
    await built("main", A, [{"pattern": "docs/*", "target": "ignore"}, {"pattern": "*", "target": "production"}])
    assert (await forge.tell("docs/x", B))["text"] == "ignored: the branch routes deploy nothing of docs/x"
    # What a branch says of itself does not count, and neither does it where the site does not let it.
    await built("topic", B, [{"pattern": "*", "target": "ignore"}])
    assert api.one(Build, ref="topic").env_id == forge.site["production_env_id"]
    await put({"from_repository": False})
    assert (await forge.tell("docs/y", C))["verdict"] == "accepted"
    await put({"from_repository": True})
    await built("main", B, [{"pattern": "*", "target": "nowhere"}])
    refused = await forge.tell("docs/z", C)
    assert refused["text"].startswith("refused: headway.toml: routes.0.target: A target is one of live, ")
    # The default branch mends it; without a table those that were set count again.
    await built("main", C, None)
    assert (await forge.tell("docs/z", C))["verdict"] == "accepted"


async def test_a_forges_push_goes_where_the_routes_lead(api: World) -> None:
    forge = await Forge.of(api)
    for branch, kind in (("main", "production"), ("staging", "staging"), ("feature/x", "preview")):
        said = await forge.tell(branch, A)
        assert said["text"] == f"deployed {said['job_id']}"
        environment = forge.environments()[branch]
        assert (environment.kind, api.one(Build, job_id=said["job_id"]).env_id) == (kind, environment.id)
        assert (said["job_id"], "deployment.push") in [one[:2] for one in api.starts.started]
    making = {one[1] for one in api.starts.started}
    assert "environment.create" in making
    routes = {"routes": [{"pattern": "dependabot/*", "target": "ignore"}, {"pattern": "*", "target": "live"}]}
    data(await forge.client.put(f"/v1/sites/{forge.site['id']}/branch-routes", json=routes))
    ignored = await forge.tell("dependabot/npm", A)
    assert ignored["text"] == "ignored: the branch routes deploy nothing of dependabot/npm"
    live = await forge.tell("whatever", B)
    assert api.one(Build, job_id=live["job_id"]).env_id == forge.site["production_env_id"]


async def test_a_branch_that_is_gone_takes_its_preview_with_it(api: World) -> None:
    forge = await Forge.of(api)
    first = await forge.tell("topic", A)
    gone = await forge.tell("topic", "0" * 40)
    calls = f"/v1/sites/{forge.site['id']}/hooks/{forge.hook['id']}/calls"
    assert [row["text"] for row in data(await forge.client.get(calls))] == [gone["text"], first["text"]]
    assert gone["text"] == f"ended {gone['job_id']}"
    assert api.one(Job, id=gone["job_id"]).type == "environment.delete"
    assert api.one(Job, id=first["job_id"]).status == "canceled"
    again = await forge.tell("topic", B)
    assert again["verdict"] == "refused"
    assert "being deleted" in again["reason"]
    # A forge may repeat what was refused, and a poll hears of it again: it is news until it is taken.
    assert api.one(RemoteBranch, branch="topic").commit_sha is None
    api.store.in_write(lambda session: forget_calls(session, utcnow()))
    assert data(await forge.client.get(calls)) == []


async def test_hostile_refs_are_refused_and_kept(api: World) -> None:
    forge = await Forge.of(api)
    odd = (
        "../../etc",
        "--upload-pack=x",
        "a..b",
        "x.lock",
        "a b",
        "-",
        "a\u0007b",
        "b" * 251,
        "é" * 200,
        "@{1}",
        "a\u200bb",
    )
    for number, branch in enumerate(odd):
        said = await forge.tell(branch, A, id=f"odd{number}")
        assert said["verdict"] == "refused", branch
    for ref in ("refs/tags/../x", "nonsense", "refs/tags/-x", ""):
        assert (await forge.tell("", A, ref=ref))["verdict"] == "refused", ref
    said = await forge.tell("main", "--upload-pack=x")
    assert said["text"] == "refused: the call names no commit"
    assert (await forge.tell("", A, ref="refs/notes/commits"))["text"] == "ignored: refs/notes/commits is no branch"
    assert api.count(ForgeCall) == len(odd) + 6
    assert (api.count(Build), api.count(RemoteBranch), api.count(Environment)) == (0, 0, 1)


@pytest.mark.slow
async def test_names_that_collide_have_environments_of_their_own(api: World) -> None:
    forge = await Forge.of(api)
    names = ("feature/x", "feature-x", "Feature/X", "feature.x", "ünï", "production", "x" * 250)
    for name in names:
        assert (await forge.tell(name, A))["verdict"] == "accepted", name
    previews = {branch: one for branch, one in forge.environments().items() if one.kind == "preview"}
    assert set(previews) == set(names)
    assert len({one.slug for one in previews.values()}) == len(names)


@pytest.mark.slow
async def test_previews_are_limited_and_the_refusal_is_news_again(api: World) -> None:
    object.__setattr__(api.parts, "previews", Previews(most=2))
    forge = await Forge.of(api)
    for number in range(2):
        assert (await forge.tell(f"b{number}", A))["verdict"] == "accepted"
    refused = await forge.tell("one-more", A, id="again")
    assert (refused["verdict"], "2 previews" in refused["reason"]) == ("refused", True)
    gone = await forge.tell("b1", "0" * 40)
    with api.store.write() as session:
        environment = session.get_one(Environment, api.one(Job, id=gone["job_id"]).env_id)
        environment.status, environment.deleted_at = "gone", environment.created_at
    assert (await forge.tell("one-more", A, id="again"))["verdict"] == "accepted"


async def test_the_same_commit_is_one_job_whoever_asks_first(api: World) -> None:
    forge = await Forge.of(api)
    told = await forge.tell("main", A)
    assert (await forge.deploy("main"))["id"] == told["job_id"]
    assert (await forge.deploy(A))["id"] == told["job_id"]
    assert (await forge.tell("main", A))["job_id"] == told["job_id"]
    clean = await forge.deploy("main", clean=True)
    assert clean["id"] != told["job_id"]
    assert (await forge.deploy("main", clean=True))["id"] == clean["id"]
    assert (await forge.deploy(B))["id"] not in (clean["id"], told["job_id"])
    later = await forge.tell("main", B)
    # Asked for by its id first: it is the branch's now, and a newer push takes its place.
    assert api.one(Rollout, job_id=later["job_id"]).branch == "main"
    assert api.count(Build) == 3


@pytest.mark.slow
async def test_a_job_that_was_asked_for_by_name_becomes_the_commits(api: World) -> None:
    forge = await Forge.of(api)
    asked = await forge.deploy("main")
    assert api.one(Build, job_id=asked["id"]).commit_sha is None
    assert (await forge.tell("main", A))["job_id"] == asked["id"]
    assert api.one(Build, job_id=asked["id"]).commit_sha == A
    newer = await forge.tell("main", B)
    assert newer["job_id"] != asked["id"]
    with api.store.write() as session:
        session.exec(select(Build).where(Build.job_id == newer["job_id"])).one().attempt = 1
    # What a builder may have fetched for is not joined by name, but where its commit was told.
    assert (await forge.deploy("main"))["id"] == newer["job_id"]


@pytest.mark.slow
async def test_the_order_of_acceptance_makes_the_same_commit_another_job(api: World) -> None:
    forge = await Forge.of(api)
    jobs = [(await forge.tell("main", commit))["job_id"] for commit in (A, B, A, C)]
    assert len(set(jobs)) == 4
    with api.store.read() as session:
        rows = [session.exec(select(Rollout).where(Rollout.job_id == job)).one() for job in jobs]
    assert [row.accept_seq for row in rows] == [1, 2, 3, 4]


async def test_what_was_tried_is_not_tried_again_by_itself(api: World) -> None:
    forge = await Forge.of(api)
    first = await forge.tell("main", A)
    forge.end(first["job_id"], "failed")
    again = await forge.tell("main", A)
    assert (again["verdict"], again["job_id"]) == ("ignored", first["job_id"])
    assert "and failed" in again["reason"]
    by_hand = await forge.deploy("main")
    assert by_hand["id"] != first["job_id"]
    assert (await forge.tell("main", A))["job_id"] == by_hand["id"]
    forge.end(by_hand["id"])
    live = await forge.tell("main", A)
    assert live["text"] == f"ignored: {by_hand['id']} has deployed it already"
    # A branch that is forced back is news.
    forge.end((await forge.tell("main", B))["job_id"])
    back = await forge.tell("main", A)
    assert back["verdict"] == "accepted"
    assert back["job_id"] not in (first["job_id"], by_hand["id"])


async def test_a_call_that_comes_late_does_not_undo_a_later_push(api: World) -> None:
    """Of one hook out of order, or of a second hook that tells the same."""
    forge = await Forge.of(api)
    for before, after in ((A, B), (B, C)):
        assert (await forge.tell("main", after, before=before))["verdict"] == "accepted"
    late = await forge.tell("main", B, before=A)
    assert late["text"] == "ignored: a later push of the branch was told of already"
    forge.hook = data(await forge.client.post(f"/v1/sites/{forge.site['id']}/hooks", json={"provider": "github"}))
    assert (await forge.tell("main", B, before=A))["verdict"] == "ignored"
    joined = await forge.tell("main", C, before=B)
    assert joined["job_id"] == api.one(Build, commit_sha=C).job_id
    assert (await forge.tell("main", B, before=C))["verdict"] == "accepted"  # forced back
    assert api.count(Build) == 3


async def test_a_job_by_name_is_joined_as_soon_as_its_commit_is_known(api: World) -> None:
    forge = await Forge.of(api)
    asked = await forge.deploy("main")
    broker, build = Builds(api.store, api.objects, api.parts.vault), api.one(Build, job_id=asked["id"]).id
    broker.begin(build, Begin(attempt=1, worker="w"), HOLDER)
    broker.fetched(build, Fetched(attempt=1, commit_sha=A))
    assert broker.begin(build, Begin(attempt=2, worker="w"), HOLDER).ref == A, "a later attempt builds the same commit"
    assert (await forge.tell("main", A))["job_id"] == asked["id"]
    forge.end(asked["id"], "failed")
    assert (await forge.tell("main", A))["verdict"] == "ignored"
    with pytest.raises(HeadwayError, match="taken over"):
        broker.fetched(build, Fetched(attempt=1, commit_sha=B))


@pytest.mark.slow
async def test_sites_that_do_not_deploy_by_themselves(api: World) -> None:
    forge = await Forge.of(api)
    api.change(Site, forge.site["id"], auto_deploy=False)
    assert (await forge.tell("main", A))["text"] == "ignored: the site does not deploy by itself"


@pytest.mark.slow
async def test_arrivals_at_once_are_one_job(api: World) -> None:
    forge = await Forge.of(api)
    told = [forge.tell("main", A, id=f"x{number % 6}") for number in range(18)]
    asked = [forge.deploy(A) for _ in range(6)]
    answers = await asyncio.gather(*told, *asked)
    assert {answer.get("job_id") or answer["id"] for answer in answers} == {api.one(Build).job_id}
    assert api.count(Job) - 1 == 1  # and the one that made the site


async def test_a_forger_is_slowed_down_and_silences_nobody(api: World) -> None:
    forge = await Forge.of(api)
    forged = signed("github", "wrong", push())
    statuses = [(await call(api, forge.hook, push(), forged)).status_code for _ in range(40)]
    assert statuses == [401] * 30 + [429] * 10
    late = await call(api, forge.hook, push(), forged)
    assert int(late.headers["retry-after"]) >= 1
    assert late.json()["error"]["code"] == "rate_limit.exceeded"
    # From the same address, behind the same proxy: the forge is heard.
    assert (await forge.tell("main", A))["verdict"] == "accepted"
    write_forgeries(api.parts)
    assert data(await forge.client.get(f"/v1/sites/{forge.site['id']}/hooks/{forge.hook['id']}"))["forged"] == 41
    unknown = await call(api, {"id": "hook_none"}, push(), forged)
    assert unknown.status_code == 429
    assert api.count(ForgeCall) == 1


@pytest.mark.slow
async def test_a_thousand_deliveries(api: World) -> None:
    """A third repeated, every tenth forged, in any order, eight at a time."""
    forge = await Forge.of(api)
    pushes = [(f"call{number}", f"b{number % 15}", f"{number // 2:040x}") for number in range(600)]
    pushes = [(id, branch, commit if int(commit, 16) else A) for id, branch, commit in pushes]
    calls: list[tuple[str, str, str, bool]] = [(*one, True) for one in pushes]
    calls += [(*one, True) for one in pushes[:300]] + [(f"forged{n}", "main", C, False) for n in range(100)]
    random.Random(11).shuffle(calls)
    places = asyncio.Semaphore(8)

    async def tell(id: str, branch: str, commit: str, genuine: bool) -> tuple[int, Json]:
        body = push(branch, commit)
        headers = signed("github", forge.hook["secret"] if genuine else "wrong", body, id)
        async with places:
            answer = await call(api, forge.hook, body, headers)
        return answer.status_code, answer.json().get("data") or {}

    answers = await asyncio.gather(*(tell(*one) for one in calls))
    assert {status for (*_, genuine), (status, _) in zip(calls, answers, strict=True) if not genuine} == {401, 429}
    rows = [row for (*_, genuine), (_, row) in zip(calls, answers, strict=True) if genuine]
    assert {row["verdict"] for row in rows} == {"accepted"}
    assert sum(row["text"].startswith("repeated: ") for row in rows) == 300
    assert (api.count(ForgeCall), len({row["id"] for row in rows})) == (600, 600)
    with api.store.read() as session:
        built = [(build.env_id, build.commit_sha) for build in session.exec(select(Build)).all()]
        orders = [one.accept_seq for one in session.exec(select(Rollout)).all()]
    assert len(built) == len(orders) > 0
    assert C not in {commit for _, commit in built}
    assert len(set(built)) == len(built) == 600
    write_forgeries(api.parts)
    assert data(await forge.client.get(f"/v1/sites/{forge.site['id']}/hooks/{forge.hook['id']}"))["forged"] == 100
