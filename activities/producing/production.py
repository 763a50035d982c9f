"""The story of one build on a builder: fetch → detect → build → pack → upload, told as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol, cast

import httpx

from activities.producing.bill import bill, locked
from activities.producing.build import BuildStep
from activities.producing.caching import Broker as CacheBroker
from activities.producing.caching import Exchange
from activities.producing.cutting import CutLog
from activities.producing.lines import LineSplitter, count
from activities.producing.listed import ListedTree
from activities.producing.output import open_output, present_outputs, read_output
from activities.producing.overrides import overridden, said_of
from activities.producing.unchanged import Asked, Memory, Seen, key_of
from activities.producing.upload import Broker as UploadBroker
from activities.producing.upload import Uploader
from activities.producing.watch import Watch
from adapters.artifact.folder import Folder
from adapters.artifact.manifest import Kind, Manifest
from adapters.artifact.tree import Bounds, Tree
from adapters.blobs import Blob, BlobTable
from adapters.events import EventBatcher, Stream
from adapters.plan.detect import detect
from adapters.plan.inputs import digest, inputs_digest
from adapters.plan.part import Tools
from adapters.plan.plan import Plan
from adapters.redaction import Redactor, telling
from adapters.source.access import Access
from adapters.source.address import parse_address
from adapters.source.git import Checkout, FetchSpec, GitSource, empty
from adapters.source.listing import NotListed
from adapters.source.snapshot import SOURCE_TIME, fetch_snapshot
from headway.broker import (
    Addresses,
    BuildSecrets,
    BuildSpec,
    Earlier,
    Fetched,
    Inputs,
    NewPack,
    Output,
    SnapshotSource,
    WantedPacks,
    WantedRepository,
    WantedSecrets,
)
from headway.errors import HeadwayError


@dataclass(frozen=True)
class Places:
    """Where repositories may lie: the hosted ones, the folders for file://, and hosts that may be private."""

    hosted: Path
    local_repos: tuple[Path, ...] = ()
    private_ok: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workbench:
    """What a builder has."""

    source: GitSource
    step: BuildStep
    http: httpx.Client
    places: Places
    blobs: BlobTable
    bounds: Bounds = field(default_factory=Bounds)
    tools: Tools | None = None
    memory: Memory = field(default_factory=Memory)


class Broker(UploadBroker, CacheBroker, Protocol):
    @property
    def elsewhere(self) -> bool: ...

    def save_repository(
        self, build_id: str, wanted: WantedRepository, file: IO[bytes], stopped: Callable[[], bool]
    ) -> None: ...

    def tell_fetched(self, build_id: str, fetched: Fetched) -> None: ...

    def earlier(self, build_id: str, inputs: Inputs) -> Earlier: ...

    def secrets(self, build_id: str, wanted: WantedSecrets) -> BuildSecrets: ...

    def packs(self, build_id: str, wanted: WantedPacks) -> Addresses: ...


