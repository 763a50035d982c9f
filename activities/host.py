"""What a serving machine does for a workflow: role `host/<id>`. Idempotent by environment and number."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Protocol

from temporalio import activity

from activities.beating import beating
from activities.early import Early
from activities.telling import Teller
from adapters.artifact.manifest import Manifest
from adapters.events import timestamp
from adapters.hosting.admission import needs_proof
from adapters.hosting.ahead import Ahead
from adapters.hosting.baking import Bakery
from adapters.hosting.configuration import Configuration
from adapters.hosting.fetch import Missing
from adapters.hosting.host import Host
from adapters.hosting.naming import Naming
from adapters.hosting.services import Plan, Reuse, Services, Story
from adapters.hosting.switch import Position
from adapters.hosting.upkeep import Upkeep
from adapters.router.handshake import Handshake
from headway.broker import Committed, Event, Events, Heard, Hostnames, Ready, RollSpec
from headway.broker import Turn as BrokerTurn
from headway.errors import HeadwayError
from temporal.failures import bounded_tries, mapped
from temporal.messages import (
    Bake,
    Certified,
    DomainOrder,
    EnvironmentRef,
    JobRef,
    Live,
    Measured,
    Placed,
    RollOrder,
    Switch,
    Taken,
)

# A full disk is refused early: a rollout that waits for room would hold its environment's queue.
DISK_TRIES = 2
MISSING_TRIES = 4
AWAITED_SECONDS = 20.0
# For so long what follows a switch leaves the processor to its first visitors.
BREATH_SECONDS = 0.25
REUSE: dict[str, Reuse] = {"restart": "none", "scale": "grow"}
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def get_rollout(self, rollout_id: str, ready: Ready | None = None) -> RollSpec: ...

    def take(self, job_id: str, ready: Ready | None = None, *, early: bool = False) -> BrokerTurn: ...

    def get_hostnames(self, env_id: str) -> Hostnames: ...

    def commit(self, rollout_id: str) -> Committed: ...

    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard: ...


class HostActivities:
    """Synchronous activities for a thread pool. `close` waits for the tidying that goes on behind them."""

    def __init__(
        self,
        host_id: str,
        host: Host,
        broker: Broker,
        services: Services,
        configuration: Configuration,
        upkeep: Upkeep,
        bakery: Bakery | None = None,
        handshake: Handshake | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.host_id = host_id
        self._host = host
        self._broker = broker
        self.naming = Naming(host, broker)
        self._services = services
        self._configuration = configuration
        self._upkeep = upkeep
        self._bakery = bakery or Bakery(services)
        self._handshake = handshake or Handshake(0)
        self._ahead = ahead
        self._early = Early(self._take_early)
        if ahead is not None:
            ahead.go, ahead.warm = self._early.begin, services.warm
        self._tidying = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidy")
        self._untidy: set[tuple[str, tuple[str, ...]]] = set()
        self._past_placing: set[str] = set()

    def close(self) -> None:
        self._upkeep.close()
        self._tidying.shutdown(wait=True)

    @activity.defn(name="host.prepare", no_thread_cancel_exception=True)
    @mapped
    def prepare(self, order: RollOrder) -> Placed:
        with beating(lambda: self._tell_placing(order)) as check, contextlib.ExitStack() as behind:
            return self._make_ready(order, self._spec_of(order, check), check, behind)

    @activity.defn(name="host.take", no_thread_cancel_exception=True)
    @mapped
    def take(self, ref: JobRef) -> Taken:
        began: list[RollOrder] = []

        def tell() -> None:
            for order in began:
                self._tell_placing(order)

        with beating(tell) as check, contextlib.ExitStack() as behind:
            ready = self._ready_for(ref.job_id)
            joined = self._early.join(ref.job_id, check)
            if joined.live is not None:
                return joined
            if _is_given_up():
                return Taken()
            try:
                spec = self._broker.take(ref.job_id, ready).spec
            except HeadwayError:
                return Taken()  # why, the run hears when it asks for its turn
            if spec is None:
                return Taken()
            began.append(_order_of(spec, self.host_id))
            live = self._carry_out(began[0], self._with_proof(spec, check), check, behind)
            return Taken(spec.rollout_id, live)

    def _take_early(self, job_id: str) -> Taken:
        """While the run's first steps are on their way: what lies ready, and needs nothing more than to be shown."""
        ready = self._ahead.ready(job_id) if self._ahead is not None else None
        spec = self._broker.take(job_id, ready, early=True).spec if ready is not None else None
        if self._ahead is None or spec is None or not spec.committed:
            return Taken()
        warm = self._ahead.warm_for(job_id)  # the broker may have taken its time
        self._lead(spec, spec.env_id, spec.apply_seq)
        manifest = self._host.place(spec, spec.apply_seq, _go_on, self._ahead.take(spec, _go_on))
        with contextlib.ExitStack() as behind:
            if manifest.kind == "dynamic":
                self._start(_order_of(spec, self.host_id), spec, manifest, _go_on, behind, judged=warm, early=True)
            return Taken(spec.rollout_id, self._switch(Switch(spec.rollout_id, spec.env_id, spec.apply_seq)))

    @activity.defn(name="host.roll", no_thread_cancel_exception=True)
    @mapped
    def roll(self, order: RollOrder) -> Live:
        with beating(lambda: self._tell_placing(order)) as check, contextlib.ExitStack() as behind:
            return self._carry_out(order, self._spec_of(order, check, self._ready_for(order.job_id)), check, behind)

    def _carry_out(
        self, order: RollOrder, spec: RollSpec | None, check: Callable[[], None], behind: contextlib.ExitStack
    ) -> Live:
        """Up to the switch, and that, where this host is the only one; the point of no return may be passed already."""
        self._make_ready(order, spec, check, behind)
        if spec is None or not spec.committed:
            check()
            self._broker.commit(order.rollout_id)
        return self._switch(Switch(order.rollout_id, order.env_id, order.apply_seq))

    @activity.defn(name="host.switch", no_thread_cancel_exception=True)
    @mapped
    def switch(self, order: Switch) -> Live:
        return self._switch(order)

    def _make_ready(
        self, order: RollOrder, spec: RollSpec | None, check: Callable[[], None], behind: contextlib.ExitStack
    ) -> Placed:
        """`behind` gets what can wait until the caller is done. A suspension has nothing to place."""
        if spec is None:
            self._lead(None, order.env_id, order.apply_seq)
            self._host.place_suspended(order.env_id, order.apply_seq)
            return Placed(self.host_id, order.apply_seq, "")
        self._lead(spec, order.env_id, order.apply_seq)
        # The order's own number: a run that was replaced must not place for its successor.
        with bounded_tries("roll.disk_floor", DISK_TRIES), _looked_for_again():
            if order.kind == "repair":
                self._host.repair(spec, check)
            examined = self._ahead.take(spec, check) if self._ahead is not None else None
            manifest = self._host.place(spec, order.apply_seq, check, examined)
        if manifest.kind == "dynamic":
            self._start(order, spec, manifest, check, behind)
        return Placed(self.host_id, order.apply_seq, manifest.digest)

    def _lead(self, spec: RollSpec | None, env_id: str, seq: int) -> None:
        """Let its names lead to an environment. Where it is new here, as all of its rows say."""
        if not self._host.knows(env_id):
            self.naming.route(env_id)
        elif spec is not None:
            self._host.lead(env_id, spec.hostnames, spec.lock, seq=seq)

    def _ready_for(self, job_id: str) -> Ready | None:
        """Another try takes the long way, step by step."""
        if self._ahead is None or activity.info().attempt > 1:
            return None
        return self._ahead.ready(job_id)

    def _spec_of(self, order: RollOrder, check: Callable[[], None], ready: Ready | None = None) -> RollSpec | None:
        if order.kind == "suspend":
            return None
        check()
        return self._with_proof(self._broker.get_rollout(order.rollout_id, ready), check)

    def _with_proof(self, spec: RollSpec, check: Callable[[], None]) -> RollSpec:
        """With the signed records that it is judged by: the signing worker enters them within a second."""
        deadline = time.monotonic() + AWAITED_SECONDS
        while spec.awaited and needs_proof(self._host.folders, spec):
            check()
            if time.monotonic() > deadline:
                message = "The policies' decision is not in the ledger yet: is the signing worker away?"
                raise HeadwayError("roll.place_failed", message)
            time.sleep(0.1)
            spec = self._broker.get_rollout(spec.rollout_id)
        return spec

    def _start(
        self,
        order: RollOrder,
        spec: RollSpec,
        manifest: Manifest,
        check: Callable[[], None],
        behind: contextlib.ExitStack,
        *,
        judged: Plan | None = None,
        early: bool = False,
    ) -> None:
        env_id, seq = order.env_id, order.apply_seq
        # The word that it is being placed comes when it has taken its time, and would be taken for what it is at.
        self._past_placing.add(order.rollout_id)
        behind.callback(self._past_placing.discard, order.rollout_id)
        teller = Teller(self._broker, order.job_id, f"{order.rollout_id}/{self.host_id}/{_try()}")

        def look() -> None:
            teller.flush()
            check()

        def configure() -> None:
            if early:
                raise HeadwayError("roll.start_failed", "Nothing is warm any more: its run starts it.")
            self._configuration.place(spec.rollout_id, self._host.environment(env_id).release(seq))
            # What a release needs done to the data goes with what is new; what was released before had it done then.
            if order.kind in ("deploy", "promote") and (order.leader or order.hosts[0]) == self.host_id:
                self._services.run_release_command(env_id, seq, manifest, story)

        story = Story(look, teller.line, teller.stage)
        hostname = spec.hostnames[0] if spec.hostnames else "localhost"
        # A warm way back has no time for words; whoever has started something says so before its switch.
        behind.callback(teller.flush, now=True)
        self._services.prepare(
            env_id,
            seq,
            manifest,
            spec.config_version,
            hostname,
            story,
            configure,
            web=spec.instances,
            reuse=REUSE.get(order.kind, "warm"),
            judged=judged,
            # A way back waits for nobody.
            owner="" if order.kind == "rollback" else spec.team,
        )
        if teller.staged:
            teller.flush(now=True)

    def _switch(self, order: Switch) -> Live:
        position = self._host.environment(order.env_id).switch(order.seq, order.rollout_id)
        self._tidy(self._host.tidy, order.env_id)
        self._tidy(self._upkeep.poke, order.env_id)
        return self._live(order.env_id, position)

    @activity.defn(name="host.undo", no_thread_cancel_exception=True)
    @mapped
    def undo(self, order: Switch) -> Live:
        position = self._host.environment(order.env_id).undo(order.seq, order.back_to, order.rollout_id)
        self._upkeep.poke(order.env_id)
        return self._live(order.env_id, position)

    @activity.defn(name="host.bake", no_thread_cancel_exception=True)
    @mapped
    def bake(self, order: Bake) -> Measured:
        source = f"{order.rollout_id}/{self.host_id}/bake/{activity.info().attempt}"
        teller = Teller(self._broker, order.job_id, source)
        hostname = "localhost"
        with contextlib.suppress(HeadwayError):
            hostname = next(iter(self._broker.get_hostnames(order.env_id).hostnames), hostname)
        release = self._host.environment(order.env_id).release(order.seq)
        with beating() as check, contextlib.ExitStack() as stack:
            stack.callback(teller.flush, now=True)

            def step() -> None:
                teller.flush()
                check()

            story = Story(step, teller.line, teller.stage)
            seen = self._bakery.watch(order.env_id, order.seq, release, order.seconds, hostname, story, order.team)
        counted = (seen.seconds, seen.looks, seen.bad, seen.restarts, round(seen.slowest * 1000))
        return Measured(self.host_id, *counted, seen.requests, seen.errors, seen.why)

    @activity.defn(name="host.live", no_thread_cancel_exception=True)
    @mapped
    def live(self, ref: EnvironmentRef) -> Live:
        return self._live(ref.env_id, self._host.environment(ref.env_id).live())

    @activity.defn(name="host.fence", no_thread_cancel_exception=True)
    @mapped
    def fence(self, order: Switch) -> Live:
        position = self._host.environment(order.env_id).fence(order.seq, order.rollout_id)
        return self._live(order.env_id, position)

    @activity.defn(name="host.route", no_thread_cancel_exception=True)
    @mapped
    def route(self, ref: EnvironmentRef) -> Live:
        self.naming.route(ref.env_id)
        return self._live(ref.env_id, self._host.environment(ref.env_id).live())

    @activity.defn(name="host.certify", no_thread_cancel_exception=True)
    @mapped
    def certify(self, order: DomainOrder) -> Certified:
        return Certified(order.job_id, order.domain_id, self._handshake.certified(order.hostname))

    @activity.defn(name="host.retire", no_thread_cancel_exception=True)
    @mapped
    def retire(self, ref: EnvironmentRef) -> Live:
        self._host.retire(ref.env_id)
        self._upkeep.poke(ref.env_id)
        self._tidy(self._host.collect)
        return Live(self.host_id, ref.env_id, 0)

    def _tell_placing(self, order: RollOrder) -> None:
        """Said only of a placing that takes its time: for the usual one a word would cost more than the work."""
        if order.rollout_id in self._past_placing:
            return
        placing = Event(kind="stage", ts=timestamp(), stage="place")
        source = f"{order.rollout_id}/{self.host_id}"
        with contextlib.suppress(HeadwayError):
            self._broker.append(order.job_id, Events(source=source, first=1, events=[placing]), patience=1.0)

    def _live(self, env_id: str, position: Position) -> Live:
        return Live(self.host_id, env_id, position.seq, position.previous)

    def _tidy(self, work: Callable[..., None], *args: str) -> None:
        """Behind the switch and its first visitors, never in their time. What is missed here the next switch does."""
        wanted = (work.__name__, args)
        if wanted in self._untidy:
            return  # it waits, and has not begun
        self._untidy.add(wanted)
        due = time.monotonic() + BREATH_SECONDS

        def tidy() -> None:
            time.sleep(max(0.0, due - time.monotonic()))
            self._untidy.discard(wanted)
            work(*args)

        self._tidying.submit(tidy).add_done_callback(_report)


