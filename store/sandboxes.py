"""Sandboxes and their files, as rows: what is where, how much it is, and until when it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Project, Team, utcnow
from store.models_sandboxes import Sandbox, SandboxFile
from store.sandbox_env import forget_env
from store.sight import Sight

Json = dict[str, Any]
BATCH: Final = 400
# Up to so many paths are looked up one by one; for more the whole tree is read at once.
FEW: Final = 40
_TABLE: Final = SQLModel.metadata.tables["sandbox_file"]
_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert(_TABLE), "postgresql": postgresql.insert(_TABLE)}


@dataclass(frozen=True)
class SandboxLimits:
    """Of one sandbox: files, bytes, bytes of one file; of a team: living sandboxes; `idle` without a use ends one."""

    files: int = 20_000
    size_bytes: int = 1 << 30
    file_bytes: int = 64 << 20
    per_team: int = 200
    idle: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class Entry:
    """A file's place: `size` bytes at `offset` of the pack."""

    path: str
    sha256: str
    size: int
    pack_sha256: str
    offset: int
    mode: str = "644"


@dataclass(frozen=True)
class SandboxRequest:
    name: str | None
    template_id: str
    labels: Json
    tags: Json | None
    idle_timeout_sec: int | None
    external_workspace_id: str | None
    external_user_id: str | None
    external_project_id: str | None


def pack_key(team_id: str, sha256: str) -> str:
    return f"sandboxes/{team_id}/packs/{sha256}"


def snapshot_key(team_id: str, sha256: str) -> str:
    return f"sandboxes/{team_id}/snapshots/{sha256}.json"


def living(sight: Sight, team_id: str) -> SelectOfScalar[Sandbox]:
    """The sandboxes that a credential sees, those whose time is over left out."""
    within = select(col(Project.id)).where(Project.team_id == team_id, *sight.projects())
    return select(Sandbox).where(
        Sandbox.team_id == team_id,
        col(Sandbox.project_id).in_(within),
        col(Sandbox.destroyed_at).is_(None),
        or_(col(Sandbox.expires_at).is_(None), col(Sandbox.expires_at) > utcnow()),
    )


def sandbox(session: Session, sight: Sight, team_id: str, sandbox_id: str, *, lock: bool = False) -> Sandbox:
    """Raises sandbox.not_found: unknown, destroyed, expired, or another tenant's."""
    query = living(sight, team_id).where(Sandbox.id == sandbox_id)
    found = session.exec(query.with_for_update() if lock else query).first()
    if found is None:
        raise HeadwayError("sandbox.not_found", f"There is no sandbox {sandbox_id}.", param="sandbox_id")
    return found


def sandbox_by_name(session: Session, sight: Sight, team_id: str, name: str) -> Sandbox:
    found = session.exec(living(sight, team_id).where(Sandbox.name == name)).first()
    if found is None:
        raise HeadwayError("sandbox.not_found", f"There is no sandbox named {name!r}.", param="name")
    return found


def make_sandbox(
    session: Session, owner: Project, wanted: SandboxRequest, actor: Json, limits: SandboxLimits
) -> Sandbox:
    """Raises sandbox.name_taken and sandbox.too_many."""
    session.get(Team, owner.team_id, with_for_update={"key_share": True})
    expire(session, owner.team_id)
    count = select(func.count()).select_from(Sandbox)
    alive = session.exec(count.where(Sandbox.team_id == owner.team_id, col(Sandbox.destroyed_at).is_(None))).one()
    if alive >= limits.per_team:
        raise HeadwayError("sandbox.too_many", f"There are {alive} sandboxes already, the limit is {limits.per_team}.")
    check_name(session, owner.team_id, wanted.name)
    made = Sandbox(id=new_id("sbx"), team_id=owner.team_id, project_id=owner.id, actor=actor, **vars(wanted))
    made.expires_at = made.created_at + _idle(made, limits)
    session.add(made)
    session.flush()
    return made


def check_name(session: Session, team_id: str, name: str | None) -> None:
    if name is None:
        return
    taken = select(Sandbox.id).where(
        Sandbox.team_id == team_id, Sandbox.name == name, col(Sandbox.destroyed_at).is_(None)
    )
    if session.exec(taken).first() is not None:
        raise HeadwayError("sandbox.name_taken", f"There is a sandbox named {name!r}.", param="name")


def touch(found: Sandbox, limits: SandboxLimits) -> None:
    """It was used: its idle time starts again."""
    found.used_at = utcnow()
    found.expires_at = found.used_at + _idle(found, limits)


def _idle(found: Sandbox, limits: SandboxLimits) -> timedelta:
    return min(limits.idle, timedelta(seconds=found.idle_timeout_sec or limits.idle.total_seconds()))


def destroy(session: Session, found: Sandbox) -> None:
    found.state, found.destroyed_at = "destroyed", utcnow()
    forget_env(session, found.id)
    session.add(found)


def expire(session: Session, team_id: str | None = None, *, limit: int = 100) -> int:
    """End what was idle for too long; how many that were."""
    query = select(Sandbox).where(col(Sandbox.destroyed_at).is_(None), col(Sandbox.expires_at) <= utcnow())
    if team_id is not None:
        query = query.where(Sandbox.team_id == team_id)
    # One that is locked is being used.
    rows = session.exec(query.limit(limit).with_for_update(skip_locked=True)).all()
    for row in rows:
        destroy(session, row)
    session.flush()
    return len(rows)


