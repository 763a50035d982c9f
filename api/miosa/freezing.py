"""Freezing: from a sandbox's rows to a snapshot in the object store, named by its digest. The sandbox may change on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
from sqlmodel import Session

from adapters.artifact.snapshot import SnapshotFile, digest_of, dumped, is_left_out
from api.miosa.call import Call
from api.miosa.paths import workspace_path
from api.miosa.schemas import PublishFields
from headway.errors import HeadwayError
from headway.ids import new_id
from store.models_sandboxes import Sandbox, SandboxFile
from store.sandbox_packs import hold, hold_snapshot
from store.sandboxes import files_below, sandbox, snapshot_key, touch

TRIES: Final = 50
PAUSE: Final = 0.1


def output_path(body: PublishFields) -> str:
    """The folder that is published."""
    return workspace_path(body.output_path or getattr(body, "path", None) or "/workspace", folder=True)


async def freeze(call: Call, sandbox_id: str, folder: str) -> str:
    """The snapshot's digest. Raises sandbox.not_found, sandbox.empty, upload.failed."""

    def read(session: Session) -> Taken:
        found = sandbox(session, call.sight, call.team_id, sandbox_id, lock=True)
        call.caller.require("sandboxes:read")
        return take(call, session, found, folder, is_left_out)

    taken = await call.write(read)
    if not taken.files:
        raise HeadwayError("sandbox.empty", f"There are no files in /workspace/{folder} to publish.")
    return await keep_snapshot(call, taken)


@dataclass(frozen=True)
class Taken:
    """A tree at one moment. Its packs are leased to `holder` until the snapshot names them."""

    team_id: str
    holder: str
    files: list[SnapshotFile]


def take(call: Call, session: Session, found: Sandbox, folder: str, left_out: Callable[[str], bool]) -> Taken:
    """The files of a locked sandbox below a folder. Raises upload.failed."""
    touch(found, call.parts.sandboxes)
    session.add(found)
    files = [_file(row, folder) for row in files_below(session, found.id, folder)]
    files = [one for one in files if not left_out(one.path)]
    ends: dict[str, int] = {}
    for one in files:
        ends[one.pack] = max(ends.get(one.pack, 0), one.offset + one.size)
    taken = Taken(found.team_id, new_id("lease"), files)
    hold(session, taken.team_id, taken.holder, ends)
    return taken


async def keep_snapshot(call: Call, taken: Taken) -> str:
    """The digest of the snapshot, which is in the object store now. Raises upload.failed."""
    team_id, objects = taken.team_id, call.parts.objects
    digest, raw = await anyio.to_thread.run_sync(lambda: (digest_of(taken.files), dumped(taken.files)))
    packs = {one.pack for one in taken.files}
    for last in (*(False,) * TRIES, True):
        try:
            await call.change(lambda session: hold_snapshot(session, team_id, taken.holder, digest, packs))
            break
        except HeadwayError as error:
            if last or error.code != "upload.failed":
                raise
            # The same tree is being deleted at this moment, which takes no longer than one request to the store.
            await anyio.sleep(PAUSE)
    sha256 = hashlib.sha256(raw).hexdigest()
    await anyio.to_thread.run_sync(objects.put_new, snapshot_key(team_id, digest), raw, sha256)
    return digest


def _file(row: SandboxFile, folder: str) -> SnapshotFile:
    path = row.path[len(folder) + 1 :] if folder else row.path
    return SnapshotFile(path, row.mode, row.size, row.sha256, row.pack_sha256, row.offset)
