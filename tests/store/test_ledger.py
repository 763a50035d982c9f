"""The ledger's rows on both databases: nothing changes what is there, and two writers make one history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, select

from activities.ledger import About, Ledger
from adapters.ledger import tree
from adapters.ledger.entry import Entry
from headway.errors import HeadwayError
from store import ledger as rows
from store.migrations import upgrade
from store.models import Release, Rollout, utcnow
from store.models_integrity import Finding
from store.models_ledger import TABLES, LedgerDocument, LedgerHead
from store.models_policy import AuditRow, Decision, Policy
from store.session import Store
from tests.workflows.rows import World

HOST = "ledger.example.test"


def append(ledger: Ledger, subject: str) -> int:
    _, item = ledger.append(Entry(subject.encode(), b"signature", b"pem"), About(subject, "test"))
    return int(item["logIndex"])


def audit(store: Store) -> list[str]:
    """Every subject in order, once tree and heads have been made again from the bodies alone."""
    with store.read() as session:
        found = rows.entries(session, 0, 1000)
        grown = tree.grow(0, (), [])
        for count, entry in enumerate(found, 1):
            assert entry.index == count - 1
            grown = tree.grow(grown.size, grown.peaks, [tree.leaf_hash(entry.body)])
            head = rows.head(session, count)
            assert head is not None
            assert head.root == grown.root
        assert rows.open_head(session).size == len(found)
        assert [one.at for one in found] == sorted(one.at for one in found)
        return [one.subject for one in found]


def test_the_database_refuses_changes(store: Store, tmp_path: Path) -> None:
    ledger = Ledger.open(store, tmp_path / "ledger", HOST)
    append(ledger, "one")
    ledger.publish(tmp_path / "ledger")
    changes = {"ledger_entry": "at = 0", "ledger_node": "hash = hash", "ledger_head": "note = ''"}
    for table in (str(one.__tablename__) for one in TABLES):
        column = changes.get(table, "version = 9")
        for statement in (f"UPDATE {table} SET {column}", f"DELETE FROM {table}"):  # noqa: S608
            with pytest.raises(DBAPIError, match="append-only"), store.write() as session:
                session.connection().exec_driver_sql(statement)
    assert audit(store) == ["one"]


def test_nothing_is_replaced(store: Store, tmp_path: Path) -> None:
    if store.engine.dialect.name != "sqlite":
        pytest.skip("only SQLite replaces rows in an insert")
    ledger = Ledger.open(store, tmp_path / "ledger", HOST)
    append(ledger, "one")
    ledger.publish(tmp_path / "ledger")
    rewritten = [f"REPLACE INTO {one.__tablename__} SELECT * FROM {one.__tablename__}" for one in TABLES]  # noqa: S608
    columns = '"index", subject, kind, body, envelope, promise, at'
    of_another = "SELECT 7, subject, kind, body, envelope, promise, at FROM ledger_entry"
    rewritten.append(f"INSERT OR REPLACE INTO ledger_entry ({columns}) {of_another}")
    by_rowid = f"INSERT OR REPLACE INTO ledger_entry (rowid, {columns})"
    rewritten.append(f"{by_rowid} SELECT rowid, 7, 'two', kind, body, envelope, promise, at FROM ledger_entry")  # noqa: S608
    for statement in rewritten:
        with pytest.raises(DBAPIError, match="append-only"), store.write() as session:
            session.connection().exec_driver_sql(statement)
    assert audit(store) == ["one"]


def work(url: str, folder: Path, names: list[str]) -> list[int]:
    """One of several signing workers."""
    store = Store.open(url)
    ledger = Ledger.open(store, folder, HOST)
    found = [append(ledger, name) for name in names]
    store.close()
    return found


def test_two_writers_make_one_history(store: Store, url: str, tmp_path: Path) -> None:
    own = [[f"writer {number}: {count}" for count in range(10)] for number in range(2)]
    both = [f"both: {count}" for count in range(5)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, [url] * 2, [tmp_path / "ledger"] * 2, [[*names, *both] for names in own]))
    assert results[0][10:] == results[1][10:]
    assert sorted(audit(store)) == sorted([*own[0], *own[1], *both])


def test_the_same_subject_is_entered_once(store: Store, tmp_path: Path) -> None:
    ledger = Ledger.open(store, tmp_path / "ledger", HOST)
    first, _ = ledger.append(Entry(b"first", b"signature", b"pem"), About("one", "test"))
    again, item = ledger.append(Entry(b"second", b"other", b"pem"), About("one", "test"))
    assert (again, item["logIndex"]) == (first, "0")


def test_who_has_entered_the_last_reads_nothing_first_and_is_not_misled(store: Store, tmp_path: Path) -> None:
    one, other = (Ledger.open(store, tmp_path / "ledger", HOST) for _ in range(2))
    append(one, "a")
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement.split()[0])

    event.listen(store.engine, "before_cursor_execute", note)
    append(one, "b")
    event.remove(store.engine, "before_cursor_execute", note)
    # Whether the head is still its own (and PostgreSQL's lock); then entry, nodes, head.
    assert asked.count("INSERT") == 3
    assert asked.count("SELECT") == (1 if store.engine.dialect.name == "sqlite" else 2)
    assert append(other, "c") == 2
    assert append(one, "d") == 3  # what it knew last is not the last any more
    assert append(one, "c") == 2  # and this stands, though it knew nothing of it
    assert append(other, "e") == 4
    assert audit(store) == ["a", "b", "c", "d", "e"]


def test_what_goes_wrong_beside_an_entry_is_not_tried_for_ever(store: Store, tmp_path: Path) -> None:
    ledger = Ledger.open(store, tmp_path / "ledger", HOST)
    append(ledger, "one")

    def beside(session: Session, _index: int) -> None:
        session.add(LedgerDocument(name="twice", version=1, body=b""))
        session.flush()

    entry = Entry(b"two", b"signature", b"pem")
    ledger.append(entry, About("two", "test"), beside)
    with pytest.raises(IntegrityError):
        ledger.append(entry, About("three", "test"), beside)
    assert audit(store) == ["one", "two"]


def test_a_lost_or_foreign_key_goes_on_with_no_ledger_of_another(store: Store, tmp_path: Path) -> None:
    append(Ledger.open(store, tmp_path / "ledger", HOST), "one")
    with pytest.raises(HeadwayError, match="cannot be read"):
        Ledger.open(store, tmp_path / "elsewhere", HOST)
    assert not (tmp_path / "elsewhere").exists()
    for path in (tmp_path / "ledger").iterdir():
        path.unlink()
    other = Store.open(f"sqlite:///{tmp_path}/other.db")
    upgrade(f"sqlite:///{tmp_path}/other.db")
    Ledger.open(other, tmp_path / "ledger", HOST)
    other.close()
    with pytest.raises(HeadwayError) as caught:
        Ledger.open(store, tmp_path / "ledger", HOST)
    assert caught.value.code == "ledger.inconsistent"


def test_a_forked_head_is_not_built_upon(store: Store, tmp_path: Path) -> None:
    ledger = Ledger.open(store, tmp_path / "ledger", HOST)
    append(ledger, "one")
    with store.write() as session:
        head = rows.open_head(session)
        session.add(LedgerHead(size=2, root=head.root, note=head.note))
    with pytest.raises((HeadwayError, KeyError)):
        append(ledger, "two")
    assert len(rows_of(store)) == 1


def rows_of(store: Store) -> list[str]:
    with store.read() as session:
        return [entry.subject for entry in rows.entries(session, 0, 10)]


def test_one_question_finds_whatever_waits(store: Store) -> None:
    world = World.make(store)
    artifact = world.artifact("a" * 64)
    job = world.accept_roll(artifact)
    about: Any = {"site_id": world.site_id, "env_id": world.env_id}
    with store.read() as session:
        rollout = session.exec(select(Rollout).where(Rollout.job_id == job.id)).one()
        assert not rows.has_unlogged(session)
    policy = Policy(id="pol", subject_id="s", version=1, document={}, digest="d", **about)
    decision = Decision(id="dec", rollout_id=rollout.id, artifact_id=artifact, outcome="held", **about)
    finding = Finding(
        id="fin", site_id=world.site_id, object="pack", name="n", damage="missing", size=1, tried=[], found_at=utcnow()
    )
    release = Release(
        id="rel", rollout_id=rollout.id, artifact_id=artifact, seq=1, actor=None, deployed_at=utcnow(), **about
    )
    call = AuditRow(id="aud", team_id="t", dialect="managed", method="POST", path="/", action="a", request_id="r")
    waits: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        (policy, {}, {"log_index": 1}),
        (decision, {"decided_at": utcnow()}, {"log_index": 2}),
        (finding, {"settled_at": utcnow()}, {"log_index": 3}),
        (release, {}, {"log_index": 4}),
        (call, {}, {"seq": 1, "leaf": "l", "chain": "c"}),
    ]
    for row, ended, entered in waits:
        for changes, wanted in (({}, not ended), (ended, True), (entered, False)):
            with store.write() as session:
                for name, value in changes.items():
                    setattr(row, name, value)
                row = session.merge(row)
                session.flush()
                assert rows.has_unlogged(session) is wanted, row
