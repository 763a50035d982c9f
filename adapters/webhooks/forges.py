"""Calls of forges: who signed one, which call it is, and what was pushed. GitHub, GitLab, and Gitea with its kin."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from adapters.webhooks.signing import mac

PROVIDERS: Final = ("github", "gitlab", "gitea")
_BRANCH: Final = "refs/heads/"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_EVENT: Final = {"github": "x-github-event", "gitlab": "x-gitlab-event", "gitea": "x-gitea-event"}
# The first that is there names the call; GitLab's event id is shared by calls that one event caused.
_CALL: Final = {
    "github": ("x-github-delivery",),
    "gitlab": ("idempotency-key", "x-gitlab-event-uuid"),
    "gitea": ("x-gitea-delivery",),
}


@dataclass(frozen=True)
class Call:
    """`branch` and `commit` are set where a branch was pushed to; a branch that was deleted has no commit."""

    id: str
    event: str
    branch: str | None = None
    commit: str | None = None


def is_genuine(provider: str, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the holder of the secret made it. Header names are in lower case. Compares in constant time."""
    if provider == "gitlab":
        given, wanted = headers.get("x-gitlab-token", ""), secret
    elif provider == "github":
        given, wanted = headers.get("x-hub-signature-256", ""), f"sha256={mac(secret, body)}"
    else:
        given, wanted = headers.get("x-gitea-signature", ""), mac(secret, body)
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def read_call(provider: str, headers: Mapping[str, str], body: bytes) -> Call:
    """What a genuine call says. One without an id is known by its bytes."""
    given = next((headers[name] for name in _CALL[provider] if headers.get(name)), "")
    id = given[:200] or hashlib.sha256(body).hexdigest()
    event = headers.get(_EVENT[provider], "")[:100]
    if event not in ("push", "Push Hook"):
        return Call(id, event)
    payload = _object(body)
    ref, after = payload.get("ref"), payload.get("after")
    if not isinstance(ref, str) or not ref.startswith(_BRANCH):
        return Call(id, event)
    commit = after if isinstance(after, str) and _COMMIT.fullmatch(after) and set(after) != {"0"} else None
    return Call(id, event, ref.removeprefix(_BRANCH)[:250], commit)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
