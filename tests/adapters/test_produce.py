"""The builder's activity as it is: real git, sandbox, object store, and the real broker on its unix socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from sqlmodel import SQLModel, select
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.produce import Producer, make_producer
from adapters.artifact.layout import parse_layout
from adapters.artifact.manifest import Manifest, parse_manifest
from adapters.broker import BrokerClient
from adapters.config.vault import Vault, make_key_file
from adapters.objects import ObjectStore
from adapters.sandbox import Limits
from adapters.source.git import Checkout, GitSource
from api.events import EventLog
from api.instance_logs import InstanceLogs
from api.internal.app import create_broker
from api.parts import Addresses, Parts
from store.bills import bill_key
from store.models import Artifact, Build, Environment, Job, Site, utcnow
from store.models_builds import BuildBill
from store.outcomes import end_build
from store.session import Store
from temporal.messages import BuildOrder, BuildOutput
from tests.adapters.repositories import Repository
from tests.adapters.weed import open_store, running_weed
from tests.workflows.rows import World

LIMITS = Limits(wall=60, memory=1 << 30, pids=256, disk=1 << 30, log=4 << 20)


class Silent:
    def poke(self, job_id: str) -> None: ...


@dataclass
class Platform:
    """One site whose repository is `repo`; a builder; the API's side of the broker."""

    root: Path
    store: Store
    world: World
    objects: ObjectStore
    events: EventLog
    producer: Producer
    broker: BrokerClient
    repo: Repository
    producers: list[Producer] = field(default_factory=list)
    environment: ActivityEnvironment = field(default_factory=ActivityEnvironment)

    def accept(self, ref: str = "main", *, clean: bool = False) -> BuildOrder:
        job = self.world.accept_build(ref)
        with self.store.write() as session:
            session.get_one(Build, job.resource_id).clean = clean
        return BuildOrder(job.id, job.resource_id, self.world.site_id, self.world.env_id, ref)

    def build(self, ref: str = "main", *, clean: bool = False) -> BuildOutput:
        self.order = self.accept(ref, clean=clean)
        return self.run(self.order)

    def run(self, order: BuildOrder) -> BuildOutput:
        return cast(BuildOutput, self.environment.run(self.producer.produce, order))

    def failure(self, files: dict[str, str], ref: str = "main") -> ApplicationError:
        self.repo.commit(files)
        with pytest.raises(ApplicationError) as caught:
            self.build(ref)
        return caught.value

    def succeed(self, digest: str) -> str:
        """What signing and the end of the workflow do to the rows; returns the artifact's id."""
        with self.store.write() as session:
            build = session.get_one(Build, self.order.build_id)
            build.status = "succeeded"
            found = session.exec(select(Artifact).where(Artifact.digest == digest)).first()
            if found is None:
                facts: dict[str, Any] = {"profile": "x", "size_bytes": 1, "files": 1, "commit_sha": "", "ref": "main"}
                found = Artifact(
                    id=f"art_{digest[:26]}",
                    site_id=build.site_id,
                    digest=digest,
                    kind="static",
                    build_id=build.id,
                    key_hint="",
                    signed_at=utcnow(),
                    **facts,
                )
                session.add(found)
            build.artifact_id = found.id
            return found.id

    def another_builder(self, name: str, limits: Limits = LIMITS, **more: Any) -> Producer:
        """On a machine of its own: it shares the broker and the object store, and no folder."""
        folder, repos = self.root / name, (self.root / "repos",)
        folder.mkdir()
        made = make_producer(data_dir=folder, broker=self.broker, slots=1, limits=limits, local_repos=repos, **more)
        self.producers.append(made)
        return made

    @property
    def row(self) -> Build:
        with self.store.read() as session:
            return session.get_one(Build, self.order.build_id)

    def told(self, kind: str = "log") -> list[dict[str, Any]]:
        lines = self.events.path(self.order.job_id).read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["k"] == kind]

    def log(self, stream: str = "stdout") -> list[str]:
        return [line["line"] for line in self.told() if line["stream"] == stream]

    def manifest(self, digest: str) -> Manifest:
        key = f"sites/{self.world.site_id}/artifacts/{digest}"
        manifest = parse_manifest(self.objects.get(f"{key}/manifest.json", 1 << 20), digest=digest)
        layout = parse_layout(self.objects.get(f"{key}/layout.json", 1 << 20))
        assert set(layout.contents) == set(manifest.contents)
        return manifest

    def content(self, digest: str, path: str) -> bytes:
        key = f"sites/{self.world.site_id}/artifacts/{digest}"
        sha = next(one.sha256 for one in self.manifest(digest).files if one.path == path)
        at = parse_layout(self.objects.get(f"{key}/layout.json", 1 << 20)).contents[sha]
        return self.objects.get_range(f"sites/{self.world.site_id}/packs/{at.pack}", at.offset, at.size)

    def meanwhile(self, work: Callable[[], None], *, line: str) -> threading.Thread:
        """Do something once the running build has said this line."""

        def wait() -> None:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                path = self.events.path(self.order.job_id)
                if path.exists() and line in path.read_text():
                    break
                time.sleep(0.01)
            work()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_weed(tmp_path_factory.mktemp("weed")) as endpoint:
        yield open_store(endpoint)


