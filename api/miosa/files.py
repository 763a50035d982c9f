"""Files of a sandbox: written as packs to the object store, then as rows, so that a write is whole or not at all."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import anyio
from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from sqlmodel import Session
from starlette.responses import Response

from api.gate import check_body, read_body
from api.miosa.call import Call, CallDep, KeyedDep
from api.miosa.document import EXTRA, gives, gives_raw, takes
from api.miosa.dialect import MAX_FILES
from api.miosa.paths import ROOT, workspace_path
from api.miosa.rows import stamp
from api.miosa.sandboxes import WRITE, S, sandbox_of
from api.miosa.schemas import AnyRow, FilesWrite, FileWrite, PathOf
from headway.errors import HeadwayError
from store import sandboxes
from store.models_sandboxes import SandboxFile
from store.sandboxes import Entry, pack_key

router = APIRouter(tags=["files"])
Json = dict[str, Any]
B = TypeVar("B", bound=BaseModel)
EXTRA.append(FileWrite)
DOWNLOAD_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
PathQuery = Annotated[str, Query(max_length=1_100)]
Depth = Annotated[int | None, Query(ge=1, le=100)]


async def _body(call: Call, shape: type[B]) -> B:
    """The request's body, read and parsed off the event loop: it may hold many files."""
    scope = call.request.scope
    headers = dict(scope["headers"])
    raw = await read_body(headers, call.request.receive, MAX_FILES)

    def parse() -> B:
        check_body(headers, raw)
        try:
            return shape.model_validate_json(raw or b"{}")
        except ValidationError as error:
            found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
            raise RequestValidationError(found) from None

    return await anyio.to_thread.run_sync(parse)


# writing


async def _write(call: Call, sandbox_id: str, files: Sequence[FileWrite], *, legacy: bool = False) -> list[Entry]:
    """All or none: the bytes first, as one object, then the rows in one transaction."""

    def look(session: Session) -> str:
        return sandbox_of(call, session, sandbox_id, WRITE).team_id

    team_id = await call.read(look)
    limits = call.parts.sandboxes

    def put() -> list[Entry]:
        contents = [(one, _content(one, legacy)) for one in files]
        for one, content in contents:
            if len(content) > limits.file_bytes:
                message = f"{one.path} is larger than {limits.file_bytes} bytes."
                raise HeadwayError("sandbox.too_large", message, param="content")
        pack, entries = _packed(contents)
        sha256 = hashlib.sha256(pack).hexdigest()
        call.parts.objects.put_new(pack_key(team_id, sha256), pack, sha256)
        return [Entry(path, sha, size, sha256, offset, mode) for path, sha, size, offset, mode in entries]

    entries = await anyio.to_thread.run_sync(put)

    def keep(session: Session) -> None:
        found = sandbox_of(call, session, sandbox_id, WRITE, lock=True)
        sandboxes.write_files(session, found, entries, limits)
        sandboxes.touch(found, limits)

    await call.write(keep)
    return entries


def _content(one: FileWrite, legacy: bool) -> bytes:
    """`content` is text as it is, on the legacy routes base64; `content_base64` is base64 on both."""
    encoded = one.content_base64 if one.content_base64 is not None else (one.content if legacy else None)
    name = "content_base64" if one.content_base64 is not None else "content"
    if encoded is None:
        if one.content is None:
            raise HeadwayError("request.missing_parameter", f"{one.path} has no content.", param="content_base64")
        return one.content.encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise HeadwayError(
            "request.invalid_parameter", f"The {name} of {one.path} is not base64.", param=name
        ) from None


def _packed(contents: Sequence[tuple[FileWrite, bytes]]) -> tuple[bytes, list[tuple[str, str, int, int, str]]]:
    """Equal contents once; of a path that is named twice the last counts."""
    pack, places, entries = bytearray(), {}, {}
    for one, content in contents:
        path, sha256 = workspace_path(one.path), hashlib.sha256(content).hexdigest()
        if sha256 not in places:
            places[sha256] = len(pack)
            pack += content
        entries[path] = (path, sha256, len(content), places[sha256], _mode(one.mode))
    return bytes(pack), list(entries.values())


def _mode(given: str | int | None) -> str:
    """Of a mode only whether the file may be run is kept: 644 or 755."""
    number = given if isinstance(given, int) else int(given or "644", 8)
    return "755" if number & 0o100 else "644"


