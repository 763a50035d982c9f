"""What one object of the object store should be, by the rows and by its own name, and whether it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from sqlmodel import Session

from adapters.artifact.layout import MAX_BYTES as MAX_LAYOUT
from adapters.artifact.layout import Layout, Location, make_layout, parse_layout
from adapters.artifact.manifest import MAX_BYTES as MAX_MANIFEST
from adapters.artifact.manifest import Manifest, parse_manifest
from adapters.ledger import tree
from adapters.ledger.bundles import bundle_of
from adapters.ledger.entry import Entry, Logged, entry_of, item
from adapters.ledger.note import Checkpoint
from adapters.ledger.root import TrustedLog, parse_root
from headway.errors import HeadwayError
from store import ledger as rows
from store.artifacts import object_key, pack_key
from store.broker import Held, held_contents, packs_of
from store.models import Artifact
from store.session import Store

MAX_BUNDLE: Final = 1 << 20
_CHUNK: Final = 8 << 20


class Objects(Protocol):
    """What a scrub asks of the object store."""

    def stat(self, key: str) -> tuple[int, str] | None: ...

    def get(self, key: str, max_bytes: int) -> bytes: ...

    def get_range(self, key: str, offset: int, size: int) -> bytes: ...

    def put_new(self, key: str, body: bytes, sha256: str) -> bool: ...

    def replace_that(self, key: str, body: bytes, sha256: str, etag: str) -> bool: ...


@dataclass(frozen=True)
class Damage:
    """`object` of that name is missing, or changed: then `etag` is that of what is there."""

    object: str
    name: str
    kind: str
    etag: str | None
    size: int


class Examiner:
    """Reads, and changes nothing. Raises service.unavailable where the object store does not answer."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    def pack(self, site_id: str, sha256: str, size: int) -> Damage | None:
        key = pack_key(site_id, sha256)
        found = self._objects.stat(key)
        if found is None:
            return Damage("pack", sha256, "missing", None, size)
        digest, at = hashlib.sha256(), 0
        while at < found[0]:
            step = min(_CHUNK, found[0] - at)
            digest.update(self._objects.get_range(key, at, step))
            at += step
        return None if digest.hexdigest() == sha256 else Damage("pack", sha256, "changed", found[1], size)

    def documents(self, artifact: Artifact) -> Iterable[Damage]:
        """Manifest, layout and bundle. Without its manifest a layout cannot be judged."""
        manifest: Manifest | None = None

        def right_manifest(raw: bytes) -> bool:
            nonlocal manifest
            manifest = parse_manifest(raw, digest=artifact.digest)
            return True

        checks: tuple[tuple[str, int, Callable[[bytes], bool]], ...] = (
            ("manifest", MAX_MANIFEST, right_manifest),
            ("layout", MAX_LAYOUT, lambda raw: manifest is None or self._fits(artifact, manifest, parse_layout(raw))),
            ("bundle", MAX_BUNDLE, lambda raw: self._is_entered(artifact, raw)),
        )
        for name, limit, is_right in checks:
            if (damage := self.document(artifact, name, limit, is_right)) is not None:
                yield damage

    def document(self, artifact: Artifact, name: str, limit: int, is_right: Callable[[bytes], bool]) -> Damage | None:
        key = object_key(artifact.site_id, artifact.digest, name)
        found = self._objects.stat(key)
        if found is None:
            return Damage(name, artifact.digest, "missing", None, 0)
        try:
            if found[0] <= limit and is_right(self._objects.get(key, limit)):
                return None
        except HeadwayError as error:
            if error.retryable or error.code == "service.unavailable":
                raise
        return Damage(name, artifact.digest, "changed", found[1], found[0])

    def manifest(self, artifact: Artifact) -> Manifest:
        """Raises what `parse_manifest` does, and artifact.collected."""
        raw = self._objects.get(object_key(artifact.site_id, artifact.digest, "manifest"), MAX_MANIFEST)
        return parse_manifest(raw, digest=artifact.digest)

    def layout(self, artifact: Artifact) -> bytes:
        """Made anew from the rows. Raises mend.impossible where they do not know every content's place."""
        manifest = self.manifest(artifact)
        with self._store.read() as session:
            known = held_contents(session, artifact.site_id, manifest.contents)
            named = set(packs_of(session, artifact))
        if missing := sorted(set(manifest.contents) - set(known)):
            raise HeadwayError("mend.impossible", f"No row knows where the content {missing[0]} lies.")
        if elsewhere := {one.pack for one in known.values()} - named:
            message = f"Rows know its contents in the pack {min(elsewhere)} by now, which is not the artifact's."
            raise HeadwayError("mend.impossible", message)
        return make_layout(manifest.contents, {sha: _location(held) for sha, held in known.items()}).raw

    def bundle(self, artifact: Artifact) -> bytes:
        """Made anew from the ledger's entry. Raises mend.impossible where the artifact has none of its own."""
        with self._store.read() as session:
            entry, given = self._entered(session, artifact)
        return bundle_of(entry, given)

    def _fits(self, artifact: Artifact, manifest: Manifest, layout: Layout) -> bool:
        with self._store.read() as session:
            known = held_contents(session, artifact.site_id, layout.contents)
            named = set(packs_of(session, artifact))
        if {sha: at.size for sha, at in layout.contents.items()} != dict(manifest.contents):
            return False
        return all(at.pack in named and self._is_there(artifact, sha, at, known) for sha, at in layout.contents.items())

    def _is_there(self, artifact: Artifact, sha256: str, at: Location, known: dict[str, Held]) -> bool:
        """Rows know one place of a content; of another, as before a repack, the bytes themselves tell."""
        held = known.get(sha256)
        if held is not None and held.pack == at.pack:
            return held.offset == at.offset
        raw = self._objects.get_range(pack_key(artifact.site_id, at.pack), at.offset, at.size)
        return hashlib.sha256(raw).hexdigest() == sha256

    def _is_entered(self, artifact: Artifact, raw: bytes) -> bool:
        """Whether a bundle is what the ledger has taken in. One that is older than the ledger is not judged."""
        if artifact.log_index is None:
            return True
        with self._store.read() as session:
            root, row = rows.document(session, "trusted_root"), rows.entry(session, artifact.log_index)
        if root is None:
            return True
        entry = entry_of(row.body, row.envelope)
        if _is_keyless(entry):
            return _has_envelope(raw, entry)
        try:
            document = json.loads(raw)
            [given] = document["verificationMaterial"]["tlogEntries"]
            _trusted(root.body).check([given], entry)
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return bool(json.loads(bundle_of(entry, given)) == document)

    def _entered(self, session: Session, artifact: Artifact) -> tuple[Entry, dict[str, object]]:
        root = rows.document(session, "trusted_root")
        if artifact.log_index is None or root is None:
            raise HeadwayError("mend.impossible", "The artifact has no entry in the ledger.")
        row, head = rows.entry(session, artifact.log_index), rows.open_head(session)
        if _is_keyless(entry_of(row.body, row.envelope)):
            raise HeadwayError("mend.impossible", "The ledger has no copy of what Sigstore's own log has said.")
        proof = tree.inclusion_proof(lambda wanted: rows.nodes(session, wanted), row.index, head.size)
        logged = Logged(row.index, row.at, row.body, row.promise)
        entry = entry_of(row.body, row.envelope)
        given = item(logged, _trusted(root.body).log, head.note, Checkpoint(head.size, head.root), proof)
        # What rows say is proven like anybody's word before it is written where hosts believe it.
        _trusted(root.body).check([given], entry)
        return entry, given


def _is_keyless(entry: Entry) -> bool:
    return entry.public_pem.startswith(b"-----BEGIN CERTIFICATE")


def _has_envelope(raw: bytes, entry: Entry) -> bool:
    """Of a keyless bundle: statement and signature are those that our ledger took in; hosts check the rest."""
    try:
        document = json.loads(raw)
        return bool(document["dsseEnvelope"] == json.loads(entry.envelope()))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _trusted(raw: bytes) -> TrustedLog:
    return parse_root(raw)


def _location(held: Held) -> Location:
    return Location(held.pack, held.offset, held.size)
