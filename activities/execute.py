"""The builder's other activity: a command in a copy of a sandbox's tree, inside the isolation of builds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import httpx
from temporalio import activity

from activities.beginning import begun
from activities.producing.build import BuildRules
from activities.producing.lines import LineSplitter
from activities.producing.watch import Watch
from adapters.artifact.folder import Folder
from adapters.artifact.manifest import File, Link
from adapters.artifact.pack import Pack, make_pack
from adapters.artifact.tree import Bounds, Tree, scan
from adapters.broker import BrokerClient
from adapters.egress import EgressPolicy, PackageIndexes
from adapters.events import EventBatcher, Stream
from adapters.sandbox.command import Command, Mount, Outcome
from adapters.source.runner import Runner
from adapters.source.snapshot import fetch_snapshot
from headway.broker import Begin, ExecFile, ExecOutput, ExecSpec, UploadRequest, WantedPacks
from headway.errors import HeadwayError
from temporal.failures import mapped
from temporal.messages import Ended, ExecOrder

KEPT: Final = 1 << 20
MAX_LOG: Final = 64 << 20
BOUNDS: Final = Bounds(files=20_000, total_bytes=1 << 30)


@dataclass
class Heard:
    """The first mebibyte of each stream, for the answer; every line goes to the job's events."""

    lines: LineSplitter
    streams: dict[str, bytearray] = field(default_factory=dict)

    def feed(self, stream: str, chunk: bytes) -> None:
        kept = self.streams.setdefault(stream, bytearray())
        kept += chunk[: max(0, KEPT - len(kept))]
        self.lines.feed(stream, chunk)

    def text(self, stream: str) -> str:
        return bytes(self.streams.get(stream, b"")).decode("utf-8", "replace")


@dataclass(frozen=True)
class Shell:
    """What commands run with: the runner and rules of builds, and the package indexes that are asked for late."""

    runner: Runner
    rules: BuildRules
    indexes: Callable[[], PackageIndexes]
    http: httpx.Client


def _in_folder(spec: ExecSpec) -> list[str]:
    """A tree has no empty folders, so the one to work in may have to be made: inside, where no link leads out."""
    if not spec.cwd:
        return ["sh", "-c", spec.command]
    enter = 'mkdir -p -- "$1" && cd -- "$1" && exec sh -c "$2"'
    return ["sh", "-c", enter, "sh", f"./{spec.cwd}", spec.command]


class Executor:
    """Synchronous, in the thread pool of the builder's slots."""

    def __init__(self, broker: BrokerClient, shell: Shell, worker: str) -> None:
        self._broker, self._shell, self._worker = broker, shell, worker

    @activity.defn(name="sandbox.execute", no_thread_cancel_exception=True)
    @mapped
    def execute(self, order: ExecOrder) -> Ended:
        """Raises what fetching, the sandbox and the broker raise; a command that fails is a result."""
        with Watch() as watch, begun(self._broker, order.job_id):
            spec = self._broker.begin_exec(order.job_id, Begin(attempt=activity.info().attempt, worker=self._worker))
            with self._shell.runner.workspace() as workspace:
                with EventBatcher(self._broker, spec.job_id, f"{spec.job_id}/{spec.attempt}") as events:
                    watch.listen(events)
                    before, heard, outcome, took = self._run(spec, workspace, events, watch)
                watch.check()
                output = self._output(spec, workspace, before, heard, outcome, took)
                self._broker.finish_exec(order.job_id, output)
        return Ended(order.job_id, "succeeded")

    def _run(
        self, spec: ExecSpec, workspace: Path, events: EventBatcher, watch: Watch
    ) -> tuple[Tree, Heard, Outcome, float]:
        source = spec.snapshot

        def addresses(packs: Sequence[str]) -> Mapping[str, str]:
            wanted = WantedPacks(attempt=spec.attempt, packs=list(packs))
            return self._broker.packs_exec(spec.job_id, wanted).packs

        fetch_snapshot(self._shell.http, source.sha256, source.url, addresses, workspace, watch.stopped)
        with Folder(workspace) as folder:
            before = scan(folder, BOUNDS, left_out=frozenset())
        heard = Heard(LineSplitter(lambda stream, line: events.log(cast(Stream, stream), line)))
        began = time.monotonic()
        outcome = self._shell.runner.run(self._command(spec, workspace), heard.feed, watch.stopped)
        took = time.monotonic() - began
        heard.lines.flush()
        if outcome.canceled:
            raise watch.reason()
        return before, heard, outcome, took

    def _command(self, spec: ExecSpec, workspace: Path) -> Command:
        rules = self._shell.rules
        indexes = self._shell.indexes()
        return Command(
            argv=_in_folder(spec),
            workspace=workspace,
            env={**indexes.env, **spec.env},
            mounts=tuple(Mount(folder, str(folder)) for folder in indexes.folders),
            limits=replace(rules.limits, wall=min(rules.limits.wall, spec.timeout), log=min(rules.limits.log, MAX_LOG)),
            egress=EgressPolicy.of(rules.egress_allow, private_ok=rules.private_ok, indexes=indexes.hosts),
        )

    def _output(
        self, spec: ExecSpec, workspace: Path, before: Tree, heard: Heard, outcome: Outcome, took: float
    ) -> ExecOutput:
        with Folder(workspace) as folder:
            after = scan(folder, BOUNDS, left_out=frozenset())
            old = set(before.entries)
            fresh = [entry for entry in after.entries if entry not in old]
            files = [entry for entry in fresh if isinstance(entry, File)]
            pack = make_pack(folder, after, {entry.sha256 for entry in files})
            if pack is not None:
                self._send(spec, pack)
        gone = {entry.path for entry in before.entries} - {entry.path for entry in after.entries}
        offsets = {sha: at.offset for sha, at in pack.locations.items()} if pack else {}
        return ExecOutput(
            attempt=spec.attempt,
            exit_code=outcome.exit_code,
            duration_ms=int(took * 1000),
            limit=outcome.limit,
            stdout=heard.text("stdout"),
            stderr=heard.text("stderr"),
            pack=pack.sha256 if pack else None,
            pack_size=pack.size if pack else 0,
            files=[
                ExecFile(path=one.path, mode=one.mode, size=one.size, sha256=one.sha256, offset=offsets[one.sha256])
                for one in files
            ],
            links=[(entry.path, entry.target) for entry in fresh if isinstance(entry, Link)],
            removed=sorted(gone),
        )

    def _send(self, spec: ExecSpec, pack: Pack) -> None:
        """Raises upload.failed, which is tried again with the whole command."""
        request = UploadRequest(attempt=spec.attempt, kind="pack", sha256=pack.sha256, size=pack.size)
        upload = self._broker.upload_exec(spec.job_id, request)
        if upload.url is None:
            return
        fields = {**upload.headers, "content-length": str(pack.size)}
        try:
            answer = self._shell.http.put(upload.url, content=pack.chunks(), headers=fields)
        except httpx.TransportError as error:
            message = f"The connection to the object store was lost: {type(error).__name__}."
            raise HeadwayError("upload.failed", message) from error
        if not answer.is_success and answer.status_code != 412:
            raise HeadwayError("upload.failed", f"The object store answered {answer.status_code} to an upload.")