async def _write_one(call: Call, sandbox_id: str, *, legacy: bool) -> Response:
    one = await _body(call, FileWrite)
    entry = (await _write(call, sandbox_id, [one], legacy=legacy))[0]
    return call.one({"path": f"{ROOT}/{entry.path}", "size": entry.size, "sha256": entry.sha256, "written": True})


async def _write_many(call: Call, sandbox_id: str, *, legacy: bool) -> Response:
    entries = await _write(call, sandbox_id, (await _body(call, FilesWrite)).files, legacy=legacy)
    facts: Json = {"written": [f"{ROOT}/{entry.path}" for entry in entries], "failed": []}
    return call.one(facts)


@router.post(S + "/fs/write", openapi_extra=takes(FileWrite), **gives(AnyRow, "Write a file"))
async def write_file(call: KeyedDep, sandbox_id: str) -> Response:
    return await _write_one(call, sandbox_id, legacy=False)


@router.post(S + "/fs/write-many", openapi_extra=takes(FilesWrite), **gives(AnyRow, "Write files: all or none"))
async def write_files(call: KeyedDep, sandbox_id: str) -> Response:
    return await _write_many(call, sandbox_id, legacy=False)


@router.post(S + "/files", openapi_extra=takes(FileWrite), **gives(AnyRow, "Write a file; its content is base64"))
async def write_file_legacy(call: KeyedDep, sandbox_id: str) -> Response:
    return await _write_one(call, sandbox_id, legacy=True)


@router.post(
    S + "/files/write-many", openapi_extra=takes(FilesWrite), **gives(AnyRow, "Write files; their content is base64")
)
async def write_files_legacy(call: KeyedDep, sandbox_id: str) -> Response:
    return await _write_many(call, sandbox_id, legacy=True)


# reading


async def _download(call: Call, sandbox_id: str, path: str) -> Response:
    wanted = workspace_path(path)

    def look(session: Session) -> tuple[str, SandboxFile]:
        found = sandbox_of(call, session, sandbox_id)
        return found.team_id, sandboxes.file_at(session, found.id, wanted)

    team_id, row = await call.read(look)
    key = pack_key(team_id, row.pack_sha256)
    content = await anyio.to_thread.run_sync(call.parts.objects.get_range, key, row.offset, row.size)
    return Response(
        content, media_type="application/octet-stream", headers={**DOWNLOAD_HEADERS, "ETag": f'"{row.sha256}"'}
    )


@router.get(S + "/fs/download", **gives_raw("A file's bytes", "application/octet-stream"))
async def download_file(call: CallDep, sandbox_id: str, path: PathQuery) -> Response:
    return await _download(call, sandbox_id, path)


async def _tree(call: Call, sandbox_id: str, path: str) -> tuple[str, Sequence[SandboxFile]]:
    folder = workspace_path(path, folder=True)

    def look(session: Session) -> Sequence[SandboxFile]:
        found = sandbox_of(call, session, sandbox_id)
        rows = sandboxes.files_below(session, found.id, folder)
        if folder and not rows:
            sandboxes.file_at(session, found.id, folder)
        return rows

    return folder, await call.read(look)


def entry_row(row: SandboxFile) -> Json:
    return {
        "path": f"{ROOT}/{row.path}",
        "name": row.path.rsplit("/", 1)[-1],
        "type": "symlink" if row.mode == "link" else "file",
        "is_dir": False,
        "size": row.size,
        "mode": "0777" if row.mode == "link" else f"0{row.mode}",
        "sha256": row.sha256,
        "modified_at": stamp(row.updated_at),
    }


def folder_row(path: str) -> Json:
    name = path.rsplit("/", 1)[-1] if path else "workspace"
    shown = f"{ROOT}/{path}" if path else ROOT
    return {"path": shown, "name": name, "type": "directory", "is_dir": True, "size": 0, "mode": "0755"}


def listed(folder: str, rows: Sequence[SandboxFile], depth: int) -> list[Json]:
    """Files and folders down to a depth below `folder`, by path."""
    found: dict[str, Json] = {}
    skip = len(folder) + 1 if folder else 0
    for row in rows:
        parts = row.path[skip:].split("/")
        for n in range(1, min(len(parts), depth + 1)):
            path = row.path[:skip] + "/".join(parts[:n])
            found.setdefault(path, folder_row(path))
        if len(parts) <= depth:
            found[row.path] = entry_row(row)
    return [found[path] for path in sorted(found)]


