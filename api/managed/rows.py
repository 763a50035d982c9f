"""Rows of sites and what is below them, as the managed dialect shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from api.parts import Addresses
from headway.errors import HeadwayError, error_object
from store.environments import facts
from store.events import stamp
from store.models import Artifact, Build, Environment, Hostname, Job, Release, Rollout, Site
from store.models_configuration import ConfigValue
from store.models_lifecycle import Drift

Json = dict[str, Any]
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"


def error_row(error: Json | None, docs_url: str) -> Json | None:
    return error_object(HeadwayError.from_dict(error), docs_url) if error else None


def job_row(job: Job, docs_url: str) -> Json:
    """The same shape everywhere: answered, listed, polled and streamed (contract section 8.2)."""
    return {
        "id": job.id,
        "type": job.type,
        "status": job.status,
        "stage": job.stage,
        "progress": job.progress,
        "created_at": stamp(job.created_at),
        "started_at": stamp(job.started_at),
        "finished_at": stamp(job.finished_at),
        "cancel_requested": job.cancel_requested_at is not None,
        "resource": {"type": job.resource_type, "id": job.resource_id, **(job.resource or {})},
        "actor": job.actor,
        "result": job.result,
        "error": error_row(job.error, docs_url),
        "waits_for": job.waits_for,
        "links": {"self": f"/v1/jobs/{job.id}", "stream": f"/v1/jobs/{job.id}/stream"},
    }


def etag(job: Job) -> str:
    return f'"{job.status}-{job.rev}"'


def site_row(site: Site, addresses: Addresses) -> Json:
    git_url = f"{addresses.git_base}/{site.slug}.git" if addresses.git_base and not site.repository else None
    return {
        "id": site.id,
        "name": site.name,
        "slug": site.slug,
        "runtime": site.runtime,
        "runtime_version": None,
        "profile": site.profile,
        "php_version": None,
        "project_id": site.project_id,
        "team_id": site.team_id,
        "production_env_id": site.production_env_id,
        "repository": site.repository,
        "git_url": git_url,
        "default_branch": site.default_branch,
        "status": site.status,
        "created_at": stamp(site.created_at),
        "links": {"self": f"/v1/sites/{site.id}", "environments": f"/v1/sites/{site.id}/environments"},
    }


def environment_row(environment: Environment, site: Site, names: Sequence[Hostname], addresses: Addresses) -> Json:
    return {
        **facts(environment, site, names, addresses.site_url),
        "active_release_id": environment.active_release_id,
        "instances": environment.instances,
        "bake_seconds": environment.bake_seconds,
        "pin": environment.pin,
        "hosts": environment.hosts,
        "host_labels": environment.host_labels,
        "away": environment.away,
    }


def drift_row(drift: Drift) -> Json:
    return {
        "id": drift.id,
        "env_id": drift.env_id,
        "host_id": drift.host_id,
        "kind": drift.kind,
        "release_seq": drift.seq,
        "what": drift.what,
        "job_id": drift.job_id,
        "found_at": stamp(drift.found_at),
        "mended_at": stamp(drift.mended_at),
        "created_at": stamp(drift.created_at),
    }


def _base(site_id: str, env_id: str) -> str:
    return f"/v1/sites/{site_id}/environments/{env_id}"


def build_row(build: Build, docs_url: str) -> Json:
    took = None
    if build.started_at and build.finished_at:
        took = max(0, int((build.finished_at - build.started_at).total_seconds() * 1000))
    cache = build.cache or {}
    base = f"{_base(build.site_id, build.env_id)}/builds/{build.id}"
    return {
        "id": build.id,
        "site_id": build.site_id,
        "env_id": build.env_id,
        "ref": build.ref,
        "commit_sha": build.commit_sha,
        "clean": build.clean,
        "profile": build.profile,
        "status": build.status,
        "stage": build.stage,
        # `build_id`: the earlier build that took in the same, whose artifact this is.
        "cache": {"hit": bool(cache.get("hit", False)), "key": cache.get("key"), "build_id": cache.get("build_id")},
        "uploaded_bytes": build.uploaded_bytes,
        "artifact_id": build.artifact_id,
        "job_id": build.job_id,
        "builder": build.builder_id,
        "error": error_row(build.error, docs_url),
        "trigger": build.trigger,
        "actor": build.actor,
        "created_at": stamp(build.created_at),
        "started_at": stamp(build.started_at),
        "finished_at": stamp(build.finished_at),
        "duration_ms": took,
        "links": {"self": base, "log": f"{base}/log", "plan": f"{base}/plan", "job": f"/v1/jobs/{build.job_id}"},
    }


def _verified_by(artifact: Artifact) -> Json:
    """What an outsider pins: the key, or of a keyless signature whose certificates count."""
    if artifact.key_hint.startswith("keyless:"):
        return {"sigstore": "/v1/ledger/sigstore.json"}
    return {"public_key": f"/v1/keys/signing.pub?hint={quote(artifact.key_hint, safe='')}"}


def artifact_row(artifact: Artifact, env_id: str, run: Json | None) -> Json:
    """`run` as in the manifest: how an app is started; null for a static artifact."""
    base = f"{_base(artifact.site_id, env_id)}/artifacts/{artifact.id}"
    return {
        "id": artifact.id,
        "site_id": artifact.site_id,
        "digest": f"sha256:{artifact.digest}",
        "size_bytes": artifact.size_bytes,
        "files": artifact.files,
        "profile": artifact.profile,
        "kind": artifact.kind,
        "run": run,
        "commit_sha": artifact.commit_sha,
        "ref": artifact.ref,
        "build_id": artifact.build_id,
        "signature": {
            "bundle_media_type": BUNDLE_TYPE,
            "key_hint": artifact.key_hint,
            "log_index": artifact.log_index,
            "signed_at": stamp(artifact.signed_at),
        },
        "created_at": stamp(artifact.created_at),
        "kept": artifact.kept,
        "collected_at": stamp(artifact.collected_at),
        "links": {
            "self": base,
            "manifest": f"{base}/manifest",
            "bundle": f"{base}/bundle",
            "sbom": f"{base}/sbom",
            "provenance": f"{base}/provenance",
            "download": f"{base}/download",
            "files": f"{base}/files",
            **({"trusted_root": "/v1/ledger/trusted_root.json"} if artifact.log_index is not None else {}),
            **_verified_by(artifact),
        },
    }


def deployment_row(rollout: Rollout, docs_url: str) -> Json:
    return {
        "id": rollout.id,
        "site_id": rollout.site_id,
        "env_id": rollout.env_id,
        "artifact_id": rollout.artifact_id,
        "build_id": rollout.build_id,
        "ref": rollout.ref,
        "release_id": rollout.release_id,
        "previous_release_id": rollout.previous_release_id,
        "kind": rollout.kind,
        "source_env_id": rollout.source_env_id,
        "source_release_id": rollout.source_release_id,
        "keep_config": rollout.keep_config,
        "config_version": rollout.config_version if rollout.apply_seq is not None else None,
        "hosts": rollout.hosts,
        "hosts_away": rollout.hosts_away or [],
        "status": rollout.status,
        "stage": rollout.stage,
        "error": error_row(rollout.error, docs_url),
        "job_id": rollout.job_id,
        "actor": rollout.actor,
        "created_at": stamp(rollout.created_at),
        "started_at": stamp(rollout.started_at),
        "finished_at": stamp(rollout.finished_at),
        "links": {
            "self": f"{_base(rollout.site_id, rollout.env_id)}/deployments/{rollout.id}",
            "job": f"/v1/jobs/{rollout.job_id}",
        },
    }


def config_row(version: int, values: Sequence[ConfigValue], replaced: list[Json] | None) -> Json:
    def named(secret: bool) -> list[Json]:
        rows = [value for value in values if value.secret is secret]
        return [{"name": row.name, "version": row.version, "version_id": row.id} for row in rows]

    return {"version": version, "variables": named(False), "secrets": named(True), "replaced": replaced or []}


def value_row(row: ConfigValue, *, live: bool, value: str | None) -> Json:
    """A variable with its value, a secret without."""
    shown = {
        "key": row.name,
        "version": row.version,
        "version_id": row.id,
        "source": "site" if row.owner_id == row.site_id else "environment",
        "current": row.current,
        "live": live,
        "actor": row.actor,
        "updated_at": stamp(row.created_at),
        "ended_at": stamp(row.ended_at),
        "ended_by": row.ended_by,
        "revoked_at": stamp(row.revoked_at),
    }
    return shown if row.secret else {**shown, "value": value}


def release_row(release: Release, config: Json) -> Json:
    return {
        "id": release.id,
        "env_id": release.env_id,
        "artifact_id": release.artifact_id,
        "deployment_id": release.rollout_id,
        "ref": release.ref,
        "deployed_at": stamp(release.deployed_at),
        "actor": release.actor,
        "current": release.current,
        "config": config,
        "log_index": release.log_index,
    }
