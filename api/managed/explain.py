"""Why is this live? Commit, build, digest, signature, ledger, switch: one answer, and the record that proves it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.responses import Response

from adapters.ledger.bundles import bundle_of
from adapters.ledger.entry import entry_of
from api.managed.answers_evidence import WhyRow
from api.managed.call import CallDep
from api.managed.documents import gives, gives_raw
from api.managed.environments import E, env_to_read, shown
from api.managed.ledger import item_of
from api.managed.policies import outcome_row
from api.managed.rows import BUNDLE_TYPE
from headway.errors import HeadwayError
from store import ledger, releases
from store.events import stamp
from store.models_ledger import LedgerEntry
from store.why import Why, why

router = APIRouter(tags=["ledger"])
READ = "deployments:read"
Json = dict[str, Any]


@router.get(E + "/why", **gives(WhyRow, "Why this is live: from the commit to the switch"))
async def get_why(
    call: CallDep, site_id: str, env_id: str, release_id: Annotated[str | None, Query(max_length=40)] = None
) -> Response:
    def work(session: Session) -> Json:
        site, environment = env_to_read(call, session, site_id, env_id, READ)
        current = releases.current_release(session, environment.id)
        release = releases.release_of(session, environment.id, release_id) if release_id else current
        url = shown(call, session, site, [environment])[0]["url"]
        return {**_row(why(session, site, environment.id, release)), "url": url}

    return call.one(await call.read(work))


@router.get(
    E + "/releases/{release_id}/record",
    **gives_raw("The signed record of a release, with its ledger entry", BUNDLE_TYPE, "A Sigstore bundle."),
)
async def get_record(call: CallDep, site_id: str, env_id: str, release_id: str) -> Response:
    def work(session: Session) -> bytes:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        release = releases.release_of(session, environment.id, release_id)
        if release.log_index is None:
            message = f"Release {release.id} is not in the ledger yet: ask again shortly."
            raise HeadwayError("ledger.entry_not_found", message, param="release_id")
        entry = ledger.entry(session, release.log_index)
        return bundle_of(entry_of(entry.body, entry.envelope), item_of(session, entry))

    return Response(await call.read(work), media_type=BUNDLE_TYPE)


def _row(found: Why) -> Json:
    build, artifact, rollout, release = found.build, found.artifact, found.rollout, found.release
    base = f"/v1/sites/{found.site.id}/environments"
    built = f"{base}/{build.env_id}/artifacts/{artifact.id}"
    links = {
        "build": f"{base}/{build.env_id}/builds/{build.id}",
        "artifact": built,
        "bundle": f"{built}/bundle",
        "deployment": f"{base}/{release.env_id}/deployments/{rollout.id}",
        "release": f"{base}/{release.env_id}/releases/{release.id}",
        "checkpoint": "/v1/ledger/checkpoint",
    }
    if found.recorded is not None:
        links["record"] = f"{links['release']}/record"
    return {
        "site_id": found.site.id,
        "env_id": release.env_id,
        "commit": {"repository": found.site.repository, "ref": build.ref, "commit_sha": artifact.commit_sha},
        "build": {
            "build_id": build.id,
            "trigger": build.trigger,
            "actor": build.actor,
            "finished_at": stamp(build.finished_at),
            "job_id": build.job_id,
        },
        "artifact": {"artifact_id": artifact.id, "digest": f"sha256:{artifact.digest}", "files": artifact.files},
        "signature": {
            "key_hint": artifact.key_hint,
            "signed_at": stamp(artifact.signed_at),
            "log_index": artifact.log_index,
            "integrated_time": _time(found.signed),
        },
        "deployment": {
            "deployment_id": rollout.id,
            "kind": rollout.kind,
            "actor": rollout.actor,
            "source_env_id": rollout.source_env_id,
            "source_release_id": rollout.source_release_id,
            "job_id": rollout.job_id,
        },
        "decision": outcome_row(found.decision) if found.decision is not None else None,
        "release": {
            "release_id": release.id,
            "sequence": release.seq,
            "deployed_at": stamp(release.deployed_at),
            "current": release.current,
            "previous_release_id": rollout.previous_release_id,
            "log_index": release.log_index,
            "integrated_time": _time(found.recorded),
        },
        "links": links,
    }


def _time(entry: LedgerEntry | None) -> str | None:
    return stamp(datetime.fromtimestamp(entry.at, UTC)) if entry is not None else None
