"""A site's history in one file, and its proof without any server.

`trusted_root.json`, `keyring.json`, `checkpoint` and `entries.jsonl` are the ledger up to the checkpoint;
`artifacts/<digest>/` holds `manifest.json`, `bundle.json` and perhaps `files.tar.zst`; `releases/<id>.json` are the
signed records.
"""

from __future__ import annotations

import base64
import json
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from adapters.artifact.manifest import MAX_BYTES, parse_manifest
from adapters.ledger.audit import audit
from adapters.ledger.entry import Logged
from adapters.ledger.keyring import KEYRING_NAME, MAX_KEYRING, open_keyring, read_keyring
from adapters.ledger.note import Log, open_note
from adapters.ledger.proofs import ProofError
from adapters.ledger.root import MAX_ROOT, ROOT_NAME, TrustedLog, parse_root
from adapters.signer.bundle import MAX_BUNDLE, Policy, Verified, check, check_record
from adapters.signer.keyless import MAX_SIGSTORE, SIGSTORE_NAME, Trusted, open_trusted
from adapters.signer.keys import Keyring, parse_public, ring_of
from adapters.signer.records import ROLLOUT_TYPE
from headway.cli.fetching import CHUNK, read_file, unpack
from headway.client import Client
from headway.errors import HeadwayError
from headway.resources import Artifact, Site

ENTRIES: Final = "entries.jsonl"
CHECKPOINT: Final = "checkpoint"
FILES: Final = "files.tar.zst"
Json = dict[str, Any]


@dataclass
class Contents:
    """What an export holds. `refused` says of each thing that does not hold why; `pending`: not in the ledger yet;
    `missing`: the digests of artifacts that releases name and that are not there (a collection may have taken them).
    """

    site_id: str
    entries: int
    artifacts: int = 0
    releases: int = 0
    files: int = 0
    pending: int = 0
    missing: list[str] = field(default_factory=list)
    refused: list[Json] = field(default_factory=list)

    def as_dict(self) -> Json:
        return {**self.__dict__}


def export_site(client: Client, site: Site, output: Path, *, with_files: bool) -> Contents:
    """Write the archive, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.name}.") as name:
        folder = Path(name) / "export"
        found = Contents(site.id, _fetch_ledger(client, folder))
        (folder / "site.json").write_text(json.dumps(site.as_dict(), indent=1))
        for artifact in _artifacts(client, site):
            _fetch_artifact(client, artifact, folder, with_files=with_files)
            found.artifacts += 1
        for env in client.environments.list(site.id):
            for release in client.releases.list(site.id, env.id):
                if release.as_dict().get("log_index") is None or release.as_dict()["log_index"] >= found.entries:
                    found.pending += 1
                    continue
                _put(folder / "releases" / f"{release.id}.json", client.releases.record(site.id, env.id, release.id))
                found.releases += 1
        with tarfile.open(Path(name) / "archive", "w") as archive:
            archive.add(folder, arcname="export", filter=_plain)
        (Path(name) / "archive").replace(output)
    return found


def verify_export(
    archive: Path, *, key: Path | None = None, root: Path | None = None, sigstore: Path | None = None
) -> Contents:
    """Raises ledger.inconsistent or artifact.signature_invalid where the ledger or its keys do not hold.

    With `sigstore`, or where the export has such a document, its artifacts have to be signed without keys.
    """
    with tempfile.TemporaryDirectory() as name:
        try:
            # As `export` writes it: of what is compressed nobody knows how large it becomes.
            with tarfile.open(archive, "r:") as opened:
                opened.extractall(name, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise HeadwayError("request.invalid_parameter", f"{archive} cannot be read as an export.") from error
        return _verify(Path(name) / "export", key, root, sigstore)


def _verify(folder: Path, key: Path | None, root: Path | None, sigstore: Path | None) -> Contents:
    whose = sigstore or (folder / SIGSTORE_NAME if (folder / SIGSTORE_NAME).exists() else None)
    keyless = open_trusted(read_file(whose, MAX_SIGSTORE), name=whose.name) if whose else None
    trusted = parse_root(read_file(root or folder / ROOT_NAME, MAX_ROOT), name=root.name if root else ROOT_NAME)
    ring = opened_ring(read_file(folder / KEYRING_NAME, MAX_KEYRING), trusted.log, key)
    bodies = _audited(folder, trusted.log)
    site_id = _site_of(folder)
    found = Contents(site_id, len(bodies))
    for place in sorted((folder / "artifacts").glob("*")):
        with _noting(found, place.name):
            _verify_bundle(
                read_file(place / "bundle.json", MAX_BUNDLE), place.name, site_id, bodies, ring, trusted, keyless
            )
            found.files += _verify_files(place)
            found.artifacts += 1
    followed: dict[str, str] = {}
    releases = {place.stem: place for place in sorted((folder / "releases").glob("*.json"))}
    for name, place in releases.items():
        with _noting(found, name):
            raw = read_file(place, MAX_BUNDLE)
            verified = check_record(raw, ring, ledger=trusted)
            _require_entry(verified, raw, bodies)
            followed[_previous(verified, name, site_id)] = name
            if not (folder / "artifacts" / verified.digest).is_dir():
                found.missing.append(f"sha256:{verified.digest}")
            found.releases += 1
    found.missing = sorted(set(found.missing))
    for gone in sorted(set(followed) - set(releases) - {""}):
        with _noting(found, gone):
            raise HeadwayError("ledger.inconsistent", f"{followed[gone]} followed it, and its record is not there.")
    return found


def _site_of(folder: Path) -> str:
    try:
        return str(json.loads(read_file(folder / "site.json", MAX_BUNDLE))["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HeadwayError("request.invalid_parameter", "The export's site.json names no site.") from None


def _previous(record: Verified, release_id: str, site_id: str) -> str:
    """The release in front of it, "" for the first. Raises artifact.signature_invalid where it is another's record."""
    told = record.statement["predicate"]
    release = told.get("release")
    if record.statement["predicateType"] != ROLLOUT_TYPE or not isinstance(release, dict):
        raise HeadwayError("artifact.signature_invalid", "It is not the record of a release.")
    if told.get("site") != site_id:
        raise HeadwayError("artifact.signature_invalid", "It is the record of another site's release.")
    if release.get("id") != release_id:
        raise HeadwayError("artifact.signature_invalid", "It is the record of another release.")
    return str(release.get("previous") or "")


