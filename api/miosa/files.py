"""Files of a sandbox: written as packs to the object store, then as rows, so that a write is whole or not at all."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import anyio
from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from sqlmodel import Session
from starlette.responses import Response, StreamingResponse

from api.gate import MAX_BODY, check_media, read_body
from api.miosa.answers import AnyRow
from api.miosa.call import Call, CallDep, KeyedDep
from api.miosa.dialect import MAX_FILES
from api.miosa.document import EXTRA, gives, gives_raw, takes
from api.miosa.paths import ROOT, workspace_path
from api.miosa.rows import stamp
from api.miosa.sandboxes import WRITE, S, sandbox_of
from api.miosa.schemas import FilesWrite, FileWrite, PathOf
from headway.errors import HeadwayError
from headway.ids import new_id
from store import sandboxes
from store.models_sandboxes import SandboxFile
from store.sandbox_packs import hold, release
from store.sandboxes import Entry, pack_key

router = APIRouter(tags=["files"])
Json = dict[str, Any]
B = TypeVar("B", bound=BaseModel)
EXTRA.append(FileWrite)
DOWNLOAD_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
# For a whole body: the largest one at 2 Mbit/s.
SECONDS: Final = 400.0
PathQuery = Annotated[str, Query(max_length=1_100)]
Depth = Annotated[int | None, Query(ge=1, le=100)]


async def _raw(call: Call, most: int) -> tuple[dict[bytes, bytes], bytes]:
    """Raises request.malformed too where it takes longer: others wait for the room that it has."""
    headers = dict(call.request.scope["headers"])
    try:
        async with asyncio.timeout(SECONDS):
            return headers, await read_body(headers, call.request.receive, most)
    except TimeoutError:
        raise HeadwayError("request.malformed", f"The body did not come within {SECONDS:g} s.") from None


async def _body(call: Call, shape: type[B]) -> B:
    return await anyio.to_thread.run_sync(_parsed, shape, *await _raw(call, MAX_BODY))


def _parsed(shape: type[B], headers: dict[bytes, bytes], raw: bytes) -> B:
    """Parsed once, whatever its size: a path is held to its own rules, and contents may be any bytes."""
    check_media(headers, raw)
    try:
        return shape.model_validate_json(raw or b"{}")
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise HeadwayError("request.malformed_json", "The body is not JSON.") from None
        if found[0]["type"] == "model_type" and not found[0]["loc"]:
            raise HeadwayError("request.malformed_json", "The body is not a JSON object.") from None
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None


# writing


async def _write(call: Call, sandbox_id: str, shape: type[FileWrite] | type[FilesWrite], legacy: bool) -> list[Entry]:
    """All or none: the bytes first, as one leased object, then the rows in one transaction."""
    await call.read(lambda session: sandbox_of(call, session, sandbox_id, WRITE))
    most = call.parts.sandboxes.file_bytes

    def pack() -> Packed:
        body = _parsed(shape, headers, raw)
        return _packed(body.files if isinstance(body, FilesWrite) else [body], legacy, most)

    async with call.reading():
        headers, raw = await _raw(call, MAX_FILES)
        async with call.large(len(raw)):
            packed = await anyio.to_thread.run_sync(pack)
            raw = b""
            return await _keep(call, sandbox_id, packed)


async def _keep(call: Call, sandbox_id: str, packed: Packed) -> list[Entry]:
    holder, limits = new_id("lease"), call.parts.sandboxes

    def lease(session: Session) -> str:
        team_id = sandbox_of(call, session, sandbox_id, WRITE).team_id
        hold(session, team_id, holder, {packed.sha256: len(packed.pack)})
        return team_id

    try:
        team_id = await call.change(lease)
    except HeadwayError as error:
        if error.code != "upload.failed":
            raise
        packed.rename()
        team_id = await call.change(lease)
    key = pack_key(team_id, packed.sha256)
    await anyio.to_thread.run_sync(call.parts.objects.put_new, key, packed.pack, packed.sha256)
    entries = packed.entries()

    def keep(session: Session) -> None:
        found = sandbox_of(call, session, sandbox_id, WRITE, lock=True)
        sandboxes.write_files(session, found, entries, limits)
        sandboxes.touch(found, limits)
        release(session, holder)

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


@dataclass
class Packed:
    """Contents in one object, and `(path, sha256, size, offset, mode)` of each file in it."""

    pack: bytearray
    files: list[tuple[str, str, int, int, str]]
    sha256: str = ""

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256(self.pack).hexdigest()

    def rename(self) -> None:
        """An object of the same bytes is being deleted at this moment: a few more at the end give another name."""
        self.pack += os.urandom(16)
        self.__post_init__()

    def entries(self) -> list[Entry]:
        return [Entry(path, sha, size, self.sha256, offset, mode) for path, sha, size, offset, mode in self.files]


def _packed(files: Iterable[FileWrite], legacy: bool, most: int) -> Packed:
    """Decoded one by one. Equal contents once; of a path that is named twice the last counts."""
    pack, places, entries = bytearray(), {}, {}
    for one in files:
        content = _content(one, legacy)
        if len(content) > most:
            raise HeadwayError("sandbox.too_large", f"{one.path} is larger than {most} bytes.", param="content")
        path, sha256 = workspace_path(one.path), hashlib.sha256(content).hexdigest()
        if sha256 not in places:
            places[sha256] = len(pack)
            pack += content
        entries[path] = (path, sha256, len(content), places[sha256], _mode(one.mode))
    return Packed(pack, list(entries.values()))


def _mode(given: str | int | None) -> str:
    """Of a mode only whether the file may be run is kept: 644 or 755."""
    number = given if isinstance(given, int) else int(given or "644", 8)
    return "755" if number & 0o100 else "644"


async def _write_one(call: Call, sandbox_id: str, *, legacy: bool) -> Response:
    entry = (await _write(call, sandbox_id, FileWrite, legacy))[0]
    return call.one({"path": f"{ROOT}/{entry.path}", "size": entry.size, "sha256": entry.sha256, "written": True})


async def _write_many(call: Call, sandbox_id: str, *, legacy: bool) -> Response:
    entries = await _write(call, sandbox_id, FilesWrite, legacy)
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

    row, pieces = await anyio.to_thread.run_sync(_opened, call, look)
    headers = {**DOWNLOAD_HEADERS, "ETag": f'"{row.sha256}"', "Content-Length": str(row.size)}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


def _opened(call: Call, look: Callable[[Session], tuple[str, SandboxFile]]) -> tuple[SandboxFile, Iterator[bytes]]:
    """The object answers before we do. What was moved between the look and the read is looked up once more."""
    objects = call.parts.objects
    for last in (False, True):
        with call.parts.store.read() as session:
            team_id, row = look(session)
        try:
            return row, objects.read_range(pack_key(team_id, row.pack_sha256), row.offset, row.size)
        except HeadwayError as error:
            if last or error.code != "artifact.collected":
                raise
    raise AssertionError("unreachable")


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
    entries = await anyio.to_thread.run_sync(listed, folder, rows, depth or 1)
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

    def shown() -> Json:
        entries = listed(folder, rows, depth or 3)
        return {**(top := nested(folder, entries)), "tree": top["children"], "entries": entries}

    return call.one(await anyio.to_thread.run_sync(shown))


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
