"""Bills of materials: what an artifact was made of, and what two of them have not in common."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.responses import Response

from adapters.sbom.difference import difference
from adapters.sbom.document import MAX_BYTES, MEDIA_TYPE
from api.managed.answers_evidence import BillChangesRow
from api.managed.artifacts import READ, A
from api.managed.call import Call, CallDep
from api.managed.documents import gives, gives_raw
from api.managed.environments import env_to_read
from store import artifacts
from store.bills import bill_key, bill_of

router = APIRouter(tags=["artifacts"])


@router.get(A + "/sbom", **gives_raw("The bill of materials (CycloneDX)", MEDIA_TYPE, "Its bytes."))
async def get_sbom(call: CallDep, site_id: str, env_id: str, artifact_id: str) -> Response:
    """Its SHA-256 is among the `byproducts` of the signed provenance."""
    return Response(await _bill(call, site_id, env_id, artifact_id), media_type=MEDIA_TYPE)


@router.get(A + "/sbom/changes", **gives(BillChangesRow, "Compare the bills of two artifacts"))
async def sbom_changes(
    call: CallDep,
    site_id: str,
    env_id: str,
    artifact_id: str,
    against: Annotated[str, Query(description="The artifact to compare with: the older one.", max_length=100)],
) -> Response:
    before = await _bill(call, site_id, env_id, against)
    after = await _bill(call, site_id, env_id, artifact_id)
    changes = await anyio.to_thread.run_sync(difference, before, after)
    rows = [{"package": one.package, "before": one.before, "after": one.after} for one in changes]
    return call.one({"artifact_id": artifact_id, "against": against, "changes": rows})


async def _bill(call: Call, site_id: str, env_id: str, artifact_id: str) -> bytes:
    def key(session: Session) -> str:
        site, _ = env_to_read(call, session, site_id, env_id, READ)
        bill = bill_of(session, artifacts.artifact_of(session, site.id, artifact_id))
        return bill_key(site.id, bill.digest, bill.sha256)

    return await anyio.to_thread.run_sync(call.parts.objects.get, await call.read(key), MAX_BYTES)
