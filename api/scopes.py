"""Scopes, presets and roles (contract sections 3.2, 3.3 and 3.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

READ_WRITE: Final = (
    "account",
    "sites",
    "environments",
    "deployments",
    "domains",
    "backups",
    "webhooks",
    "cache",
    "redirects",
    "secrets",
    "sandboxes",
)
ISOLATED: Final = frozenset(("credentials:read", "credentials:write", "exec:raw", "keys:write"))
WP: Final = frozenset(("wp.cli:exec", "wp.plugins:read", "wp.plugins:write", "wp.themes:write", "wp.content:write"))
SCOPES: Final = frozenset(
    (
        *(f"{noun}:{action}" for noun in READ_WRITE for action in ("read", "write")),
        *("teams:read", "teams:write", "teams:admin", "jobs:read", "observability:read", "security:read"),
        *("cron:write", "db:read"),
        *ISOLATED,
        *WP,
    )
)
READS: Final = frozenset(scope for scope in SCOPES - ISOLATED if scope.endswith(":read"))
PRESETS: Final[dict[str, frozenset[str]]] = {
    "read-only": READS,
    "deploy-bot": frozenset(
        (
            *("sites:read", "deployments:write", "environments:write", "domains:read"),
            *("jobs:read", "observability:read"),
        )
    ),
    "ci-terraform": READS
    | {"sites:write", "environments:write", "deployments:write", "domains:write", "backups:write"},
    "observability": frozenset(("observability:read", "security:read", "jobs:read", "sites:read")),
    "wp-automation": frozenset(
        (
            *("wp.plugins:write", "wp.themes:write", "wp.content:write", "cron:write"),
            *("sites:read", "environments:read", "jobs:read"),
        )
    ),
}

_MANAGER: Final = (READS | WP | {"cron:write"}) | {
    f"{noun}:write"
    for noun in (
        "environments",
        "deployments",
        "domains",
        "backups",
        "cache",
        "redirects",
        "secrets",
        "account",
        "sandboxes",
    )
}
ROLES: Final[dict[str, frozenset[str]]] = {
    "owner": SCOPES,
    "admin": SCOPES,
    "site_manager": _MANAGER,
    "observer": READS,
    "billing": frozenset(("account:read", "account:write", "teams:read")),
}


def implied(scopes: Iterable[str]) -> frozenset[str]:
    """Everything that these scopes grant: `admin` implies `write` implies `read`; `*` all but the isolated ones."""
    granted: set[str] = set()
    for scope in scopes:
        if scope == "*":
            granted |= SCOPES - ISOLATED
        elif scope == "wp:*":
            granted |= WP
        else:
            noun, _, action = scope.rpartition(":")
            granted.add(scope)
            if action == "admin":
                granted.add(f"{noun}:write")
            if action in ("admin", "write"):
                granted.add(f"{noun}:read")
    return frozenset(granted)


def unknown(scopes: Iterable[str]) -> list[str]:
    """Those that no key may be minted with."""
    return sorted(scope for scope in scopes if scope not in SCOPES and scope not in ("*", "wp:*"))
