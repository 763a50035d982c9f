"""An export that was made of honest parts in a dishonest way: each part is signed, the whole is not what it says."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.ledger import About, Ledger
from adapters.artifact.manifest import File, make_manifest, parse_manifest
from adapters.ledger.keyring import KEYRING_NAME, KeyRecord
from adapters.ledger.root import ROOT_NAME
from adapters.signer.bundle import attest
from adapters.signer.keys import SigningKey, create_key
from adapters.signer.records import DecisionFacts, RolloutFacts, decision_statement, rollout_statement
from adapters.signer.statement import BuildFacts, statement
from headway.cli.exporting import CHECKPOINT, ENTRIES, verify_export
from headway.cli.fetching import unpack
from headway.errors import HeadwayError
from store import ledger as rows
from store.migrations import upgrade
from store.models_ledger import LedgerEntry
from store.session import Store

SITE, OTHER = "site_01KVT00000000000000000000A", "site_01KVT00000000000000000000B"
MANIFEST = make_manifest([File("index.html", "644", 0, hashlib.sha256(b"").hexdigest())]).raw
DIGEST = hashlib.sha256(MANIFEST).hexdigest()
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def release(name: str, site: str, previous: str | None) -> bytes:
    facts = RolloutFacts(
        kind="deploy",
        digest=DIGEST,
        artifact_id="art_1",
        site_id=site,
        env_id="env_1",
        environment="production",
        release_id=name,
        rollout_id=f"dep_{name}",
        sequence=1,
        config=[],
        actor=None,
        deployed_at=NOW,
        previous_release_id=previous,
    )
    return rollout_statement(facts)


def decision() -> bytes:
    facts = DecisionFacts("dec_1", "dep_1", "deploy", DIGEST, "art_1", SITE, "env_1", "allowed", [], [], [], None, NOW)
    return decision_statement(facts)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases of a site; aside, in `foreign/`, what else the same ledger holds."""
    folder = tmp_path_factory.mktemp("export")
    upgrade(f"sqlite:///{folder}/headway.db")
    store = Store.open(f"sqlite:///{folder}/headway.db")
    ledger, key = Ledger.open(store, folder / "ledger", "ledger.example.test"), create_key(folder / "keys")
    made = folder / "export"
    for place in ("releases", f"artifacts/{DIGEST}", "foreign"):
        (made / place).mkdir(parents=True)
    facts = BuildFacts(
        SITE, "env_1", "build_1", DIGEST, "https://git.example.test/shop.git", "main", "1" * 40, "2" * 64
    )
    sign(ledger, key, statement(facts), made / "artifacts" / DIGEST / "bundle.json")
    (made / "artifacts" / DIGEST / "manifest.json").write_bytes(MANIFEST)
    for name, site, previous in (("rel_1", SITE, None), ("rel_2", SITE, "rel_1"), ("rel_3", OTHER, None)):
        place = "foreign" if site == OTHER else "releases"
        sign(ledger, key, release(name, site, previous), made / place / f"{name}.json")
    sign(ledger, key, decision(), made / "foreign" / "decision.json")
    (made / "site.json").write_text(json.dumps({"id": SITE}))
    ledger.publish(made)
    ledger.publish_keyring([KeyRecord(key.pem.decode())], [(key.hint, key.raw)])
    with store.read() as session:
        (made / KEYRING_NAME).write_bytes(rows.document(session, "keyring").body)  # type: ignore[union-attr]
        (made / CHECKPOINT).write_text(rows.open_head(session).note)
        lines = [entry_line(one) for one in rows.entries(session, 0, 100)]
    (made / ENTRIES).write_text("".join(lines))
    store.close()
    return made


def sign(ledger: Ledger, key: SigningKey, raw: bytes, place: Path) -> None:
    place.write_bytes(attest(raw, key, ledger=ledger.about(About(place.stem + str(place.parent), "test"))))


