"""What each method of the vendor's client has to do, written once for both of its flavours.

A case says which methods it is about, and has to call them through the client (tests/stack/test_miosa_surface.py).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from miosa import Miosa
from miosa.errors import AuthenticationError, MiosaError, NotFoundError, WorkspaceNameExistsError

from bench.stack import Stack
from tests.stack.sdk_surface import World, app

Case = Callable[[World], Awaitable[None]]
CASES: dict[str, tuple[tuple[str, ...], Case]] = {}
NUMBERS = itertools.count(1)


def case(*methods: str) -> Callable[[Case], Case]:
    def keep(made: Case) -> Case:
        CASES[made.__name__] = (methods, made)
        return made

    return keep


def unused(name: str) -> str:
    return f"{name} {next(NUMBERS)}"


async def refused(world: World, code: str, call: Callable[[], Any]) -> None:
    with pytest.raises(MiosaError) as told:
        await world.do(call())
    assert (told.value.status_code, told.value.code) == (409, code)


async def site(world: World, text: str = "x", **fields: Any) -> tuple[str, str, Any]:
    """A deployment of its own with one version that is live: its id, its sandbox's id, and what publish answered."""
    sandbox = await world.do(world.client.sandboxes.create())
    await world.do(sandbox.files.write("/workspace/index.html", text))
    deployments = world.client.deployments
    made = await world.do(deployments.create(name=unused("Site"), **fields))
    result = await world.do(deployments.publish(made.id, source_sandbox_id=sandbox.id))
    assert world.page(result.deployment.public_url) == (200, text)
    return made.id, sandbox.id, result


# deployments


@case("deployments.create", "deployments.get", "deployments.list", "deployments.update", "deployments.delete")
async def a_deployment_from_its_making_to_its_end(world: World) -> None:
    d, user = world.client.deployments, f"user_{next(NUMBERS)}_{world.flavour}"
    made = await world.do(d.create(name=unused("Made"), metadata={"a": 1}, external_user_id=user, run_command="true"))
    assert (made.state.value, made.metadata, made.run_command) == ("pending", {"a": 1}, "true")
    assert (await world.do(d.get(made.id))).external_user_id == user
    assert [one.id for one in await world.do(d.list(external_user_id=user, state="pending"))] == [made.id]
    assert await world.do(d.list(external_user_id=user, state="running")) == []
    changed = await world.do(d.update(made.id, name="Renamed", auto_deploy=False))
    assert (changed.name, changed.auto_deploy, changed.slug) == ("Renamed", False, made.slug)
    assert (await world.do(d.update(made.id))).name == "Renamed"
    assert await world.do(d.delete(made.id)) is None
    with pytest.raises(NotFoundError):
        await world.do(d.get(made.id))


@case("deployments.publish", "deployments.rollback", "deployments.versions.list", "deployments.versions.get")
async def publish_and_back(world: World) -> None:
    d = world.client.deployments
    site_id, sandbox_id, first = await site(world, "one")
    sandbox = await world.do(world.client.sandboxes.get(sandbox_id))
    await world.do(sandbox.files.write("/workspace/index.html", "two"))
    second = await world.do(d.publish(site_id, source_sandbox_id=sandbox_id))
    assert (second.promoted, second.services[0].state) == (True, "healthy")
    assert world.page(second.deployment.public_url) == (200, "two")
    back = await world.do(d.rollback(site_id))
    assert (back.active_version_id, world.page(back.public_url)) == (first.version.id, (200, "one"))
    forth = await world.do(d.rollback(site_id, version_id=second.version.id))
    assert (forth.active_version_id, world.page(forth.public_url)) == (second.version.id, (200, "two"))
    versions = d.versions(site_id)
    assert [one.version_number for one in await world.do(versions.list())] == [2, 1]
    assert await world.do(versions.list(state="failed")) == []
    full = await world.do(versions.get(first.version.id))
    assert (full.kind.value, full.artifact_manifest["files"], len(full.artifact_sha256)) == ("static", 1, 64)


