"""Mounts of a deleted environment stay for their days, then go; those of all others stay."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.hosting.mounts import MountCollection
from headway.broker import Deleted, Mounts
from headway.ids import new_id

DAY = 86400.0


class Broker:
    def __init__(self, **deleted: float) -> None:
        self.deleted = deleted
        self.asked: list[str] = []

    def tell_mounts(self, _host_id: str, mounts: Mounts) -> Deleted:
        self.asked += mounts.environments
        return Deleted(environments=self.deleted)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return tmp_path / "volumes"


def test_only_what_was_deleted_long_enough_ago_goes(volumes: Path) -> None:
    living, lately, long_ago = (new_id("env") for _ in range(3))
    outside = volumes.parent / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    for name in (living, lately, long_ago, "lost+found"):
        (volumes / name / "data").mkdir(parents=True)
    (volumes / long_ago / "data" / "link").symlink_to(outside)
    (volumes / new_id("env")).symlink_to(outside)
    broker = Broker(**{lately: 29 * DAY, long_ago: 31 * DAY})
    assert MountCollection("local", volumes, broker, timedelta(days=30)).collect() == [long_ago]
    assert broker.asked == sorted([living, lately, long_ago])
    left = {path.name for path in volumes.iterdir() if not path.is_symlink()}
    assert left == {living, lately, "lost+found"}
    assert (outside / "kept").exists()


def test_what_apps_have_made_there_goes_however_deep_it_is(volumes: Path) -> None:
    """A tree that could not be removed kept those of all environments after it, too."""
    deep, after = sorted([new_id("env"), new_id("env")])
    at = volumes / deep / "data"
    at.mkdir(parents=True)
    folder = os.open(at, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    (volumes / deep / "locked").mkdir(mode=0)
    (volumes / after / "data").mkdir(parents=True)
    broker = Broker(**{deep: 31 * DAY, after: 31 * DAY})
    assert MountCollection("local", volumes, broker, timedelta(days=30)).collect() == [deep, after]
    assert list(volumes.iterdir()) == []


def test_it_is_nothing_where_there_is_none_and_can_be_switched_off(volumes: Path) -> None:
    gone = new_id("env")
    broker = Broker(**{gone: 1000 * DAY})
    assert MountCollection("local", volumes, broker, timedelta(days=30)).collect() == []
    (volumes / gone).mkdir(parents=True)
    assert MountCollection("local", volumes, broker, timedelta(0)).collect() == []
    assert (volumes / gone).is_dir()
