"""The data folder: layout, credentials, and one clear sentence for each way to be unusable."""

import errno
import json
import os
import shutil
import stat

import pytest

from headway.errors import HeadwayError
from headway.supervisor import folder as folders


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def refused(root):
    with pytest.raises(HeadwayError) as caught:
        folders.open_folder(root)
    assert caught.value.code == "stack.folder_invalid"
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_new_folder_has_its_layout_and_nobody_else_can_read_it(tmp_path):
    folder = folders.open_folder(tmp_path / "data")
    assert mode(folder.root) == 0o700
    assert all(folder.path(name).is_dir() for name in folders.LAYOUT)
    secrets = [path for path in folder.path("secrets").iterdir() if path.is_file()]
    assert {path.name for path in secrets} == {"s3.json", *(f"broker-{role}.token" for role in folders.BROKER_ROLES)}
    assert {mode(path) for path in secrets} == {0o600}
    assert len({path.read_text() for path in secrets}) == len(secrets)


def test_opening_again_keeps_the_credentials(tmp_path):
    first = folders.s3_credentials(folders.open_folder(tmp_path))
    again = folders.open_folder(tmp_path)
    again.path("secrets", "s3.json").chmod(0o644)
    assert folders.s3_credentials(folders.open_folder(tmp_path)) == first
    assert mode(again.path("secrets", "s3.json")) == 0o600


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    assert "not a folder" in refused(tmp_path / "data")


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(tmp_path / "file" / "data")


def test_a_path_too_long_for_sockets(tmp_path):
    assert "too long" in refused(tmp_path / ("x" * 100))


def test_a_file_where_a_part_should_be(tmp_path):
    (tmp_path / "logs").write_text("")
    assert str(tmp_path / "logs") in refused(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00\x01", ""])
@pytest.mark.parametrize("name", ["stack.json", "secrets/s3.json"])
def test_broken_json_is_named(tmp_path, name, text):
    folder = folders.open_folder(tmp_path)
    folder.path(*name.split("/")).write_text(text)
    assert name in refused(tmp_path)


def test_credentials_without_keys(tmp_path):
    folders.open_folder(tmp_path).path("secrets", "s3.json").write_text(json.dumps({"identities": []}))
    assert "no credentials" in refused(tmp_path)


@pytest.mark.parametrize("name", ["db/headway.db", "temporal/temporal.db"])
def test_a_database_that_is_none(tmp_path, name):
    folder = folders.open_folder(tmp_path)
    folder.path(*name.split("/")).write_bytes(b"definitely not a database")
    assert name in refused(tmp_path)


def test_an_empty_database_file_is_a_new_one(tmp_path):
    folders.open_folder(tmp_path).path("db", "headway.db").write_bytes(b"")
    folders.open_folder(tmp_path)


def test_writing_replaces_in_one_step_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "a.json"
    folders.write_json(path, {"a": 1})
    folders.write_json(path, {"a": 2}, durable=True)
    assert folders.read_json(path) == {"a": 2}
    assert mode(path) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_leaves_a_file_as_it_was_and_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    folders.write_json(path, {"a": 1})

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        folders.write_json(path, {"a": 2}, durable=True)
    assert raised.value.filename == str(path)
    assert folders.read_json(path) == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=folders.LEAST_FREE - 1))
    said = refused(tmp_path / "d")
    assert "has 63 MB left, and a stack does not start below 64: make room" in said
    assert not (tmp_path / "d" / "secrets").exists()


def test_records_that_can_be_rebuilt_are_empty_where_broken(tmp_path):
    (tmp_path / "a.json").write_text("{")
    assert folders.read_record(tmp_path / "a.json") == {}
    assert folders.read_record(tmp_path / "missing.json") == {}


@pytest.mark.parametrize(
    "name", ["admin.key", "secrets/broker-host.token", "secrets/config.key", "secrets/webhooks.key"]
)
def test_an_empty_credential_is_named(tmp_path, name):
    folders.open_folder(tmp_path).path(*name.split("/")).write_text("")
    assert f"{name} is empty" in refused(tmp_path)
