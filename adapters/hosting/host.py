"""One serving machine: place artifacts, switch releases, lead host names to environments, clean up.

Knows neither Temporal nor the broker: what it needs comes as values and callables.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.artifact.layout import MAX_BYTES as MAX_LAYOUT
from adapters.artifact.layout import parse_layout
from adapters.artifact.manifest import MAX_BYTES as MAX_MANIFEST
from adapters.artifact.manifest import Manifest, parse_manifest
from adapters.hosting.disk import check_floor, free_bytes
from adapters.hosting.durable import write_file
from adapters.hosting.fetch import Downloads, Missing, fetch_contents
from adapters.hosting.layout import HostFolders
from adapters.hosting.releases import (
    empty_tmp,
    place_release,
    place_suspended,
    prune_releases,
    remove_environment,
    used_digests,
)
from adapters.hosting.repair import repair_tree
from adapters.hosting.store import Content, ContentStore, write_failure
from adapters.hosting.switch import ReleaseSwitch
from adapters.hosting.trees import ReleaseTrees
from adapters.router.routes import add_route, has_lock, put_lock, redirects, set_routes
from headway.broker import Parcel, RollSpec
from headway.errors import HeadwayError

MAX_BUNDLE = 4 << 20
# A content may wait this long for the tree that it was fetched for.
GRACE_SECONDS = 3600.0
# Made ready at once, beside what goes back: more would wait for the same disk and the same connections.
PLACES, LOOK_SECONDS = 32, 0.5

Verify = Callable[[bytes, str, str], object]
log = logging.getLogger("headway.host")


@dataclass(frozen=True)
class Limits:
    """`keep` artifacts per environment; `floor` bytes that stay free on the disk."""

    keep: int = 5
    floor: int = 512 << 20


@dataclass(frozen=True)
class Examined:
    """An artifact whose signature has been verified; `verified` is what that gave."""

    verified: Any
    manifest: Manifest


class Host:
    """`verify(bundle, digest, site_id)` raises artifact.signature_invalid; it is asked before every roll.

    `learn` is given the platform's signed keyring first; `admit` what was verified, and raises policy.refused.
    """

    def __init__(
        self,
        folders: HostFolders,
        verify: Verify,
        downloads: Downloads,
        limits: Limits,
        *,
        learn: Callable[[str], None] = lambda _: None,
        admit: Callable[[RollSpec, Any], None] = lambda *_: None,
    ) -> None:
        folders.prepare()
        self.folders = folders
        self.store = ContentStore(folders.store, folders.tmp)
        self.trees = ReleaseTrees(folders, self.store)
        self._verify = verify
        self._learn = learn
        self._admit = admit
        self._downloads = downloads
        self._limits = limits
        self._places = threading.BoundedSemaphore(PLACES)

    def environment(self, env_id: str) -> ReleaseSwitch:
        return ReleaseSwitch(self.folders.environment(env_id))

    def place(self, spec: RollSpec, seq: int, check: Callable[[], None], examined: Examined | None = None) -> Manifest:
        """Verify, fetch what is missing, make the tree and the release `seq`. Idempotent.

        `check` is called between the steps and raises to stop; nothing of the release is to be seen before the last.
        `examined`: what `examine` has found of this very artifact a moment ago.
        """
        with self._place_for(spec, check):
            found = examined or self.examine(spec)
            self._admit(spec, found.verified)
            manifest = found.manifest
            check()
            try:
                self._make(spec, seq, manifest, check)
            except OSError as error:
                raise write_failure(error) from error
            return manifest

    @contextlib.contextmanager
    def _place_for(self, spec: RollSpec, check: Callable[[], None]) -> Iterator[None]:
        if spec.kind == "rollback":
            yield
            return
        while not self._places.acquire(timeout=LOOK_SECONDS):
            check()
        try:
            yield
        finally:
            self._places.release()

    def examine(self, parcel: Parcel) -> Examined:
        """Whether its signature counts, and what it is made of. Raises artifact.signature_invalid."""
        bundle = self._bundle(parcel)
        self._learn(parcel.keyring)
        verified = self._verify(bundle, parcel.digest, parcel.site_id)
        return Examined(verified, self._manifest(parcel))

    def prepare(self, parcel: Parcel, most: int, manifest: Manifest | None = None) -> None:
        """Make an artifact's tree, to which nothing leads, if no more than `most` bytes of it are missing.

        Nothing makes way for it: where the disk has no room for them, they are left to the rollout.
        """
        if self.trees.exists(parcel.digest):
            return
        manifest = manifest or self._manifest(parcel)
        missing = self.trees.missing(manifest)
        needed = sum(content.size for content in missing)
        if needed > most or free_bytes(self.folders.root) - needed < self._limits.floor:
            return
        self._fetch(parcel, missing, lambda: None)
        with self.trees.in_use(), contextlib.suppress(FileNotFoundError):
            self.trees.make(manifest)

    def place_suspended(self, env_id: str, seq: int) -> None:
        """Make the release `seq` ready that says that the environment is suspended. Idempotent."""
        try:
            place_suspended(self.folders, env_id, seq)
        except OSError as error:
            raise write_failure(error) from error

    def knows(self, env_id: str) -> bool:
        """Whether the environment is, or was, on this host."""
        return self.folders.environment(env_id).is_dir()

    def lead(self, env_id: str, hostnames: Iterable[str], lock: str = "", *, seq: int = 0) -> None:
        """Let these host names lead to the environment, which may be new here; with `lock`, behind a password.

        A lock that is here already stays as it is, and so does a name that redirects: `route` changes them. `seq`: for
        which release; raises roll.stale where a later step was applied, as the names may be somebody else's by now.
        """
        if seq and self.environment(env_id).last_step().seq > seq:
            raise HeadwayError("roll.stale", f"A later rollout was applied: the names of release {seq} come too late.")
        self.folders.environment(env_id).mkdir(exist_ok=True)
        if lock and not has_lock(self.folders.routes, env_id):
            put_lock(self.folders.routes, env_id, lock)
        for name in hostnames:
            if not redirects(self.folders.routes, name, env_id):
                add_route(self.folders.routes, name, env_id)

    def route(
        self, env_id: str, hostnames: Iterable[str], redirects: Mapping[str, str] | None = None, lock: str = ""
    ) -> None:
        """Let exactly these host names lead to the environment; those of `redirects` to another origin instead."""
        self.folders.environment(env_id).mkdir(exist_ok=True)
        set_routes(self.folders.routes, env_id, hostnames, redirects, lock)

    def retire(self, env_id: str) -> None:
        """Take the environment away: names first, so that nobody is led to half of it."""
        set_routes(self.folders.routes, env_id, ())
        self.environment(env_id).retire()
        remove_environment(self.folders, env_id)

    def leave(self, env_id: str) -> None:
        """The environment is on other hosts now, or gone. Its volumes stay: of one that is deleted they go later."""
        set_routes(self.folders.routes, env_id, ())
        self.environment(env_id).leave()
        remove_environment(self.folders, env_id)

    def tidy(self, env_id: str) -> None:
        """Forget old releases of an environment, then what no release of any environment uses any more."""
        if prune_releases(self.folders, env_id, self._limits.keep):
            self.collect()
        empty_tmp(self.folders, GRACE_SECONDS)

    def collect(self, grace: float = GRACE_SECONDS) -> None:
        """Remove trees that no release leads to, and contents that have been in no tree for `grace` seconds."""
        with self.trees.exclusive() as free:
            gone = self.trees.collect(used_digests(self.folders)) if free else []
        empty_tmp(self.folders, GRACE_SECONDS)
        if gone or grace == 0:
            self.store.collect(grace)

    def repair(self, spec: RollSpec, check: Callable[[], None]) -> list[str]:
        """Put a release tree right, fetching again what the store lost. The paths that were wrong.

        A tree that is not there at all is made by `place`.
        """
        manifest = self._manifest(spec)
        self._fetch(spec, self.trees.missing(manifest), check)
        folder = self.trees.folder(spec.digest)
        if not folder.exists():
            return []
        if self.trees.manifest(spec.digest) != manifest.raw:
            write_file(folder / "manifest.json", manifest.raw)
        return repair_tree(folder / "root", manifest, self.store)

    def _make(self, spec: RollSpec, seq: int, manifest: Manifest, check: Callable[[], None]) -> None:
        for _ in range(3):
            if not self.trees.exists(spec.digest):
                self._fetch(spec, self.trees.missing(manifest), check)
            check()
            with self.trees.in_use():
                try:
                    self.trees.make(manifest)
                except FileNotFoundError:
                    continue  # a content was collected between fetch and link
                place_release(self.folders, spec.env_id, seq, manifest)
                return
        raise HeadwayError("roll.place_failed", "The host's store loses contents as fast as they are fetched.")

    def _bundle(self, spec: Parcel) -> bytes:
        try:
            return self._downloads.read(spec.bundle_url, MAX_BUNDLE)
        except Missing:
            raise Missing("artifact.signature_invalid", "The artifact has no signature.") from None

    def _manifest(self, spec: Parcel) -> Manifest:
        """Kept from an earlier roll or fetched; either way its digest is taken anew."""
        kept = self.trees.manifest(spec.digest)
        if kept is not None:
            try:
                return parse_manifest(kept, digest=spec.digest)
            except HeadwayError:
                log.warning("the kept manifest of %s is damaged: fetching it again", spec.digest)
        return parse_manifest(self._downloads.read(spec.manifest_url, MAX_MANIFEST), digest=spec.digest)

    def _fetch(self, spec: Parcel, missing: list[Content], check: Callable[[], None]) -> None:
        if not missing:
            return
        self._make_room(sum(content.size for content in missing))
        layout = parse_layout(self._downloads.read(spec.layout_url, MAX_LAYOUT))
        fetch_contents(self.store, missing, layout, spec.packs, self._downloads, check)

    def _make_room(self, needed: int) -> None:
        try:
            check_floor(self.folders.root, needed, self._limits.floor)
        except HeadwayError:
            self.collect(grace=0)
            check_floor(self.folders.root, needed, self._limits.floor)