def _go_on() -> None:
    """Past the point of no return nobody cancels."""


def _order_of(spec: RollSpec, host_id: str) -> RollOrder:
    """For the only host."""
    numbers = (spec.apply_seq, spec.undo_seq)
    return RollOrder(spec.job_id, spec.rollout_id, spec.kind, spec.env_id, (host_id,), *numbers)


def _is_given_up() -> bool:
    """Whether it has lain in a frozen process for longer than its heartbeat: its run goes on without it, or is over."""
    info = activity.info()
    return info.heartbeat_timeout is not None and datetime.now(UTC) - info.started_time > info.heartbeat_timeout


def _try() -> str:
    """Which try at a rollout this is: it may have been taken up before the first one that was ordered."""
    if not activity.in_activity():
        return "early"
    info = activity.info()
    return "taken" if info.activity_type == "host.take" else str(info.attempt)


def _report(done: Future[None]) -> None:
    error = done.exception()
    if error is not None:
        log.error("tidying failed", exc_info=error)


@contextlib.contextmanager
def _looked_for_again() -> Iterator[None]:
    """What is missing is looked for again before it is a verdict: the object store may have just started."""
    try:
        yield
    except Missing as error:
        if activity.info().attempt < MISSING_TRIES:
            raise HeadwayError("roll.place_failed", error.message) from error
        raise
