"""The first rows and files: made once, restored where one half is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlmodel import select

from api.bootstrap import bootstrap, write_secret
from store.models import Account, ApiKey, Project, Team
from store.session import Store
from tests.api.world import open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path, None)


def rows(store: Store) -> tuple[int, int, int, list[ApiKey]]:
    with store.read() as session:
        counts = (len(session.exec(select(table)).all()) for table in (Account, Team, Project))
        return (*counts, list(session.exec(select(ApiKey).where(ApiKey.kind == "operator"))))  # type: ignore[return-value]


def test_it_may_run_again(store: Store, tmp_path: Path) -> None:
    for _ in range(3):
        bootstrap(store, tmp_path)
    accounts, teams, projects, keys = rows(store)
    assert (accounts, teams, projects, len(keys)) == (1, 1, 1, 1)
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "admin.key").read_text().startswith("mfk_live_")


def test_a_lost_file_makes_a_new_key_and_ends_the_old_one(store: Store, tmp_path: Path) -> None:
    bootstrap(store, tmp_path)
    old = (tmp_path / "admin.key").read_text()
    (tmp_path / "admin.key").unlink()
    bootstrap(store, tmp_path)
    assert (tmp_path / "admin.key").read_text() != old
    assert [key.revoked_at is None for key in rows(store)[3]] == [False, True]


def test_a_lost_database_knows_the_same_key(store: Store, tmp_path: Path) -> None:
    bootstrap(store, tmp_path)
    key = (tmp_path / "admin.key").read_text()
    (tmp_path / "second").mkdir()
    other = open_store(tmp_path / "second", None)
    bootstrap(other, tmp_path)
    assert (tmp_path / "admin.key").read_text() == key
    assert rows(other)[3][0].secret_sha256 == rows(store)[3][0].secret_sha256


def test_a_secret_is_written_once_in_a_race(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    threads = [threading.Thread(target=write_secret, args=(path, f"s{n}")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text().strip() in {f"s{n}" for n in range(16)}
    assert [one.name for one in path.parent.iterdir()] == ["secret"]
    path.write_text("")
    write_secret(path, "again")
    assert path.read_text() == "again\n"
