"""How a plan becomes a sandboxed command, and what its end is called. The runner here only writes down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

from activities.producing.build import BuildRules, BuildStep
from adapters.cache import BuildCache
from adapters.egress import PackageIndexes, Rule
from adapters.plan.plan import Plan
from adapters.sandbox.command import Command, Limit, Limits, Outcome
from headway.broker import BuildSpec
from headway.errors import HeadwayError

LIMITS = Limits(wall=100, memory=1 << 30, pids=10, disk=1 << 20, log=1 << 10)


@dataclass
class Notebook:
    outcome: Outcome = field(default_factory=lambda: Outcome(0, 1.0))
    commands: list[Command] = field(default_factory=list)

    def run(self, command: Command, _say: Callable[[str, bytes], None], _canceled: Callable[[], bool]) -> Outcome:
        self.commands.append(command)
        return self.outcome

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        raise NotImplementedError
        yield


def spec(*, clean: bool = False, hosts: tuple[str, ...] = ()) -> BuildSpec:
    ids = {"build_id": "build_1", "job_id": "job_1", "site_id": "site_1", "env_id": "env_1", "attempt": 1}
    what: dict[str, Any] = {"repository": "hosted:site_1", "ref": "main", "default_branch": "main", "profile": "auto"}
    return BuildSpec(**ids, **what, clean=clean, allow_hosts=list(hosts))  # type: ignore[arg-type]


def plan(command: str | None = "make", **changes: Any) -> Plan:
    return Plan("static", "headway.toml", command, ("dist",), **changes)


@dataclass
class Bench:
    root: Path
    runner: Notebook = field(default_factory=Notebook)

    def run(self, plan: Plan, spec: BuildSpec) -> dict[str, Any]:
        extra = self.root / "extra.pem"
        extra.write_text("-----BEGIN CERTIFICATE-----\nmade up\n-----END CERTIFICATE-----\n")
        indexes = PackageIndexes(("npm.example:443",), {"npm_config_registry": "https://npm.example/"}, (), (extra,))
        rules = BuildRules(LIMITS, egress_allow=("cdn.example",), private_ok=("indexes",))
        workspace = self.root / "workspace"
        workspace.mkdir(exist_ok=True)
        step = BuildStep(self.runner, rules, BuildCache(self.root / "cache"), lambda: indexes, self.root)
        return step.run(spec, plan, workspace, 1_700_000_000, lambda _s, _b: None, lambda: False)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_plan_without_a_command_runs_nothing(bench: Bench) -> None:
    assert bench.run(plan(None), spec()) == {"hit": False, "key": None}
    assert bench.runner.commands == []


def test_the_command_and_its_surroundings(bench: Bench) -> None:
    cache = bench.run(plan("make site", root="web", env={"A": "b"}, timeout=5), spec(hosts=("git.example:8443",)))
    (command,) = bench.runner.commands
    assert (command.argv, command.cwd) == (["sh", "-c", "make site"], "web")
    assert (command.env["A"], command.env["SOURCE_DATE_EPOCH"], command.env["TZ"]) == ("b", "1700000000", "UTC")
    assert command.env["npm_config_registry"] == "https://npm.example/"
    assert command.limits.wall == 5
    assert command.egress is not None
    assert set(command.egress.rules) == {
        Rule("cdn.example", 443),
        Rule("git.example", 8443),
        Rule("npm.example", 443),
    }
    assert command.egress.private_ok == {"npm.example"}
    mounts = {mount.target: mount for mount in command.mounts}
    assert mounts["/cache"].writable
    assert mounts["/cache"].source.is_relative_to(bench.root / "cache" / "site_1")
    assert not mounts["/authorities.crt"].writable
    assert command.env["NODE_EXTRA_CA_CERTS"] == "/authorities.crt"
    assert cache["hit"] is False
    assert len(cache["key"]) == 32


def test_steps_run_in_order_and_share_the_time(bench: Bench) -> None:
    bench.run(plan("make", install="npm ci", tidy="npm prune", timeout=50), spec())
    assert [command.argv[-1] for command in bench.runner.commands] == ["npm ci", "make", "npm prune"]
    assert [command.limits.wall for command in bench.runner.commands] == [50, 49, 48]
    kit = {mount.target: mount for mount in bench.runner.commands[0].mounts}["/headway/kit"]
    assert (kit.source / "tidy.py").is_file()
    assert not kit.writable


def test_after_a_step_that_failed_nothing_runs(bench: Bench) -> None:
    bench.runner.outcome = Outcome(1, 1.0)
    with pytest.raises(HeadwayError) as caught:
        bench.run(plan("make", install="npm ci"), spec())
    assert "install" in caught.value.message
    assert len(bench.runner.commands) == 1


def test_dependencies_alone_are_a_build_too(bench: Bench) -> None:
    bench.run(plan(None, install="npm ci --omit=dev"), spec())
    assert [command.argv[-1] for command in bench.runner.commands] == ["npm ci --omit=dev"]


def test_what_is_the_same_every_time(bench: Bench) -> None:
    bench.run(plan(), spec())
    env = bench.runner.commands[0].env
    assert (env["PYTHONHASHSEED"], env["TZ"], env["UV_LINK_MODE"]) == ("0", "UTC", "copy")


def test_a_repository_cannot_give_itself_more_time(bench: Bench) -> None:
    bench.run(plan(timeout=10_000), spec())
    assert bench.runner.commands[0].limits.wall == LIMITS.wall


def test_a_clean_build_has_no_cache(bench: Bench) -> None:
    assert bench.run(plan(), spec(clean=True)) == {"hit": False, "key": None}
    assert "/cache" not in {mount.target for mount in bench.runner.commands[0].mounts}
    assert "npm_config_cache" not in bench.runner.commands[0].env


def test_a_build_that_leaves_no_cache_writes_where_no_other_kind_reads(bench: Bench) -> None:
    mounts = []
    for leaves in (True, False, True):
        bench.run(plan(), spec().model_copy(update={"leaves_cache": leaves}))
        mounts += [mount.source for mount in bench.runner.commands[-1].mounts if mount.writable]
    assert mounts[0] == mounts[2] != mounts[1]


def test_another_lock_file_is_another_cache(bench: Bench) -> None:
    (bench.root / "workspace").mkdir()
    keys = set()
    for text in ("1", "2", "1"):
        (bench.root / "workspace" / "package-lock.json").write_text(text)
        keys.add(bench.run(plan(lock="package-lock.json"), spec())["key"])
    assert len(keys) == 2


@pytest.mark.parametrize("limit", get_args(Limit))
def test_every_limit_has_a_code(bench: Bench, limit: Limit) -> None:
    bench.runner.outcome = Outcome(137, 1.0, limit=limit)
    with pytest.raises(HeadwayError) as caught:
        bench.run(plan(), spec())
    assert caught.value.code == f"build.{limit}"
    assert "{" not in caught.value.message


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(2, 1.0), "build.step_failed"),
        (Outcome(2, 1.0, denied=("evil.example:443",)), "build.egress_denied"),
        (Outcome(137, 1.0, canceled=True), "job.canceled"),
    ],
)
def test_how_a_command_fails(bench: Bench, outcome: Outcome, code: str) -> None:
    bench.runner.outcome = outcome
    with pytest.raises(HeadwayError) as caught:
        bench.run(plan(), spec())
    assert caught.value.code == code


def test_a_refused_host_that_did_not_matter_fails_nothing(bench: Bench) -> None:
    bench.runner.outcome = Outcome(0, 1.0, denied=("stats.example:443",))
    assert bench.run(plan(), spec())["hit"] is False
