"""Failures in this dialect: `{"error": {code, message, request_id, details, retryable}}` (contract section 1.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.miosa.names import worded
from api.problems import JSON_TYPE, as_headway_error, json_bytes
from headway.errors import HeadwayError

Json = dict[str, Any]

# Where the code or the status is not what follows from the kind of the error.
CODES: Final[dict[str, tuple[str, int]]] = {
    "request.malformed_json": ("MALFORMED_JSON", 400),
    "request.missing_parameter": ("MISSING_PARAM", 400),
    "request.too_large": ("PAYLOAD_TOO_LARGE", 413),
    "request.unsupported_media_type": ("UNSUPPORTED_MEDIA_TYPE", 415),
    "request.method_not_allowed": ("METHOD_NOT_ALLOWED", 405),
    "request.unsupported": ("NOT_SUPPORTED", 409),
    "pagination.invalid_cursor": ("INVALID_CURSOR", 422),
    "idempotency.key_reused": ("IDEMPOTENCY_KEY_REUSED", 409),
    "idempotency.in_progress": ("IDEMPOTENCY_IN_PROGRESS", 409),
    "scope.insufficient": ("insufficient_scope", 403),
    "role.insufficient": ("insufficient_scope", 403),
    "rate_limit.exceeded": ("rate_limit_exceeded", 429),
    "quota.exceeded": ("QUOTA_EXCEEDED", 402),
    "site.slug_taken": ("SLUG_TAKEN", 409),
    "project.slug_taken": ("PROJECT_SLUG_TAKEN", 409),
    "project.not_empty": ("PROJECT_NOT_EMPTY", 409),
    "workspace.name_exists": ("WORKSPACE_NAME_EXISTS", 409),
    "workspace.not_empty": ("WORKSPACE_NOT_EMPTY", 409),
    "environment.not_active": ("DEPLOYMENT_NOT_READY", 409),
    "environment.suspended": ("DEPLOYMENT_STOPPED", 409),
    "environment.capability_unsupported": ("NOT_SUPPORTED", 409),
    "version.not_ready": ("VERSION_NOT_READY", 409),
    "build.not_succeeded": ("VERSION_NOT_READY", 409),
    "artifact.collected": ("ARTIFACT_COLLECTED", 410),
    "artifact.signature_invalid": ("ARTIFACT_INVALID", 409),
    "artifact.site_mismatch": ("RELEASE_OF_ANOTHER_DEPLOYMENT", 409),
    "release.no_previous": ("NO_PREVIOUS_VERSION", 409),
    "release.none": ("NO_ACTIVE_VERSION", 409),
    "release.already_current": ("ALREADY_ACTIVE", 409),
    "repository.missing": ("NO_SOURCE", 409),
    "sandbox.too_large": ("PAYLOAD_TOO_LARGE", 413),
    "sandbox.name_taken": ("SANDBOX_NAME_TAKEN", 409),
    "sandbox.path_invalid": ("INVALID_FILE_PATH", 422),
    "sandbox.path_conflict": ("FILE_PATH_CONFLICT", 409),
    "sandbox.too_many": ("SANDBOX_LIMIT_REACHED", 409),
    "sandbox.empty": ("SANDBOX_EMPTY", 422),
    "tenant.unresolved": ("TENANT_RESOLUTION_FAILED", 422),
    "service.unavailable": ("SERVICE_UNAVAILABLE", 503),
    "upload.failed": ("SERVICE_UNAVAILABLE", 503),
    "job.not_cancelable": ("NOT_CANCELABLE", 409),
    "job.superseded": ("SUPERSEDED", 409),
    "job.canceled": ("CANCELED", 409),
    "domain.exists": ("DOMAIN_EXISTS", 409),
    "domain.taken": ("DOMAIN_TAKEN", 409),
    "domain.invalid": ("INVALID_DOMAIN", 422),
    "domain.reserved": ("DOMAIN_RESERVED", 422),
    "webhook_endpoint.url_refused": ("INVALID_URL", 422),
    "webhook_endpoint.disabled": ("WEBHOOK_DISABLED", 409),
    "delivery.not_found": ("DELIVERY_NOT_FOUND", 404),
    "delivery.replayed": ("ALREADY_REPLAYED", 409),
    "delivery.not_repeatable": ("NOT_REDELIVERABLE", 409),
    "event_subscription.not_found": ("SUBSCRIPTION_NOT_FOUND", 404),
    "event_subscription.consumer_not_found": ("CONSUMER_NOT_FOUND", 404),
    "event_subscription.type_unknown": ("UNKNOWN_EVENT_TYPE", 422),
    "event_subscription.filter_invalid": ("INVALID_FILTER", 422),
}
_KINDS: Final[dict[str, tuple[str, int]]] = {
    "authentication": ("invalid_token", 401),
    "permission": ("FORBIDDEN", 403),
    "not_found": ("NOT_FOUND", 404),
    "invalid_request": ("VALIDATION_ERROR", 422),
}
# How a publish fails by what is published has its own code: the caller's next step depends on it.
_STEPS: Final = ("build.", "roll.")
FIELDS: Final = {
    "site_id": "deployment_id",
    "env_id": "environment",
    "build_id": "version_id",
    "artifact_id": "release_id",
    "team_id": "tenant_id",
    "repository": "repo_url",
    "default_branch": "branch",
}
NOUNS: Final = {
    "site": "deployment",
    "build": "version",
    "artifact": "release",
    "team": "organisation",
    "deployment": "promotion",
    "job": "operation",
    "webhook_endpoint": "webhook",
}
_HIDDEN: Final = frozenset(("doc_url", "code", "message"))


def code_and_status(error: HeadwayError) -> tuple[str, int]:
    known = CODES.get(error.code)
    if known is None and error.type == "invalid_request" and error.code.startswith(_STEPS):
        known = error.code.replace(".", "_").upper(), 422
    known = known or _KINDS.get(error.type)
    if known is not None:
        return known
    if error.status >= 500:
        return "INTERNAL_ERROR", error.status
    return worded(error.code.replace(".", " ").replace("_", " ")).upper().replace(" ", "_"), error.status


def _message(error: HeadwayError) -> str:
    """What is not there is said alike whether it never was or is another's, and without its id."""
    noun = "webhook" if error.code == "event_subscription.consumer_not_found" else error.code.partition(".")[0]
    if error.type == "not_found" and noun != "route":
        return f"{NOUNS.get(noun, noun.replace('_', ' '))} not found"
    return worded(error.message)


