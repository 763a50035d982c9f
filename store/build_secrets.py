"""Which of an environment's values a build is given: those that its headway.toml lists by name, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlmodel import Session

from headway.errors import HeadwayError
from store.config_values import Owner, effective_values
from store.models import Build
from store.models_configuration import ConfigValue


def secrets_of(session: Session, build: Build, names: Iterable[str]) -> list[ConfigValue]:
    """The values that the next rollout would take too. Raises build.secret_refused, naming what is missing."""
    wanted = sorted(set(names))
    if wanted and not trusted(build.actor):
        message = "[build] secrets are never given to a build of somebody who may not push to the repository."
        raise HeadwayError("build.secret_refused", message, param="build.secrets")
    held = {row.name: row for row in effective_values(session, Owner(build.site_id, build.env_id))}
    missing = [name for name in wanted if name not in held]
    if missing:
        message = f"[build] secrets names {', '.join(missing)}, which this environment does not have."
        raise HeadwayError("build.secret_refused", message, param="build.secrets")
    return [held[name] for name in wanted]


def trusted(actor: dict[str, Any] | None) -> bool:
    """Whether who asked for a build may see secrets. The one seam for previews of strangers: whoever starts such a
    build (a pull request from a fork) writes `untrusted` into its actor.
    """
    return not (actor or {}).get("untrusted", False)
