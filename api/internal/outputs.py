"""A build's output: nothing of it is believed that can be looked at."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlmodel import Session

from adapters.artifact.layout import MAX_BYTES as MAX_LAYOUT
from adapters.artifact.layout import Layout, Location, make_layout, parse_layout
from adapters.artifact.manifest import MAX_BYTES, Manifest, parse_manifest
from adapters.ledger.keyring import read_keyring
from adapters.sbom.document import MAX_BYTES as MAX_SBOM
from adapters.sbom.document import parse_sbom
from api.ahead import Board
from api.internal.builds import HEX
from api.internal.parcels import parcel_of
from api.parts import Objects
from headway.broker import Accepted, NewPack, Output
from headway.errors import HeadwayError
from store.artifacts import object_key, pack_key, runs_of
from store.bills import bill_key, record_bill
from store.broker import (
    BATCH,
    Held,
    built_for,
    earlier_artifact,
    held_contents,
    packs_of,
    record_output,
    record_pack,
    require_attempt,
)
from store.collection import are_packs_there, lock_for_use, require_not_doomed
from store.ledger import KEYRING, SIGSTORE, document
from store.models import Artifact
from store.session import Store

Contents = list[tuple[str, int, int]]


class Outputs:
    def __init__(self, store: Store, objects: Objects, board: Board) -> None:
        self.store = store
        self.objects = objects
        self._board = board

    def accept(self, build_id: str, body: Output) -> Accepted:
        """Re-hash the manifest, find every content, write the layout, record. Idempotent.

        Raises upload.failed for what is not in the object store, request.invalid_parameter for what does not add up,
        and attempt.stale.
        """
        if body.earlier and (found := self.store.in_write(lambda session: self._again(session, build_id, body))):
            return Accepted(manifest_sha256=body.manifest_sha256, artifact_id=found)
        with self.store.read() as session:
            build = require_attempt(session, build_id, body.attempt)
            site_id = build.site_id
            require_not_doomed(session, site_id, object_key(site_id, body.manifest_sha256, "manifest"))
        manifest, new = self._manifest(site_id, body)
        self._record_pack(build_id, body, self._new_pack(site_id, manifest, body.pack))
        with self.store.read() as session:
            held = held_contents(session, site_id, manifest.contents)
        layout, new_layout = self._layout(site_id, manifest, held)
        facts = self._facts(body, manifest.run.as_dict() if manifest.run else None)
        components = self._components(site_id, body)

        def record(session: Session) -> list[str]:
            build = require_attempt(session, build_id, body.attempt, lock=True)
            record_output(session, build, facts, layout.packs)
            if not are_packs_there(session, site_id, layout.packs):
                raise HeadwayError("upload.failed", "A pack has been collected meanwhile.")
            if body.sbom is not None:
                record_bill(session, build, manifest.digest, body.sbom, components)
            return built_for(session, build_id)

        hosts = self.store.in_write(record)
        # Found there, and collected before the record: the next try uploads them anew.
        for part, fresh in (("manifest", new), ("layout", new_layout)):
            if not fresh and self.objects.head(object_key(site_id, manifest.digest, part)) is None:
                raise HeadwayError("upload.failed", f"The {part} has been collected meanwhile.")
        self._board.post(hosts, lambda: parcel_of(self.objects, site_id, manifest.digest, layout.packs))
        return Accepted(manifest_sha256=body.manifest_sha256)

    def _again(self, session: Session, build_id: str, body: Output) -> str | None:
        """The earlier build's artifact, which was looked at when it was made and whose signature counts.

        None where that is not so (any more): then the output is looked at, and signed, as any other.
        """
        build = require_attempt(session, build_id, body.attempt, lock=True)
        lock_for_use(session, build.site_id)
        artifact = earlier_artifact(session, build, str(body.cache.get("inputs")))
        if artifact is None or (artifact.digest, artifact.kind) != (body.manifest_sha256, body.kind):
            return None
        if not counts(session, artifact):
            return None
        facts = self._facts(body, runs_of(session, [artifact])[artifact.id])
        record_output(session, build, facts, packs_of(session, artifact))
        artifact.marked_at, build.artifact_id = None, artifact.id
        return artifact.id

    def _components(self, site_id: str, body: Output) -> int:
        """How many components the bill lists; it is there, whole, and a bill."""
        if body.sbom is None:
            return 0
        if not HEX.fullmatch(body.sbom):
            raise _odd("A bill of materials is named by its sha256.", "sbom")
        try:
            raw = self.objects.get(bill_key(site_id, body.manifest_sha256, body.sbom), MAX_SBOM)
        except HeadwayError as error:
            if error.code == "artifact.collected":
                raise HeadwayError("upload.failed", "The bill of materials has not been uploaded.") from error
            raise
        if hashlib.sha256(raw).hexdigest() != body.sbom:
            raise HeadwayError("upload.failed", "The bill of materials is not what its name says.")
        return len(parse_sbom(raw)["components"])

    def _record_pack(self, build_id: str, body: Output, new: dict[str, Location]) -> None:
        """Some contents at a time, so that no writer waits long. The layout is made of what these rows say."""
        if body.pack is None:
            return
        pack = (body.pack.sha256, body.pack.size)
        contents = [(sha, at.offset, at.size) for sha, at in new.items()]
        for start in range(0, len(contents) or 1, BATCH):
            some = contents[start : start + BATCH]

            def note(session: Session, some: Contents = some) -> None:
                record_pack(session, require_attempt(session, build_id, body.attempt), pack, some)

            self.store.in_write(note)

    def _manifest(self, site_id: str, body: Output) -> tuple[Manifest, bool]:
        """Also whether it was written here and now: what stood there before is read, and hashed, as it stands."""
        if not HEX.fullmatch(body.manifest_sha256):
            raise _odd("A manifest is named by its sha256.", "manifest_sha256")
        key = object_key(site_id, body.manifest_sha256, "manifest")
        if body.manifest is not None:
            raw = body.manifest.encode()
            manifest = self._parsed(raw, body)
            if self.objects.put_new(key, raw, body.manifest_sha256):
                return manifest, True
        try:
            return self._parsed(self.objects.get(key, MAX_BYTES), body), False
        except HeadwayError as error:
            if error.code == "artifact.collected":
                raise HeadwayError("upload.failed", "The manifest has not been uploaded.") from error
            raise

    def _parsed(self, raw: bytes, body: Output) -> Manifest:
        manifest = parse_manifest(raw, digest=body.manifest_sha256)
        if manifest.kind != body.kind:
            raise _odd("The manifest is of another kind.", "kind")
        return manifest

    def _new_pack(self, site_id: str, manifest: Manifest, pack: NewPack | None) -> dict[str, Location]:
        """What the new pack holds: contents of this manifest, side by side, within an object of that size."""
        if pack is None:
            return {}
        if not HEX.fullmatch(pack.sha256) or self.objects.head(pack_key(site_id, pack.sha256)) != pack.size:
            raise HeadwayError("upload.failed", "The pack has not been uploaded.")
        found: dict[str, Location] = {}
        for entry in pack.entries:
            known = manifest.contents.get(entry.sha256)
            if known != entry.size or entry.offset < 0 or entry.offset + entry.size > pack.size:
                raise _odd(f"The pack's entry {entry.sha256[:12]}… is not of this manifest.", "pack.entries")
            found[entry.sha256] = Location(pack.sha256, entry.offset, entry.size)
        return found

    def _layout(self, site_id: str, manifest: Manifest, held: dict[str, Held]) -> tuple[Layout, bool]:
        """Written once; one that is there names packs with rows, because rows come first. Also whether it is new.

        But of a build that failed no artifact kept the packs: where they were collected since, it is written anew.
        """
        located = {sha: Location(at.pack, at.offset, at.size) for sha, at in held.items()}
        missing = [sha for sha, size in manifest.contents.items() if sha not in located or located[sha].size != size]
        if missing:
            raise HeadwayError("upload.failed", f"{len(missing)} contents were never uploaded.")
        layout = make_layout(manifest.contents, located)
        key, sha256 = object_key(site_id, manifest.digest, "layout"), hashlib.sha256(layout.raw).hexdigest()
        if self.objects.put_new(key, layout.raw, sha256):
            return layout, True
        known = self.objects.stat(key)
        there = parse_layout(self.objects.get(key, MAX_LAYOUT))
        with self.store.read() as session:
            if are_packs_there(session, site_id, there.packs):
                return there, False
        if known is None or not self.objects.replace_that(key, layout.raw, sha256, known[1]):
            raise HeadwayError("upload.failed", "The layout is another by now.")
        return layout, True

    def _facts(self, body: Output, run: dict[str, Any] | None) -> dict[str, Any]:
        """What the row keeps; how the app runs (`run`) is taken from the manifest, which is what is signed."""
        return {
            "commit_sha": body.commit_sha[:64],
            "source_sha256": body.source_sha256,
            "profile": body.profile[:40],
            "plan": {**body.plan, "run": run},
            "cache": body.cache,
            "manifest_sha256": body.manifest_sha256,
            "uploaded_bytes": body.uploaded_bytes,
        }


def counts(session: Session, artifact: Artifact) -> bool:
    """Whether an artifact needs no new signature: its bundle is by a key of the keyring that was not revoked.

    Where Sigstore signs, or ever has, only the signing worker can tell.
    """
    keyring = document(session, KEYRING)
    if keyring is None or document(session, SIGSTORE) is not None or artifact.log_index is None:
        return False
    return any(key.hint == artifact.key_hint and key.state != "revoked" for key in read_keyring(keyring.body).keys)


def _odd(message: str, param: str) -> HeadwayError:
    return HeadwayError("request.invalid_parameter", message, param=param)