def error_body(error: HeadwayError, request_id: str) -> Json:
    code, _ = code_and_status(error)
    details = {name: value for name, value in error.details.items() if name not in _HIDDEN}
    if error.param is not None and error.type != "not_found":
        details["field"] = FIELDS.get(error.param, error.param)
    # A version that is not ready yet may be so in a moment; one that has failed stays so.
    retryable = bool(details.pop("retryable", error.retryable or error.code == "idempotency.in_progress"))
    facts: Json = {"code": code, "message": _message(error), "request_id": request_id}
    return {"error": {**facts, "details": details, "retryable": retryable}}


def problem(error: HeadwayError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    _, status = code_and_status(error)
    return Response(json_bytes(error_body(error, request_id)), status, dict(headers or {}), JSON_TYPE)


def from_exception(error: Exception) -> HeadwayError:
    if isinstance(error, RequestValidationError):
        return _from_validation(error.errors())
    if isinstance(error, HTTPException) and error.status_code == 400:
        return HeadwayError("request.malformed_json", "The body is not JSON.")
    return as_headway_error(error)


def _from_validation(found: Sequence[Any]) -> HeadwayError:
    """A missing field is 400 here, everything else 422 with each complaint in `details.errors`."""
    first = found[0]
    if first["type"] == "json_invalid":
        return HeadwayError("request.malformed_json", "The body is not JSON.")
    complaints = [{"field": _field(one), "message": one["msg"]} for one in found[:20]]
    missing = next((one for one in found if one["type"] == "missing"), None)
    if missing is not None:
        name = _field(missing) or "body"
        return HeadwayError("request.missing_parameter", f"{name} is required.", param=name, errors=complaints)
    message = f"{complaints[0]['field']}: {complaints[0]['message']}"
    return HeadwayError("request.invalid_parameter", message, param=complaints[0]["field"], errors=complaints)


def _field(complaint: Any) -> str:
    place = [str(part) for part in complaint["loc"][1:] if not str(part).startswith(("function-", "constrained-"))]
    return ".".join(place) or str(complaint["loc"][0] if complaint["loc"] else "body")
