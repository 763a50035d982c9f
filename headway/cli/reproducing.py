"""Build the same commit again, without caches, and compare: `headway build --reproduce`."""

from __future__ import annotations

import json
from typing import Any, Final

from headway.cli.output import clean, print_fields, print_json, say
from headway.cli.session import Session
from headway.cli.waiting import TIMED_OUT, show_ended
from headway.resources import Job

DIFFER: Final = 1
SHOWN: Final = 50


def reproduce(session: Session, site_id: str, env_id: str, ref: str | None, timeout: float | None) -> int:
    """Exit code 0 where both artifacts are the same bytes, 1 where they are not or a build failed, 124 in time-out."""
    from headway.client import WaitTimeout

    try:
        return _reproduce(session, site_id, env_id, ref, timeout)
    except WaitTimeout as error:
        say(f"{session.program}: {error}")
        return TIMED_OUT


def _reproduce(session: Session, site_id: str, env_id: str, ref: str | None, timeout: float | None) -> int:
    builds = session.client.builds
    first = _built(session, builds.create(site_id, env_id, ref=ref, idempotency_key=session.key), timeout)
    if first is None:
        return DIFFER
    key = f"{session.key}-again" if session.key else None
    commit = str(first["commit_sha"])
    again = _built(session, builds.create(site_id, env_id, ref=commit, clean=True, idempotency_key=key), timeout)
    if again is None:
        return DIFFER
    same = first["digest"] == again["digest"]
    differing = (
        []
        if same
        else _differing(_manifest(session, site_id, env_id, first), _manifest(session, site_id, env_id, again))
    )
    _show(
        session, {"reproduced": same, "commit": commit, "digest": first["digest"], "again": again["digest"]}, differing
    )
    return 0 if same else DIFFER


def _built(session: Session, job: Job, timeout: float | None) -> dict[str, Any] | None:
    ended = session.client.jobs.wait(job.id, timeout=timeout)
    if ended.status != "succeeded":
        show_ended(session, ended)
        return None
    return ended.result or {}


def _manifest(session: Session, site_id: str, env_id: str, result: dict[str, Any]) -> dict[str, Any]:
    artifact = session.client.artifacts.get(site_id, env_id, str(result["artifact_id"]))
    document: dict[str, Any] = json.loads(session.client.artifacts.document(artifact, "manifest"))
    return document


def _differing(first: dict[str, Any], again: dict[str, Any]) -> list[dict[str, Any]]:
    """What is not the same: files by path, and the settings of the manifest."""
    one, two = ({entry["path"]: entry for entry in manifest["files"]} for manifest in (first, again))
    found = [
        {"path": path, "first": _told(one.get(path)), "again": _told(two.get(path))}
        for path in sorted(one.keys() | two.keys())
        if one.get(path) != two.get(path)
    ]
    settings = sorted(key for key in first.keys() | again.keys() if key != "files" and first.get(key) != again.get(key))
    return found + [{"setting": key, "first": first.get(key), "again": again.get(key)} for key in settings]


def _told(entry: dict[str, Any] | None) -> str | None:
    if entry is None:
        return None
    return f"link to {entry['link']}" if "link" in entry else f"sha256:{entry['sha256']} {entry['mode']}"


def _show(session: Session, facts: dict[str, Any], differing: list[dict[str, Any]]) -> None:
    if session.as_json:
        print_json({**facts, "differing": differing})
        return
    print_fields(facts)
    for one in differing[:SHOWN]:
        say(f"differs: {clean(one.get('path') or 'the setting ' + str(one.get('setting')))}")
    if len(differing) > SHOWN:
        say(f"and {len(differing) - SHOWN} more: --json names them all")
    if facts["reproduced"]:
        say("The same bytes: this commit builds to what was built before.")