@pytest.fixture
def platform(tmp_path: Path, objects: ObjectStore) -> Iterator[Platform]:
    store = Store.open(f"sqlite:///{tmp_path / 'h.db'}")
    SQLModel.metadata.create_all(store.engine)
    events = EventLog(tmp_path / "events")
    nothing = cast(Any, None)
    make_key_file(tmp_path / "config.key")
    parts = Parts(
        store=store,
        starts=nothing,
        events=events,
        logs=InstanceLogs(tmp_path / "lines", 1 << 20),
        requests=nothing,
        inputs=nothing,
        watch=cast(Any, Silent()),
        auth=nothing,
        limiter=nothing,
        objects=objects,
        addresses=Addresses("sites.test", "http://{}".format),
        repositories=nothing,
        vault=Vault(tmp_path / "config.key"),
        webhook_vault=nothing,
        targets=nothing,
        domains=nothing,
        signing_key=tmp_path,
        docs_url="",
    )
    path = tmp_path / "b.sock"
    (tmp_path / "token").write_text("secret")
    config = uvicorn.Config(create_broker(parts, {"builder": "secret"}), uds=str(path), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.005)
    world = World.make(store)
    repo = Repository(tmp_path / "repos" / "site")
    with store.write() as session:
        session.get_one(Site, world.site_id).repository = f"file://{repo.path}"
    broker = BrokerClient(path, tmp_path / "token")
    producer = make_producer(
        data_dir=tmp_path, broker=broker, slots=2, limits=LIMITS, local_repos=(tmp_path / "repos",)
    )
    platform = Platform(tmp_path, store, world, objects, events, producer, broker, repo)
    yield platform
    for one in (producer, *platform.producers):
        one.close()
    broker.close()
    server.should_exit = True
    thread.join()
    store.engine.dispose()


def test_a_tree_becomes_an_artifact_and_an_unchanged_one_uploads_nothing(platform: Platform) -> None:
    commit = platform.repo.commit(
        {"index.html": "<h1>one</h1>", "a/b.css": "b", "headway.toml": "[static]\nspa = true"}
    )
    first = platform.build()
    assert first.commit_sha == commit
    manifest = platform.manifest(first.manifest_sha256)
    assert [one.path for one in manifest.entries] == ["a/b.css", "index.html"]
    assert (manifest.entrypoint, manifest.static.spa) == ("index.html", True)
    assert platform.content(first.manifest_sha256, "index.html") == b"<h1>one</h1>"
    row = platform.row
    assert (row.commit_sha, row.manifest_sha256, row.uploaded_bytes) == (
        commit,
        first.manifest_sha256,
        first.uploaded_bytes,
    )
    assert [line["stage"] for line in platform.told("stage")] == ["fetch", "detect", "build", "pack"]
    assert any(commit in line for line in platform.log("system"))

    again = platform.build()
    assert (again.manifest_sha256, again.uploaded_bytes) == (first.manifest_sha256, 0)

    platform.repo.commit({"index.html": "<h1>two</h1>"})
    second = platform.build()
    assert second.manifest_sha256 != first.manifest_sha256
    assert second.uploaded_bytes == len("<h1>two</h1>") + len(platform.manifest(second.manifest_sha256).raw)
    assert platform.content(second.manifest_sha256, "index.html") == b"<h1>two</h1>"
    assert platform.content(second.manifest_sha256, "a/b.css") == b"b"
    assert platform.build(commit).manifest_sha256 == first.manifest_sha256


