"""Branch routes (contract section 11): which environment a push of a branch goes to. First match wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.models import Build, Site

LIVE, STAGING, PREVIEW, IGNORE = "live", "staging", "preview", "ignore"
TARGETS: Final = (LIVE, STAGING, PREVIEW, IGNORE)
MOST: Final = 100
LONGEST: Final = 250


@dataclass(frozen=True)
class Route:
    pattern: str
    target: str

    def as_dict(self) -> dict[str, str]:
        return {"pattern": self.pattern, "target": self.target}


def default_routes(default_branch: str) -> tuple[Route, ...]:
    return Route(default_branch, LIVE), Route("staging", STAGING), Route("*", PREVIEW)


def routes_of(site: Site) -> tuple[Route, ...]:
    if site.branch_routes is None:
        return default_routes(site.default_branch)
    return tuple(Route(**row) for row in site.branch_routes)


def routes_heard(session: Session, site: Site, branch: str) -> tuple[Route, ...]:
    """A remote's: those of headway.toml, where the site lets them count, as the default branch's last build found them.

    Raises build.config_invalid, but for the default branch: its next push may put them right.
    """
    if not site.routes_from_repository:
        return routes_of(site)
    last = (
        select(Build)
        .where(Build.site_id == site.id, Build.ref == site.default_branch, Build.status == "succeeded")
        .order_by(col(Build.created_at).desc(), col(Build.id).desc())
        .limit(1)
    )
    build = session.exec(last).first()
    given = (build.plan or {}).get("routes") if build is not None else None
    if given is None:
        return routes_of(site)
    try:
        return read_routes(given)
    except HeadwayError as error:
        if branch == site.default_branch:
            return routes_of(site)
        raise HeadwayError("build.config_invalid", f"headway.toml: {error.param}: {error.message}") from None


def target_of(routes: Sequence[Route], branch: str) -> str:
    """`*` stands for any characters, `/` too; what nothing matches is ignored."""
    return next((route.target for route in routes if fnmatchcase(branch, route.pattern)), IGNORE)


def read_routes(given: Sequence[Mapping[str, Any]]) -> tuple[Route, ...]:
    """`production` is taken for `live`. Raises request.invalid_parameter, naming the row."""
    if len(given) > MOST:
        raise _invalid("routes", f"A site has at most {MOST} routes.")
    found = []
    for number, row in enumerate(given):
        pattern, target = row.get("pattern"), row.get("target")
        if not isinstance(pattern, str) or not 0 < len(pattern) <= LONGEST or not pattern.isprintable():
            message = f"A pattern is a branch or a glob of 1 to {LONGEST} characters."
            raise _invalid(f"routes.{number}.pattern", message)
        target = LIVE if target == "production" else target
        if target not in TARGETS:
            raise _invalid(f"routes.{number}.target", f"A target is one of {', '.join(TARGETS)}.")
        if set(row) - {"pattern", "target"}:
            raise _invalid(f"routes.{number}", "A route is a pattern and a target.")
        found.append(Route(pattern, target))
    return tuple(found)


def _invalid(param: str, message: str) -> HeadwayError:
    return HeadwayError("request.invalid_parameter", message, param=param)
