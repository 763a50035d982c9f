"""Rows as this dialect shows them: full ones everywhere, because its client's models want them (section 10)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from api.miosa.names import shown, shown_or_none, worded
from api.miosa.problems import code_and_status
from api.parts import Parts
from headway.errors import HeadwayError
from store.events import stamp as stamp
from store.models import Artifact, Build, Project, Rollout, Site
from store.models_sandboxes import Sandbox
from store.standing import Standing
from store.versions import UNFIT
from store.workspaces import default_id, workspace_id_of

Json = dict[str, Any]
BUILD_STATES: Final = {
    "queued": "queued",
    "running": "building",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
    "superseded": "cancelled",
}
# What nobody has asked for by hand. A push is told of here by the hook of the platform's own repository.
TRIGGERS: Final = {"push": "webhook", "webhook": "webhook", "poll": "scheduled"}


def place(site: Site, project: Project | None) -> Json:
    """Who something of a deployment belongs to."""
    return {
        "tenant_id": site.team_id,
        "workspace_id": workspace_id_of(project) if project else default_id(site.team_id),
        "project_id": site.project_id,
        "external_workspace_id": site.external_workspace_id,
        "external_user_id": site.external_user_id,
        "external_project_id": site.external_project_id,
    }


def deployment_row(site: Site, project: Project | None, standing: Standing, parts: Parts) -> Json:
    url = parts.addresses.site_url(standing.hostname) if standing.hostname else None
    artifact = standing.artifact
    return {
        "id": shown(site.id),
        **place(site, project),
        "owner_id": None,
        "name": site.name,
        "slug": site.slug,
        "state": standing.state,
        "source_type": "git" if site.repository else "sandbox",
        "repo_url": site.repository,
        "repo_provider": "git" if site.repository else None,
        "branch": site.default_branch,
        "build_command": site.build_command,
        "run_command": site.run_command,
        "runtime_image": None,
        "current_build_id": shown_or_none(standing.latest_build_id),
        "active_version_id": shown_or_none(standing.build_id),
        "active_release_id": shown_or_none(artifact.id if artifact else None),
        "running_artifact_sha256": artifact.digest if artifact else None,
        "auto_deploy": site.auto_deploy,
        "custom_domain_id": None,
        "linked_database_id": None,
        "deployment_product": "miosa_deploy",
        "docker_deploy_host_id": None,
        "docker_deploy_app": None,
        "metadata": site.labels or {},
        "public_url": url,
        "auto_subdomain": url,
        "url": url,
        "created_at": stamp(site.created_at),
        "updated_at": stamp(site.updated_at or site.created_at),
    }


def version_state(build: Build, rollout: Rollout | None, artifact: Artifact | None) -> str:
    """`rollout` is of the same publish. One way only: what is being rolled is not ready before that has ended."""
    if build.status == "queued":
        return "created"
    if build.status == "running":
        return "building"
    if build.status != "succeeded" or artifact is None:
        return "failed"
    if artifact.collected_at is not None:
        return "archived"
    if rollout is not None and rollout.finished_at is None:
        return "building"
    if rollout is not None and (rollout.error or {}).get("code") in UNFIT:
        return "failed"
    return "ready"


def error_text(build: Build, rollout: Rollout | None) -> str | None:
    """What went wrong with a publish, in one line."""
    error = build.error or (rollout.error if rollout is not None else None)
    if not error:
        return None
    code, _ = code_and_status(HeadwayError.from_dict(error))
    return f"{code}: {worded(str(error.get('message')))}"


def _bucket(parts: Parts) -> str:
    return str(getattr(parts.objects, "bucket", "headway"))


def artifact_uri(artifact: Artifact, parts: Parts) -> str:
    return f"s3://{_bucket(parts)}/sites/{artifact.site_id}/artifacts/{artifact.digest}/manifest.json"


def files_of(artifact: Artifact | None, build: Build) -> Json:
    if artifact is None:
        return {}
    entrypoint = (build.overrides or {}).get("entrypoint") or "index.html"
    return {"files": artifact.files, "total_bytes": artifact.size_bytes, "entrypoint": entrypoint}


def version_row(
    build: Build,
    site: Site,
    project: Project | None,
    rollout: Rollout | None,
    artifact: Artifact | None,
    parts: Parts,
    promoted_at: datetime | None = None,
) -> Json:
    said = build.overrides or {}
    kept = artifact if build.status == "succeeded" else None
    labels = build.labels or {}
    dynamic = (kept.kind if kept else said.get("kind")) == "dynamic"
    return {
        "id": shown(build.id),
        "deployment_id": shown(site.id),
        **place(site, project),
        **{name: labels[name] for name in EXTERNAL if labels.get(name)},
        "created_by": (build.actor or {}).get("id"),
        "source_sandbox_id": (build.source or {}).get("sandbox_id"),
        "build_id": shown(build.id),
        "version_number": build.number or 0,
        "kind": "dynamic" if dynamic else "static",
        "state": version_state(build, rollout, artifact),
        "status": version_state(build, rollout, artifact),
        "artifact_uri": artifact_uri(kept, parts) if kept else None,
        "artifact_sha256": kept.digest if kept else None,
        "source_sha256": build.source_sha256 or (build.source or {}).get("sha256"),
        "artifact_manifest": files_of(kept, build),
        "runtime_image": None,
        "runtime_command": said.get("run_command") if dynamic else None,
        "runtime_port": said.get("port") if dynamic else None,
        "health_check_path": said.get("health_check_path") if dynamic else None,
        "build_log_uri": None,
        "error_message": error_text(build, rollout),
        "metadata": labels.get("metadata") or {},
        "promoted_at": stamp(promoted_at),
        "archived_at": stamp(artifact.collected_at if artifact else None),
        "created_at": stamp(build.created_at),
        "updated_at": stamp(build.finished_at or build.started_at or build.created_at),
    }


EXTERNAL: Final = ("external_workspace_id", "external_user_id", "external_project_id")


def release_row(
    artifact: Artifact, build: Build, site: Site, project: Project | None, parts: Parts, active: bool
) -> Json:
    """`build` is the first that made these bytes."""
    uri, said = artifact_uri(artifact, parts), build.overrides or {}
    state = "archived" if artifact.collected_at else "active" if active else "ready"
    took = (build.finished_at - build.started_at).total_seconds() if build.finished_at and build.started_at else None
    return {
        "id": shown(artifact.id),
        "deployment_id": shown(site.id),
        "deployment_version_id": shown(artifact.build_id),
        **place(site, project),
        "environment_id": None,
        "service_id": f"svc_{site.id.partition('_')[2]}",
        "source_sandbox_id": (build.source or {}).get("sandbox_id"),
        "build_id": shown(artifact.build_id),
        "kind": artifact.kind,
        "state": state,
        "artifact_uri": uri,
        "storage_uri": uri,
        "artifact_sha256": artifact.digest,
        "sha256": artifact.digest,
        "size_bytes": artifact.size_bytes,
        "storage_backend": "s3",
        "pinned": artifact.kept,
        "artifact_manifest": files_of(artifact, build),
        "start_command": said.get("run_command") if artifact.kind == "dynamic" else None,
        "port": said.get("port") if artifact.kind == "dynamic" else None,
        "health_check_path": said.get("health_check_path") if artifact.kind == "dynamic" else None,
        "metadata": {"build_duration_ms": int(took * 1000)} if took is not None else {},
        "ready_at": stamp(artifact.signed_at),
        "archived_at": stamp(artifact.collected_at),
        "created_at": stamp(artifact.created_at),
        "updated_at": stamp(artifact.signed_at),
    }


def service_rows(site: Site, artifact: Artifact | None, live: bool) -> list[Json]:
    if artifact is None:
        return []
    return [
        {
            "id": f"svc_{site.id.partition('_')[2]}",
            "deployment_id": shown(site.id),
            "tenant_id": site.team_id,
            "type": "web" if artifact.kind == "dynamic" else "static_web",
            "name": "web",
            "desired_replicas": 1,
            "state": "healthy" if live else "pending",
            "metadata": {},
        }
    ]


def build_row(build: Build, site: Site) -> Json:
    took = None
    if build.started_at and build.finished_at:
        took = max(0, int((build.finished_at - build.started_at).total_seconds() * 1000))
    return {
        "id": shown(build.id),
        "deployment_id": shown(site.id),
        "version_id": shown(build.id),
        "version_number": build.number or 0,
        "state": BUILD_STATES[build.status],
        "commit_sha": build.commit_sha if build.source is None else None,
        "commit_message": None,
        "triggered_by": TRIGGERS.get(build.trigger, "manual"),
        "started_at": stamp(build.started_at),
        "finished_at": stamp(build.finished_at),
        "duration_ms": took,
        "log_url": f"/api/v1/deployments/{shown(site.id)}/builds/{shown(build.id)}/logs",
        "image_digest": f"sha256:{build.manifest_sha256}" if build.manifest_sha256 else None,
        "error_message": error_text(build, None),
        "external_workspace_id": site.external_workspace_id,
        "external_user_id": site.external_user_id,
        "external_project_id": site.external_project_id,
        "created_at": stamp(build.created_at),
    }


def sandbox_row(sandbox: Sandbox, project: Project | None) -> Json:
    return {
        "id": sandbox.id,
        "tenant_id": sandbox.team_id,
        "owner_id": None,
        "workspace_id": workspace_id_of(project) if project else default_id(sandbox.team_id),
        "project_id": sandbox.project_id,
        "external_workspace_id": sandbox.external_workspace_id,
        "external_user_id": sandbox.external_user_id,
        "external_project_id": sandbox.external_project_id,
        "name": sandbox.name,
        "slug": None,
        "template_id": sandbox.template_id,
        "image_id": sandbox.template_id,
        "state": sandbox.state,
        "status": sandbox.state,
        "ready": sandbox.state == "running",
        "persistent": True,
        "always_on": False,
        "metadata": sandbox.labels or {},
        "tags": (sandbox.tags or {}).get("tags", []),
        "idle_timeout_sec": sandbox.idle_timeout_sec,
        "files": sandbox.files,
        "size_bytes": sandbox.size_bytes,
        "created_at": stamp(sandbox.created_at),
        "started_at": stamp(sandbox.created_at),
        "ready_at": stamp(sandbox.created_at),
        "updated_at": stamp(sandbox.used_at),
        "expires_at": stamp(sandbox.expires_at),
        "destroyed_at": stamp(sandbox.destroyed_at),
    }
