"""Events: told in the transaction of the change that they tell of, and kept where an endpoint listens.

`tell` is the only way in. A transaction that rolls back has told nothing; one that commits has left its deliveries,
which are the outbox (store/deliveries.py).
"""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from sqlalchemy import bindparam
from sqlmodel import Session, col, select

from headway import webhooks
from headway.ids import new_id
from store.models import Build, Environment, Job, Project, Release, Rollout, Site, utcnow
from store.models_webhooks import Delivery, Event, EventSubscription, WebhookEndpoint
from store.workspaces import workspace_id_of

Json = dict[str, Any]
_LISTENERS: Final = "headway_webhook_listeners"
_ENABLED: Final = select(WebhookEndpoint).where(
    WebhookEndpoint.team_id == bindparam("team_id"), col(WebhookEndpoint.enabled)
)
# What a command printed is for whoever ran it.
_PRIVATE_RESULTS: Final = ("sandbox.exec",)


def tell(
    session: Session, type: str, data: Json, *, team_id: str, site_id: str | None = None, env_id: str | None = None
) -> None:
    """`data` is `{noun: facts}`. One delivery for each subscription that asks for it, and for each endpoint that
    listens by itself and has none of these; or nothing at all."""
    listeners, subscriptions = _listeners(session, team_id)
    if not listeners:
        return
    event = Event(id=new_id("evt"), team_id=team_id, type=type, site_id=site_id, env_id=env_id, data=data)
    by_id = {one.id: one for one in listeners}
    routed = [one for one in subscriptions if one.endpoint_id in by_id and _routes(session, one, by_id, event)]
    told = {one.endpoint_id for one in routed}
    chosen: list[tuple[str, str | None]] = [(one.endpoint_id, one.id) for one in routed]
    chosen += [(one.id, None) for one in listeners if one.id not in told and _listens(session, one, event)]
    if not chosen:
        return
    session.add(event)
    session.flush()
    for endpoint_id, subscription_id in chosen:
        session.add(delivery_of(event, endpoint_id, subscription_id))


def delivery_of(event: Event, endpoint_id: str, subscription_id: str | None = None, **more: Any) -> Delivery:
    """Due at once: whoever looks for what is due starts its run."""
    return Delivery(
        id=new_id("del"),
        team_id=event.team_id,
        event_id=event.id,
        endpoint_id=endpoint_id,
        subscription_id=subscription_id,
        due_at=utcnow(),
        **more,
    )


def _listeners(session: Session, team_id: str) -> tuple[list[WebhookEndpoint], list[EventSubscription]]:
    """Asked once in a transaction, whatever it tells."""
    kept: dict[str, Any] = session.info.setdefault(_LISTENERS, {})
    if team_id not in kept:
        found = list(session.exec(_ENABLED, params={"team_id": team_id}).all())
        active = select(EventSubscription).where(EventSubscription.team_id == team_id, col(EventSubscription.active))
        kept[team_id] = (found, list(session.exec(active).all()) if found else [])
    listeners: tuple[list[WebhookEndpoint], list[EventSubscription]] = kept[team_id]
    return listeners


def _listens(session: Session, endpoint: WebhookEndpoint, event: Event) -> bool:
    name = webhooks.named(event.type, endpoint.dialect)
    # None asked for is all of them, where the dialect says so; a test is asked for by itself.
    patterns = endpoint.events or (["*"] if endpoint.dialect == webhooks.MIOSA else [])
    return name is not None and webhooks.covers(patterns, name) and _within(session, endpoint.pin, event)


def _routes(session: Session, subscription: EventSubscription, by_id: dict[str, WebhookEndpoint], event: Event) -> bool:
    endpoint = by_id[subscription.endpoint_id]
    name = webhooks.named(event.type, endpoint.dialect)
    if name is None or not webhooks.covers([subscription.event_type], name):
        return False
    facts = webhooks.flat(event.data)
    if any(facts.get(key) != value for key, value in (subscription.filter or {}).items()):
        return False
    project = _project(session, event)
    if subscription.project_id is not None and (project is None or project.id != subscription.project_id):
        return False
    if subscription.workspace_id is not None and (
        project is None or workspace_id_of(project) != subscription.workspace_id
    ):
        return False
    return _within(session, endpoint.pin, event)


