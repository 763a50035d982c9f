"""The roles beside control, in small: same names and types as the real ones, with switches for a test's faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.exceptions import ApplicationError

from api.internal.looks import Looks
from headway.broker import BeginLook, Seen
from headway.ids import new_id
from store.execs import end_exec
from store.models import Artifact, Build, Job, utcnow
from store.session import Store
from temporal.failures import mapped
from temporal.messages import (
    Bake,
    BuildOrder,
    BuildOutput,
    Certified,
    CommandEnded,
    CommandOrder,
    DomainOrder,
    Ended,
    EnvironmentRef,
    ExecOrder,
    JobRef,
    Live,
    LookRef,
    Measured,
    Mend,
    MendTried,
    Placed,
    RollOrder,
    Signed,
    Switch,
    Taken,
)
from tests.holder import HOLDER


@dataclass
class Remotes:
    """What builders see of sites' remotes, handed to the broker's own part. `away` do not answer."""

    looks: Looks
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    looked: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0

    @activity.defn(name="remote.look")
    async def look(self, ref: LookRef) -> LookRef:
        self.looked.append(ref.site_id)
        if ref.site_id in self.away:
            raise ApplicationError("the builder died", non_retryable=True)
        self.now += 1
        self.most = max(self.most, self.now)
        self.looks.begin(ref.site_id, BeginLook(attempt=ref.attempt), HOLDER)
        await asyncio.sleep(0.02)
        seen = self.looks.seen(ref.site_id, Seen(attempt=ref.attempt, branches=self.branches.get(ref.site_id, {})))
        self.now -= 1
        return LookRef(ref.site_id, ref.attempt, seen.news)


@dataclass
class Builder:
    """`gates[ref]` holds a build until the test opens it; `broken[ref]` is the code it fails with.

    `deaf`: a cancel finds it done.

    `earlier[ref]` is the artifact that it takes instead of making one.
    """

    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, str] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    deaf: bool = False

    @activity.defn(name="build.produce")
    async def produce(self, order: BuildOrder) -> BuildOutput:
        self.started.append(order.ref)
        try:
            while order.ref in self.gates and not self.gates[order.ref].is_set():
                activity.heartbeat()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.canceled.append(order.ref)
            if not self.deaf:
                raise
        if code := self.broken.get(order.ref):
            raise ApplicationError("the build broke", '{"exit_code": 3}', type=code, non_retryable=True)
        taken = self.earlier.get(order.ref, "")
        return BuildOutput(order.build_id, order.build_id[-26:].lower() * 2, "c" * 40, 10, taken)


@dataclass
class Signer:
    store: Store

    @activity.defn(name="build.sign")
    def sign(self, order: BuildOrder) -> Signed:
        digest = order.build_id[-26:].lower() * 2
        with self.store.write() as session:
            build = session.get_one(Build, order.build_id)
            if build.artifact_id is None:
                artifact = Artifact(
                    id=new_id("art"),
                    site_id=order.site_id,
                    digest=digest,
                    kind="static",
                    files=1,
                    profile="static",
                    size_bytes=1,
                    build_id=build.id,
                    commit_sha="c" * 40,
                    ref=order.ref,
                    key_hint="k",
                    signed_at=utcnow(),
                )
                session.add(artifact)
                build.artifact_id, build.commit_sha = artifact.id, "c" * 40
            return Signed(build.id, build.artifact_id, digest)


@dataclass
class Executor:
    """Ends a command's job as the broker does with its output; `broken` is the code it fails with instead."""

    store: Store
    broken: str | None = None

    @activity.defn(name="sandbox.execute")
    def execute(self, order: ExecOrder) -> Ended:
        if self.broken:
            raise ApplicationError("the command broke", type=self.broken, non_retryable=True)
        with self.store.write() as session:
            end_exec(session, session.get_one(Job, order.job_id), {"exit_code": 0, "duration_ms": 1, "limit": None})
        return Ended(order.job_id, "succeeded")


