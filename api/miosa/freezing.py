"""Freezing: from a sandbox's rows to a snapshot in the object store, named by its digest. The sandbox may change on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import anyio
from sqlmodel import Session

from adapters.artifact.snapshot import SnapshotFile, digest_of, dumped, is_left_out
from api.miosa.call import Call
from api.miosa.paths import workspace_path
from api.miosa.schemas import PublishFields
from headway.errors import HeadwayError
from store.models_sandboxes import SandboxFile
from store.sandboxes import files_below, sandbox, snapshot_key, touch


def source_path(body: PublishFields) -> str:
    """The folder that is frozen: what is published or, where a command builds that, the whole workspace."""
    output = workspace_path(body.output_path or getattr(body, "path", None) or "/workspace", folder=True)
    return "" if body.build_command else output


async def freeze(call: Call, sandbox_id: str, folder: str) -> str:
    """The snapshot's digest. Raises sandbox.not_found, sandbox.empty, upload.failed."""

    def read(session: Session) -> tuple[str, Sequence[SandboxFile]]:
        found = sandbox(session, call.sight, call.team_id, sandbox_id, lock=True)
        call.caller.require("sandboxes:read")
        touch(found, call.parts.sandboxes)
        session.add(found)
        return found.team_id, files_below(session, found.id, folder)

    team_id, rows = await call.write(read)
    files = [_file(row, folder) for row in rows]
    files = [one for one in files if not is_left_out(one.path)]
    if not files:
        raise HeadwayError("sandbox.empty", f"There are no files in /workspace/{folder} to publish.")
    return await _keep(call, team_id, files)


async def keep_snapshot(call: Call, team_id: str, rows: Sequence[SandboxFile]) -> str:
    """A snapshot of these files as they are, for a command."""
    return await _keep(call, team_id, [_file(row, "") for row in rows])


async def _keep(call: Call, team_id: str, files: Sequence[SnapshotFile]) -> str:
    digest, raw = digest_of(files), dumped(files)
    sha256 = hashlib.sha256(raw).hexdigest()
    await anyio.to_thread.run_sync(call.parts.objects.put_new, snapshot_key(team_id, digest), raw, sha256)
    return digest


def _file(row: SandboxFile, folder: str) -> SnapshotFile:
    path = row.path[len(folder) + 1 :] if folder else row.path
    return SnapshotFile(path, row.mode, row.size, row.sha256, row.pack_sha256, row.offset)
