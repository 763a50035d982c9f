"""Artifacts: what can be rolled, and where its parts lie in the object store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.models import Artifact, Build, Site
from store.paging import Page, fetch_page
from store.sight import Sight


def object_key(site_id: str, digest: str, part: str) -> str:
    """`part`: manifest | layout | bundle."""
    return f"sites/{site_id}/artifacts/{digest}/{part}.json"


def pack_key(site_id: str, sha256: str) -> str:
    return f"sites/{site_id}/packs/{sha256}"


def list_artifacts(session: Session, site_id: str, page: Page) -> tuple[Sequence[Artifact], bool]:
    """What can be deployed onto an environment of this site."""
    query = select(Artifact).where(Artifact.site_id == site_id, col(Artifact.collected_at).is_(None))
    return fetch_page(session, query, page, time=Artifact.created_at, id=Artifact.id)


def artifact_of(session: Session, site_id: str, artifact_id: str) -> Artifact:
    found = session.get(Artifact, artifact_id)
    if found is None or found.site_id != site_id:
        raise HeadwayError("artifact.not_found", f"There is no artifact {artifact_id}.", param="artifact_id")
    return found


def runs_of(session: Session, found: Sequence[Artifact]) -> dict[str, dict[str, Any] | None]:
    """How each artifact runs, by its id, as its manifest says; None for static ones."""
    query = select(Build.id, Build.plan).where(col(Build.id).in_([one.build_id for one in found]))
    plans = {build_id: plan or {} for build_id, plan in session.exec(query)}
    return {one.id: plans.get(one.build_id, {}).get("run") for one in found}


def deployable(session: Session, sight: Sight, site: Site, artifact_id: str) -> Artifact:
    """Raises artifact.not_found (another tenant's too), artifact.site_mismatch, artifact.collected (410)."""
    query = select(Artifact).join(Site, col(Site.id) == col(Artifact.site_id))
    found = session.exec(query.where(Artifact.id == artifact_id, *sight.sites())).first()
    if found is None:
        raise HeadwayError("artifact.not_found", f"There is no artifact {artifact_id}.", param="artifact_id")
    if found.site_id != site.id:
        raise HeadwayError("artifact.site_mismatch", "That artifact is another site's.", param="artifact_id")
    return require_kept(found)


def require_kept(artifact: Artifact) -> Artifact:
    if artifact.collected_at is not None:
        raise HeadwayError("artifact.collected", f"The artifact {artifact.id} has been collected.", param="artifact_id")
    return artifact
