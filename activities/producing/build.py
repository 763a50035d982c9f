"""Run a plan's steps in the sandbox: their network, cache and limits, and what their failure is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from activities.producing.caching import Exchange
from activities.producing.cutting import KEPT
from adapters.artifact.folder import Folder
from adapters.cache import ENVIRONMENT, TARGET, BuildCache, Cached, cache_key
from adapters.cache_shelf import Shelf
from adapters.egress import EgressPolicy, PackageIndexes
from adapters.plan import kit
from adapters.plan.plan import Plan, StepName
from adapters.plan.python import KIT
from adapters.sandbox import certificates
from adapters.sandbox.argv import SEARCH
from adapters.sandbox.command import Command, Limits, Mount, Outcome
from adapters.source.runner import Canceled, OnOutput, Runner
from headway.broker import BuildSpec
from headway.errors import HeadwayError

NONE: Final[Mapping[str, str]] = {}
MAX_LOCK: Final = 64 << 20
_AUTHORITIES: Final = "/authorities.crt"
_TOOLS: Final = "/headway/bin"
KIT_FOLDER: Final = Path(kit.__file__).parent
# Hash order, time zone and bytecode are no part of a source; uv takes the machine's Python and copies out of its cache.
SAME_EVERY_TIME: Final = {
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_LINK_MODE": "copy",
    "UV_NO_PROGRESS": "1",
    "UV_NO_CONFIG": "1",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "NEXT_TELEMETRY_DISABLED": "1",
    "ASTRO_TELEMETRY_DISABLED": "1",
}
_WORDS: Final = {
    "timeout": "ran longer than its {wall:g} seconds",
    "out_of_memory": "used more than its {memory} bytes of memory",
    "disk_full": "wrote more than its {disk} bytes",
    "too_many_processes": "started more than its {pids} processes",
    "log_too_large": "printed more than its {log} bytes",
}


@dataclass(frozen=True)
class BuildRules:
    """The operator's: limits of one build, and which hosts builds may reach beside the package indexes.

    Of what a build prints the log keeps `log` bytes; past `limits.log` the build is ended.
    """

    limits: Limits
    egress_allow: tuple[str, ...] = ()
    private_ok: tuple[str, ...] = ()
    log: int = KEPT


@dataclass(frozen=True)
class BuildStep:
    """Runs the steps of plans. `state` is a folder of the builder's own for files that are shown to builds.

    `tools` is a folder of programs for builds (uv), None where there is none.
    """

    runner: Runner
    rules: BuildRules
    cache: BuildCache
    indexes: Callable[[], PackageIndexes]
    state: Path
    tools: Path | None = None

    def run(
        self,
        spec: BuildSpec,
        plan: Plan,
        workspace: Path,
        commit_time: int,
        on_output: OnOutput,
        canceled: Canceled,
        told: Callable[[str], None] = lambda _: None,
        secrets: Mapping[str, str] = NONE,
        exchange: Exchange | None = None,
    ) -> dict[str, Any]:
        """Run the plan's steps, if there are any; the answer is the row's `cache`, `{"hit", "key"}`.

        `secrets` are part of every step's environment: private packages need them before the build does. `told` hears
        each step's command before it runs. The limits hold for all steps together where that makes sense (wall clock),
        and for each where it does not. `exchange` brings the cache from the object store, and takes there what is new.
        Raises build.step_failed, build.egress_denied, build.<limit>, job.canceled.
        """
        if not plan.steps:
            return {"hit": False, "key": None}
        key = None if spec.clean else cache_key(plan.lock, _lock(workspace, plan))
        with ExitStack() as stack:
            # A folder per environment: who may build a preview must not choose what production's build finds. Nor who
            # may build there what is not its branch's: such builds have one beside it.
            place = f"{spec.env_id}-{key}" if spec.leaves_cache else f"{spec.env_id}-{key}-read"
            cached = None if key is None else stack.enter_context(self.cache.lend(spec.site_id, place, key))
            if cached is not None and exchange is not None:
                exchange.fill(self.cache, cached)
            hit = cached is not None and cached.hit
            declared = [f"{plan.root}/{path}" if plan.root else path for path in plan.cache]
            shelf = Shelf(workspace, cached.folder, declared) if cached is not None and declared else None
            if shelf is not None:
                stack.callback(shelf.take)
                shelf.put(within=False)
            spent = 0.0
            for name, words in plan.steps:
                if shelf is not None and name != "install":
                    shelf.put(within=True)
                told(words)
                command = self._command(spec, plan, words, workspace, commit_time, cached)
                command = replace(command, env={**command.env, **secrets})
                left = replace(command.limits, wall=max(1.0, command.limits.wall - spent))
                outcome = self.runner.run(replace(command, limits=left), on_output, canceled)
                _judge(name, outcome, command.limits)
                spent += outcome.seconds
            if shelf is not None:
                shelf.take()
            if cached is not None and exchange is not None:
                exchange.keep(self.cache, cached)
        return {"hit": hit, "key": key}

    def _command(
        self, spec: BuildSpec, plan: Plan, command: str, workspace: Path, commit_time: int, cached: Cached | None
    ) -> Command:
        indexes = self.indexes()
        mounts = [Mount(folder, str(folder)) for folder in indexes.folders]
        mounts.append(Mount(KIT_FOLDER, KIT))
        env = {"SOURCE_DATE_EPOCH": str(commit_time), **SAME_EVERY_TIME, **indexes.env}
        if self.tools is not None:
            mounts.append(Mount(self.tools, _TOOLS))
            env["PATH"] = f"{_TOOLS}:{SEARCH}"
        extra = certificates.bundle(self.state, indexes.ca_files) if indexes.ca_files else None
        if extra is not None and extra.is_relative_to(self.state):
            mounts.append(Mount(extra, _AUTHORITIES))
            env |= dict.fromkeys(certificates.VARIABLES, _AUTHORITIES)
        if cached is not None:
            mounts.append(Mount(cached.folder, TARGET, writable=True))
            env |= ENVIRONMENT
        limits = self.rules.limits
        if plan.timeout is not None:
            limits = replace(limits, wall=min(limits.wall, plan.timeout))
        return Command(
            argv=["sh", "-c", command],
            workspace=workspace,
            cwd=plan.root,
            env={**env, **plan.env},
            mounts=tuple(mounts),
            limits=limits,
            egress=EgressPolicy.of(
                [*self.rules.egress_allow, *spec.allow_hosts],
                private_ok=self.rules.private_ok,
                indexes=indexes.hosts,
            ),
        )


def _lock(workspace: Path, plan: Plan) -> bytes | None:
    if plan.lock is None:
        return None
    with Folder(workspace) as folder:
        return folder.read(f"{plan.root}/{plan.lock}" if plan.root else plan.lock, MAX_LOCK)


def _judge(step: StepName, outcome: Outcome, limits: Limits) -> None:
    if outcome.canceled:
        raise HeadwayError("job.canceled", "The job was canceled while it was built.")
    if outcome.limit is not None:
        numbers = {name: getattr(limits, name) for name in ("wall", "memory", "disk", "pids", "log")}
        message = f"The build {_WORDS[outcome.limit].format(**numbers)}."
        if outcome.limit == "timeout" and outcome.denied:
            # Some clients ask again and again where they are refused.
            message += f" It had been refused {', '.join(list(dict.fromkeys(outcome.denied))[:20])}."
        raise HeadwayError(f"build.{outcome.limit}", message, exit_code=outcome.exit_code)
    if outcome.exit_code == 0:
        return
    ended = f"The build's {step} step ended with exit code {outcome.exit_code}"
    if outcome.denied:
        hosts = list(dict.fromkeys(outcome.denied))[:20]
        message = f"{ended}, after it was refused {', '.join(hosts)}."
        raise HeadwayError("build.egress_denied", message, exit_code=outcome.exit_code, hosts=hosts)
    raise HeadwayError("build.step_failed", f"{ended}.", exit_code=outcome.exit_code)
