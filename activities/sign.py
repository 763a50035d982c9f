"""The signing worker's one effect: a finished build becomes a signed artifact with a row.

The signer signs no bytes that it is handed. It reads the build's row and the manifest that the row names, writes the
statement itself, and keeps bundle and row by natural keys, so that running it twice changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select
from temporalio import activity
from ulid import ULID

from activities.beating import beating
from activities.ledger import About, Ledger
from adapters.artifact.manifest import MAX_BYTES, Manifest, parse_manifest
from adapters.ledger.keyring import KeyRecord
from adapters.sbom.document import MAX_BYTES as MAX_SBOM
from adapters.signer.bundle import MAX_BUNDLE, Policy, Verified, attest, check, hint_of
from adapters.signer.keyless import Keyless, is_keyless
from adapters.signer.keys import Keyring, SigningKey
from adapters.signer.statement import BUILDER_ID, BuildFacts, statement
from headway.errors import HeadwayError
from store.bills import bill_key, bill_of_build
from store.jobs import note_progress
from store.models import Artifact, Build, Site, utcnow
from store.session import Store
from temporal.failures import mapped
from temporal.messages import BuildOrder, Signed

log = logging.getLogger("headway.signing")


class Keys(Protocol):
    """The signing keys: a folder of them, or one."""

    def current(self) -> SigningKey: ...

    def ring(self) -> Keyring: ...

    def at_hand(self) -> list[SigningKey]: ...

    def records(self) -> tuple[KeyRecord, ...]: ...


class Objects(Protocol):
    """What the signer asks of the object store. Keys are relative to the bucket."""

    def get(self, key: str, max_bytes: int) -> bytes: ...

    def put_new(self, key: str, body: bytes, sha256: str) -> bool:
        """False where the object was there already."""

    def replace(self, key: str, body: bytes, sha256: str) -> None: ...

    def delete(self, keys: Iterable[str]) -> None: ...


@dataclass(frozen=True)
class Kept:
    """The bundle that stands in the object store, and whether this call put it there."""

    key_hint: str
    fresh: bool
    log_index: int | None


class Signer:
    """Activity `build.sign`. The current key signs; existing bundles are judged by all of them.

    `announce` publishes the keyring: nothing is signed with a key that no host could hear of. With `keyless`
    artifacts are signed by Sigstore alone, and their bundles of before are void.
    """

    def __init__(
        self,
        store: Store,
        objects: Objects,
        keys: Keys,
        *,
        builder_id: str = BUILDER_ID,
        ledger: Ledger | None = None,
        announce: Callable[[], None] = lambda: None,
        keyless: Keyless | None = None,
    ) -> None:
        self._store = store
        self._objects = objects
        self._keys = keys
        self._builder_id = builder_id
        self._ledger = ledger
        self._announce = announce
        self._keyless = keyless

    @activity.defn(name="build.sign", no_thread_cancel_exception=True)
    @mapped
    def sign(self, order: BuildOrder) -> Signed:
        """Raises sign.failed (retryable), artifact.signature_invalid, attempt.stale, build.not_found."""
        with beating():
            return self._sign(order)

    def _sign(self, order: BuildOrder) -> Signed:
        build, site, known = self._read(order)
        digest = build.manifest_sha256
        if digest is None or build.commit_sha is None or build.source_sha256 is None:
            raise HeadwayError("sign.failed", f"Build {build.id} has no manifest yet.")
        if build.artifact_id is not None:
            return Signed(build.id, build.artifact_id, digest)
        if build.finished_at is not None:
            raise HeadwayError("attempt.stale", f"Build {build.id} has ended: {build.status}.")
        manifest = self._manifest(build.site_id, digest)
        kept = self._keep_bundle(self._facts(build, site, digest, self._bill(build, digest)), known)
        artifact_id = self._store.in_write(lambda session: _record(session, order, manifest, kept))
        return Signed(build.id, artifact_id, digest)

    def _read(self, order: BuildOrder) -> tuple[Build, Site, bool]:
        with self._store.read() as session:
            build = session.get(Build, order.build_id)
            site = session.get(Site, build.site_id) if build is not None else None
            if build is None or site is None or build.site_id != order.site_id:
                raise HeadwayError("build.not_found", f"There is no build {order.build_id}.")
            known = _find(session, build.site_id, build.manifest_sha256 or "")
            if known is not None and known.log_index is None and self._ledger is not None:
                raise HeadwayError("sign.failed", f"Artifact {known.id} is older than the ledger, and enters it now.")
            return build, site, known is not None

    def _manifest(self, site_id: str, digest: str) -> Manifest:
        raw = self._objects.get(f"sites/{site_id}/artifacts/{digest}/manifest.json", MAX_BYTES)
        try:
            return parse_manifest(raw, digest=digest)
        except HeadwayError as error:
            raise HeadwayError("artifact.signature_invalid", f"Not signed: {error.message}") from error

    def _bill(self, build: Build, digest: str) -> str | None:
        """The sha256 of the build's bill of materials, which is read and hashed here again."""
        with self._store.read() as session:
            found = bill_of_build(session, build.id)
        if found is None or found.digest != digest:
            return None
        raw = self._objects.get(bill_key(build.site_id, digest, found.sha256), MAX_SBOM)
        if hashlib.sha256(raw).hexdigest() != found.sha256:
            raise HeadwayError("artifact.signature_invalid", "Not signed: the bill of materials is not what was built.")
        return found.sha256

    def _facts(self, build: Build, site: Site, digest: str, bill: str | None) -> BuildFacts:
        return BuildFacts(
            site_id=build.site_id,
            env_id=build.env_id,
            build_id=build.id,
            digest=digest,
            repository=source_of(build, site),
            ref=build.ref,
            commit_sha=build.commit_sha or "",
            source_sha256=build.source_sha256 or "",
            plan=build.plan or {},
            parameters={"clean": build.clean, "profile": build.profile or site.profile},
            started_at=build.started_at,
            finished_at=build.finished_at,
            builder_id=self._builder_id,
            bill=bill,
        )

    def _keep_bundle(self, facts: BuildFacts, known: bool) -> Kept:
        """One bundle per artifact: the first that verifies stays, whichever build made it."""
        name = bundle_key(facts.site_id, facts.digest)
        standing = self._standing(name, facts.site_id, facts.digest, known) if known or not _is_first_try() else None
        if standing is not None:
            return Kept(standing.key_hint, fresh=False, log_index=self._entered(standing))
        self._announce()
        bundle = self._attest(facts)
        made = self._check(bundle, facts.site_id, facts.digest)
        if self._objects.put_new(name, bundle, hashlib.sha256(bundle).hexdigest()):
            return Kept(made.key_hint, fresh=True, log_index=self._entered(made))
        standing = self._standing(name, facts.site_id, facts.digest, known)
        if standing is None:
            raise HeadwayError("sign.failed", "Another signer works on this artifact.")
        return Kept(standing.key_hint, fresh=False, log_index=self._entered(standing))

    def _attest(self, facts: BuildFacts) -> bytes:
        if self._keyless is not None:
            return self._keyless.attest(statement(facts))
        about = About(f"build:{facts.build_id}", "build", facts.site_id)
        entering = self._ledger.about(about) if self._ledger else None
        return attest(statement(facts), self._keys.current(), ledger=entering)

    def _entered(self, made: Verified) -> int | None:
        """The index in our ledger. A keyless bundle proves Sigstore's; ours takes it in once the bundle is kept."""
        if self._keyless is None or self._ledger is None:
            return made.log_index
        site_id = made.statement["predicate"]["buildDefinition"]["externalParameters"]["site"]
        _, item = self._ledger.append(made.entry, About(f"build:{made.build_id}", "build", site_id))
        return int(item["logIndex"])

    def _standing(self, name: str, site_id: str, digest: str, known: bool) -> Verified | None:
        """The bundle that is there already and verifies; a bad one is removed unless an artifact owns it."""
        try:
            bundle = self._objects.get(name, MAX_BUNDLE)
        except HeadwayError as error:
            if error.code == "artifact.collected":
                return None
            raise
        try:
            return self._check(bundle, site_id, digest)
        except HeadwayError as error:
            void = self._keys.ring().is_revoked(hint_of(bundle)) or is_keyless(bundle) != (self._keyless is not None)
            if (known and not void) or error.retryable:
                raise
            why = "whose key was revoked, or that is of another mode" if void else "that no artifact owns"
            log.warning("replacing a bundle %s: %s (%s)", why, name, error.message)
            self._objects.delete([name])
            return None

    def _check(self, bundle: bytes, site_id: str, digest: str) -> Verified:
        policy = Policy(site_id, builder_ids=frozenset({self._builder_id}))
        if self._keyless is not None:
            return self._keyless.trusted.check(bundle, digest, policy)
        return check(bundle, digest, self._keys.ring(), policy, ledger=self._ledger)