def test_a_command_runs_with_its_variables_and_its_cache(platform: Platform) -> None:
    steps = ("mkdir -p site", "echo hello $NAME", "echo err >&2", "date -d @$SOURCE_DATE_EPOCH +%Y > site/index.html")
    command = "; ".join(
        (*steps, "mkdir -p ${npm_config_cache:=/tmp/c}", "ls $npm_config_cache", "mkdir -p $npm_config_cache/kept")
    )
    toml = f'[build]\ncommand = "{command}"\noutput = "site"\n[build.env]\nNAME = "world"'
    commit = platform.repo.commit({"headway.toml": toml})
    first = platform.build()
    assert platform.log() == ["hello world"]
    assert "err" in platform.log("stderr")
    year = platform.repo.git("show", "-s", "--format=%cd", "--date=format:%Y")
    assert platform.content(first.manifest_sha256, "index.html").decode().strip() == year
    assert platform.row.plan is not None
    assert platform.row.plan["build"] == command
    assert platform.row.cache is not None
    assert (platform.row.cache["hit"], len(platform.row.cache["key"])) == (False, 32)

    assert platform.build(commit).manifest_sha256 == first.manifest_sha256
    assert platform.log() == ["hello world", "kept"]
    assert platform.row.cache["hit"] is True

    assert platform.build(commit, clean=True).manifest_sha256 == first.manifest_sha256
    assert platform.log() == ["hello world"]
    assert (platform.row.cache["hit"], platform.row.cache["key"]) == (False, None)


DECLARED = """[build]
command = '''
ls /cache .fast 2>/dev/null | grep -v : | grep .
mkdir -p dist .fast
date +%s%N | tee -a .fast/runs /cache/seen > dist/index.html || true
'''
cache = [".fast"]
"""


def cached(platform: Platform) -> list[str]:
    place = f"sites/{platform.world.site_id}/caches/"
    return [key for key, _ in platform.objects.list(place)]


def test_builders_on_two_machines_share_a_cache(platform: Platform) -> None:
    platform.repo.commit({"headway.toml": DECLARED})
    platform.build()
    assert platform.log() == []
    assert platform.row.cache is not None
    assert platform.row.cache["hit"] is False
    assert any("kept for the next build" in line for line in platform.log("system"))
    assert len(cached(platform)) == 1
    platform.producer = platform.another_builder("second")
    output = platform.build()
    assert platform.log() == ["runs", "folders", "seen"]
    assert platform.row.cache["hit"] is True
    assert any("from the object store" in line for line in platform.log("system"))
    # A cache is no part of what is published.
    assert [one.path for one in platform.manifest(output.manifest_sha256).entries] == ["index.html"]
    # `clean` neither reads nor writes it.
    before = cached(platform)
    platform.build(clean=True)
    assert (platform.log(), cached(platform)) == ([], before)
    # A third finds what the second has left, and on the second's machine nothing is fetched again.
    platform.build()
    assert not any("from the object store" in line for line in platform.log("system"))
    platform.producer = platform.another_builder("third")
    platform.build()
    assert any("from the object store" in line for line in platform.log("system"))


@pytest.mark.parametrize("loss", ["changed", pytest.param("gone", marks=pytest.mark.slow)])
def test_a_lost_or_damaged_cache_is_a_line_in_the_log(platform: Platform, loss: str) -> None:
    platform.repo.commit({"headway.toml": DECLARED})
    platform.build()
    (key,) = cached(platform)
    platform.objects.delete([key])
    if loss == "changed":
        platform.objects.put_new(key, b"x" * 100, hashlib.sha256(b"x" * 100).hexdigest())
    platform.producer = platform.another_builder("second")
    platform.build()
    assert platform.log() == []
    assert any("cache: not restored" in line for line in platform.log("system"))
    # What this build leaves takes its place.
    platform.producer = platform.another_builder("third")
    platform.build()
    assert platform.log() == ["runs", "folders", "seen"]


