"""Calls of forges: who signed one, which call it is, and what was pushed. GitHub, GitLab, and Gitea with its kin."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from adapters.webhooks.signing import mac

PROVIDERS: Final = ("github", "gitlab", "gitea")
_BRANCH: Final = "refs/heads/"
# More than a branch's name may have: one that is cut here is none.
LONGEST: Final = 300
_COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_ODD: Final = re.compile(r"[\x00\ud800-\udfff]")
_EVENT: Final = {"github": "x-github-event", "gitlab": "x-gitlab-event", "gitea": "x-gitea-event"}
# The first that is there names the call; GitLab's event id is shared by calls that one event caused.
_CALL: Final = {
    "github": ("x-github-delivery",),
    "gitlab": ("idempotency-key", "x-gitlab-event-uuid"),
    "gitea": ("x-gitea-delivery",),
}


@dataclass(frozen=True)
class Call:
    """`branch` is set where one was pushed to or `deleted`; `commit` is what it is now, None where that names none.

    `ref` is what else was pushed to; `before` is what the branch was. `opened` is the branch of a pull request that
    was opened, or opened again.
    """

    id: str
    event: str
    branch: str | None = None
    commit: str | None = None
    deleted: bool = False
    ref: str | None = None
    before: str | None = None
    opened: str | None = None


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
    payload = _object(body)
    ref, after = _plain(payload.get("ref")), payload.get("after")
    if event == "delete" and payload.get("ref_type") == "branch" and ref is not None:
        return Call(id, event, ref[:LONGEST], deleted=True)  # Gitea tells a deletion apart from pushes
    if event not in ("push", "Push Hook", "Tag Push Hook") or ref is None:
        return Call(id, event, opened=_opened(event, payload))
    if not ref.startswith(_BRANCH):
        return Call(id, event, ref=ref[:LONGEST])
    said, before = _object_id(after), _object_id(payload.get("before"))
    gone = said is not None and set(said) == {"0"}
    branch = ref.removeprefix(_BRANCH)[:LONGEST]
    return Call(id, event, branch, None if gone else said, deleted=gone, before=before)


def _opened(event: str, payload: dict[str, Any]) -> str | None:
    """The branch, in whatever repository: who looks for pull requests later tells forks apart."""
    if event == "pull_request" and payload.get("action") in ("opened", "reopened"):
        branch = _plain(_inner(_inner(payload, "pull_request"), "head").get("ref"))
    elif event == "Merge Request Hook" and _inner(payload, "object_attributes").get("action") in ("open", "reopen"):
        branch = _plain(_inner(payload, "object_attributes").get("source_branch"))
    else:
        return None
    return branch[:LONGEST] if branch is not None else None


def _plain(given: object) -> str | None:
    """Without what no database takes: what stands there instead is in no name of a branch."""
    return _ODD.sub("?", given) if isinstance(given, str) else None


def _inner(payload: dict[str, Any], name: str) -> dict[str, Any]:
    found = payload.get(name)
    return found if isinstance(found, dict) else {}


def _object_id(given: object) -> str | None:
    return given if isinstance(given, str) and _COMMIT.fullmatch(given) else None


def _object(body: bytes) -> dict[str, Any]:
    """Of JSON, or of the form that GitHub and Gitea send where nobody has chosen: `payload=<JSON>`."""
    if body.startswith(b"payload="):
        body = unquote_to_bytes(body.removeprefix(b"payload=").partition(b"&")[0].replace(b"+", b" "))
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
