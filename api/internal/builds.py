"""Builders: what to build, which contents are missing, where to upload."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Final, Literal

from sqlmodel import Session

from adapters.artifact.layout import Location, plan_reuse
from adapters.config.vault import Vault
from adapters.sbom.document import MAX_BYTES as MAX_SBOM
from api.internal.access import access_of
from api.internal.snapshots import addresses, source_of
from api.parts import Objects
from headway.broker import (
    Addresses,
    Begin,
    BuildOverrides,
    BuildSecrets,
    BuildSpec,
    Contents,
    Earlier,
    Fetched,
    Inputs,
    Missing,
    RepositoryAccess,
    Upload,
    UploadRequest,
    WantedPacks,
    WantedSecrets,
    Wire,
)
from headway.errors import HeadwayError
from store.artifacts import object_key, pack_key
from store.bills import bill_key
from store.broker import (
    begin_attempt,
    earlier_artifact,
    held_contents,
    lease_packs,
    lease_upload,
    note_commit,
    packs_of,
    require_attempt,
)
from store.build_secrets import secrets_of
from store.caches import leaves_cache
from store.collection import require_not_doomed
from store.config_values import open_value
from store.leases import Holder, take
from store.models import Artifact, Build, Site, utcnow
from store.session import Store
from store.turns import outdated

MAX_CONTENTS: Final = 100_000
MAX_PACK: Final = 16 << 30
SMALL: Final = 1 << 20
LEASE: Final = timedelta(hours=12)
UPLOAD_SECONDS: Final = 3600
HEX: Final = re.compile(r"[0-9a-f]{64}")


class Builds:
    def __init__(self, store: Store, objects: Objects, vault: Vault) -> None:
        self.store = store
        self.objects = objects
        self.vault = vault

    def begin(self, build_id: str, _body: Begin, holder: Holder) -> BuildSpec:
        """Raises attempt.held where another process is at it, job.superseded where nobody wants it any more."""
        begun = self.store.in_write(lambda session: self._begin(session, build_id, holder))
        if begun is None:
            raise HeadwayError("job.superseded", "A newer push of this branch has taken its place.")
        build, site, access, leaves = begun
        taken = build.snapshot_sha256
        overrides = BuildOverrides(**build.overrides) if build.overrides is not None else None
        return BuildSpec(
            build_id=build.id,
            job_id=build.job_id,
            site_id=site.id,
            env_id=build.env_id,
            attempt=build.attempt,
            repository=site.repository or f"hosted:{site.id}",
            # What was pushed is on no branch yet, and what a forge or a poll has told of is that very commit.
            ref=(build.commit_sha if build.source is None else None) or build.ref,
            default_branch=site.default_branch,
            profile=site.profile,
            clean=build.clean,
            allow_hosts=sorted(site.allow_hosts),
            snapshot=source_of(self.objects, site.team_id, taken) if taken is not None else None,
            overrides=overrides,
            access=access,
            leaves_cache=leaves,
        )

    def _begin(
        self, session: Session, build_id: str, holder: Holder
    ) -> tuple[Build, Site, RepositoryAccess | None, bool] | None:
        """What the repository is read with is given to the attempt that fetches, and only where it fetches."""
        if outdated(session, build_id):
            return None
        build, site = begin_attempt(session, build_id)
        take(session, build_id, holder)
        build.builder_id = holder.builder_id
        access = access_of(session, self.vault, site) if build.source is None else None
        return build, site, access, leaves_cache(session, build)

    def fetched(self, build_id: str, body: Fetched) -> Wire:
        """From now on the build is that commit's, for a later attempt too."""
        self.store.in_write(lambda session: note_commit(session, build_id, body.attempt, body.commit_sha))
        return Wire()

    def earlier(self, build_id: str, body: Inputs) -> Earlier:
        """What an earlier build has made of the same; its packs are leased to this one."""

        def find(session: Session) -> Artifact | None:
            if body.commit_sha is not None:
                note_commit(session, build_id, body.attempt, body.commit_sha)
            build = require_attempt(session, build_id, body.attempt)
            artifact = earlier_artifact(session, build, body.inputs)
            if artifact is None:
                return None
            packs = packs_of(session, artifact)
            return artifact if lease_packs(session, build, packs, utcnow() + LEASE) == set(packs) else None

        found = self.store.in_write(find)
        if found is None:
            return Earlier()
        kind: Literal["static", "dynamic"] = "dynamic" if found.kind == "dynamic" else "static"
        return Earlier(build_id=found.build_id, manifest_sha256=found.digest, kind=kind)

    def secrets(self, build_id: str, body: WantedSecrets) -> BuildSecrets:
        """Opened here, for a running attempt, and handed out over the broker's socket alone."""
        with self.store.read() as session:
            rows = secrets_of(session, require_attempt(session, build_id, body.attempt), body.names)
            values = {row.name: open_value(self.vault, row) for row in rows}
            return BuildSecrets(values=values, versions={row.name: row.id for row in rows})

    def packs(self, build_id: str, body: WantedPacks) -> Addresses:
        with self.store.read() as session:
            build = require_attempt(session, build_id, body.attempt)
            team_id = session.get_one(Site, build.site_id).team_id
            return addresses(session, self.objects, team_id, build.snapshot_sha256 or "", body.packs)

    def contents(self, build_id: str, body: Contents) -> Missing:
        """What the build has to upload. The packs that hold the rest are leased to it."""
        wanted = dict(body.contents)
        if len(wanted) > MAX_CONTENTS or not all(HEX.fullmatch(sha256) for sha256 in wanted):
            raise HeadwayError("request.invalid_parameter", "Up to 100,000 contents by sha256.", param="contents")
        with self.store.read() as session:
            build = require_attempt(session, build_id, body.attempt)
            held = held_contents(session, build.site_id, wanted)
        located = {
            sha256: Location(at.pack, at.offset, at.size) for sha256, at in held.items() if at.size == wanted[sha256]
        }
        reuse = plan_reuse(wanted, located)

        def lease(session: Session) -> set[str]:
            build = require_attempt(session, build_id, body.attempt)
            return lease_packs(session, build, reuse.kept, utcnow() + LEASE)

        kept = self.store.in_write(lease) if reuse.kept else set()
        gone = set(reuse.kept) - kept
        lost = [sha256 for sha256, at in located.items() if at.pack in gone]
        return Missing(missing=sorted({*reuse.missing, *lost}))

    def upload(self, build_id: str, body: UploadRequest) -> Upload:
        """Where to put one object; nowhere if it is there already, of the right size."""
        if not HEX.fullmatch(body.sha256) or body.size > MAX_PACK:
            raise HeadwayError("request.invalid_parameter", "An upload is named by its sha256.", param="sha256")
        key = self.store.in_write(lambda session: self._upload_key(session, build_id, body))
        if body.body is not None:
            return self._put(key, body, body.body.encode())
        # A small pack is as quickly sent as looked for, and the object store takes it once.
        if (body.kind != "pack" or body.size > SMALL) and self.objects.head(key) == body.size:
            return Upload(url=None)
        url, headers = self.objects.presign_put(key, body.sha256, body.size, UPLOAD_SECONDS)
        return Upload(url=url, headers=headers)

    def _put(self, key: str, body: UploadRequest, raw: bytes) -> Upload:
        """A manifest that came with the question: it is sent compressed, and kept as it is."""
        if body.kind != "manifest" or len(raw) != body.size or hashlib.sha256(raw).hexdigest() != body.sha256:
            message = "A body is a manifest's, and what its size and sha256 say."
            raise HeadwayError("request.invalid_parameter", message, param="body")
        self.objects.put_new(key, raw, body.sha256)
        return Upload(url=None)

    def _upload_key(self, session: Session, build_id: str, body: UploadRequest) -> str:
        """Leased before anybody looks whether it is there: what is found must not go a moment later."""
        build = require_attempt(session, build_id, body.attempt)
        if body.kind == "pack":
            lease_upload(session, build, body.sha256, utcnow() + LEASE)
            return pack_key(build.site_id, body.sha256)
        if body.kind == "sbom":
            if body.artifact is None or not HEX.fullmatch(body.artifact) or body.size > MAX_SBOM:
                raise HeadwayError("request.invalid_parameter", "A bill names its artifact.", param="artifact")
            key = bill_key(build.site_id, body.artifact, body.sha256)
        else:
            key = object_key(build.site_id, body.sha256, "manifest")
        require_not_doomed(session, build.site_id, key)
        return key
