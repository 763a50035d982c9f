"""What a build takes in, as one digest: two builds with the same one would make the same artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from adapters.artifact.folder import Folder
from adapters.artifact.manifest import File, canonical
from adapters.artifact.tree import CHUNK, scan
from adapters.plan.plan import Plan
from headway.errors import HeadwayError


def inputs_digest(
    workspace: Folder, plan: Plan, source_sha256: str, versions: Mapping[str, str] | None = None
) -> str | None:
    """Hex; asked before anything runs. None where something watched cannot be read (the build will say what).

    Of a plan that watches paths, the files below them count in the place of the whole source. `versions` are the ids
    of the secrets that the build is given, by name.
    """
    try:
        source: Any = [_watched(workspace, path) for path in plan.watch] if plan.watch else source_sha256
        return digest(plan, source, versions)
    except (HeadwayError, UnicodeEncodeError):
        return None


def digest(plan: Plan, source: Any, versions: Mapping[str, str] | None = None) -> str:
    """Hex. `source` is the whole source's sha256, where the plan watches nothing."""
    taken: dict[str, Any] = {"version": 1, "source": source, "plan": plan.as_dict()}
    return hashlib.sha256(canonical({**taken, "secrets": dict(versions)} if versions else taken)).hexdigest()


def _watched(workspace: Folder, path: str) -> list[Any]:
    above, _, name = path.rpartition("/")
    holder = workspace.folder(above)
    if holder is None:
        return [path, None]
    with holder:
        if name and not holder.has(name):
            return [path, None]
        try:
            folder = holder.folder(name)
        except HeadwayError:
            return [path, _file(holder, name)]
        if folder is None:
            return [path, None]
        with folder:
            entries = scan(folder, left_out=frozenset()).entries
    return [
        path,
        [[one.path, one.mode, one.sha256] if isinstance(one, File) else [one.path, one.target] for one in entries],
    ]


def _file(holder: Folder, name: str) -> str:
    fd = holder.open(name)
    with open(fd, "rb", buffering=0) as file:
        hasher = hashlib.sha256()
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()
