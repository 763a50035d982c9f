"""Where a repository's forge has its API, and how to speak to each kind of forge."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from adapters.forges.forge import Forge
from adapters.forges.github import Gitea, GitHub
from adapters.forges.gitlab import GitLab
from adapters.webhooks.targets import Targets
from headway.errors import HeadwayError

PROVIDERS: Final = ("github", "gitlab", "gitea")
_OPENERS: Final[dict[str, Callable[[Targets, str, str, str, float], Forge]]] = {
    "github": GitHub.open,
    "gitlab": GitLab.open,
    "gitea": Gitea.open,
}
# Of a forge of one's own the API lies under its address.
_OWN: Final = {"github": "/api/v3", "gitlab": "/api/v4", "gitea": "/api/v1"}
_GITHUB: Final = "https://api.github.com"
_SCP: Final = re.compile(r"(?:[^@/]+@)?([^:/]+):(?!/)(.+)")
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){1,20}")


@dataclass(frozen=True)
class Place:
    api_url: str
    repository: str


def open_forge(
    targets: Targets, provider: str, api_url: str, repository: str, token: str, *, seconds: float = 10.0
) -> Forge:
    return _OPENERS[provider](targets, api_url, repository, token, seconds)


def place_of(provider: str, address: str | None, api_url: str | None, repository: str | None) -> Place:
    """Where the API is, and the repository's path there: as given, else as the site's own address says.

    Raises forge_link.repository_unknown and request.invalid_parameter.
    """
    host, path, scheme = _parts(address or "")
    found = repository or path
    if not found or (api_url is None and not host):
        raise HeadwayError(
            "forge_link.repository_unknown", "The site's repository does not say where its forge is.", param="api_url"
        )
    if not _PATH.fullmatch(found) or len(found) > 500 or (provider != "gitlab" and found.count("/") != 1):
        raise HeadwayError(
            "request.invalid_parameter", f"{found[:80]!r} is no path of a repository.", param="repository"
        )
    if api_url is None:
        api_url = _GITHUB if provider == "github" and host == "github.com" else f"{scheme}://{host}{_OWN[provider]}"
    return Place(api_url.rstrip("/"), found)


def _parts(address: str) -> tuple[str, str, str]:
    """Host with its port, path without `.git`, and scheme, of `https://`, `ssh://` and `git@host:path`."""
    scp = _SCP.fullmatch(address)
    if "://" not in address and scp is not None:
        return scp[1].lower(), scp[2].removesuffix(".git"), "https"
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http", "ssh") or not parts.hostname:
        return "", "", ""
    port = f":{parts.port}" if parts.port and parts.scheme != "ssh" else ""
    scheme = "http" if parts.scheme == "http" else "https"
    return f"{parts.hostname}{port}", parts.path.strip("/").removesuffix(".git"), scheme