class _noting:
    """A refusal of one thing is noted, and the others are looked at."""

    def __init__(self, found: Contents, name: str) -> None:
        self.found, self.name = found, name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, HeadwayError):
            self.found.refused.append({"name": self.name, **error.as_dict()})
            return True
        return False


def _verify_bundle(
    raw: bytes,
    digest: str,
    site_id: str,
    bodies: list[bytes],
    ring: Keyring,
    trusted: TrustedLog,
    keyless: Trusted | None,
) -> None:
    if keyless is None:
        return _require_entry(check(raw, digest, ring, Policy(site_id), ledger=trusted), raw, bodies)
    if keyless.check(raw, digest, Policy(site_id)).entry.body() not in bodies:
        raise HeadwayError("ledger.inconsistent", "Its entry is not in the ledger that came with it.")
    return None


def _verify_files(place: Path) -> int:
    manifest = parse_manifest(read_file(place / "manifest.json", MAX_BYTES), digest=place.name)
    if not (place / FILES).exists():
        return 0
    import zstandard

    with (place / FILES).open("rb") as packed, tempfile.TemporaryDirectory(dir=place) as aside:
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_size=CHUNK)
        unpack(cast(IO[bytes], reader), manifest, Path(aside))
    return len(manifest.entries)


def _require_entry(verified: Verified, raw: bytes, bodies: list[bytes]) -> None:
    """That the entry which the bundle proves is the one in this ledger."""
    body = json.loads(raw)["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"]
    index = verified.log_index
    if index is None or index >= len(bodies) or bodies[index] != base64.b64decode(body):
        raise HeadwayError("ledger.inconsistent", "Its entry is not in the ledger that came with it.")


def opened_ring(raw: bytes, log: Log, key: Path | None) -> Keyring:
    """A keyring that came with what is checked, held to a pinned key, or else only to itself and the ledger.

    Raises artifact.signature_invalid.
    """
    try:
        trusted = [parse_public(read_file(key, 1 << 16), name=key.name)] if key else None
        return ring_of(open_keyring(raw, log, trusted or [one.public for one in read_keyring(raw).keys]).keys)
    except ProofError as error:
        raise HeadwayError("artifact.signature_invalid", f"The keyring was refused: {error}.") from None


def _audited(folder: Path, log: Log) -> list[bytes]:
    try:
        head = open_note(read_file(folder / CHECKPOINT, 1 << 13).decode(), log)
    except (ProofError, UnicodeDecodeError) as error:
        raise HeadwayError("ledger.inconsistent", f"The checkpoint is not this ledger's: {error}.") from None
    bodies: list[bytes] = []

    def entries() -> Iterator[Logged]:
        with (folder / ENTRIES).open() as lines:
            # A line without an end, of a file that is mostly holes, is no entry either.
            for row in map(json.loads, iter(lambda: lines.readline(MAX_BUNDLE), "")):
                bodies.append(base64.b64decode(row["canonicalized_body"]))
                promise = base64.b64decode(row["signed_entry_timestamp"])
                yield Logged(int(row["log_index"]), int(row["integrated_time"]), bodies[-1], promise)

    rows = entries()
    try:
        audit(rows, log, head)
        more = next(rows, None) is not None
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise HeadwayError("ledger.inconsistent", f"The entries cannot be read: {type(error).__name__}.") from error
    if more:
        raise HeadwayError("ledger.inconsistent", f"There are entries behind the checkpoint's {head.size}.")
    return bodies


def _fetch_ledger(client: Client, folder: Path) -> int:
    trusted = client.ledger.trusted_root()
    note = client.ledger.checkpoint()
    head = open_note(note, parse_root(trusted).log)
    documents = ((ROOT_NAME, trusted), (KEYRING_NAME, client.ledger.keyring()), (CHECKPOINT, note.encode()))
    for name, body in documents:
        _put(folder / name, body)
    with (folder / ENTRIES).open("w") as lines:
        for row in client.ledger.entries(end=head.size):
            lines.write(json.dumps(row) + "\n")
    return head.size


def _artifacts(client: Client, site: Site) -> Iterator[Artifact]:
    if site.production_env_id is not None:
        yield from client.artifacts.list(site.id, site.production_env_id)


def _fetch_artifact(client: Client, artifact: Artifact, folder: Path, *, with_files: bool) -> None:
    place = folder / "artifacts" / artifact.digest.removeprefix("sha256:")
    if "sigstore" in artifact.links:
        _put(folder / SIGSTORE_NAME, client.artifacts.document(artifact, "sigstore"))
    for name in ("manifest", "bundle"):
        _put(place / f"{name}.json", client.artifacts.document(artifact, name))
    if with_files:
        with (place / FILES).open("wb") as file, client.transport.download(artifact.links["download"]) as chunks:
            for chunk in chunks:
                file.write(chunk)


def _put(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine that made it."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