def _is_first_try() -> bool:
    """Of an artifact that nobody knows, a bundle is there only if something went wrong before: putting one shows it."""
    return activity.in_activity() and activity.info().attempt == 1


def bundle_key(site_id: str, digest: str) -> str:
    return f"sites/{site_id}/artifacts/{digest}/bundle.json"


def source_of(build: Build, site: Site) -> str:
    """Where the source came from: the site's repository, or a frozen sandbox, which its digest names."""
    if build.source is not None:
        return f"snapshot:{build.source.get('sandbox_id')}"
    return site.repository or f"hosted:{site.id}"


def artifact_id(site_id: str, digest: str, made_at: datetime) -> str:
    """`art_` and a ULID: its time is that of the first build, the rest follows from site and digest.

    A retry mints the same one; two artifacts of one millisecond do not collide.
    """
    milliseconds = int(made_at.replace(tzinfo=UTC).timestamp() * 1000)
    seed = hashlib.sha256(f"{site_id}\n{digest}".encode()).digest()
    return f"art_{ULID.from_bytes(milliseconds.to_bytes(6, 'big') + seed[:10])}"


def _find(session: Session, site_id: str, digest: str) -> Artifact | None:
    wanted = select(Artifact).where(Artifact.site_id == site_id, Artifact.digest == digest)
    return session.exec(wanted).one_or_none()