def entry_line(entry: LedgerEntry) -> str:
    import base64

    body, promise = (base64.b64encode(one).decode() for one in (entry.body, entry.promise))
    row = {"log_index": entry.index, "integrated_time": entry.at}
    return json.dumps({**row, "canonicalized_body": body, "signed_entry_timestamp": promise}) + "\n"


def packed(export: Path, into: Path, change: Callable[[Path], object]) -> Path:
    copy = into / "export"
    shutil.copytree(export, copy)
    change(copy)
    with tarfile.open(into / "export.tar", "w") as archive:
        archive.add(copy, arcname="export")
    return into / "export.tar"


def copied(source: str, target: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder / source, folder / target)


def swapped(folder: Path) -> None:
    first, second = folder / "releases/rel_1.json", folder / "releases/rel_2.json"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def test_as_it_was_made(export: Path, tmp_path: Path) -> None:
    found = verify_export(packed(export, tmp_path, lambda _: None), root=export / ROOT_NAME)
    assert (found.releases, found.artifacts, found.refused, found.missing) == (2, 1, [], [])


@pytest.mark.parametrize(
    ("change", "name", "why"),
    [
        (copied("foreign/rel_3.json", "releases/rel_3.json"), "rel_3", "another site"),
        (copied("foreign/decision.json", "releases/rel_4.json"), "rel_4", "not the record of a release"),
        (copied("releases/rel_1.json", "releases/rel_5.json"), "rel_5", "another release"),
        (swapped, "rel_1", "another release"),
        (lambda folder: (folder / "releases/rel_1.json").unlink(), "rel_1", "rel_2 followed it"),
    ],
)
def test_parts_in_a_place_that_is_not_theirs(
    export: Path, tmp_path: Path, change: Callable[[Path], object], name: str, why: str
) -> None:
    found = verify_export(packed(export, tmp_path, change), root=export / ROOT_NAME)
    assert found.refused[0]["name"] == name
    assert why in found.refused[0]["message"]


def test_an_artifact_that_is_not_there_is_said(export: Path, tmp_path: Path) -> None:
    changed = packed(export, tmp_path, lambda folder: shutil.rmtree(folder / "artifacts"))
    assert verify_export(changed, root=export / ROOT_NAME).missing == [f"sha256:{DIGEST}"]


def more_entries(folder: Path) -> None:
    lines = (folder / ENTRIES).read_text()
    (folder / ENTRIES).write_text(lines + lines.splitlines()[-1] + "\n")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (more_entries, "ledger.inconsistent"),
        (lambda folder: (folder / ENTRIES).write_text('{"a": ' * 5000), "ledger.inconsistent"),
        (lambda folder: (folder / "site.json").write_text("{}"), "request.invalid_parameter"),
        (lambda folder: (folder / "site.json").write_text("["), "request.invalid_parameter"),
    ],
)
def test_what_cannot_be_an_export(export: Path, tmp_path: Path, change: Callable[[Path], object], code: str) -> None:
    with pytest.raises(HeadwayError) as caught:
        verify_export(packed(export, tmp_path, change), root=export / ROOT_NAME)
    assert caught.value.code == code


def test_what_is_compressed_is_not_unpacked(export: Path, tmp_path: Path) -> None:
    whole = packed(export, tmp_path, lambda _: None)
    small = tmp_path / "export.tar.gz"
    small.write_bytes(gzip.compress(whole.read_bytes()))
    with pytest.raises(HeadwayError, match="cannot be read as an export"):
        verify_export(small, root=export / ROOT_NAME)


def test_what_is_longer_than_its_manifest_says_is_not_written(tmp_path: Path) -> None:
    """A few bytes of zstd unpack to terabytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        member = tarfile.TarInfo("index.html")
        member.size = 1 << 20
        made.addfile(member, io.BytesIO(bytes(member.size)))
    archive.seek(0)
    with pytest.raises(HeadwayError, match="not what the manifest says"):
        unpack(archive, parse_manifest(MANIFEST, digest=DIGEST), tmp_path)
    assert list(tmp_path.iterdir()) == []