@router.get(S + "/files", **gives(AnyRow, "List a folder"))
async def list_files(call: CallDep, sandbox_id: str, path: PathQuery = ROOT, depth: Depth = None) -> Response:
    folder, rows = await _tree(call, sandbox_id, path)
    entries = listed(folder, rows, depth or 1)
    return call.one({"path": folder_row(folder)["path"], "entries": entries, "files": entries})


@router.get(S + "/fs/list", **gives(AnyRow, "List a folder"))
async def list_folder(call: CallDep, sandbox_id: str, path: PathQuery = ROOT, depth: Depth = None) -> Response:
    return await list_files(call, sandbox_id, path, depth)


def nested(folder: str, entries: Sequence[Json]) -> Json:
    """The same as a tree of `children`."""
    top = {**folder_row(folder), "children": []}
    folders = {top["path"]: top}
    for entry in entries:
        above = folders[entry["path"].rsplit("/", 1)[0]]
        node = {**entry, "children": []} if entry["type"] == "directory" else entry
        folders[entry["path"]] = node
        above["children"].append(node)
    return top


@router.get(S + "/files/tree", **gives(AnyRow, "A folder as a tree"))
async def tree_files(call: CallDep, sandbox_id: str, path: PathQuery = ROOT, depth: Depth = None) -> Response:
    folder, rows = await _tree(call, sandbox_id, path)
    entries = listed(folder, rows, depth or 3)
    return call.one({**nested(folder, entries), "tree": nested(folder, entries)["children"], "entries": entries})


@router.get(S + "/fs/tree", **gives(AnyRow, "A folder as a tree"))
async def tree_folder(call: CallDep, sandbox_id: str, path: PathQuery = ROOT, depth: Depth = None) -> Response:
    return await tree_files(call, sandbox_id, path, depth)


async def _stat(call: Call, sandbox_id: str) -> Response:
    wanted = workspace_path((await _body(call, PathOf)).path, folder=True)

    def look(session: Session) -> Json:
        found = sandbox_of(call, session, sandbox_id)
        if not wanted or sandboxes.files_below(session, found.id, wanted):
            return {**folder_row(wanted), "exists": True}
        return {**entry_row(sandboxes.file_at(session, found.id, wanted)), "exists": True}

    return call.one(await call.read(look))


@router.post(S + "/fs/stat", openapi_extra=takes(PathOf), **gives(AnyRow, "What is at a path"))
async def stat_file(call: KeyedDep, sandbox_id: str) -> Response:
    return await _stat(call, sandbox_id)


@router.post(S + "/files/stat", openapi_extra=takes(PathOf), **gives(AnyRow, "What is at a path"))
async def stat_file_legacy(call: KeyedDep, sandbox_id: str) -> Response:
    return await _stat(call, sandbox_id)


@router.post(
    S + "/fs/delete", openapi_extra=takes(PathOf), **gives(AnyRow, "Remove a file, or a folder with all in it")
)
async def remove_file(call: KeyedDep, sandbox_id: str) -> Response:
    return await _remove(call, sandbox_id, (await _body(call, PathOf)).path)


@router.delete(S + "/files", **gives(AnyRow, "Remove a file, or a folder with all in it"))
async def remove_file_legacy(call: CallDep, sandbox_id: str, path: PathQuery) -> Response:
    return await _remove(call, sandbox_id, path)


async def _remove(call: Call, sandbox_id: str, path: str) -> Response:
    wanted = workspace_path(path)

    def work(session: Session) -> int:
        found = sandbox_of(call, session, sandbox_id, WRITE, lock=True)
        removed = sandboxes.remove_files(session, found, [wanted])
        if not removed:
            raise HeadwayError("file.not_found", f"There is no file {ROOT}/{wanted}.", param="path")
        sandboxes.touch(found, call.parts.sandboxes)
        return removed

    return call.one({"path": f"{ROOT}/{wanted}", "removed": await call.write(work)})


@router.get(S + "/files/{path:path}", **gives_raw("A file's bytes", "application/octet-stream"))
async def download_file_legacy(call: CallDep, sandbox_id: str, path: str) -> Response:
    """Here the path is a part of the address, without the slash that it begins with."""
    rooted = path == ROOT[1:] or path.startswith(ROOT[1:] + "/")
    return await _download(call, sandbox_id, f"/{path}" if rooted else path)