def _record(session: Session, order: BuildOrder, manifest: Manifest, kept: Kept) -> str:
    """The artifact's row, made or found, and the build's pointer to it, in the caller's transaction."""
    note_progress(session, order.job_id, "sign", None)
    build = session.get(Build, order.build_id, with_for_update=True, populate_existing=True)
    if build is None or build.manifest_sha256 != manifest.digest or build.finished_at is not None:
        raise HeadwayError("attempt.stale", f"Build {order.build_id} has changed since its manifest was read.")
    artifact = _find(session, build.site_id, manifest.digest)
    if artifact is None:
        artifact = _insert(session, build, manifest, kept)
    artifact.collected_at = artifact.marked_at = None
    artifact.log_index = kept.log_index
    if kept.fresh:
        artifact.key_hint, artifact.signed_at = kept.key_hint, utcnow()
        # The build that the signed statement names.
        artifact.build_id, artifact.commit_sha, artifact.ref = build.id, build.commit_sha or "", build.ref
    session.add(artifact)
    build.artifact_id = artifact.id
    session.add(build)
    return artifact.id


def _insert(session: Session, build: Build, manifest: Manifest, kept: Kept) -> Artifact:
    artifact = Artifact(
        id=artifact_id(build.site_id, manifest.digest, build.created_at),
        site_id=build.site_id,
        digest=manifest.digest,
        kind=manifest.kind,
        profile=build.profile or manifest.kind,
        size_bytes=manifest.size_bytes,
        files=len(manifest.entries),
        build_id=build.id,
        commit_sha=build.commit_sha or "",
        ref=build.ref,
        key_hint=kept.key_hint,
        log_index=kept.log_index,
        signed_at=utcnow(),
    )
    try:
        with session.begin_nested():
            session.add(artifact)
    except IntegrityError:
        standing = _find(session, build.site_id, manifest.digest)
        if standing is None:
            raise
        return standing
    return artifact
