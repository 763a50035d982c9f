"""The audit log's rows on both databases: chained once, by one writer at a time, and then fixed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from headway.auditing import check_chain
from store import audit
from store.session import Store
from store.sight import Sight


def note(store: Store, count: int, team: str = "team_1") -> None:
    def work(number: int) -> None:
        called = audit.Called(
            "managed",
            "POST",
            "/v1/sites",
            "create_site",
            [],
            team,
            {"id": f"key_{number}"},
            None,
            "127.0.0.1",
            f"req_{number}",
        )
        store.in_write(lambda session: audit.note_call(session, called))

    for number in range(count):
        work(number)


def test_two_writers_make_one_chain(store: Store, url: str) -> None:
    note(store, 30)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: store.in_write(lambda session: audit.chain(session, 7)), range(8)))
    assert sum(done) == 30
    with store.read() as session:
        links = audit.links(session, Sight(), 0, 100)
        seq, head = audit.head_of(session)
    assert check_chain(links, {seq: head}).links == 30
    assert all(one["row"]["actor"] == {"id": f"key_{number}"} for number, one in enumerate(links))


def test_the_database_refuses_changes_of_what_is_chained(store: Store, tmp_path: Path) -> None:
    note(store, 3)
    store.in_write(lambda session: audit.chain(session, 2))
    statements = ["UPDATE audit_row SET path = '/'", "DELETE FROM audit_row"]
    if store.engine.dialect.name == "sqlite":
        statements.append("REPLACE INTO audit_row SELECT * FROM audit_row")
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"), store.write() as session:
            session.connection().exec_driver_sql(statement)
    assert store.in_write(lambda session: audit.chain(session, 2)) == 1


def test_a_team_sees_the_hashes_of_the_others_alone(store: Store) -> None:
    note(store, 2)
    note(store, 2, "team_2")
    store.in_write(lambda session: audit.chain(session, 10))
    with store.read() as session:
        links = audit.links(session, Sight(team_id="team_2"), 0, 10)
        assert [one["row"] is None for one in links] == [True, True, False, False]
        assert check_chain(links, {}).links == 4
        assert audit.links(session, Sight(team_id="team_2", nothing=True), 0, 10)[3]["row"] is None
