"""The chain that an outsider can check, on the whole stack: from `why` to an audit, and across a change of keys."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.stack import Stack
from headway.supervisor.folder import read_record
from tests.stack.conftest import NewPlace
from tests.stack.dummies import eventually
from tests.stack.sites import Place
from tests.stack.test_cli_pipeline import Terminal, terminal

__all__ = ["terminal"]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def place(new_place: NewPlace) -> Place:
    made = new_place({"index.html": "<h1>believe nothing</h1>\n"})
    made.push(made.site.staging)
    made.ended(made.start_promotion())
    return made


def entered(place: Place, env: str, count: int = 1) -> list[Json]:
    """The environment's releases, once that many are in the ledger."""
    deadline = time.monotonic() + 60
    while len(found := [row for row in place.releases(env) if row["log_index"] is not None]) < count:
        assert time.monotonic() < deadline, f"only {len(found)} releases are in the ledger"
        time.sleep(0.05)
    return found


def kill_signing(stack: Stack) -> bool:
    """Whether there was a signing worker to kill: the one before may not have its successor yet."""
    try:
        os.kill(int(read_record(stack.data / "run" / "signing.json")["pid"]), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def fetched(place: Place, terminal: Terminal) -> Path:
    [artifact] = place.artifacts()
    terminal.run(f"headway artifacts fetch {artifact['id']} --output got --files")
    return terminal.home / "got"


def test_why_is_this_live(place: Place, terminal: Terminal) -> None:
    [release] = entered(place, place.site.production)
    found = terminal.run(f"headway why --site {place.site.id} --env production --json").json
    [artifact] = place.artifacts()
    assert found["artifact"]["digest"] == artifact["digest"]
    assert found["commit"]["commit_sha"] == place.repository.git("rev-parse", "HEAD").strip()
    assert found["signature"]["log_index"] == artifact["signature"]["log_index"]
    assert found["release"]["log_index"] == release["log_index"] > found["signature"]["log_index"]
    assert found["deployment"]["kind"] == "promote"
    said = terminal.run(f"headway why --site {place.site.id} --env production").fields
    assert said["artifact"].endswith(artifact["digest"])
    assert "the same bytes" in said["deployment"]
    assert f"ledger entry {release['log_index']}" in said["release"]


def test_a_fetched_artifact_is_verified_without_a_server(place: Place, terminal: Terminal, fetched: Path) -> None:
    names = {"manifest.json", "bundle.json", "key.pub", "trusted_root.json", "files"}
    assert {path.name for path in fetched.iterdir()} == names
    nowhere = {"HEADWAY_API_URL": "http://127.0.0.1:9", "HEADWAY_TOKEN": ""}
    proof = terminal.run("headway verify got --json", **nowhere).json
    assert (proof["verified"], proof["site_id"], proof["files_checked"]) == (True, place.site.id, 1)
    assert proof["log_index"] == place.artifacts()[0]["signature"]["log_index"]
    terminal.run("headway verify got/bundle.json --key got/key.pub --trusted-root got/trusted_root.json", **nowhere)
    terminal.run(f"headway verify {place.artifacts()[0]['id']} --trusted-root got/trusted_root.json")
    document = json.loads((fetched / "bundle.json").read_bytes())
    document["verificationMaterial"]["tlogEntries"] = []
    bad = terminal.home / "bad"
    bad.mkdir()
    for name in ("manifest.json", "key.pub", "trusted_root.json"):
        (bad / name).write_bytes((fetched / name).read_bytes())
    (bad / "bundle.json").write_text(json.dumps(document))
    refused = terminal.run("headway verify bad --json", code=1, **nowhere).json
    assert (refused["verified"], refused["error"]["code"]) == (False, "artifact.signature_invalid")
    assert "no entry of the ledger" in refused["error"]["message"]


@pytest.mark.slow
def test_a_releases_record_is_verified_without_a_server(place: Place, terminal: Terminal, fetched: Path) -> None:
    [release] = entered(place, place.site.production)
    record = place.caller.http.get(place.path(place.site.production, "releases", release["id"], "record"))
    (fetched.parent / "record.json").write_bytes(record.content)
    flags = "--key got/key.pub --trusted-root got/trusted_root.json"
    proof = terminal.run(f"headway verify record.json {flags} --json").json
    assert (proof["kind"], proof["release"]["id"], proof["log_index"]) == (
        "promote",
        release["id"],
        release["log_index"],
    )
    assert proof["digest"] == place.artifacts()[0]["digest"]
    terminal.run(f"headway verify got/manifest.json {flags}", code=1)


def repacked(archive: Path, into: Path, change: Callable[[Path], object]) -> Path:
    """An export that somebody has changed."""
    with tarfile.open(archive) as opened:
        opened.extractall(into, filter="data")
    change(into / "export")
    with tarfile.open(into / "changed.tar", "w") as made:
        made.add(into / "export", arcname="export")
    return into / "changed.tar"


def cut(export: Path) -> None:
    lines = (export / "entries.jsonl").read_text().splitlines(keepends=True)
    (export / "entries.jsonl").write_text("".join(lines[:-1]))


def rewrite(export: Path) -> None:
    path = export / "entries.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["canonicalized_body"], rows[1]["canonicalized_body"] = (rows[n]["canonicalized_body"] for n in (1, 0))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def swap(export: Path) -> None:
    """A record of the one release under the name of the other changes nothing; a flipped byte in one does."""
    path = next((export / "releases").iterdir())
    record = json.loads(path.read_bytes())
    record["dsseEnvelope"]["payload"] = record["dsseEnvelope"]["payload"][:-8] + "AAAAAAA="
    path.write_text(json.dumps(record))


def foreign(export: Path) -> None:
    path = next((export / "artifacts").iterdir()) / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.slow
def test_an_export_proves_itself_on_a_machine_that_has_nothing_else(
    place: Place, terminal: Terminal, fetched: Path, tmp_path: Path
) -> None:
    entered(place, place.site.production)
    entered(place, place.site.staging)
    made = terminal.run(f"headway export {place.site.id} --output history.tar --files --json").json
    assert (made["artifacts"], made["releases"] >= 2, made["pending"]) == (1, True, 0)
    nowhere = {"HEADWAY_API_URL": "http://127.0.0.1:9", "HEADWAY_TOKEN": ""}
    pinned = "--key got/key.pub --trusted-root got/trusted_root.json"
    proof = terminal.run(f"headway verify history.tar {pinned} --json", **nowhere).json
    assert proof["verified"]
    assert (proof["site_id"], proof["files"], proof["refused"]) == (place.site.id, 1, [])
    assert (proof["releases"], proof["entries"]) == (made["releases"], made["entries"])
    for number, (change, code) in enumerate(
        [
            (cut, "ledger.inconsistent"),
            (rewrite, "ledger.inconsistent"),
            (swap, "artifact.signature_invalid"),
            (foreign, "artifact.signature_invalid"),
        ]
    ):
        bad = repacked(terminal.home / "history.tar", tmp_path / str(number), change)
        refused = terminal.run(f"headway verify {bad} {pinned} --json", code=1, **nowhere).json
        assert (refused["verified"], refused["error"]["code"]) == (False, code)


@pytest.mark.slow
def test_an_audit_holds_the_ledger_to_what_was_seen_before(place: Place, terminal: Terminal, fetched: Path) -> None:
    note = terminal.run("headway ledger checkpoint").out
    (terminal.home / "earlier").write_text(note)
    place.roll(place.artifacts()[0]["id"], place.site.staging)
    entered(place, place.site.staging, 2)
    seen = "--checkpoint earlier --checkpoint got/bundle.json --trusted-root got/trusted_root.json"
    found = terminal.run(f"headway ledger audit {seen} --json").json
    assert (found["consistent"], found["checkpoints"]) == (True, 2)
    assert found["size"] > int(note.splitlines()[1])
    (terminal.home / "forged").write_text(note.replace(note.splitlines()[1], "3", 1))
    assert "not this ledger's" in terminal.run("headway ledger audit --checkpoint forged", code=7).err


@pytest.mark.slow
def test_a_killed_signing_worker_leaves_no_release_out_and_enters_none_twice(
    place: Place, stack: Stack, terminal: Terminal
) -> None:
    artifact = place.artifacts()[0]["id"]
    before = len(place.releases(place.site.staging))
    for _ in range(2):
        place.roll(artifact, place.site.staging)
        eventually(lambda: kill_signing(stack))
    found = entered(place, place.site.staging, before + 2)
    indexes = [row["log_index"] for row in found]
    assert indexes == sorted(set(indexes), reverse=True)
    assert terminal.run("headway ledger audit --json").json["consistent"]


def test_old_artifacts_stay_deployable_after_a_rotation(place: Place, stack: Stack, terminal: Terminal) -> None:
    old = place.artifacts()[0]
    made = terminal.run(f"headway signing-keys rotate --data-dir {stack.data} --json").json
    place.repository.commit({"index.html": "<h1>signed with another key</h1>\n"})
    place.push()
    new = place.artifacts()[0]
    assert new["signature"]["key_hint"] == made["hint"] != old["signature"]["key_hint"]
    place.roll(old["id"], place.site.production)
    assert place.page().text == "<h1>believe nothing</h1>\n"
    for number, artifact in enumerate((old, new)):
        terminal.run(f"headway artifacts fetch {artifact['id']} --output after-{number}")
    states = [row["state"] for row in terminal.run(f"headway signing-keys list --data-dir {stack.data} --json").json]
    assert states == ["retired", "current"]
    assert (stack.data / "host" / "trust" / "keyring.json").exists()
