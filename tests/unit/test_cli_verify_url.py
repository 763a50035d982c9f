"""`headway verify URL`: what is behind an address is brought here and judged like a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.artifact.manifest import File, make_manifest
from adapters.ledger.entry import Entry, Logged, item, promise
from adapters.ledger.note import Checkpoint, Log, LogKey
from adapters.ledger.root import make_root
from adapters.ledger.tree import grow, leaf_hash
from adapters.signer.bundle import attest
from adapters.signer.keys import create_key
from adapters.signer.records import audit_statement
from adapters.signer.statement import BuildFacts, statement
from tests.unit.api_double import ApiDouble, Reply, running
from tests.unit.test_cli import run

MANIFEST = make_manifest([File("index.html", "644", 7, "b" * 64)]).raw


class OneEntry:
    """A ledger of a single entry."""

    def __init__(self, key: LogKey) -> None:
        self.key = key

    def append(self, entry: Entry) -> tuple[Entry, dict]:
        body, at = entry.body(), int(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
        grown = grow(0, (), [leaf_hash(body)])
        head = Checkpoint(1, grown.root)
        logged = Logged(0, at, body, promise(body, 0, at, self.key))
        return entry, item(logged, self.key.log, head.note(self.key), head, [])


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """The two files that an outsider has, and beside them what a site of somebody serves."""
    signing, logging = create_key(tmp_path / "keys"), create_key(tmp_path / "ledger", "ledger")
    key = LogKey(Log(logging.public, "ledger.example.test"), logging.raw)
    (tmp_path / "key.pub").write_bytes(signing.pem)
    (tmp_path / "root.json").write_bytes(make_root(key.log, datetime(2026, 1, 1, tzinfo=UTC)))
    ledger = OneEntry(key)
    facts = BuildFacts("site_1", "env_1", "build_1", hashlib.sha256(MANIFEST).hexdigest(), "", "main", "1" * 40, "2")
    (tmp_path / "bundle.json").write_bytes(attest(statement(facts), signing, ledger=ledger))
    (tmp_path / "record.json").write_bytes(attest(audit_statement(7, "a" * 64), signing, ledger=ledger))
    return tmp_path


@pytest.fixture
def elsewhere(pinned: Path) -> Iterator[ApiDouble]:
    with running() as double:
        for name, body in (
            ("art/bundle.json", (pinned / "bundle.json").read_bytes()),
            ("art/manifest.json", MANIFEST),
            ("art/key.pub", (pinned / "key.pub").read_bytes()),
            ("record.json", (pinned / "record.json").read_bytes()),
        ):
            double.on("GET", f"/{name}", Reply(body=body, headers={"Content-Type": "application/octet-stream"}))
        yield double


def test_a_record_and_a_folder_by_their_addresses(elsewhere: ApiDouble, pinned: Path) -> None:
    flags = f"--key {pinned}/key.pub --trusted-root {pinned}/root.json --json"
    record = json.loads(run(f"verify {elsewhere.url}/record.json {flags}").stdout)
    assert (record["verified"], record["seq"], record["log_index"]) == (True, 7, 0)
    folder = run(f"verify {elsewhere.url}/art/ {flags}")
    assert folder.exit_code == 0, folder.output
    assert json.loads(folder.stdout)["digest"] == f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
    assert not any("authorization" in one.headers for one in elsewhere.asked)


def test_what_was_changed_or_is_not_there_is_refused(elsewhere: ApiDouble, pinned: Path) -> None:
    flags = f"--key {pinned}/key.pub --trusted-root {pinned}/root.json --json"
    elsewhere.on("GET", "/art/manifest.json", Reply(body=MANIFEST + b" ", headers={"Content-Type": "text/plain"}))
    changed = run(f"verify {elsewhere.url}/art/ {flags}")
    assert (changed.exit_code, json.loads(changed.stdout)["error"]["code"]) == (1, "artifact.signature_invalid")
    missing = run(f"verify {elsewhere.url}/nothing.tar?token=s3cret {flags}")
    assert missing.exit_code == 1
    assert "answers 404" in missing.stderr
    assert "s3cret" not in missing.stderr


def test_a_record_alone_needs_the_two_files(pinned: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    record = (pinned / "record.json").rename(tmp_path / "alone" / "record.json")
    without_key = run(f"verify {record} --trusted-root {pinned}/root.json")
    assert "no key.pub is beside it: give --key" in without_key.stderr
    assert "Build again" not in without_key.stderr
    assert "give --trusted-root" in run(f"verify {record} --key {pinned}/key.pub").stderr


def test_a_key_or_a_root_that_is_none_is_the_callers_to_correct(pinned: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("{}")
    for option, said in (("--key", "P-256"), ("--trusted-root", "other is not the trust root")):
        options = {"--key": f"{pinned}/key.pub", "--trusted-root": f"{pinned}/root.json"}
        options[option] = f"{tmp_path}/other"
        words = " ".join(f"{name} {path}" for name, path in options.items())
        refused = run(f"verify {pinned}/record.json {words}")
        assert (refused.exit_code, "request.invalid_parameter" in refused.output) == (1, True), refused.output
        assert said in refused.output


def test_the_record_of_another_site_is_refused(pinned: Path) -> None:
    refused = run(
        f"verify {pinned}/record.json --key {pinned}/key.pub --trusted-root {pinned}/root.json --site-id site_other"
    )
    assert (refused.exit_code, "of another site" in refused.output) == (1, True), refused.output
