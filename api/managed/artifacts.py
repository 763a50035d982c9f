"""Artifacts, and the documents by which anybody can check them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.responses import Response, StreamingResponse

from adapters.artifact.export import export_zst
from adapters.artifact.layout import parse_layout
from adapters.artifact.manifest import MAX_BYTES, File, Manifest, parse_manifest
from adapters.artifact.window import PackWindow
from adapters.ledger.keyring import read_keyring
from api.managed.answers import ArtifactRow, FileRow
from api.managed.call import Call, CallDep, PagingDep
from api.managed.documents import gives, gives_raw, lists
from api.managed.environments import E, env_to_change, env_to_read
from api.managed.rows import BUNDLE_TYPE, artifact_row
from api.managed.schemas import ArtifactUpdate
from headway.errors import HeadwayError
from store import artifacts, ledger
from store.models import Artifact
from store.paging import Page

router = APIRouter(tags=["artifacts"])
A = E + "/artifacts/{artifact_id}"
READ = "deployments:read"
WRITE = "deployments:write"


@router.get(E + "/artifacts", **lists(ArtifactRow, "List what can be deployed onto an environment"))
async def list_artifacts(call: CallDep, paging: PagingDep, site_id: str, env_id: str) -> Response:
    runs: dict[str, Any] = {}

    def fetch(session: Session, page: Page) -> tuple[Sequence[Artifact], bool]:
        site, _ = env_to_read(call, session, site_id, env_id, READ)
        found, more = artifacts.list_artifacts(session, site.id, page)
        runs.update(artifacts.runs_of(session, found))
        return found, more

    return await call.page(paging, fetch, lambda artifact: artifact_row(artifact, env_id, runs.get(artifact.id)))


@router.get(A, **gives(ArtifactRow, "Get an artifact"))
async def get_artifact(call: CallDep, site_id: str, env_id: str, artifact_id: str) -> Response:
    def work(session: Session) -> tuple[Artifact, Any]:
        site, _ = env_to_read(call, session, site_id, env_id, READ)
        found = artifacts.artifact_of(session, site.id, artifact_id)
        return found, artifacts.runs_of(session, [found])[found.id]

    artifact, run = await call.read(work)
    return call.one(artifact_row(artifact, env_id, run))


@router.patch(A, **gives(ArtifactRow, "Keep an artifact from collection, or let it go"))
async def update_artifact(call: CallDep, site_id: str, env_id: str, artifact_id: str, body: ArtifactUpdate) -> Response:
    """Raises artifact.collected (410): what is gone cannot be kept."""

    def work(session: Session) -> tuple[Artifact, Any]:
        site, _ = env_to_change(call, session, site_id, env_id, WRITE)
        found = artifacts.artifact_of(session, site.id, artifact_id)
        session.refresh(found, with_for_update=True)
        if body.kept:
            artifacts.require_kept(found)
        found.kept = body.kept
        session.flush()
        return found, artifacts.runs_of(session, [found])[found.id]

    artifact, run = await call.write(work)
    return call.one(artifact_row(artifact, env_id, run))


@router.get(A + "/manifest", **gives_raw("The manifest: its sha256 is the digest", "application/json", "Its bytes."))
async def get_manifest(call: CallDep, site_id: str, env_id: str, artifact_id: str) -> Response:
    return await _document(call, site_id, env_id, artifact_id, "manifest", "application/json")


@router.get(A + "/bundle", **gives_raw("The Sigstore bundle that signs the manifest", BUNDLE_TYPE, "Its bytes."))
async def get_bundle(call: CallDep, site_id: str, env_id: str, artifact_id: str) -> Response:
    return await _document(call, site_id, env_id, artifact_id, "bundle", BUNDLE_TYPE)


@router.get(
    A + "/provenance",
    **gives_raw("The signed in-toto statement (SLSA provenance)", "application/vnd.in-toto+json", "The statement."),
)
async def get_provenance(call: CallDep, site_id: str, env_id: str, artifact_id: str) -> Response:
    artifact = await _artifact(call, site_id, env_id, artifact_id)
    raw = await _object(call, artifact, "bundle")
    try:
        statement = base64.b64decode(json.loads(raw)["dsseEnvelope"]["payload"])
    except (ValueError, KeyError, TypeError):
        raise HeadwayError("artifact.signature_invalid", "The bundle of this artifact cannot be read.") from None
    return Response(statement, media_type="application/vnd.in-toto+json")


@router.get(A + "/files", **lists(FileRow, "List an artifact's files, by path"))
async def list_files(call: CallDep, paging: PagingDep, site_id: str, env_id: str, artifact_id: str) -> Response:
    artifact = await _artifact(call, site_id, env_id, artifact_id)
    raw = await _object(call, artifact, "manifest")
    entries = (await anyio.to_thread.run_sync(_manifest, raw, artifact.digest)).entries
    return call.numbered(paging, entries, _file_row)


@router.get(A + "/download", **gives_raw("All files as dist.tar.zst", "application/zstd", "A stream."))
async def download(call: CallDep, site_id: str, env_id: str, artifact_id: str) -> Response:
    artifact = await _artifact(call, site_id, env_id, artifact_id)
    manifest = await anyio.to_thread.run_sync(_manifest, await _object(call, artifact, "manifest"), artifact.digest)
    layout = await anyio.to_thread.run_sync(parse_layout, await _object(call, artifact, "layout"))

    def get_range(pack: str, offset: int, size: int) -> bytes:
        return call.parts.objects.get_range(artifacts.pack_key(artifact.site_id, pack), offset, size)

    read = PackWindow(layout, get_range).read
    name = f"{artifact.id}.tar.zst"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(export_zst(manifest, read), media_type="application/zstd", headers=headers)


@router.get(
    "/keys/signing.pub",
    **gives_raw("The public key that bundles are checked with", "application/x-pem-file", "PEM."),
)
async def signing_key(call: CallDep, hint: Annotated[str | None, Query(max_length=100)] = None) -> Response:
    """The current key, or the one that a bundle names."""
    path = call.parts.signing_key

    def read(session: Session) -> bytes | None:
        found = ledger.document(session, ledger.KEYRING)
        keys = read_keyring(found.body).keys if found is not None else ()
        chosen = [one for one in keys if (one.hint == hint if hint else one.state == "current")]
        if chosen:
            return chosen[-1].public_pem.encode()
        return path.read_bytes() if path.is_file() and not keys else None

    raw = await call.read(read)
    if raw is None:
        raise HeadwayError("service.unavailable", "The signing worker has not made such a key yet.")
    return Response(raw, media_type="application/x-pem-file")


async def _artifact(call: Call, site_id: str, env_id: str, artifact_id: str) -> Artifact:
    def work(session: Session) -> Artifact:
        site, _ = env_to_read(call, session, site_id, env_id, READ)
        return artifacts.artifact_of(session, site.id, artifact_id)

    return await call.read(work)


async def _object(call: Call, artifact: Artifact, part: str) -> bytes:
    artifacts.require_kept(artifact)
    key = artifacts.object_key(artifact.site_id, artifact.digest, part)
    return await anyio.to_thread.run_sync(call.parts.objects.get, key, MAX_BYTES)


async def _document(call: Call, site_id: str, env_id: str, artifact_id: str, part: str, media: str) -> Response:
    artifact = await _artifact(call, site_id, env_id, artifact_id)
    return Response(await _object(call, artifact, part), media_type=media)


def _manifest(raw: bytes, digest: str) -> Manifest:
    return parse_manifest(raw, digest=digest)


def _file_row(entry: Any) -> dict[str, Any]:
    if isinstance(entry, File):
        return {"path": entry.path, "mode": entry.mode, "size": entry.size, "sha256": entry.sha256, "link": None}
    return {"path": entry.path, "mode": None, "size": None, "sha256": None, "link": entry.target}
