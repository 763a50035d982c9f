"""Services on a host: which instances a release has, starting and judging them before a switch, leading Caddy to them.

Beside the markers of `env/<env_id>/r/<seq>/` lie `instances.json` (which instances serve this release: its own, or
those of an earlier release of the same artifact and configuration that are warm still), `sock.0` … `sock.7` (links to
the endpoints of the web process, over which Caddy spreads requests) and `config.sealed`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from adapters.artifact.manifest import Manifest, parse_manifest
from adapters.artifact.run import HealthCheck, RunSettings
from adapters.hosting.durable import point, write_file
from adapters.hosting.layout import HostFolders
from adapters.hosting.probing import NOT_LISTENING, Probe, look, wait_until_healthy
from adapters.hosting.releases import SEALED, digest_of, is_configured
from adapters.hosting.switch import ReleaseSwitch
from adapters.hosting.turns import Turns
from adapters.hosting.volumes import volume_of
from adapters.router.caddy import SOCKETS
from adapters.runtime.driver import Bounds, InstanceRef, InstanceSpec, LogLine, RuntimeDriver, Status, Volume
from adapters.sandbox.argv import WORKSPACE
from headway.errors import HeadwayError

FILE: Final = "instances.json"
# An app that has died so often while it was looked at will not become healthy.
DEATHS: Final = 3
# So many looks are told one by one; later ones where their answer is another.
TOLD: Final = 60
# Of a release command's, the last ones.
TOLD_LINES: Final = 2_000
RELEASE: Final = "release"
COMMAND: Final = "run-"
# How many releases are started and judged at once; an app may take half an hour to be found unhealthy, so one team has
# half of the places at most. In seconds: how long one waits before it is tried again.
STARTS, STARTS_WAIT, SHARE, PATIENCE = 32, 96, 0.5, 1200.0
# Whose instances a release may have: none but its own, warm ones that are just what it wants, or those that are live
# with some more or fewer.
Reuse = Literal["none", "warm", "grow"]


@dataclass(frozen=True)
class Plan:
    """What `instances.json` holds: `origin` is the release whose instances serve, `web` how many there are.

    `beside`: the names of its other processes.
    """

    origin: int
    digest: str
    config_version: int
    web: int
    stopping: bool = False
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Plan:
        return cls(**{**raw, "beside": tuple(raw.get("beside", ()))})


@dataclass
class Story:
    """Where a rollout's progress goes: a line for the job's log, a stage, and the look for a cancel."""

    check: Callable[[], None]
    line: Callable[[str], None] = field(default=lambda _text: None)
    stage: Callable[[str], None] = field(default=lambda _name: None)


def reason_of(status: Status) -> str:
    """What a driver adds to the exit code, in brackets; empty where it is the code again."""
    return f" ({status.reason})" if status.reason not in ("", f"exit code {status.exit_code}") else ""


def _command_ref(env_id: str, seq: int, name: str) -> InstanceRef:
    return InstanceRef(env_id, seq, COMMAND + name.partition("_")[2].lower())


def is_command(ref: InstanceRef) -> bool:
    """A one-off command: nobody keeps it running, and its lines are its job's."""
    return ref.process.startswith(COMMAND)