def forget_files(session: Session, before: datetime, *, limit: int = 2_000) -> int:
    """Delete file rows of sandboxes that were destroyed before that; how many."""
    gone = select(col(Sandbox.id)).where(col(Sandbox.destroyed_at) < before)
    paths = session.execute(
        select(SandboxFile.sandbox_id, SandboxFile.path).where(col(SandboxFile.sandbox_id).in_(gone)).limit(limit)
    ).all()
    for sandbox_id in {row[0] for row in paths}:
        mine = [row[1] for row in paths if row[0] == sandbox_id]
        _delete(session, sandbox_id, mine)
    return len(paths)


# files


def check_folder(session: Session, sandbox_id: str, path: str) -> None:
    """A folder may be there or be made there. Raises sandbox.path_conflict."""
    parts = path.split("/")
    ways = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    query = select(SandboxFile.path).where(SandboxFile.sandbox_id == sandbox_id, col(SandboxFile.path).in_(ways))
    if path and (file := session.exec(query).first()) is not None:
        raise HeadwayError("sandbox.path_conflict", f"/workspace/{file} is a file.", param="cwd")


def file_at(session: Session, sandbox_id: str, path: str) -> SandboxFile:
    """Raises file.not_found."""
    found = session.get(SandboxFile, (sandbox_id, path))
    if found is None:
        raise HeadwayError("file.not_found", f"There is no file /workspace/{path}.", param="path")
    return found


def files_below(session: Session, sandbox_id: str, folder: str) -> Sequence[SandboxFile]:
    """Every file in a folder (`""` is the workspace) and below it, by path."""
    query = select(SandboxFile).where(SandboxFile.sandbox_id == sandbox_id)
    if folder:
        query = query.where(col(SandboxFile.path).startswith(folder + "/", autoescape=True))
    return sorted(session.exec(query).all(), key=lambda row: row.path)


def write_files(session: Session, found: Sandbox, entries: Sequence[Entry], limits: SandboxLimits) -> None:
    """All of them or none. `found` is locked. Raises sandbox.path_conflict and sandbox.too_large."""
    before = _standing(session, found.id, [entry.path for entry in entries])
    after = {**before, **{entry.path: entry.size for entry in entries}}
    _check_shape(after, [entry.path for entry in entries])
    files = found.files + len(after) - len(before)
    size = found.size_bytes + sum(after.values()) - sum(before.values())
    if files > limits.files:
        raise HeadwayError("sandbox.too_large", f"A sandbox holds at most {limits.files} files.", param="path")
    if size > limits.size_bytes:
        raise HeadwayError("sandbox.too_large", f"A sandbox holds at most {limits.size_bytes} bytes.", param="content")
    now = utcnow()
    rows = [{"sandbox_id": found.id, "updated_at": now, **vars(entry)} for entry in entries]
    _upsert(session, rows)
    found.files, found.size_bytes, found.rev = files, size, found.rev + 1
    session.add(found)


def remove_files(session: Session, found: Sandbox, paths: Sequence[str]) -> int:
    """How many were there; `found` is locked. A folder's name stands for all that lies below it."""
    before = _standing(session, found.id, list(paths))
    named = {path for path in before if any(path == one or path.startswith(f"{one}/") for one in paths)}
    _delete(session, found.id, named)
    found.files -= len(named)
    found.size_bytes -= sum(before[path] for path in named)
    found.rev += 1
    session.add(found)
    return len(named)


def _standing(session: Session, sandbox_id: str, paths: Sequence[str]) -> dict[str, int]:
    """Sizes by path of what bears on a change at these paths: they themselves, what is above and what is below."""
    query = select(SandboxFile.path, SandboxFile.size).where(SandboxFile.sandbox_id == sandbox_id)
    if len(paths) <= FEW:
        above = {"/".join(parts[:n]) for parts in (path.split("/") for path in paths) for n in range(1, len(parts) + 1)}
        below = (col(SandboxFile.path).startswith(f"{path}/", autoescape=True) for path in paths)
        query = query.where(or_(col(SandboxFile.path).in_(sorted(above)), *below))
    return {row[0]: row[1] for row in session.execute(query).all()}


def _check_shape(sizes: dict[str, int], paths: Iterable[str]) -> None:
    """No file where a folder is."""
    folders = {"/".join(parts[:n]) for parts in (path.split("/") for path in sizes) for n in range(1, len(parts))}
    for path in paths:
        parts = path.split("/")
        file = next((above for n in range(1, len(parts)) if (above := "/".join(parts[:n])) in sizes), None)
        if file is not None or path in folders:
            what = f"/workspace/{file} is a file" if file is not None else f"/workspace/{path} is a folder"
            raise HeadwayError("sandbox.path_conflict", f"{what}.", param="path")


def _upsert(session: Session, rows: list[Json]) -> None:
    statement = _INSERT[session.get_bind().dialect.name]
    named = [name for name in rows[0] if name not in ("sandbox_id", "path")]
    changed = {name: statement.excluded[name] for name in named}
    upsert = statement.on_conflict_do_update(index_elements=["sandbox_id", "path"], set_=changed)
    for start in range(0, len(rows), BATCH):
        session.connection().execute(upsert, rows[start : start + BATCH])


def _delete(session: Session, sandbox_id: str, paths: Iterable[str]) -> None:
    every = sorted(paths)
    for start in range(0, len(every), BATCH):
        some = col(SandboxFile.path).in_(every[start : start + BATCH])
        session.execute(delete(SandboxFile).where(col(SandboxFile.sandbox_id) == sandbox_id, some))