@case("deployments.versions.promote", "deployments.releases.promote", "deployments.releases.list")
async def promotions_in_any_order(world: World) -> None:
    d = world.client.deployments
    site_id, sandbox_id, first = await site(world, "one")
    sandbox = await world.do(world.client.sandboxes.get(sandbox_id))
    await world.do(sandbox.files.write("/workspace/index.html", "two"))
    second = await world.do(d.publish(site_id, source_sandbox_id=sandbox_id, promote=False))
    assert (second.promoted, world.page(first.deployment.public_url)) == (False, (200, "one"))
    live = await world.do(d.versions(site_id).promote(second.version.id))
    assert (live.active_version_id, world.page(live.public_url)) == (second.version.id, (200, "two"))
    two, one = await world.do(d.releases(site_id).list())
    assert (two.state, one.state) == ("active", "ready")
    for release, text in ((one, "one"), (two, "two"), (one, "one")):
        live = await world.do(d.releases(site_id).promote(release.id))
        assert (live.active_release_id, world.page(live.public_url)) == (release.id, (200, text))


@case("deployments.releases.get")
async def a_release(world: World) -> None:
    releases = world.client.deployments.releases(world.facts.site)
    active = next(one for one in await world.do(releases.list()) if one.state == "active")
    found = await world.do(releases.get(active.id))
    assert found.deployment_version_id == world.facts.versions[1]
    assert len(found.artifact_sha256) == 64


@case("deployments.publish_from_sandbox", "sandbox.deploy")
async def the_bridge(world: World) -> None:
    sandbox = await world.do(world.client.sandboxes.create())
    await world.do(sandbox.files.write("/workspace/dist/index.html", "bridged"))
    made = await world.do(
        world.client.deployments.publish_from_sandbox(sandbox.id, name=unused("Bridge"), output_path="/workspace/dist")
    )
    assert (made["state"], world.page(made["public_url"])) == ("running", (200, "bridged"))
    await world.do(sandbox.files.write("/workspace/dist/index.html", "again"))
    again = await world.do(sandbox.deploy(deployment_id=made["deployment_id"], output_path="/workspace/dist"))
    assert (again["deployment_id"], again["version"]["version_number"]) == (made["deployment_id"], 2)
    assert world.page(again["public_url"]) == (200, "again")


@case("deployments.redeploy", "deployments.stop")
async def off_the_air_and_on_again(world: World) -> None:
    d = world.client.deployments
    site_id, _, first = await site(world, "again")
    stopped = await world.do(d.stop(site_id))
    assert (stopped.state.value, stopped.active_version_id) == ("stopped", None)
    assert world.page(stopped.public_url)[0] == 404
    live = await world.do(d.redeploy(site_id))
    assert (live.state.value, world.page(live.public_url)) == ("running", (200, "again"))
    assert live.active_version_id != first.version.id
    assert live.running_artifact_sha256 == first.version.artifact_sha256


@case("deployments.move", "projects.move")
async def to_another_workspace(world: World) -> None:
    home = await world.do(world.client.workspaces.create(unused("Home")))
    made = await world.do(world.client.deployments.create(name=unused("Moved")))
    moved = await world.do(world.client.deployments.move(made.id, target_workspace_id=home.id))
    assert moved.workspace_id == home.id != made.workspace_id
    project = await world.do(world.client.projects.create(unused("Moved")))
    assert (await world.do(world.client.projects.move(project["id"], home.id)))["workspace_id"] == home.id


@case("deployments.proof", "deployments.prove", "deployments.routes")
async def whether_it_serves(world: World) -> None:
    d, site_id = world.client.deployments, world.facts.site
    assert (await world.do(d.proof(site_id)))["ok"]
    assert (await world.do(d.prove(site_id)))["ok"]
    routes = (await world.do(d.routes(site_id)))["routes"]
    assert {one["version_id"] for one in routes if one["environment"] == "production"} == {world.facts.versions[1]}
    assert {one["url"] for one in routes} >= {world.facts.site_url}
    for one in routes:
        assert world.page(one["url"])[0] == 200