def test_a_preview_begins_with_productions_cache_and_leaves_it_alone(platform: Platform) -> None:
    platform.repo.commit({"headway.toml": DECLARED})
    with platform.store.write() as session:
        session.get_one(Site, platform.world.site_id).production_env_id = platform.world.env_id
        preview = Environment(id="env_p", site_id=platform.world.site_id, kind="preview", slug="p", branch="p")
        session.add(preview)
    platform.build()
    (production,) = cached(platform)
    order = platform.accept()
    with platform.store.write() as session:
        session.get_one(Build, order.build_id).env_id = "env_p"
    platform.order = order
    platform.run(order)
    assert platform.log() == ["runs", "folders", "seen"]
    assert any("cache of production" in line for line in platform.log("system"))
    assert [key for key in cached(platform) if "/env_p/" not in key] == [production]
    platform.build()
    assert not any("from the object store" in line for line in platform.log("system"))


def test_a_build_leaves_a_bill_of_what_its_lock_files_name(platform: Platform) -> None:
    lock = {"lockfileVersion": 3, "packages": {"node_modules/a": {"version": "1.2.3"}}}
    script = "echo '{}' > package-lock.json; mkdir dist; echo hello > dist/index.html"
    platform.repo.commit({**command(script), "package-lock.json": json.dumps(lock)})
    output = platform.build()
    with platform.store.read() as session:
        found = session.get_one(BuildBill, platform.order.build_id)
    assert (found.digest, found.components) == (output.manifest_sha256, 1)
    key = bill_key(platform.world.site_id, found.digest, found.sha256)
    document = json.loads(platform.objects.get(key, 1 << 20))
    assert [one["purl"] for one in document["components"]] == ["pkg:npm/a@1.2.3"]
    assert document["metadata"]["component"]["hashes"][0]["content"] == output.manifest_sha256


def test_the_output_that_the_build_made_is_preferred(platform: Platform) -> None:
    toml = '[build]\ncommand = "mkdir out; echo built > out/index.html"'
    platform.repo.commit({"headway.toml": toml, "public/index.html": "source"})
    assert platform.content(platform.build().manifest_sha256, "index.html") == b"built\n"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_package_with_a_build_script(platform: Platform) -> None:
    package = {"name": "x", "version": "1.0.0", "scripts": {"build": "mkdir dist && echo built > dist/index.html"}}
    lock = {"name": "x", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "x", "version": "1.0.0"}}}
    platform.repo.commit({"package.json": json.dumps(package), "package-lock.json": json.dumps(lock)})
    built = platform.build()
    assert platform.content(built.manifest_sha256, "index.html") == b"built\n"
    # There is nothing to install.
    assert [(platform.row.plan or {})[name] for name in ("install", "build")] == [None, "npm run build"]


APP = """[build]
command = "echo made > made.txt; mkdir -p node_modules/.bin node_modules/.cache; ln -s ../x.js node_modules/.bin/x"
[run]
command = "./serve"
port = 8080
health_check_path = "/up"
"""


def test_an_app_is_its_tree_and_how_it_runs(platform: Platform) -> None:
    files = {"headway.toml": APP, "serve": "#!/bin/sh\n", "package.json": '{"name": "x"}', "venv/x": "x"}
    commit = platform.repo.commit(files)
    built = platform.build()
    manifest = platform.manifest(built.manifest_sha256)
    assert manifest.run is not None
    assert (manifest.kind, manifest.run.command, manifest.port) == ("dynamic", "exec ./serve", 8080)
    assert manifest.health_path == "/up"
    assert [one.path for one in manifest.links] == ["node_modules/.bin/x"]
    # What is a cache of the tools that were seen stays out; a folder of another tool's is no cache.
    assert {one.path for one in manifest.files} == {"made.txt", "package.json", "serve", "venv/x"}
    assert platform.row.plan is not None
    assert platform.row.plan["run"] == manifest.run.as_dict()
    said = platform.log("system")
    assert said.index("plan: start: exec ./serve") < said.index("$ " + platform.row.plan["build"])
    assert platform.build(commit, clean=True).manifest_sha256 == built.manifest_sha256


