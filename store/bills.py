"""Bills of materials: of which artifact, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.artifacts import object_key, require_kept
from store.models import Artifact, Build
from store.models_builds import BuildBill


def bill_key(site_id: str, digest: str, sha256: str) -> str:
    """Beside the manifest that it is about, so that it goes with the artifact."""
    return object_key(site_id, digest, f"sbom-{sha256}")


def record_bill(session: Session, build: Build, digest: str, sha256: str, components: int) -> None:
    """Idempotent: a later attempt's bill takes the place of an earlier one's."""
    session.merge(BuildBill(build_id=build.id, digest=digest, sha256=sha256, components=components))


def bill_of_build(session: Session, build_id: str) -> BuildBill | None:
    return session.get(BuildBill, build_id)


def bills_of(session: Session, site_id: str, digest: str) -> Sequence[BuildBill]:
    """All that say they are of this artifact: several builds may have made it."""
    query = select(BuildBill).join(Build, col(Build.id) == BuildBill.build_id)
    return session.exec(query.where(Build.site_id == site_id, BuildBill.digest == digest)).all()


def bill_of(session: Session, artifact: Artifact) -> BuildBill:
    """The one of the build that the artifact's signature names. Raises artifact.sbom_missing, artifact.collected."""
    require_kept(artifact)
    found = session.get(BuildBill, artifact.build_id)
    if found is None or found.digest != artifact.digest:
        message = f"The artifact {artifact.id} has no bill of materials: nothing was installed or built for it."
        raise HeadwayError("artifact.sbom_missing", message, param="artifact_id")
    return found