def _within(session: Session, pin: Json | None, event: Event) -> bool:
    """Whether an event is of what a key, and so its endpoint, is pinned to."""
    if pin is None or pin["type"] == "team":
        return True
    if pin["type"] == "project":
        project = _project(session, event)
        return project is not None and project.id == pin["id"]
    return bool(pin["id"] == (event.site_id if pin["type"] == "site" else event.env_id))


def _project(session: Session, event: Event) -> Project | None:
    site = session.get(Site, event.site_id) if event.site_id else None
    return session.get(Project, site.project_id) if site else None


# what is told, by its noun


def tell_job(session: Session, job: Job) -> None:
    """`job.succeeded`, `job.failed` or `job.canceled`."""
    facts = {
        "id": job.id,
        "type": job.type,
        "status": job.status,
        "site_id": job.site_id,
        "env_id": job.env_id,
        "resource": {"type": job.resource_type, "id": job.resource_id, **(job.resource or {})},
        "result": None if job.type in _PRIVATE_RESULTS else job.result,
        "error": job.error,
        "created_at": stamp(job.created_at),
        "finished_at": stamp(job.finished_at),
    }
    tell(session, f"job.{job.status}", {"job": facts}, team_id=job.team_id, site_id=job.site_id, env_id=job.env_id)


def tell_build(session: Session, build: Build, what: str) -> None:
    """`build.started`, `build.succeeded` or `build.failed`."""
    facts = {
        "id": build.id,
        "site_id": build.site_id,
        "env_id": build.env_id,
        "environment": _slug(session, build.env_id),
        "job_id": build.job_id,
        "number": build.number,
        "status": build.status,
        "ref": build.ref,
        "commit_sha": build.commit_sha,
        "artifact_id": build.artifact_id,
        "error": build.error,
    }
    _of_site(session, f"build.{what}", {"build": facts}, build.site_id, build.env_id)


def tell_deployment(session: Session, rollout: Rollout, type: str, url: str | None = None) -> None:
    facts = {
        "id": rollout.id,
        "site_id": rollout.site_id,
        "env_id": rollout.env_id,
        "environment": _slug(session, rollout.env_id),
        "job_id": rollout.job_id,
        "kind": rollout.kind,
        "status": rollout.status,
        "ref": rollout.ref,
        "build_id": rollout.build_id,
        "artifact_id": rollout.artifact_id,
        "release_id": rollout.release_id,
        "url": url,
        "error": rollout.error,
    }
    _of_site(session, type, {"deployment": facts}, rollout.site_id, rollout.env_id)


def tell_release(session: Session, release: Release, rollout: Rollout) -> None:
    """What runs now, and that it ran before where it was put back."""
    facts = {
        "id": release.id,
        "site_id": release.site_id,
        "env_id": release.env_id,
        "deployment_id": rollout.id,
        "artifact_id": release.artifact_id,
        "config_version": release.config_version,
        "previous_release_id": rollout.previous_release_id,
        "deployed_at": stamp(release.deployed_at),
    }
    types = ["release.activated", *(["release.rolled_back"] if rollout.kind == "rollback" else [])]
    for type in types:
        _of_site(session, type, {"release": facts}, release.site_id, release.env_id)


def tell_environment(session: Session, environment: Environment, what: str) -> None:
    """`environment.created` or `environment.deleted`."""
    facts = {
        "id": environment.id,
        "site_id": environment.site_id,
        "slug": environment.slug,
        "kind": environment.kind,
        "branch": environment.branch,
        "status": environment.status,
    }
    _of_site(session, f"environment.{what}", {"environment": facts}, environment.site_id, environment.id)


def tell_site(session: Session, site: Site) -> None:
    facts = {"id": site.id, "name": site.name, "slug": site.slug, "status": site.status}
    _of_site(session, "site.created", {"site": facts}, site.id, None)


def _slug(session: Session, env_id: str) -> str | None:
    found = session.get(Environment, env_id)
    return found.slug if found else None


def _of_site(session: Session, type: str, data: Json, site_id: str, env_id: str | None) -> None:
    site = session.get(Site, site_id)
    if site is not None:
        tell(session, type, data, team_id=site.team_id, site_id=site_id, env_id=env_id)


def stamp(moment: Any) -> str | None:
    """RFC 3339, UTC, milliseconds."""
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return str(aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{aware.microsecond // 1000:03d}Z")
