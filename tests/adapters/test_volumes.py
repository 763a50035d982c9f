"""Folders of mounts: beside one another, so that nothing an app writes leads a later mount out of its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.hosting.volumes import volume_of


def test_no_mount_lies_within_another(tmp_path: Path) -> None:
    names = ("data", "data/uploads", "data/uploads/a", "data%2Fuploads", "data%252Fuploads")
    places = [volume_of(tmp_path, name) for name in names]
    assert len(set(places)) == len(names)
    assert {place.parent for place in places} == {tmp_path}
    assert places[0] == tmp_path / "data", "as it was before"


def test_a_mount_of_before_keeps_what_is_in_it_and_the_path_that_keepers_know(tmp_path: Path) -> None:
    home, before = tmp_path / "env", tmp_path / "env" / "srv" / "uploads"
    before.mkdir(parents=True)
    (before / "row").write_text("kept")
    for _ in range(2):
        place = volume_of(home, "srv/uploads")
        assert not place.is_symlink()
        assert (place / "row").read_text() == (before / "row").read_text() == "kept"


@pytest.mark.parametrize("link", ["data", "data/x", "data/x/y"])
def test_what_an_app_has_put_there_leads_nowhere(tmp_path: Path, link: str) -> None:
    home, outside = tmp_path / "env", tmp_path / "outside"
    (outside / "x" / "y").mkdir(parents=True)
    (outside / "y").mkdir()
    (home / link).parent.mkdir(parents=True)
    (home / link).symlink_to(outside)
    place = volume_of(home, "data/x/y")
    assert not place.exists()
    assert not place.is_symlink()
    assert sorted(path.name for path in outside.rglob("*")) == ["x", "y", "y"]