WATCHING = """[build]
command = "mkdir -p dist; cp web/page dist/index.html; date +%s%N > dist/when; echo built"
watch = ["web", "shared.txt"]
"""


def test_what_took_in_the_same_is_not_built_again(platform: Platform) -> None:
    def commit(name: str, text: str) -> str:
        return platform.repo.commit({name: text})

    def build(ref: str = "main", *, clean: bool = False) -> tuple[str, bool]:
        made = platform.build(ref, clean=clean).manifest_sha256
        built = platform.log() == ["built"]
        platform.succeed(made)
        return made, built

    platform.repo.commit({"headway.toml": WATCHING, "web/page": "one", "shared.txt": "x"})
    first = build()
    assert first[1]
    assert build() == (first[0], False)
    assert platform.row.cache is not None
    assert (platform.row.cache["hit"], platform.row.uploaded_bytes) == (True, 0)
    assert any("nothing that is watched has changed" in line for line in platform.log("system"))
    commit("other/readme", "y")
    assert build() == (first[0], False)
    for name, text in (("shared.txt", "y"), ("web/page", "two"), ("headway.toml", WATCHING + "timeout = 9")):
        commit(name, text)
        again = build()
        assert again[1], name
        assert again[0] != first[0]
    last = again
    assert build(clean=True)[1]
    assert build()[1] is False
    assert last[0] != first[0]


