"""One project through the whole stack: built and rolled, built again without caches, compared, and visited."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from bench.client import Caller, JobFailed, Site
from bench.stack import Stack
from tests.real.apps import visit
from tests.real.conftest import Commit
from tests.real.projects import Project

PATIENCE = 3700
MOST_PAGES = 40
LINKED = re.compile(r"""<(?:a|link|script|img)\b[^>]*?\b(?:href|src)\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
NEEDED = re.compile(r"\.(?:js|mjs|css|png|svg|ico|jpe?g|webp|woff2?)\Z")


@dataclass(frozen=True)
class Taken:
    """`seconds` are of the first build, and of the one without caches, which made `different` otherwise."""

    of: str
    plan: dict[str, Any]
    kind: str
    seconds: tuple[float, float]
    files: int
    bytes: int
    pages: int
    missing: tuple[str, ...]
    different: tuple[str, ...]

    def as_line(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def take(stack: Stack, caller: Caller, commit: Commit, name: str, project: Project) -> Taken:
    source = project.make()
    site = caller.new_site(f"theirs-{name}", commit(f"theirs-{name}", source.files), runtime="auto")
    first = _finish(caller, site, caller.push(site, site.staging))
    built = _build(caller, site, first["build_id"])
    clean = caller.post(f"{_base(site)}/builds", {"ref": "main", "clean": True})
    again = _finish(caller, site, clean)
    rebuilt = _build(caller, site, again["build_id"])
    one, two = (_entries(caller, site, artifact) for artifact in (built["artifact_id"], rebuilt["artifact_id"]))
    pages, missing = _visited(stack, site, project)
    return Taken(
        of=source.of,
        plan=_plan(caller, site, built["id"]),
        kind=built["profile"],
        seconds=(_seconds(built), _seconds(rebuilt)),
        files=len(one),
        bytes=sum(entry.get("size", 0) for entry in one.values()),
        pages=pages,
        missing=tuple(missing),
        different=tuple(sorted(path for path in one.keys() | two.keys() if one.get(path) != two.get(path))),
    )


def _base(site: Site) -> str:
    return f"/v1/sites/{site.id}/environments/{site.staging}"


def _build(caller: Caller, site: Site, build_id: str) -> dict[str, Any]:
    found: dict[str, Any] = caller.get(f"{_base(site)}/builds/{build_id}")
    return found


def _plan(caller: Caller, site: Site, build_id: str) -> dict[str, Any]:
    found: dict[str, Any] = caller.get(f"{_base(site)}/builds/{build_id}/plan")
    return found


def _finish(caller: Caller, site: Site, job: dict[str, Any]) -> dict[str, Any]:
    """The job's result. Raises AssertionError with the build's log."""
    try:
        result: dict[str, Any] = caller.finish(job, PATIENCE)["result"]
    except JobFailed as error:
        builds = caller.get(f"{_base(site)}/builds")
        log = caller.http.get(f"{_base(site)}/builds/{builds[0]['id']}/log").text if builds else ""
        raise AssertionError(f"{error}\n{log}") from error
    return result


def _entries(caller: Caller, site: Site, artifact: str) -> dict[str, dict[str, Any]]:
    links = caller.get(f"{_base(site)}/artifacts/{artifact}")["links"]
    manifest = caller.http.get(links["manifest"]).raise_for_status().json()
    return {entry["path"]: entry for entry in manifest["files"]}


def _seconds(build: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(build[key]) for key in ("started_at", "finished_at"))
    return round((ended - began).total_seconds(), 1)


def _visited(stack: Stack, site: Site, project: Project) -> tuple[int, list[str]]:
    """How many pages answered 200, and what of the pages' own files did not."""
    seen: dict[str, int] = {}
    ahead: list[str] = []
    for path, wanted in project.pages.items():
        status, text = visit(stack, site.staging_host, path)
        assert (status, wanted in text) == (200, True), f"{path}: {status}, wanted {wanted!r}: {text[:2000]}"
        seen[path] = status
        ahead += _links(path, text)
    for path in dict.fromkeys(ahead):
        if path not in seen and len(seen) < MOST_PAGES:
            seen[path] = visit(stack, site.staging_host, path)[0]
    missing = [path for path, status in seen.items() if status not in (200, 301, 302, 308) and NEEDED.search(path)]
    return sum(status == 200 for status in seen.values()), missing


def _links(path: str, text: str) -> Sequence[str]:
    found = (urlsplit(urljoin(f"http://site{path}", link)) for link in LINKED.findall(text))
    return [one.path for one in found if one.netloc == "site" and one.scheme == "http" and one.path]


def note(path: Path, name: str, taken: Taken) -> None:
    with path.open("a") as file:
        file.write(f"{name}\t{taken.as_line()}\n")
