"""Rows of what stands around sites: accounts, keys, hosts, domains, endpoints, hooks of forges."""

from __future__ import annotations

from typing import Any

from adapters.domains.records import Plan
from api.managed.rows import error_row
from store.events import stamp
from store.models import Account, ApiKey, Membership, Project, Team
from store.models_configuration import Host
from store.models_domains import Domain
from store.models_webhooks import Delivery, Event, ForgeCall, ForgeHook, WebhookEndpoint

Json = dict[str, Any]


def host_row(host: Host) -> Json:
    return {
        "id": host.id,
        "labels": host.labels,
        "public_key": host.public_key or None,
        "offered_key": host.offered_key,
        "created_at": stamp(host.created_at),
        "last_seen_at": stamp(host.last_seen_at) if host.public_key else None,
    }


def key_row(key: ApiKey) -> Json:
    return {
        "id": key.id,
        "name": key.name,
        "kind": key.kind,
        "prefix": key.prefix,
        "team_id": key.team_id,
        "account_id": key.account_id,
        "scopes": sorted(key.scopes),
        "resource": key.resource,
        "ip_allowlist": key.ip_allowlist,
        "created_at": stamp(key.created_at),
        "expires_at": stamp(key.expires_at),
        "last_used_at": stamp(key.last_used_at),
        "revoked_at": stamp(key.revoked_at),
    }


def team_row(team: Team) -> Json:
    return {"id": team.id, "name": team.name, "slug": team.slug, "created_at": stamp(team.created_at)}


def project_row(project: Project) -> Json:
    return {
        "id": project.id,
        "team_id": project.team_id,
        "name": project.name,
        "slug": project.slug,
        "default": project.is_default,
        "created_at": stamp(project.created_at),
    }


def account_row(account: Account) -> Json:
    return {
        "id": account.id,
        "name": account.name,
        "email": account.email,
        "operator": account.operator,
        "created_at": stamp(account.created_at),
    }


def member_row(member: Membership, account: Account, project_ids: frozenset[str] | None) -> Json:
    return {
        "team_id": member.team_id,
        "account_id": account.id,
        "name": account.name,
        "email": account.email,
        "role": member.role,
        "project_ids": sorted(project_ids) if project_ids is not None else None,
        "created_at": stamp(member.created_at),
    }


def endpoint_row(endpoint: WebhookEndpoint) -> Json:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": endpoint.events,
        "description": endpoint.description,
        "enabled": endpoint.enabled,
        "resource": endpoint.pin,
        "secret_preview": endpoint.preview,
        "previous_secret_until": stamp(endpoint.previous_until),
        "failing_since": stamp(endpoint.failing_since),
        "disabled_at": stamp(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_reason,
        "created_at": stamp(endpoint.created_at),
    }


def delivery_row(delivery: Delivery, event: Event) -> Json:
    return {
        "id": delivery.id,
        "event_id": event.id,
        "event_type": event.type,
        "status": delivery.state,
        "attempts": len(delivery.tries),
        "tries": delivery.tries,
        "replay_of": delivery.replay_of,
        "created_at": stamp(delivery.created_at),
        "ended_at": stamp(delivery.ended_at),
    }


def domain_row(domain: Domain, plan: Plan, docs_url: str, *, primary: bool) -> Json:
    found = domain.found or {}
    return {
        "id": domain.id,
        "hostname": domain.hostname,
        "site_id": domain.site_id,
        "env_id": domain.env_id,
        "status": domain.status,
        "primary": primary,
        "redirect_to_primary": domain.redirect_to_primary,
        "redirect_policy": domain.redirect_policy,
        "dns_records": plan.records(domain.hostname, domain.token),
        "instructions": plan.instructions(domain.hostname, domain.token),
        "found_records": found.get("records", []),
        "missing": found.get("why"),
        "points_here": domain.points_here,
        "error": error_row(domain.error, docs_url),
        "created_at": stamp(domain.created_at),
        "checked_at": stamp(domain.checked_at),
        "verified_at": stamp(domain.verified_at),
        "tls_issued_at": stamp(domain.tls_issued_at),
    }


def forge_hook_row(hook: ForgeHook, api_url: str) -> Json:
    return {
        "id": hook.id,
        "site_id": hook.site_id,
        "provider": hook.provider,
        "url": f"{api_url}/hooks/{hook.id}",
        "secret_preview": hook.preview,
        "forged": hook.forged,
        "forged_at": stamp(hook.forged_at),
        "created_at": stamp(hook.created_at),
    }


def verdict_text(verdict: str, reason: str | None, job_id: str | None, *, gone: bool = False) -> str:
    """`deployed job_…`, `ignored: why`, `refused: why`."""
    if verdict == "accepted":
        return f"{'ended' if gone else 'deployed'} {job_id}"
    return f"{verdict}: {reason}" if reason else verdict


def forge_call_row(call: ForgeCall, *, repeated: bool = False) -> Json:
    text = verdict_text(call.verdict, call.reason, call.job_id, gone=call.commit_sha is None)
    return {
        "id": call.id,
        "call_id": call.call_id,
        "event": call.event,
        "verdict": call.verdict,
        "text": f"repeated: {text}" if repeated else text,
        "reason": call.reason,
        "ref": call.ref,
        "commit_sha": call.commit_sha,
        "job_id": call.job_id,
        "repeats": call.repeats,
        "created_at": stamp(call.created_at),
    }
