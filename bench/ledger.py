"""The ledger at size: an append at a million entries, an audit of a hundred thousand, how proofs grow; verifying."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from activities.ledger import About, Ledger
from adapters.ledger import tree
from adapters.ledger.audit import audit
from adapters.ledger.entry import Entry, Logged, promise
from adapters.ledger.note import Checkpoint, Log, LogKey, open_note
from adapters.signer.bundle import Policy, attest, check
from adapters.signer.keys import Keyring, create_key
from adapters.signer.statement import BuildFacts, statement
from bench.figures import spread
from store import ledger as rows
from store.migrations import upgrade
from store.models_ledger import LedgerEntry, LedgerHead, LedgerNode
from store.session import Store

SIZES = (10, 1_000, 100_000, 1_000_000)
APPENDS = 200
AUDITED = 100_000
BATCH = 20_000
HOST = "ledger.bench.test"


def measure(folder: Path) -> dict[str, Any]:
    """On the disk of `folder`, in a database of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    upgrade(f"sqlite:///{folder}/ledger.db")
    store = Store.open(f"sqlite:///{folder}/ledger.db")
    ledger = Ledger.open(store, folder / "keys", HOST)
    signing = create_key(folder / "keys", "ledger")
    key = LogKey(Log(signing.public, HOST), signing.raw)
    at_size = {}
    for size in SIZES:
        fill(store, key, size)
        at_size[str(size)] = {"append": spread(appends(ledger, size)), **_proofs(store, key.log)}
    bare = _bare_commits(folder)
    measured = {
        "at_size": at_size,
        "bare_fsynced_commit": spread(bare),
        # An entry is promised and a checkpoint signed before the commit: no append takes less than this and the commit.
        "two_signatures": spread(_signatures(key)),
        "audit": _audit(key),
        "verification": _verifications(ledger, folder),
        "goal": f"append at {SIZES[-1]:,} within 2x of a bare commit; audit of {AUDITED:,} under 10 s;"
        " verification under 5 ms",
    }
    store.close()
    return measured


def fill(store: Store, key: LogKey, size: int) -> None:
    """Bring the tree to `size` with entries that no one signed: an append reads none of them but the last."""
    with store.read() as session:
        head = rows.open_head(session)
        peaks = tree.peaks_of(lambda wanted: rows.nodes(session, wanted), head.size)
    start = head.size
    while start < size:
        end = min(start + BATCH, size)
        bodies = [b"entry %d" % number for number in range(start, end)]
        grown = tree.grow(start, peaks, [tree.leaf_hash(body) for body in bodies])
        entries = [
            {"index": index, "subject": f"fill:{index}", "kind": "fill", "at": 0, "body": body}
            | {"envelope": b"", "promise": b""}
            for index, body in enumerate(bodies, start)
        ]
        nodes = [{"level": level, "index": index, "hash": hash} for (level, index), hash in grown.nodes.items()]
        with store.write() as session:
            session.execute(insert(LedgerEntry), entries)
            session.execute(insert(LedgerNode), nodes)
            session.add(LedgerHead(size=end, root=grown.root, note=Checkpoint(end, grown.root).note(key)))
        start, peaks = end, grown.peaks


def appends(ledger: Ledger, size: int) -> list[float]:
    times = []
    for number in range(APPENDS):
        entry = Entry(os.urandom(1500), os.urandom(71), b"-" * 178)
        began = time.perf_counter()
        ledger.append(entry, About(f"append:{size}:{number}", "bench"))
        times.append(time.perf_counter() - began)
    return times


def _proofs(store: Store, log: Log) -> dict[str, Any]:
    """Both proofs for the same ledger: their length in hashes, and the time to make them."""
    with store.read() as session:
        head = rows.open_head(session)
        open_note(head.note, log)
        began = time.perf_counter()
        inclusion = tree.inclusion_proof(lambda wanted: rows.nodes(session, wanted), head.size // 3, head.size)
        consistency = tree.consistency_proof(lambda wanted: rows.nodes(session, wanted), head.size // 3, head.size)
        took = time.perf_counter() - began
    return {"inclusion_hashes": len(inclusion), "consistency_hashes": len(consistency), "both_ms": round(took * 1e3, 3)}


def _verifications(ledger: Ledger, folder: Path) -> dict[str, Any]:
    """All that a host does to a bundle before it places known contents: shape, key, ledger, signature, statement.

    In CPU as well: a busy machine stretches the rest.
    """
    signing, digest = create_key(folder / "signing"), hashlib.sha256(b"manifest").hexdigest()
    facts = BuildFacts(
        site_id="site_01BENCHBENCHBENCHBENCHBENC",
        env_id="env_01BENCHBENCHBENCHBENCHBENCH",
        build_id="build_1",
        digest=digest,
        repository="https://git.example.test/shop.git",
        ref="main",
        commit_sha="1" * 40,
        source_sha256="2" * 64,
    )
    bundle = attest(statement(facts), signing, ledger=ledger.about(About("build:build_1", "bench")))
    ring, policy = Keyring.of(signing), Policy(facts.site_id)
    times, began_cpu = [], time.process_time()
    for _ in range(APPENDS):
        began = time.perf_counter()
        check(bundle, digest, ring, policy, ledger=ledger.trusted)
        times.append(time.perf_counter() - began)
    cpu = (time.process_time() - began_cpu) / APPENDS
    return {**spread(times), "cpu_ms": round(cpu * 1e3, 3)}


def _signatures(key: LogKey) -> list[float]:
    body, times = os.urandom(1500), []
    for _ in range(APPENDS):
        began = time.perf_counter()
        promise(body, 1, 1, key)
        Checkpoint(1, body[:32]).note(key)
        times.append(time.perf_counter() - began)
    return times


def _bare_commits(folder: Path) -> list[float]:
    """What the disk takes for one small transaction of the same database engine."""
    import sqlite3

    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, body BLOB)")
    times = []
    for _ in range(APPENDS):
        body = os.urandom(3000)
        began = time.perf_counter()
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO row (body) VALUES (?)", (body,))
        database.execute("COMMIT")
        times.append(time.perf_counter() - began)
    database.close()
    return times


def _audit(key: LogKey) -> dict[str, Any]:
    """Of entries in memory: what it costs to read them is the network's."""
    logged = [_logged(number, key) for number in range(AUDITED)]
    grown = tree.grow(0, (), [tree.leaf_hash(one.body) for one in logged])
    began = time.perf_counter()
    audit(_each(logged), key.log, Checkpoint(grown.size, grown.root))
    return {"entries": AUDITED, "seconds": round(time.perf_counter() - began, 2)}


def _logged(number: int, key: LogKey) -> Logged:
    body = Entry(b"statement %d" % number, b"signature", b"pem").body()
    return Logged(number, number, body, promise(body, number, number, key))


def _each(logged: list[Logged]) -> Iterator[Logged]:
    yield from logged