class Production:
    """One attempt at one build; `run` once."""

    def __init__(self, bench: Workbench, broker: Broker, spec: BuildSpec, events: EventBatcher, watch: Watch) -> None:
        self._bench = bench
        self._broker = broker
        self._spec = spec
        self._events = events
        self._watch = watch
        self._redactor = Redactor()
        self._own: Path | None = None
        self._uploader = Uploader(broker, bench.http, spec.build_id, spec.attempt, watch.stopped)
        self._aside = ThreadPoolExecutor(1, thread_name_prefix=f"aside-{spec.build_id}")
        self._telling: Future[None] | None = None

    def run(self) -> Output:
        """What to hand in. Raises the typed failure of the stage that failed, or why the work was stopped."""
        try:
            with ExitStack() as stack:
                stack.enter_context(self._aside)
                return self._run(stack.enter_context(self._bench.step.runner.workspace()), stack)
        except HeadwayError as error:
            if error.code == "job.canceled":
                error = self._watch.reason()
            self._say(f"{error.code}: {error.message}")
            raise error from None

    def _run(self, workspace: Path, stack: ExitStack) -> Output:
        self._stage("fetch")
        self._own = self._own_repository(stack)
        known, seen = self._known(), self._seen()
        checkout = self._fetch(workspace, known, seen=seen)
        if seen is not None and checkout.same:
            unchanged = self._unchanged(seen)
            if unchanged is not None:
                return unchanged
            checkout = self._fetch(workspace, known, again=True)
        if checkout.listed:
            try:
                with self._bench.blobs.scratch() as held:
                    return self._as_listed(workspace, held, checkout, known)
            except NotListed as why:
                self._say(f"the whole tree is fetched: {why}")
                self._bench.blobs.forget(self._spec.site_id)
                empty(workspace)
                checkout = self._fetch(workspace, {}, again=True)
        with Folder(workspace) as folder:
            self._stage("detect")
            asked = Asked(self._bench.tools) if self._bench.tools is not None else None
            said = self._spec.overrides
            plan = overridden(detect(folder, self._spec.profile, asked, said_of(said)), said)
            for line in plan.summary():
                self._say(line)
            before = present_outputs(folder, plan)
            secrets = self._secrets(plan)
            named = locked(folder, plan)
            inputs = inputs_digest(folder, plan, _source(checkout, plan), secrets.versions)
        self._heard()
        if asked is not None and plan.steps and not plan.watch and inputs is not None:
            self._bench.memory.keep(key_of(self._spec), Seen(checkout, plan, asked.told))
        earlier = self._earlier(plan, inputs)
        if earlier.manifest_sha256 is not None:
            return self._taken(checkout, plan, inputs, earlier)
        self._stage("build")
        cache = {**self._build(plan, workspace, checkout, secrets.values), "inputs": inputs}
        with Folder(workspace) as folder, open_output(folder, plan, before) as output:
            self._stage("pack")
            entrypoint = self._spec.overrides.entrypoint if self._spec.overrides else None
            tree, manifest = read_output(output, plan, self._bench.bounds, self._watch.stopped, entrypoint)
            self._say_what(tree, manifest)
            if tree.blobs and not self._spec.clean:
                self._bench.blobs.save(self._spec.site_id, tree.blobs)
            pack = self._uploader.send_contents(output, tree, manifest)
            # A tree that is published as it is takes in nothing: it has no bill, and is quickly done.
            made_of = bill(folder, plan, checkout, self._spec.site_id, manifest.digest, named) if plan.steps else None
        text = self._uploader.hand_in(manifest, pack)
        sbom = self._uploader.send_bill(made_of, manifest) if made_of is not None else None
        self._say(f"uploaded {self._uploader.uploaded_bytes} bytes")
        return self._output(checkout, plan, cache, manifest.kind, manifest.digest, pack, text, sbom)

    def _say_what(self, tree: Tree, manifest: Manifest) -> None:
        self._say(f"{count(tree.files, 'file')}, {tree.size_bytes} bytes, sha256:{manifest.digest}")
        if manifest.kind == "static" and manifest.entrypoint is None:
            self._say("there is no index.html in it: / is answered with 404 ([build] output names what is published)")

    def _known(self) -> dict[str, Blob]:
        """What is known of the site's blobs: only of one whose tree was published as it is."""
        if self._spec.clean or self._spec.snapshot is not None:
            return {}
        return self._bench.blobs.load(self._spec.site_id)

    def _seen(self) -> Seen | None:
        """The commit that this builder has looked at last, if it is enough to see that it is the same."""
        if self._spec.clean or self._spec.snapshot is not None:
            return None
        return self._bench.memory.find(key_of(self._spec), self._bench.tools)

    def _unchanged(self, seen: Seen) -> Output | None:
        """What an earlier build has made of this commit; None where it is gone, or other secrets go in."""
        commit = seen.checkout.commit_sha
        inputs = digest(seen.plan, seen.checkout.source_sha256, self._secrets(seen.plan).versions)
        earlier = self._earlier(seen.plan, inputs, commit if commit != self._spec.ref else None)
        if earlier.manifest_sha256 is None:
            return None
        self._stage("detect")
        for line in seen.plan.summary():
            self._say(line)
        return self._taken(seen.checkout, seen.plan, inputs, earlier)

    def _taken(self, checkout: Checkout, plan: Plan, inputs: str | None, earlier: Earlier) -> Output:
        what = "nothing that is watched has changed" if plan.watch else "nothing has changed"
        self._say(f"{what} since {earlier.build_id}: its artifact is taken, sha256:{earlier.manifest_sha256}")
        cache = {"hit": True, "key": None, "inputs": inputs, "build_id": earlier.build_id}
        output = self._output(checkout, plan, cache, earlier.kind, earlier.manifest_sha256 or "", None)
        return output.model_copy(update={"earlier": True})

    def _as_listed(self, workspace: Path, held: Path, checkout: Checkout, known: dict[str, Blob]) -> Output:
        """The same story for a tree that is published as it is. Raises NotListed."""
        listed = ListedTree.read(workspace, held, known)
        plan = listed.plan(self._spec, self._bench.tools)
        entrypoint = self._spec.overrides.entrypoint if self._spec.overrides else None
        tree, manifest = listed.output(plan, self._bench.bounds, entrypoint)
        for stage in ("detect", "build", "pack"):
            self._stage(stage)
            for line in plan.summary() if stage == "detect" else ():
                self._say(line)
        self._say(f"{count(listed.fresh, 'new content')} read, the others are known by git's ids")
        self._say_what(tree, manifest)
        self._heard()
        missing = self._uploader.missing(manifest)
        with listed.complete(tree, missing, lambda ids: self._bring(workspace, ids)) as contents:
            pack = self._uploader.send_missing(contents, tree, missing)
        self._bench.blobs.save(self._spec.site_id, listed.table())
        text = self._uploader.hand_in(manifest, pack)
        self._say(f"uploaded {self._uploader.uploaded_bytes} bytes")
        cache = {"hit": False, "key": None, "inputs": listed.inputs(plan, checkout.listing_sha256)}
        return self._output(checkout, plan, cache, manifest.kind, manifest.digest, pack, text)

    def _secrets(self, plan: Plan) -> BuildSecrets:
        """What the plan lists; from now on neither that nor the build's variables are shown in a line."""
        given = BuildSecrets(values={}, versions={})
        if plan.secrets:
            wanted = WantedSecrets(attempt=self._spec.attempt, names=list(plan.secrets))
            given = self._broker.secrets(self._spec.build_id, wanted)
        self._redactor = Redactor({**telling(plan.env), **given.values})
        self._events.redact = self._redactor.hide_text
        return given

    def _earlier(self, plan: Plan, inputs: str | None, commit: str | None = None) -> Earlier:
        """What needs no build because an earlier one took in the same. A plan that runs nothing is as quickly done."""
        if self._spec.clean or inputs is None or not plan.steps:
            return Earlier()
        taken = Inputs(attempt=self._spec.attempt, inputs=inputs, commit_sha=commit)
        return self._broker.earlier(self._spec.build_id, taken)

    def _fetch(
        self, workspace: Path, known: Mapping[str, Blob], *, seen: Seen | None = None, again: bool = False
    ) -> Checkout:
        if self._spec.snapshot is not None:
            return self._thaw(self._spec.snapshot, workspace)
        fetch = replace(self._fetch_spec(), unless=seen.checkout.commit_sha if seen is not None else "")
        checkout = self._bench.source.fetch(fetch, workspace, self._watch.stopped, known)
        if seen is not None and checkout.same:
            checkout = replace(seen.checkout, same=True)
        elif checkout.commit_sha != self._spec.ref:
            fetched = Fetched(attempt=self._spec.attempt, commit_sha=checkout.commit_sha)
            self._telling = self._aside.submit(self._broker.tell_fetched, self._spec.build_id, fetched)
        ref = self._spec.ref or self._spec.default_branch
        what = f"commit {ref}" if ref == checkout.commit_sha else f"{ref} is {checkout.commit_sha}"
        if not again:
            self._say(f"{what} of {fetch.remote.shown}")
        for note in checkout.notes:
            self._say(f"note: {note}")
        return checkout

    def _heard(self) -> None:
        """The broker knows which commit is built. Raises what it answered to that."""
        if self._telling is not None:
            self._telling.result()

    def _bring(self, workspace: Path, blobs: list[str]) -> None:
        try:
            self._bench.source.bring(self._fetch_spec(), workspace, blobs, self._watch.stopped)
        except HeadwayError as error:
            if error.code != "repository.unreachable":
                raise
            raise NotListed("the mirror does not give a content") from error

    def _own_repository(self, stack: ExitStack) -> Path | None:
        """The site's own repository lies beside the API. On another machine it comes as a file, for this attempt."""
        spec = self._spec
        if spec.snapshot is not None or not spec.repository.startswith("hosted:") or not self._broker.elsewhere:
            return None
        file = stack.enter_context(self._bench.source.bundle())
        wanted = WantedRepository(attempt=spec.attempt)
        self._broker.save_repository(spec.build_id, wanted, file, self._watch.stopped)
        file.flush()
        return Path(file.name)

    def _fetch_spec(self) -> FetchSpec:
        places = self._bench.places
        remote = parse_address(
            self._spec.repository,
            hosted=places.hosted,
            local_repos=places.local_repos,
            private_ok=places.private_ok,
        )
        if self._own is not None:
            remote = replace(remote, folder=self._own)
        given = self._spec.access
        access = Access(given.username, given.token, tuple(given.keys)) if given is not None else None
        return FetchSpec(self._spec.site_id, remote, self._spec.ref, self._spec.default_branch, access)

    def _thaw(self, source: SnapshotSource, workspace: Path) -> Checkout:
        """A snapshot is its own commit: the digest names it."""

        def addresses(packs: Sequence[str]) -> Mapping[str, str]:
            wanted = WantedPacks(attempt=self._spec.attempt, packs=list(packs))
            return self._broker.packs(self._spec.build_id, wanted).packs

        frozen = fetch_snapshot(self._bench.http, source.sha256, source.url, addresses, workspace, self._watch.stopped)
        size = f"{count(frozen.files, 'file')}, {frozen.size_bytes} bytes"
        self._say(f"{self._spec.ref}: snapshot sha256:{frozen.sha256}, {size}")
        return Checkout(frozen.sha256, frozen.sha256, SOURCE_TIME, frozen.files, frozen.size_bytes)

    def _build(self, plan: Plan, workspace: Path, checkout: Checkout, secrets: Mapping[str, str]) -> dict[str, Any]:
        events = self._events
        lines = LineSplitter(
            lambda stream, line: events.log(cast(Stream, stream), line), lambda: events.flooded, events.drop
        )

        # Hidden before it is cut into lines: what stands across a cut would be shown in two halves.
        streams = {name: self._redactor.stream() for name in ("stdout", "stderr", "system")}

        def heard(stream: str, chunk: bytes) -> None:
            lines.feed(stream, streams[stream].feed(chunk))

        def flush() -> None:
            for name, stream in streams.items():
                lines.feed(name, stream.flush())
            lines.flush()

        def told(command: str) -> None:
            flush()
            self._say(f"$ {command}")

        def say(line: str) -> None:
            flush()
            self._say(line)

        def said_at_cut(line: str) -> None:
            # What is held back could be half a secret, whose other half is cut away.
            streams.update({name: self._redactor.stream() for name in streams})
            say(line)

        cut = CutLog(self._bench.step.rules.log, heard, said_at_cut)
        exchange = Exchange(self._broker, self._bench.http, self._uploader, self._spec, self._watch.stopped, say)
        try:
            return self._bench.step.run(
                self._spec,
                plan,
                workspace,
                checkout.commit_time,
                cut.feed,
                self._watch.stopped,
                told,
                secrets,
                exchange,
            )
        finally:
            cut.end()
            flush()

    def _output(
        self,
        checkout: Checkout,
        plan: Plan,
        cache: dict[str, Any],
        kind: Kind,
        digest: str,
        pack: NewPack | None,
        manifest: str | None = None,
        sbom: str | None = None,
    ) -> Output:
        return Output(
            attempt=self._spec.attempt,
            commit_sha=checkout.commit_sha,
            source_sha256=_source(checkout, plan),
            profile=plan.profile,
            kind=kind,
            plan=plan.as_dict(),
            cache=cache,
            manifest_sha256=digest,
            pack=pack,
            uploaded_bytes=self._uploader.uploaded_bytes,
            manifest=manifest,
            sbom=sbom,
        )

    def _stage(self, name: str) -> None:
        self._watch.check()
        self._events.stage(name)

    def _say(self, line: str) -> None:
        self._events.log("system", line)


def _source(checkout: Checkout, plan: Plan) -> str:
    """The digest of what was taken in: git's list, where files are published as they are (the manifest has theirs)."""
    return checkout.source_sha256 if plan.steps or not checkout.listing_sha256 else checkout.listing_sha256