@case("deployments.get_logs", "deployments.version_logs")
async def what_it_printed(world: World) -> None:
    d, facts = world.client.deployments, world.facts
    built = await world.do(d.get_logs(facts.site))
    assert (built["source"], built["version_id"]) == ("build", facts.versions[1])
    assert "uploaded" in built["logs"]
    assert " bytes, sha256:" in await world.do(d.version_logs(facts.site, facts.versions[0], stage="build"))
    world.page(facts.app_url, "/logged")
    await until(world, lambda: d.get_logs(facts.app, lines=500), lambda told: "asked for /logged" in told["logs"])
    told = await world.do(d.get_logs(facts.app, lines=1))
    assert (told["source"], len(told["lines"])) == ("runtime", 1)
    started = await world.do(d.version_logs(facts.app, facts.app_version, stage="runtime_start"))
    assert isinstance(started, str)


async def until(world: World, ask: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    """Ask again for up to a minute."""
    for _ in range(600):
        told = await world.do(ask())
        if holds(told):
            return told
        await anyio.sleep(0.1)
    raise AssertionError(f"not within a minute: {told}")


@case("deployments.observability", "deployments.request_logs")
async def what_visitors_asked(world: World) -> None:
    d, facts = world.client.deployments, world.facts
    assert world.page(facts.app_url, "/counted")[0] == 200
    await until(
        world,
        lambda: d.request_logs(facts.app, limit=500),
        lambda told: "/counted" in [one["path"] for one in told["requests"]],
    )
    seen = await world.do(d.observability(facts.app))
    assert seen["metrics"]["total"]["requests"] >= 1
    assert seen["instances"][0]["state"] == "healthy"


@case("deployments.runtime_instances.list", "deployments.runtime_instances.get", "deployments.runtime_instances.logs")
async def its_instances(world: World) -> None:
    instances = world.client.deployments.runtime_instances(world.facts.app)
    (found,) = await world.do(instances.list())
    assert (found.state.value, found.port, found.health_check_path) == ("healthy", 8000, "/_health")
    assert (await world.do(instances.get(found.id))).deployment_id == world.facts.app
    told = await until(world, lambda: instances.logs(found.id, lines=500), lambda one: "edition first" in one["logs"])
    assert told["runtime_instance_id"] == found.id
    assert await world.do(world.client.deployments.runtime_instances(world.facts.site).list()) == []
    with pytest.raises(NotFoundError):
        await world.do(instances.get("ins_unknown"))


@case("deployments.list_builds", "deployments.get_build")
async def its_builds(world: World) -> None:
    d = world.client.deployments
    builds = await world.do(d.list_builds(world.facts.site))
    assert [one.state for one in builds] == ["succeeded", "succeeded"]
    assert (await world.do(d.get_build(world.facts.site, builds[0].id))).id == builds[0].id == world.facts.versions[1]


@case("deployments.set_env", "deployments.list_env")
async def its_variables(world: World) -> None:
    d = world.client.deployments
    made = await world.do(d.create(name=unused("Configured")))
    rows = await world.do(d.set_env(made.id, {"GREETING": "canary-of-the-variables", "EMPTY": ""}))
    assert sorted(one["name"] for one in rows) == ["EMPTY", "GREETING"]
    assert "canary-of-the-variables" not in str(rows)
    await world.do(d.set_env(made.id, {"OTHER": "staged"}, environment="staging"))
    listed = await world.do(d.list_env(made.id))
    assert {one["key"] for one in listed} == {"EMPTY", "GREETING"}
    sandbox = await world.do(world.client.sandboxes.create())
    await world.do(sandbox.files.write("/workspace/app.py", app("env")))
    live = await world.do(
        sandbox.deploy(
            deployment_id=made.id, run_command="exec python3 app.py", port=8000, health_check_path="/_health"
        )
    )
    assert world.page(live["public_url"]) == (200, "env canary-of-the-variables")


@case("deployments.create_docker_deploy", "deployments.attach_database", "deployments.migration_backup")
async def what_is_out_of_scope_says_so(world: World) -> None:
    d, facts = world.client.deployments, world.facts
    await refused(world, "NOT_SUPPORTED", lambda: d.create_docker_deploy(name="x"))
    await refused(world, "NOT_SUPPORTED", lambda: d.attach_database(facts.site, database_id="x"))
    await refused(world, "NOT_SUPPORTED", lambda: d.migration_backup(facts.site, facts.versions[0]))


# who things belong to


@case("workspaces.create", "workspaces.get", "workspaces.list", "workspaces.update", "workspaces.delete")
async def workspaces(world: World) -> None:
    w, external = world.client.workspaces, f"clinic_{next(NUMBERS)}_{world.flavour}"
    made = await world.do(w.create(unused("Clinic"), external_workspace_id=external))
    again = await world.do(w.create("Another name", external_workspace_id=external))
    assert again.id == made.id
    with pytest.raises(WorkspaceNameExistsError):
        await world.do(w.create(made.name))
    assert (await world.do(w.get(made.id))).name == made.name
    assert made.id in [one.id for one in await world.do(w.list())]
    renamed = unused("Renamed")
    assert (await world.do(w.update(made.id, name=renamed))).name == renamed
    await world.do(w.delete(made.id))
    with pytest.raises(NotFoundError):
        await world.do(w.get(made.id))


@case("projects.create", "projects.get", "projects.list", "projects.update", "projects.summary", "projects.delete")
async def projects(world: World) -> None:
    p = world.client.projects
    made = await world.do(p.create(unused("Landing"), description="before"))
    assert (await world.do(p.get(made["id"])))["description"] == "before"
    assert made["id"] in [one["id"] for one in await world.do(p.list(workspace_id=made["workspace_id"]))]
    assert (await world.do(p.update(made["id"], description="after")))["description"] == "after"
    assert (await world.do(p.summary(made["id"])))["deployments"] == 0
    await world.do(p.delete(made["id"]))
    with pytest.raises(NotFoundError):
        await world.do(p.get(made["id"]))


@case("projects.environments", "deployment_environments.list")
async def environments(world: World) -> None:
    found = await world.do(world.client.deployments.get(world.facts.site))
    (production,) = [
        one for one in await world.do(world.client.projects.environments(found.project_id)) if one["is_default"]
    ]
    assert (production["name"], production["deployments"] >= 2) == ("production", True)
    rows = await world.do(world.client.deployment_environments.list(deployment_id=world.facts.site))
    assert [(one["name"], one["active_version_id"]) for one in rows["data"]] == [
        ("production", world.facts.versions[1])
    ]


@case("projects.capabilities", "projects.templates", "projects.template")
async def no_templates(world: World) -> None:
    p = world.client.projects
    assert not any((await world.do(p.capabilities())).values())
    assert await world.do(p.templates()) == []
    with pytest.raises(NotFoundError):
        await world.do(p.template("redis"))


@case(
    *("projects.create_environment", "projects.update_environment", "projects.duplicate_environment"),
    *("projects.sync_environment", "projects.delete_environment", "projects.shared_variables"),
    *("projects.set_shared_variables", "projects.delete_shared_variable", "projects.apply_template"),
)
async def environments_belong_to_deployments(world: World) -> None:
    """They are of the vendor's other product, which runs services by project."""
    p = world.client.projects
    project = (await world.do(world.client.deployments.get(world.facts.site))).project_id
    for call in (
        lambda: p.create_environment(project, "qa"),
        lambda: p.update_environment(project, "qa", name="x"),
        lambda: p.duplicate_environment(project, "qa", "x"),
        lambda: p.sync_environment(project, "qa", "production"),
        lambda: p.delete_environment(project, "qa"),
        lambda: p.shared_variables(project),
        lambda: p.set_shared_variables(project, {"A": "1"}),
        lambda: p.delete_shared_variable(project, "A"),
        lambda: p.apply_template(project, "redis"),
    ):
        await refused(world, "NOT_SUPPORTED", call)


# keys


@case("api_keys.create", "api_keys.get", "api_keys.list", "api_keys.update", "api_keys.rotate", "api_keys.delete")
async def keys(world: World) -> None:
    k = world.client.api_keys
    made = await world.do(k.create(name="k", scopes=["deployments:read"]))
    assert opens(world, made["token"])
    assert "token" not in await world.do(k.get(made["id"]))
    assert made["id"] in [one["id"] for one in await world.do(k.list(limit=100))]
    assert (await world.do(k.update(made["id"], name="renamed")))["name"] == "renamed"
    fresh = await world.do(k.rotate(made["id"]))
    assert (opens(world, made["token"]), opens(world, fresh["token"])) == (False, True)
    await world.do(k.delete(made["id"]))
    assert not opens(world, fresh["token"])


def opens(world: World, token: str) -> bool:
    with Miosa(api_key=token, base_url=world.stack.api, max_retries=0) as client:
        try:
            client.deployments.list()
        except AuthenticationError:
            return False
        return True


@case("api_keys.events", "api_keys.presets", "api_keys.create_preset", "api_keys.delete_preset")
async def what_is_told_of_keys(world: World) -> None:
    k = world.client.api_keys
    made = await world.do(k.create(name="told", scopes=["deployments:read"]))
    assert [one["type"] for one in await world.do(k.events(made["id"]))] == ["api_key.created"]
    assert "deploy" in [one["name"] for one in await world.do(k.presets())]
    await refused(world, "NOT_SUPPORTED", lambda: k.create_preset(name="x", scopes=["deployments:read"]))
    await refused(world, "NOT_SUPPORTED", lambda: k.delete_preset("x"))


@case("api_keys.create_scoped", "tokens.create_scoped", "tokens.list_scoped", "tokens.delete_scoped")
async def tokens_for_somebody_outside(world: World) -> None:
    key = await world.do(world.client.api_keys.create_scoped(external_user_id="user_9", scopes=["deployments:read"]))
    assert (key["external_user_id"], opens(world, key["token"])) == ("user_9", True)
    home = await world.do(world.client.workspaces.create(unused("Limited")))
    made = await world.do(
        world.client.tokens.create_scoped(
            user_id="user_9", workspace_id=home.id, scopes=["deployments:write", "sandboxes:exec"]
        )
    )
    with Miosa(api_key=made["token"], base_url=world.stack.api, max_retries=0) as inside:
        assert inside.deployments.list() == []
        assert inside.sandboxes.create().id
        own = inside.deployments.create(name=unused("Inside"))
        assert own.workspace_id == home.id
        assert [one.id for one in inside.deployments.list()] == [own.id]
        with pytest.raises(NotFoundError):
            inside.deployments.get(world.facts.site)
    assert made["id"] in [one["id"] for one in await world.do(world.client.tokens.list_scoped())]
    await world.do(world.client.tokens.delete_scoped(made["id"]))
    assert not opens(world, made["token"])


# operations and events


@case("operations.get", "operations.events", "operations.cancel")
async def operations(world: World) -> None:
    o, known = world.client.operations, world.facts.operation
    found = await world.do(o.get(known))
    assert (found["type"], found["state"], found["progress"]) == ("deployment.publish", "succeeded", 100)
    told = await world.all(o.events(known))
    assert {"status": "succeeded"} in told
    await refused(world, "NOT_CANCELABLE", lambda: o.cancel(known))


@case("events.stream")
async def what_happens(world: World) -> None:
    with busy(world.stack):
        (told,) = await world.all(world.client.events.stream(types=["sandbox.*"]), 1)
    assert told["type"] in ("sandbox.created", "sandbox.destroyed")
    assert told["data"]["sandbox_id"].startswith("sbx_")


class busy:
    """Somebody who makes sandboxes and destroys them, again and again."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.over = stack, threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self) -> None:
        with Miosa(api_key=self.stack.key, base_url=self.stack.api) as client:
            while not self.over.wait(0.3):
                client.sandboxes.create().destroy()

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(30)


# sandboxes


@case(
    *("sandboxes.create", "sandboxes.get", "sandboxes.get_by_name", "sandboxes.get_or_create", "sandboxes.list"),
    *(
        "sandboxes.connect",
        "sandboxes.delete",
        "sandboxes.list_templates",
        "sandbox.refresh",
        "sandbox.update",
        "sandbox.extend",
    ),
    *("sandbox.resume", "sandbox.destroy"),
)
async def a_sandbox_from_its_making_to_its_end(world: World) -> None:
    s, name = world.client.sandboxes, f"box-{next(NUMBERS)}-{world.flavour}"
    made = await world.do(s.create(name=name, tags=["blue"], metadata={"a": 1}))
    assert (await world.do(s.get(made.id))).id == (await world.do(s.get_by_name(name))).id == made.id
    assert (await world.do(s.get_or_create(name))).id == (await world.do(s.connect(made.id))).id == made.id
    assert made.id in [one.id for one in await world.do(s.list(tags=["blue"]))]
    await world.do(made.update(metadata={"b": 2}))
    assert (await world.do(made.refresh())).id == made.id
    assert (await world.do(s.get(made.id))).metadata == {"b": 2}
    await world.do(made.extend())
    await world.do(made.resume())
    assert len(await world.do(s.list_templates())) > 0
    await world.do(made.destroy())
    with pytest.raises(NotFoundError):
        await world.do(s.get(made.id))
    other = await world.do(s.create())
    await world.do(s.delete(other.id))
    with pytest.raises(NotFoundError):
        await world.do(s.get(other.id))


@case(
    *("sandbox.files.write", "sandbox.files.write_files", "sandbox.files.read", "sandbox.files.list"),
    *("sandbox.files.stat", "sandbox.files.tree", "sandbox.write_file", "sandbox.upload", "sandbox.download"),
    *("sandbox.read_file", "sandbox.list_files", "sandbox.stat_file"),
)
async def files(world: World) -> None:
    box = await world.do(world.client.sandboxes.create())
    await world.do(box.files.write("/workspace/a.txt", "a"))
    await world.do(
        box.files.write_files([{"path": "b/c.json", "data": '{"c": 1}'}, {"path": "d.bin", "data": b"\0\xff"}])
    )
    await world.do(box.write_file("/workspace/e.txt", "e"))
    await world.do(box.upload("f/g.txt", b"g"))
    assert await world.do(box.files.read("/workspace/d.bin")) == b"\0\xff"
    assert await world.do(box.download("b/c.json")) == b'{"c": 1}'
    assert await world.do(box.read_file("/workspace/e.txt")) == "e"
    names = {one["name"] for one in entries(await world.do(box.files.list("/workspace")))}
    assert names == {"a.txt", "b", "d.bin", "e.txt", "f"}
    assert {one["name"] for one in entries(await world.do(box.list_files("/workspace/f")))} == {"g.txt"}
    assert facts_of(await world.do(box.files.stat("/workspace/d.bin")))["size"] == 2
    assert facts_of(await world.do(box.stat_file("/workspace/b")))["is_dir"] is True
    assert "c.json" in str(await world.do(box.files.tree("/workspace")))


def facts_of(told: Any) -> Any:
    return told.get("data", told)


def entries(told: Any) -> Any:
    return facts_of(told)["entries"]


@case("sandbox.exec.run", "sandbox.run", "sandbox.exec_stream", "sandbox.readiness", "sandbox.wait_until_ready")
async def commands(world: World) -> None:
    box = await world.do(world.client.sandboxes.create())
    assert (await world.do(box.readiness()))["ready"]
    assert await world.do(box.wait_until_ready())
    result = await world.do(box.exec.run("printf $GREETING; exit 3", {"env": {"GREETING": "hello"}}))
    assert (result.stdout, result.exit_code) == ("hello", 3)
    assert (await world.do(box.run("echo once"))).stdout == "once\n"
    # A tree has no empty folders: the one to work in is made.
    assert (await world.do(box.run("pwd", {"cwd": "/workspace/new/folder"}))).stdout == "/workspace/new/folder\n"
    events = await world.all(box.exec_stream("echo out; echo err >&2"))
    assert {(one.type, one.data.get("line")) for one in events} >= {("stdout", "out"), ("stderr", "err")}