def test_the_same_commit_is_judged_without_its_files(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[bool] = []
    fetch = GitSource.fetch

    def noting(*given: Any, **named: Any) -> Checkout:
        checkout = fetch(*given, **named)
        unpacked.append(not checkout.same)
        return checkout

    monkeypatch.setattr(GitSource, "fetch", noting)
    platform.repo.commit(command("mkdir dist; date +%s%N > dist/index.html"))
    first = platform.build()
    platform.succeed(first.manifest_sha256)
    source = platform.row.source_sha256
    again = platform.build()
    assert (again.manifest_sha256, unpacked) == (first.manifest_sha256, [True, False])
    assert (platform.row.commit_sha, platform.row.source_sha256) == (first.commit_sha, source)
    assert any(line.startswith("nothing has changed since") for line in platform.log("system"))
    assert any(line.startswith("plan: build: mkdir dist") for line in platform.log("system"))
    platform.succeed(again.manifest_sha256)
    # A builder that has not seen it, a build from scratch, and what is not to be had any more need the files.
    platform.producer = platform.another_builder("elsewhere")
    assert platform.build().manifest_sha256 == first.manifest_sha256
    assert unpacked[2:] == [True]
    assert platform.build(clean=True).manifest_sha256 != first.manifest_sha256
    assert unpacked[3:] == [True]
    with platform.store.write() as session:
        for artifact in session.exec(select(Artifact)).all():
            artifact.collected_at = utcnow()
    assert platform.build().manifest_sha256 != first.manifest_sha256
    assert unpacked[4:] == [False, True]


def test_another_environment_builds_for_itself(platform: Platform) -> None:
    commit = platform.repo.commit(command("mkdir dist; date +%s%N > dist/index.html"))
    first = platform.build().manifest_sha256
    artifact = platform.succeed(first)
    with platform.store.write() as session:
        elsewhere = session.exec(select(Build).where(Build.artifact_id == artifact)).one()
        other = Environment(id="env_other", site_id=elsewhere.site_id, kind="preview", slug="p", branch="p")
        session.add(other)
        session.flush()
        elsewhere.env_id = other.id
    assert platform.build(commit).manifest_sha256 != first


def test_a_collected_artifact_is_built_again(platform: Platform) -> None:
    platform.repo.commit(command("mkdir dist; date +%s%N > dist/index.html"))
    first = platform.build().manifest_sha256
    artifact = platform.succeed(first)
    with platform.store.write() as session:
        session.get_one(Artifact, artifact).collected_at = utcnow()
    assert platform.build().manifest_sha256 != first


def test_the_profile_is_an_assertion(platform: Platform) -> None:
    with platform.store.write() as session:
        session.get_one(Site, platform.world.site_id).profile = "static"
    assert platform.failure({"headway.toml": APP}).type == "build.config_invalid"
    with platform.store.write() as session:
        session.get_one(Site, platform.world.site_id).profile = "dynamic"
    assert platform.failure({"headway.toml": "", "index.html": "x"}).type == "build.detect_failed"


def command(text: str, extra: str = "") -> dict[str, str]:
    return {"headway.toml": f"[build]\ncommand = '''{text}'''\n{extra}"}


def test_an_output_without_a_first_page_is_told(platform: Platform) -> None:
    def said(text: str) -> bool:
        platform.repo.commit(command(text))
        platform.build()
        return any("no index.html" in line for line in platform.log("system"))

    assert not said("mkdir dist; echo a > dist/index.html")
    assert said("mkdir -p dist/shop; echo b > dist/shop/index.html")


def test_failures_are_named(platform: Platform) -> None:
    error = platform.failure(command("echo before; exit 3"))
    assert (error.type, error.non_retryable) == ("build.step_failed", True)
    assert json.loads(error.details[0])["exit_code"] == 3
    assert platform.log() == ["before"]
    assert any("build.step_failed" in line for line in platform.log("system"))
    assert platform.failure(command("true")).type == "build.output_missing"
    assert platform.failure(command("mkdir dist")).type == "build.output_missing"
    assert platform.failure(command("ln -s /etc dist")).type == "build.output_invalid"
    assert platform.failure(command("mkdir dist; ln -s /etc/passwd dist/x")).type == "build.output_invalid"
    assert platform.failure(command("mkdir dist; mkfifo dist/x")).type == "build.output_invalid"
    assert platform.failure(command("mkdir dist; printf x > dist/$(printf 'a\\nb')")).type == "build.output_invalid"
    assert platform.failure(command("mkdir dist; touch dist/a", "[static]\nspa = true")).type == "build.output_invalid"
    assert platform.failure(command("sleep 60", "timeout = 1")).type == "build.timeout"
    assert platform.failure(command("yes $(seq 500)")).type == "build.log_too_large"
    assert platform.failure({"headway.toml": "[biuld]"}).type == "build.config_invalid"
    assert platform.failure({}, ref="none").type == "ref.not_found"
    assert platform.failure({}, ref="--upload-pack=x").type == "ref.invalid"


def test_a_refused_host_is_named_where_it_made_the_build_fail(platform: Platform) -> None:
    error = platform.failure(command("git ls-remote https://git.example.org/x"))
    assert error.type == "build.egress_denied"
    assert "git.example.org" in error.message


def test_what_a_build_prints_arrives_line_by_line(platform: Platform) -> None:
    text = "printf 'one\\n\\ntwo\\r\\n'; head -c 20000 /dev/zero | tr '\\0' x; printf '\\n\\377\\n'; printf last"
    text += "; mkdir dist; touch dist/a"
    platform.repo.commit(command(text))
    platform.build()
    lines = platform.log()
    assert lines[:3] == ["one", "", "two"]
    assert [len(line) for line in lines[3:6]] == [8192, 8192, 3616]
    assert lines[6:] == ["\ufffd", "last"]


@pytest.mark.slow
def test_a_log_of_200_mb_is_cut_with_a_note_and_the_build_goes_on(platform: Platform) -> None:
    steps = (
        "printf '\\033[1mbold\\033[0m\\n'",
        f"yes '{'all work and no play ' * 20}' | head -c 200000000",
        "echo; echo done",
    )
    platform.repo.commit(command("; ".join((*steps, "mkdir dist; echo page > dist/index.html"))))
    limits = replace(LIMITS, log=1 << 30)
    platform.producer = platform.another_builder("second", limits=limits, log=256 << 10)
    output = platform.build()
    assert platform.content(output.manifest_sha256, "index.html") == b"page\n"
    lines = platform.log()
    assert (lines[0], lines[-1]) == ("\x1b[1mbold\x1b[0m", "done")
    assert sum(map(len, lines)) < 512 << 10
    said = platform.log("system")
    assert any("The log is cut here, at 262144 bytes" in line for line in said)
    assert any("were left out here" in line for line in said)
    told = platform.told()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"]) for line in told)
    assert {line["stage"] for line in told if line["stream"] == "stdout"} == {"build"}


def cancel_row(platform: Platform) -> None:
    with platform.store.write() as session:
        session.get_one(Job, platform.order.job_id).cancel_requested_at = utcnow()


def test_a_cancel_on_the_row_ends_a_silent_build(platform: Platform) -> None:
    platform.repo.commit(command("echo started; sleep 60"))
    platform.order = platform.accept()
    asked: list[float] = []
    thread = platform.meanwhile(lambda: (asked.append(time.monotonic()), cancel_row(platform))[0], line="started")
    with pytest.raises(ApplicationError) as caught:
        platform.run(platform.order)
    assert time.monotonic() - asked[0] < 20
    thread.join()
    assert caught.value.type == "job.canceled"
    assert caught.value.non_retryable


@pytest.mark.parametrize(
    ("details", "code"),
    [
        (ActivityCancellationDetails(cancel_requested=True), "job.canceled"),
        (ActivityCancellationDetails(worker_shutdown=True), "build.workers_unavailable"),
        (ActivityCancellationDetails(not_found=True), "attempt.stale"),
    ],
)
def test_a_worker_that_stops_is_not_a_users_cancel(
    platform: Platform, details: ActivityCancellationDetails, code: str
) -> None:
    platform.repo.commit(command("echo started; sleep 60"))
    platform.order = platform.accept()
    thread = platform.meanwhile(lambda: platform.environment.cancel(details), line="started")
    with pytest.raises(ApplicationError) as caught:
        platform.run(platform.order)
    thread.join()
    assert caught.value.type == code


def test_an_attempt_that_was_overtaken_ends(platform: Platform) -> None:
    platform.repo.commit(command("echo started; sleep 60"))
    platform.order = platform.accept()

    def overtake() -> None:
        with platform.store.write() as session:
            session.get_one(Build, platform.order.build_id).attempt += 1

    thread = platform.meanwhile(overtake, line="started")
    with pytest.raises(ApplicationError) as caught:
        platform.run(platform.order)
    thread.join()
    # Perhaps by a worker that was frozen: this one may be the live attempt, and then takes the next number.
    assert (caught.value.type, caught.value.non_retryable) == ("attempt.stale", False)


def test_a_build_that_has_ended_is_not_begun_again(platform: Platform) -> None:
    platform.repo.commit({"index.html": "x"})
    platform.order = platform.accept()
    with platform.store.write() as session:
        end_build(session, session.get_one(Build, platform.order.build_id), "failed")
    with pytest.raises(ApplicationError) as caught:
        platform.run(platform.order)
    assert (caught.value.type, caught.value.non_retryable) == ("attempt.stale", True)


def test_a_remote_that_is_away_is_tried_three_times(platform: Platform) -> None:
    platform.repo.path.rename(platform.repo.path.with_name("away"))
    platform.order = platform.accept()
    ends = []
    for attempt in (1, 2, 3):
        platform.environment.info = replace(platform.environment.info, attempt=attempt)
        with pytest.raises(ApplicationError) as caught:
            platform.run(platform.order)
        ends.append((caught.value.type, caught.value.non_retryable))
    assert ends == [("repository.unreachable", False)] * 2 + [("repository.unreachable", True)]


def test_an_attempt_after_a_crash_ends_as_if_nothing_had_been(platform: Platform) -> None:
    platform.repo.commit({"index.html": "x"})
    platform.order = platform.accept()
    first = platform.run(platform.order)
    again = platform.run(platform.order)
    assert (again.manifest_sha256, again.uploaded_bytes) == (first.manifest_sha256, 0)
    assert platform.row.attempt == 2
