"""What webhooks tell of: the catalogue of events, their names in the two dialects, and the bodies that are sent.

An event's data is kept as the engine's own words; a body is made of it at each try, the same bytes each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from headway.errors import HeadwayError, error_object

Json = dict[str, Any]
MANAGED: Final = "managed"
MIOSA: Final = "miosa"
# No dialect of ours: what people are told, by chat or e-mail (headway/notices.py). Its names are the managed ones.
NOTICE: Final = "notice"

# Of the managed dialect (contract section 17): the engine's own names.
EVENTS: Final[dict[str, str]] = {
    "site.created": "A site is ready to be deployed to.",
    "site.deployed": "A deployment has finished rolling.",
    "deployment.failed": "A deployment failed to build or to roll.",
    "build.started": "A builder has taken a build.",
    "build.succeeded": "A build made a signed artifact.",
    "build.failed": "A build made nothing.",
    "release.activated": "A release is the current one of its environment.",
    "release.rolled_back": "An earlier release is current again.",
    "environment.created": "An environment is ready.",
    "environment.deleted": "An environment is gone.",
    "job.succeeded": "Any job has succeeded.",
    "job.failed": "Any job has failed.",
    "job.canceled": "Any job was canceled, or superseded by a later one.",
    "domain.attached": "A domain is verified and leads to its environment.",
    "domain.detached": "A domain no longer leads to its environment.",
    "cert.renewed": "The web server has got a certificate for a domain. What it renews by itself it tells nobody.",
    "webhook.test": "Somebody asked for it.",
}
# Named by the contract, and never sent by this platform: there are no quotas of plans and no scanner here.
SILENT: Final = ("quota.exceeded", "malware.detected", "security.site_hacked")

# The other dialect's names of the engine's events; what is not here has none.
NAMES: Final[dict[str, str]] = {
    "site.created": "deployment.created",
    "build.started": "deployment.build_started",
    "build.succeeded": "deployment.build_succeeded",
    "build.failed": "deployment.build_failed",
    "site.deployed": "deployment.published",
    "deployment.failed": "deployment.publish_failed",
    "domain.attached": "deployment.domain_attached",
    "domain.detached": "deployment.domain_detached",
    "webhook.test": "webhook.test",
}
_SHOWN: Final = {"site": "dep", "build": "ver", "art": "rel"}


@dataclass(frozen=True)
class Told:
    """An event, as it is kept. `at` is RFC 3339 with milliseconds."""

    id: str
    type: str
    at: str
    data: Json


def named(type: str, dialect: str) -> str | None:
    """An event's name in a dialect; None where that has none."""
    return NAMES.get(type) if dialect == MIOSA else type


def known(dialect: str) -> tuple[str, ...]:
    """Every name that an endpoint may listen to."""
    return tuple(NAMES.values()) if dialect == MIOSA else (*EVENTS, *SILENT)


def covers(patterns: Iterable[str], name: str) -> bool:
    """`*`, an exact name, or `prefix.*`."""
    return any(one in ("*", name) or (one.endswith(".*") and name.startswith(one[:-1])) for one in patterns)


def check_patterns(patterns: Iterable[str], dialect: str) -> list[str]:
    """As they are, without repeats. Raises request.invalid_parameter for one that nothing can match."""
    found = list(dict.fromkeys(patterns))
    for one in found:
        if not any(covers([one], name) for name in known(dialect)):
            names = ", ".join(known(dialect))
            raise HeadwayError(
                "request.invalid_parameter", f"There is no event {one[:80]!r}: *, {names}.", param="events"
            )
    return found


def body_of(told: Told, dialect: str, docs_url: str) -> bytes:
    """What is sent. The same event gives the same bytes."""
    data = flat(told.data) if dialect == MIOSA else _with_documents(told.data, docs_url)
    name = named(told.type, dialect) or told.type
    body = {"id": told.id, "type": name, "created_at": told.at, "data": data}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _with_documents(data: Json, docs_url: str) -> Json:
    """Failures as the API shows them."""
    shown = {}
    for noun, facts in data.items():
        if isinstance(facts, dict) and facts.get("error"):
            facts = {**facts, "error": error_object(HeadwayError.from_dict(facts["error"]), docs_url)}
        shown[noun] = facts
    return shown


def flat(data: Json) -> Json:
    """The one noun's facts in the other dialect's words: `deployment_id`, `version_id`, `release_id` and the like."""
    noun, facts = next(iter(data.items()))
    own = {"site": "site_id", "build": "build_id", "deployment": "promotion_id", "domain": "domain_id"}
    renamed = {"site_id": "deployment_id", "build_id": "version_id", "artifact_id": "release_id"}
    shown: Json = {}
    for name, value in facts.items():
        if name == "release_id":
            continue
        key = own.get(noun, f"{noun}_id") if name == "id" else name
        shown[renamed.get(key, key)] = _shown(value) if isinstance(value, str) else value
    if isinstance(shown.get("error"), dict):
        shown["error"] = {name: shown["error"].get(name) for name in ("code", "message")}
    return shown


def _shown(value: str) -> str:
    prefix, _, rest = value.partition("_")
    return f"{_SHOWN[prefix]}_{rest}" if prefix in _SHOWN and rest.isalnum() else value
