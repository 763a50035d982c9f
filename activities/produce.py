"""The builder's one activity: from a claimed build to an uploaded manifest. It has neither database nor keys."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.beginning import begun
from activities.execute import Executor, Shell
from activities.looking import Looker
from activities.producing.build import BuildRules, BuildStep
from activities.producing.cutting import KEPT
from activities.producing.production import Places, Production, Workbench
from activities.producing.watch import Watch
from adapters.blobs import BlobTable
from adapters.broker import BrokerClient
from adapters.cache import BuildCache
from adapters.egress import EgressPolicy, PackageIndexes, Rule, package_indexes
from adapters.egress.policy import INDEXES, normal
from adapters.events import EventBatcher
from adapters.plan.toolchain import Toolchain, lay_out
from adapters.sandbox import Limits, Sandbox
from adapters.source.address import Remote
from adapters.source.git import GitSource
from headway.broker import Begin
from headway.errors import HeadwayError
from temporal.failures import as_application_error, bounded_tries, mapped
from temporal.messages import BuildOrder, BuildOutput

# A mistyped address is told within seconds; a builder that is killed, in contrast, is replaced more often than that.
REMOTE_TRIES: Final = 3
# Seconds after which the package indexes are asked for, if no build has wanted them by then.
ASKED_AFTER: Final = 15.0


class Producer:
    """Synchronous, for a thread pool with one thread per slot of the sandbox."""

    def __init__(self, broker: BrokerClient, bench: Workbench, worker: str) -> None:
        self._broker = broker
        self._bench = bench
        self._worker = worker

    def close(self) -> None:
        self._bench.http.close()

    def executor(self) -> Executor:
        """Commands in sandboxes, with the slots, limits and network of builds."""
        step = self._bench.step
        return Executor(self._broker, Shell(step.runner, step.rules, step.indexes, self._bench.http), self._worker)

    def looker(self) -> Looker:
        """Looks at remotes as builds fetch from them."""
        return Looker(self._broker, self._bench.source, self._bench.places)

    @activity.defn(name="build.produce", no_thread_cancel_exception=True)
    @mapped
    def produce(self, order: BuildOrder) -> BuildOutput:
        """Fetch, detect, build, pack and upload; beats; stops within 2 s of a cancel."""
        with Watch() as watch, begun(self._broker, order.build_id):
            begin = Begin(attempt=activity.info().attempt, worker=self._worker)
            spec = self._broker.begin(order.build_id, begin)
            # The broker reads the attempt out of it: what a stale one says is refused.
            source = f"{spec.build_id}/{spec.attempt}"
            with _overtaken(), EventBatcher(self._broker, spec.job_id, source) as events:
                watch.listen(events)
                with bounded_tries("repository.unreachable", REMOTE_TRIES):
                    output = Production(self._bench, self._broker, spec, events, watch).run()
                last = events.rest()
                watch.check()
                accepted = self._broker.finish(order.build_id, output.model_copy(update={"last": last}))
        return BuildOutput(
            order.build_id,
            accepted.manifest_sha256,
            output.commit_sha,
            output.uploaded_bytes,
            accepted.artifact_id or "",
        )


@contextmanager
def _overtaken() -> Iterator[None]:
    """An attempt that has begun and is stale is tried again: what a frozen worker begins late must not end the build.

    Temporal listens to the newest attempt only, so that no other one's end counts; a build that has ended refuses to
    begin, which is final.
    """
    try:
        yield
    except HeadwayError as error:
        if error.code != "attempt.stale":
            raise
        failure = as_application_error(error)
        raise ApplicationError(failure.message, *failure.details, type=error.code) from error


def make_producer(
    *,
    data_dir: Path,
    broker: BrokerClient,
    slots: int,
    limits: Limits,
    local_repos: tuple[Path, ...] = (),
    egress_allow: tuple[str, ...] = (),
    private_ok: tuple[str, ...] = (),
    allow_unsandboxed: bool = False,
    log: int = KEPT,
) -> Producer:
    """A builder whose folders lie in `data_dir`/builder: work (slots), git (mirrors), cache."""
    home = data_dir / "builder"
    sandbox = Sandbox(state=home / "work", slots=slots, allow_unsandboxed=allow_unsandboxed)
    private_hosts = frozenset(normal(one) for one in private_ok if one != INDEXES)

    def policy(remote: Remote) -> EgressPolicy:
        return EgressPolicy((Rule(remote.host or "", remote.port or 443),), private_hosts)

    asking = threading.Lock()

    def indexes() -> PackageIndexes:
        with asking:
            return package_indexes()

    # Asking npm and pip takes a second or two of a processor: before the first build that needs an index, as a rule,
    # and not while the rest of the platform is still starting.
    early = threading.Timer(ASKED_AFTER, indexes)
    early.daemon = True
    early.start()
    given = lay_out(home / "tools")
    rules = BuildRules(limits, egress_allow, private_ok, log)
    source = GitSource(sandbox, home / "git", policy)
    source.tidy()
    bench = Workbench(
        source=source,
        step=BuildStep(sandbox, rules, BuildCache(home / "cache"), indexes, home / "work", given.folder),
        http=httpx.Client(timeout=httpx.Timeout(120, connect=5), trust_env=False),
        blobs=BlobTable(home / "blobs"),
        places=Places(data_dir / "repos", local_repos, tuple(private_hosts)),
        tools=Toolchain(extra=given.programs),
    )
    return Producer(broker, bench, f"{socket.gethostname()}:{os.getpid()}")