@dataclass
class Host:
    """Memory in place of folders, with the same fence. Its gates hold a step until the test opens it.

    `place_free`: kinds of rollouts that the gate of placing does not hold. `turn` is the broker's part of a rollout
    that is taken up at once; `breaks` is how often one breaks off after it was placed. `ready`: the point of no return
    is passed before it is placed. `deaf`: a cancel finds it in the middle of what fails.
    """

    host_id: str = "local"
    deaf: bool = False
    live: int = 0
    fenced: int = 0
    before: dict[str, int] = field(default_factory=dict)
    stumbles: int = 0
    leaders: list[str] = field(default_factory=list)
    history: list[int] = field(default_factory=list)
    placing: list[str] = field(default_factory=list)
    switching: list[str] = field(default_factory=list)
    place_gate: asyncio.Event | None = None
    place_free: tuple[str, ...] = ()
    running: list[str] = field(default_factory=list)
    run_gate: asyncio.Event | None = None
    mends: Callable[[Mend], str] | None = None
    switch_gate: asyncio.Event | None = None
    baking: list[str] = field(default_factory=list)
    bake_gate: asyncio.Event | None = None
    bad: str = ""
    routed: list[str] = field(default_factory=list)
    certified: list[str] = field(default_factory=list)
    no_certificate: bool = False
    refuse: str | None = None
    refuse_switch: str | None = None
    commit: Callable[[str], object] = str
    turn: Callable[[str], RollOrder | None] = lambda _: None
    asked: list[str] = field(default_factory=list)
    breaks: int = 0
    ready: bool = False

    @activity.defn(name="host.take")
    @mapped
    async def take(self, ref: JobRef) -> Taken:
        self.asked.append(ref.job_id)
        order = self.turn(ref.job_id)
        if order is None:
            return Taken()
        if self.breaks:
            self.breaks -= 1
            await self._prepare(order)
            raise ApplicationError("the network went away", type="roll.place_failed")
        return Taken(order.rollout_id, await self.roll(order))

    @activity.defn(name="host.roll")
    @mapped
    async def roll(self, order: RollOrder) -> Live:
        if self.ready:
            self.commit(order.rollout_id)
        await self._prepare(order)
        self.commit(order.rollout_id)
        switching = asyncio.create_task(self._switch(Switch(order.rollout_id, order.env_id, order.apply_seq)))
        while not switching.done() and not activity.is_worker_shutdown():  # past the gate a host sees no cancel
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(switching)
        if not switching.done():
            switching.cancel()
        return await switching

    @activity.defn(name="host.prepare")
    async def prepare(self, order: RollOrder) -> Placed:
        return await self._prepare(order)

    async def _prepare(self, order: RollOrder) -> Placed:
        self.placing.append(order.rollout_id)
        self.leaders.append(order.leader)
        while self.place_gate is not None and order.kind not in self.place_free and not self.place_gate.is_set():
            activity.heartbeat()
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                if not self.deaf:
                    raise
                raise ApplicationError("the network went away", type="roll.place_failed") from None
        if self.refuse:
            raise ApplicationError("refused", type=self.refuse, non_retryable=True)
        return Placed(self.host_id, order.apply_seq, "d")

    @activity.defn(name="host.switch")
    async def switch(self, order: Switch) -> Live:
        return await self._switch(order)

    async def _switch(self, order: Switch) -> Live:
        self.switching.append(order.rollout_id)
        if self.switch_gate is not None:
            await self.switch_gate.wait()
        if self.stumbles:
            self.stumbles -= 1
            raise ApplicationError("the lock is held", type="roll.timeout")
        if self.refuse_switch:
            raise ApplicationError("refused", type=self.refuse_switch, non_retryable=True)
        if order.seq < self.fenced or (order.seq == self.fenced and self.live != order.seq):
            raise ApplicationError("stale", type="roll.stale", non_retryable=True)
        previous, self.live, self.fenced = self.live, order.seq, order.seq
        self.before.setdefault(order.rollout_id, previous)
        if previous != order.seq:
            self.history.append(order.seq)
        return Live(self.host_id, order.env_id, self.live, previous)

    @activity.defn(name="host.undo")
    async def undo(self, order: Switch) -> Live:
        if order.seq < self.fenced:
            raise ApplicationError("stale", type="roll.stale", non_retryable=True)
        before = self.before.get(order.rollout_id, self.live) if order.back_to is None else order.back_to
        self.fenced, self.live = order.seq, before
        self.history.append(self.live)
        return Live(self.host_id, order.env_id, self.live)

    @activity.defn(name="host.bake")
    async def bake(self, order: Bake) -> Measured:
        self.baking.append(order.rollout_id)
        while self.bake_gate is not None and not self.bake_gate.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        return Measured(self.host_id, order.seconds, looks=3, bad=3 if self.bad else 0, why=self.bad)

    @activity.defn(name="host.run")
    async def run_command(self, order: CommandOrder) -> CommandEnded:
        if self.refuse:
            raise ApplicationError("refused", type=self.refuse, non_retryable=True)
        self.running.append(order.job_id)
        while self.run_gate is not None and not self.run_gate.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        return CommandEnded(order.job_id, 3, 10)

    @activity.defn(name="host.live")
    async def tell(self, ref: EnvironmentRef) -> Live:
        return Live(self.host_id, ref.env_id, self.live)

    @activity.defn(name="host.fence")
    async def fence(self, order: Switch) -> Live:
        self.fenced = max(self.fenced, order.seq)
        return Live(self.host_id, order.env_id, self.live)

    @activity.defn(name="host.route")
    async def route(self, ref: EnvironmentRef) -> Live:
        self.routed.append(ref.env_id)
        return Live(self.host_id, ref.env_id, self.live)

    @activity.defn(name="host.mend")
    async def mend(self, mend: Mend) -> MendTried:
        why = self.mends(mend) if self.mends is not None else "it has none of it"
        return MendTried(mend.finding_id, self.host_id, why)

    @activity.defn(name="host.certify")
    async def certify(self, order: DomainOrder) -> Certified:
        if self.no_certificate:
            raise ApplicationError("the authority refuses", type="internal.error")
        self.certified.append(order.hostname)
        return Certified(order.job_id, order.domain_id, issued=True)

    @activity.defn(name="host.retire")
    async def retire(self, ref: EnvironmentRef) -> Live:
        self.live = 0
        return Live(self.host_id, ref.env_id, 0)
