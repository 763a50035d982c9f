"""The ledger, for anybody with a key: it holds hashes and signatures, and nothing that a tenant could not show."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.responses import Response

from adapters.ledger import tree
from adapters.ledger.entry import Logged, item
from adapters.ledger.note import Checkpoint, Log
from adapters.ledger.root import parse_root
from api.managed.answers_evidence import ConsistencyRow, InclusionRow, LedgerEntryRow
from api.managed.call import CallDep
from api.managed.documents import gives, gives_raw
from headway.errors import HeadwayError
from store import ledger
from store.models_ledger import LedgerEntry, LedgerHead

router = APIRouter(tags=["ledger"])
Json = dict[str, Any]
JSON_LINES: Final = "application/x-ndjson"
Number = Annotated[int, Query(ge=0, le=1 << 53)]
Size = Annotated[int | None, Query(ge=1, le=1 << 53)]


@router.get("/ledger/checkpoint", **gives_raw("The newest signed checkpoint", "text/plain; charset=utf-8", "A note."))
async def get_checkpoint(call: CallDep, size: Annotated[int | None, Query(ge=0, le=1 << 53)] = None) -> Response:
    head = await call.read(lambda session: _head(session, size))
    return Response(head.note, media_type="text/plain; charset=utf-8")


@router.get(
    "/ledger/sigstore.json", **gives_raw("Whose keyless signatures count: pin it", "application/json", "A document.")
)
async def get_sigstore(call: CallDep) -> Response:
    found = await call.read(lambda session: ledger.document(session, ledger.SIGSTORE))
    if found is None:
        raise HeadwayError("route.not_found", "Artifacts are signed with keys here, not by Sigstore.")
    return Response(found.body, media_type="application/json")


@router.get("/ledger/trusted_root.json", **gives_raw("Who the ledger is: pin it", "application/json", "A document."))
async def get_trusted_root(call: CallDep) -> Response:
    return Response(await call.read(lambda session: _document(session, "trusted_root")), media_type="application/json")


@router.get("/ledger/keyring.json", **gives_raw("The signing keys and their ends, signed", "application/json", "DSSE."))
async def get_keyring(call: CallDep) -> Response:
    return Response(await call.read(lambda session: _document(session, ledger.KEYRING)), media_type="application/json")


@router.get("/ledger/entries", **gives_raw("Entries in order, one a line", JSON_LINES, "A line each."))
async def list_entries(
    call: CallDep, start: Number = 0, limit: Annotated[int, Query(ge=1, le=2000)] = 1000
) -> Response:
    def work(session: Session) -> bytes:
        log = log_of(session)
        rows = [_entry_row(entry, log) for entry in ledger.entries(session, start, limit)]
        return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)

    return Response(await call.read(work), media_type=JSON_LINES)


@router.get("/ledger/entries/{index}", **gives(LedgerEntryRow, "Get an entry"))
async def get_entry(call: CallDep, index: int) -> Response:
    return call.one(await call.read(lambda session: _entry_row(_entry(session, index), log_of(session))))


@router.get("/ledger/inclusion", **gives(InclusionRow, "Prove that an entry is in the tree"))
async def get_inclusion(call: CallDep, index: Number, size: Size = None) -> Response:
    def work(session: Session) -> Json:
        head, entry = _head(session, size), _entry(session, index)
        if index >= head.size:
            raise HeadwayError("request.invalid_parameter", f"A tree of {head.size} has no such entry.", param="index")
        return {
            "log_index": index,
            "tree_size": head.size,
            "leaf_hash": _text(tree.leaf_hash(entry.body)),
            "root_hash": _text(head.root),
            "hashes": [_text(one) for one in tree.inclusion_proof(_nodes(session), index, head.size)],
            "checkpoint": head.note,
        }

    return call.one(await call.read(work))


@router.get("/ledger/consistency", **gives(ConsistencyRow, "Prove that an older tree is the beginning of a newer one"))
async def get_consistency(
    call: CallDep, first: Annotated[int, Query(ge=1, le=1 << 53)], second: Size = None
) -> Response:
    def work(session: Session) -> Json:
        newer, older = _head(session, second), _head(session, first)
        if older.size > newer.size:
            raise HeadwayError("request.invalid_parameter", "It is larger than the second.", param="first")
        return {
            "first": older.size,
            "second": newer.size,
            "first_root": _text(older.root),
            "second_root": _text(newer.root),
            "hashes": [_text(one) for one in tree.consistency_proof(_nodes(session), older.size, newer.size)],
        }

    return call.one(await call.read(work))


def log_of(session: Session) -> Log:
    """Who the ledger is. Raises service.unavailable before it has said so."""
    return parse_root(_document(session, "trusted_root")).log


def item_of(session: Session, entry: LedgerEntry) -> Json:
    """An entry as a bundle carries it, proven against the newest checkpoint."""
    head = ledger.open_head(session)
    proof = tree.inclusion_proof(_nodes(session), entry.index, head.size)
    logged = Logged(entry.index, entry.at, entry.body, entry.promise)
    return item(logged, log_of(session), head.note, Checkpoint(head.size, head.root), proof)


def _head(session: Session, size: int | None) -> LedgerHead:
    found = ledger.open_head(session)
    if size is None or size == found.size:
        return found
    older = ledger.head(session, size)
    if older is None:
        raise HeadwayError("ledger.entry_not_found", f"The ledger has no checkpoint of size {size}.", param="size")
    return older


def _entry(session: Session, index: int) -> LedgerEntry:
    if not 0 <= index < 1 << 53:
        raise HeadwayError("ledger.entry_not_found", "The ledger has no such entry.", param="index")
    return ledger.entry(session, index)


def _document(session: Session, name: str) -> bytes:
    found = ledger.document(session, name)
    if found is None:
        raise HeadwayError("service.unavailable", "The signing worker has not opened the ledger yet.")
    return found.body


def _nodes(session: Session) -> tree.Nodes:
    read: Callable[..., Any] = lambda wanted: ledger.nodes(session, wanted)  # noqa: E731
    return read


def _entry_row(entry: LedgerEntry, log: Log) -> Json:
    return {
        "log_index": entry.index,
        "log_id": log.id.hex(),
        "integrated_time": entry.at,
        "canonicalized_body": _text(entry.body),
        "signed_entry_timestamp": _text(entry.promise),
        "leaf_hash": _text(tree.leaf_hash(entry.body)),
    }


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