class Services:
    """Thread-safe, idempotent. `hostname` in calls is what health checks send as `Host`."""

    def __init__(self, folders: HostFolders, driver: RuntimeDriver, starting: Turns | None = None) -> None:
        self.folders = folders
        self.driver = driver
        self._starting = starting or Turns(
            STARTS, STARTS_WAIT, PATIENCE, share=SHARE, noun="releases", code="roll.host_busy"
        )

    def prepare(
        self,
        env_id: str,
        seq: int,
        manifest: Manifest,
        config_version: int,
        hostname: str,
        story: Story,
        configure: Callable[[], None],
        *,
        web: int = 0,
        reuse: Reuse = "warm",
        judged: Plan | None = None,
        owner: str = "",
    ) -> None:
        """Start the placed release's instances, or take over warm ones, and wait until they are healthy.

        `configure` brings the release's configuration, and is only called where something has to be started. `web`
        (0: the manifest's) is how many instances of the web process there are. `owner`: whose share of this host's
        starts it takes, and waits for; empty: nobody's. `judged`: whose instances have just answered. Raises
        roll.start_failed, roll.health_failed, roll.host_busy, runtime.*; what was started for it is stopped then.
        """
        run = _run(manifest)
        plan = self._plan(env_id, seq, manifest, config_version, web or run.instances, reuse)
        if plan.origin != seq:
            if reuse == "grow" and self._configured(env_id, plan):
                with self._turn(owner, story):
                    return self._grow(env_id, seq, plan, run, hostname, story)
            answered = judged is not None and (judged.origin, judged.web) == (plan.origin, plan.web)
            if answered or self._still_healthy(env_id, plan, run, hostname):
                story.line(f"taking over the warm instances of release {plan.origin}: nothing is started")
                self.link(env_id, seq, plan)
                return None
            plan = replace(plan, origin=seq)
            self._write(env_id, seq, plan)
        with self._turn(owner, story):
            configure()
            try:
                self._start(env_id, plan, run, hostname, story)
            except BaseException:
                # Another try of it may have made it live, which this one was to do.
                live = self._live_plan(env_id)
                if live is None or live.origin != seq:
                    self.stop(env_id, seq)
                raise
        self.link(env_id, seq, plan)

    def warm(self, env_id: str, digest: str, hostname: str) -> Plan | None:
        """Instances that a way back to this artifact would take over, if they answer as they should."""
        plans = sorted(self.origins(env_id).items(), reverse=True)
        found = next(((seq, one) for seq, one in plans if one.digest == digest and not one.stopping), None)
        run = self._run_of(env_id, found[0]) if found is not None else None
        if found is None or run is None or not self._still_healthy(env_id, found[1], run, hostname):
            return None
        return found[1]

    def run_release_command(self, env_id: str, seq: int, manifest: Manifest, story: Story) -> None:
        """Once per rollout, before anything of it is started. Raises roll.release_command_failed.

        Where the story ends this try, the command goes on: another try joins it, and once the rollout is over it is
        stopped, by the host's own look or by the next rollout's command.
        """
        run = _run(manifest)
        if run.release_command is None:
            return
        story.stage("start")
        story.line(f"release command: {run.release_command}")
        spec = self._spec(InstanceRef(env_id, seq, RELEASE), self._release(env_id, seq), run, run.release_command)
        for status in self.driver.list(env_id):
            if status.ref.process == RELEASE and status.ref.seq < seq:
                self.driver.remove(status.ref)

        def unwanted() -> bool:
            story.check()
            return False

        # Kept until the rollout is over, which the host's own look sees: another try of it finds the result.
        code, lines = self.driver.run_once(spec, run.release_timeout, canceled=unwanted)
        if len(lines) > TOLD_LINES:
            story.line(f"{len(lines) - TOLD_LINES} earlier lines of it are left out")
        for line in lines[-TOLD_LINES:]:
            story.line(line.line)
        if code != 0:
            said = " · ".join(line.line for line in lines[-5:])[-800:]
            raise HeadwayError(
                "roll.release_command_failed",
                f"The release command ended with {code}: the switch was not made. Its last lines: {said or 'none'}",
            )

    def run_command(
        self,
        env_id: str,
        seq: int,
        name: str,
        command: str,
        timeout: float,
        canceled: Callable[[], bool],
        hear: Callable[[Callable[[int], list[LogLine]]], None],
        given: Path | None = None,
    ) -> int:
        """A one-off command with a placed release, to its end: the exit code. Under one name it is run once.

        `given`: what it finds on its standard input. `hear` is called now and then with what gives the lines behind a
        number. Raises release.none, job.canceled, runtime.*.
        """
        plan, run = self.plan_of(env_id, seq), self._run_of(env_id, seq)
        if plan is None or run is None:
            raise HeadwayError("release.none", f"The release {seq} is not on this host any more.")
        self._require_configured(env_id, plan)
        ref = _command_ref(env_id, seq, name)
        spec = replace(self._spec(ref, self._release(env_id, plan.origin), run, command), given=given)

        def after(number: int) -> list[LogLine]:
            return list(self.driver.logs(ref, number))

        def turn() -> bool:
            hear(after)
            return canceled()

        code, _ = self.driver.run_once(spec, timeout, canceled=turn)
        hear(after)
        return code

    def knows_command(self, env_id: str, seq: int, name: str) -> bool:
        """Whether a command of that name runs, or has run, and is not forgotten yet."""
        return self.driver.status(_command_ref(env_id, seq, name)).state != "absent"

    def running_commands(self) -> dict[str, InstanceRef]:
        """The one-off commands that run on this host, by their jobs."""
        found = (
            one.ref for one in self.driver.list() if is_command(one.ref) and one.state not in ("stopped", "absent")
        )
        return {"job_" + ref.process.removeprefix(COMMAND).upper(): ref for ref in found}

    def end_command(self, ref: InstanceRef) -> None:
        """Kill and forget it, with all that it started."""
        self.driver.stop(ref, 0.0)
        self.driver.remove(ref)

    def ensure(self, env_id: str, seq: int) -> list[Status]:
        """Let everything run that a placed release needs; what runs is left alone."""
        plan, run = self.plan_of(env_id, seq), self._run_of(env_id, seq)
        if plan is None or run is None:
            return []
        statuses = [self.driver.ensure(spec) for spec in self._specs(env_id, plan, run)]
        self.link(env_id, seq, plan)
        return statuses

    def is_stale(self, status: Status) -> bool:
        """Whether an instance runs on a tree that was removed, and stands there anew: its own is empty."""
        root = self._release(status.ref.env_id, status.ref.seq) / "root"
        try:
            # Where this process may not look, it is believed.
            return not os.path.samestat(os.stat(f"/proc/{status.pid}/root{WORKSPACE}"), os.stat(root))
        except OSError:
            return False

    def instances(self, env_id: str, seq: int) -> list[Status]:
        """The instances of the web process that serve a release; none of a static one."""
        plan = self.plan_of(env_id, seq)
        refs = [InstanceRef(env_id, plan.origin, "web", index) for index in range(plan.web)] if plan else []
        return [self.driver.status(ref) for ref in refs]

    def health(self, env_id: str, seq: int) -> HealthCheck | None:
        """How a placed release is asked whether it is healthy; None for a static one."""
        run = self._run_of(env_id, seq)
        return run.health if run is not None else None

    def stop(self, env_id: str, origin: int) -> None:
        """Stop and forget the instances that were started for a release; what its release command gave is kept."""
        for status in self.driver.list(env_id):
            if status.ref.seq == origin and status.ref.process != RELEASE and not is_command(status.ref):
                self.driver.remove(status.ref)

    def plan_of(self, env_id: str, seq: int) -> Plan | None:
        """None where the release is no service, or its instances have not been planned."""
        try:
            return Plan.of(json.loads((self._release(env_id, seq) / FILE).read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, AttributeError):
            raise HeadwayError("internal.error", f"{FILE} of release {seq} cannot be read.") from None

    def origins(self, env_id: str) -> dict[int, Plan]:
        """Every placed service of an environment, by its number."""
        found = {}
        for seq in placed(self.folders.environment(env_id)):
            with contextlib.suppress(HeadwayError):
                if (plan := self.plan_of(env_id, seq)) is not None:
                    found[seq] = plan
        return found

    def retire(self, env_id: str, origin: int) -> bool:
        """Mark the instances of a release as on their way out, so that no rollout takes them over. False if one has."""
        switch = ReleaseSwitch(self.folders.environment(env_id))
        with switch.spared(-1):
            last, plans = switch.last_step(), self.origins(env_id)
            if any(plan.origin == origin and (seq > last.seq or seq == last.live) for seq, plan in plans.items()):
                return False
            for seq, plan in plans.items():
                if plan.origin == origin and not plan.stopping:
                    self._write(env_id, seq, replace(plan, stopping=True))
        return True

    def keep(self, env_id: str, seq: int) -> None:
        """Take the mark off what was put back while its visitors left: it is live, and its next time is a new one."""
        switch = ReleaseSwitch(self.folders.environment(env_id))
        with switch.spared(-1):
            plan = self.plan_of(env_id, seq)
            if plan is not None and plan.stopping and switch.last_step().live == seq:
                self._write(env_id, seq, replace(plan, stopping=False))

    def leaving_for(self, env_id: str, origin: int) -> float:
        """Seconds since the instances of a release were marked as on their way out; 0 where they are not."""
        times = []
        for seq, plan in self.origins(env_id).items():
            if plan.origin == origin and plan.stopping:
                with contextlib.suppress(FileNotFoundError):  # it has been pruned meanwhile
                    times.append((self._release(env_id, seq) / FILE).stat().st_mtime)
        return max(0.0, time.time() - max(times)) if times else 0.0

    # what a release needs

    @contextlib.contextmanager
    def _turn(self, owner: str, story: Story) -> Iterator[None]:
        if not owner:
            yield
            return

        def waits(ahead: int) -> None:
            others = f", {ahead} wait before it" if ahead else ""
            story.line(f"waits for its turn: this host starts {self._starting.at_once} releases at once{others}")

        with self._starting.turn(owner, waits, story.check):
            yield

    def _grow(self, env_id: str, seq: int, plan: Plan, run: RunSettings, hostname: str, story: Story) -> None:
        """What runs is left alone; what is missing is started beside it, and has to be healthy.

        What serves already is not judged then: an app that has too much to do to answer is the one to be grown. Where
        nothing is started, as for fewer, what stays has to be healthy.
        """
        before = {status.ref for status in self.driver.list(env_id) if status.state != "stopped"}
        story.line(f"the instances of release {plan.origin} go on: {plan.web} are wanted")
        try:
            self._start(env_id, plan, run, hostname, story, self._serving(env_id))
        except BaseException:
            for status in self.driver.list(env_id):
                if status.ref.seq == plan.origin and status.ref not in before and not is_command(status.ref):
                    self.driver.remove(status.ref)
            raise
        self.link(env_id, seq, plan)

    def _serving(self, env_id: str) -> set[InstanceRef]:
        """What the live release has, by its plan: what an earlier try has started is not among it."""
        plan = self._live_plan(env_id)
        if plan is None:
            return set()
        webs = {InstanceRef(env_id, plan.origin, "web", index) for index in range(plan.web)}
        return webs | {InstanceRef(env_id, plan.origin, name) for name in plan.beside}

    def _live_plan(self, env_id: str) -> Plan | None:
        return self.plan_of(env_id, ReleaseSwitch(self.folders.environment(env_id)).last_step().live)

    def _plan(
        self, env_id: str, seq: int, manifest: Manifest, config_version: int, web: int, reuse: Reuse = "warm"
    ) -> Plan:
        """Decided under the environment's lock, once: instances that are on their way out are not taken over."""
        known = self.plan_of(env_id, seq)
        if known is not None and not known.stopping:
            return known
        switch = ReleaseSwitch(self.folders.environment(env_id))
        with switch.spared(-1):
            origin, live = seq, switch.last_step().live
            for other, plan in sorted(self.origins(env_id).items(), reverse=True):
                same = (plan.digest, plan.config_version) == (manifest.digest, config_version)
                fits = other == live if reuse == "grow" else plan.web == web and reuse == "warm"
                if other != seq and same and fits and not plan.stopping and self._configured(env_id, plan):
                    origin = plan.origin
                    break
            made = Plan(origin, manifest.digest, config_version, web, beside=tuple(sorted(_run(manifest).processes)))
            self._write(env_id, seq, made)
        return made

    def _write(self, env_id: str, seq: int, plan: Plan) -> None:
        write_file(self._release(env_id, seq) / FILE, json.dumps(asdict(plan)).encode())

    def _release(self, env_id: str, seq: int) -> Path:
        return ReleaseSwitch(self.folders.environment(env_id)).release(seq)

    def _run_of(self, env_id: str, seq: int) -> RunSettings | None:
        digest = digest_of(self._release(env_id, seq))
        if digest is None:
            return None
        manifest = parse_manifest((self.folders.trees / digest / "manifest.json").read_bytes(), digest=digest)
        return manifest.run

    def _configured(self, env_id: str, plan: Plan) -> bool:
        return is_configured(self._release(env_id, plan.origin), plan.config_version)

    def _require_configured(self, env_id: str, plan: Plan) -> None:
        if not self._configured(env_id, plan):
            message = f"The configuration of release {plan.origin} is gone from this host: nothing is started without."
            raise HeadwayError("runtime.unavailable", message)

    def _specs(self, env_id: str, plan: Plan, run: RunSettings) -> Iterator[InstanceSpec]:
        self._require_configured(env_id, plan)
        release = self._release(env_id, plan.origin)
        for index in range(plan.web):
            yield self._spec(InstanceRef(env_id, plan.origin, "web", index), release, run, run.command, serves=True)
        for name, command in sorted(run.processes.items()):
            yield self._spec(InstanceRef(env_id, plan.origin, name), release, run, command)

    def _spec(
        self, ref: InstanceRef, release: Path, run: RunSettings, command: str, *, serves: bool = False
    ) -> InstanceSpec:
        sealed = release / SEALED
        volumes = self.folders.root / "volumes" / ref.env_id
        return InstanceSpec(
            ref=ref,
            # The tree itself: the link to it goes with the release's folder.
            root=Path(os.path.realpath(release / "root")),
            command=f"cd {shlex.quote(run.folder)} && {command}" if run.folder else command,
            port=(run.port or DEFAULT_PORT) if serves else None,
            env=dict(run.env),
            sealed=sealed if sealed.exists() else None,
            egress=run.egress,
            volumes=tuple(Volume(volume_of(volumes, name), name) for name in run.volumes),
            bounds=Bounds(memory=run.memory, cpu=run.cpu_millis / 1000),
            stop_grace=float(run.stop_grace),
        )

    # starting and judging

    def _start(
        self,
        env_id: str,
        plan: Plan,
        run: RunSettings,
        hostname: str,
        story: Story,
        serving: Collection[InstanceRef] = (),
    ) -> None:
        story.stage("start")
        specs = list(self._specs(env_id, plan, run))
        fresh = [spec for spec in specs if spec.ref not in serving] or specs
        # Of what serves already, what it has met in its life is nothing against it.
        before = {spec.ref: self.driver.status(spec.ref).restarts for spec in fresh if spec.ref in serving}
        for spec in specs:
            story.check()
            self.driver.ensure(spec)
        story.line(f"started {', '.join(f'{s.ref.process}.{s.ref.index}' for s in specs)}")
        story.stage("health")
        for spec in fresh:
            if spec.ref.process == "web":
                self._judge(spec, run, hostname, story, before.get(spec.ref, 0))
        for spec in fresh:
            self._alive(spec.ref, before.get(spec.ref, 0))

    def _judge(self, spec: InstanceSpec, run: RunSettings, hostname: str, story: Story, before: int) -> None:
        name = f"{spec.ref.process}.{spec.ref.index}"
        seen: list[Probe] = []

        def tell(probe: Probe) -> None:
            if len(seen) < TOLD or (seen[-1].status, seen[-1].why) != (probe.status, probe.why):
                story.line(f"health of {name}: {run.health.path} {probe}, {probe.at:.2f} s after the start")
            seen.append(probe)

        def check() -> None:
            story.check()
            # Its keeper was killed, or an earlier try of this very rollout has let go of it meanwhile.
            if self._alive(spec.ref, before).state in ("stopped", "absent"):
                self.driver.ensure(spec)

        endpoint = self._endpoint(spec, story, before)
        try:
            wait_until_healthy(endpoint, run.health, hostname, tell, check)
        except HeadwayError as error:
            for line in self._last_lines(spec.ref):
                story.line(f"{name}: {line}")
            message = error.message
            if error.code == "roll.health_failed" and seen[-1].status is None:
                message = f"{message} {self._why_silent(spec, seen[-1])}"
            raise HeadwayError(error.code, message, looks=len(seen), instance=name) from error
        story.line(f"{name} is healthy after {len(seen)} looks")

    def _endpoint(self, spec: InstanceSpec, story: Story, before: int) -> str:
        status = self.driver.status(spec.ref)
        while status.endpoint is None:
            story.check()
            self._alive(spec.ref, before)
            status = self.driver.ensure(spec)
        return status.endpoint

    def _alive(self, ref: InstanceRef, before: int) -> Status:
        """`before`: how often it had been started again when it began to be judged."""
        status = self.driver.status(ref)
        deaths = max(0, status.restarts - before)
        if status.state == "crash_loop" or deaths >= DEATHS:
            said = " · ".join(self._last_lines(ref, 5))
            raise HeadwayError(
                "roll.start_failed",
                f"{ref.process}.{ref.index} ended {deaths or status.restarts} times, last with {status.exit_code}"
                f"{reason_of(status)}. Its last lines: {said[-800:] or 'none'}",
            )
        return status

    def _why_silent(self, spec: InstanceSpec, last: Probe) -> str:
        """What is known of an app that gives no answer."""
        status = self.driver.status(spec.ref)
        if not status.restarts:
            if last.why not in NOT_LISTENING:
                return f"It runs, and takes connections on $PORT ({spec.port}): it has to answer them by HTTP."
            return f"It runs; it has to listen on $PORT ({spec.port}), at 127.0.0.1, ::1 or all addresses."
        said = " · ".join(self._last_lines(spec.ref, 5))
        return (
            f"It ended {status.restarts} times, last with {status.exit_code}. Its last lines: {said[-800:] or 'none'}"
        )

    def _last_lines(self, ref: InstanceRef, number: int = 20) -> list[str]:
        with contextlib.suppress(HeadwayError, OSError):
            return [line.line for line in deque(self.driver.logs(ref, limit=1_000_000), maxlen=number)]
        return []

    def _still_healthy(self, env_id: str, plan: Plan, run: RunSettings, hostname: str) -> bool:
        refs = [InstanceRef(env_id, plan.origin, "web", index) for index in range(plan.web)]
        statuses = [self.driver.status(ref) for ref in refs]
        if any(status.state != "running" or status.endpoint is None for status in statuses):
            return False
        # One after the other, and none after one that gives no answer: that takes its time.
        if not self._configured(env_id, plan) or any(map(self.is_stale, statuses)):
            return False
        probes = (look(status.endpoint or "", run.health.path, hostname, 0.0) for status in statuses)
        return all(one.status is not None and run.health.low <= one.status <= run.health.high for one in probes)

    def link(self, env_id: str, seq: int, plan: Plan, known: Mapping[InstanceRef, Status] | None = None) -> bool:
        """Lead the release's sockets to the endpoints; they are the same for as long as an instance has its name.
        Whether one led elsewhere. `known`: how its instances are, where that has been asked.

        Not made durable: after a power cut nothing runs, and what starts the instances again makes the links, too.
        """
        release, changed = self._release(env_id, seq), False
        for number in range(SOCKETS):
            ref = InstanceRef(env_id, plan.origin, "web", number % plan.web)
            status = known.get(ref) if known is not None else self.driver.status(ref) if number < plan.web else None
            endpoint = status.endpoint if status is not None and number < plan.web else None
            target = (endpoint or "").removeprefix("unix:") if number < plan.web else f"sock.{number % plan.web}"
            link = release / f"sock.{number}"
            if not target or (link.is_symlink() and os.readlink(link) == target):
                continue
            changed = True
            if os.path.lexists(link):
                point(link, target)
            else:
                link.symlink_to(target)
        return changed


DEFAULT_PORT: Final = 8080


def placed(env: Path) -> list[int]:
    """The numbers of an environment's placed releases, newest first."""
    try:
        return sorted((int(one.name) for one in (env / "r").iterdir() if one.name.isdecimal()), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []


def origins_in_use(plans: Iterable[Plan]) -> set[int]:
    """Releases whose folders instances still refer to."""
    return {plan.origin for plan in plans}


def _run(manifest: Manifest) -> RunSettings:
    if manifest.run is None:
        raise HeadwayError("roll.verify_failed", "The artifact is a service, and does not say how it runs.")
    return manifest.run
