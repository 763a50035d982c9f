"""An artifact in a folder, and its proof, offline.

`manifest.json`, `bundle.json`, `key.pub` (keyless: `sigstore.json`), `trusted_root.json` where it is in the ledger, and
perhaps `files/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from adapters.artifact.manifest import MAX_BYTES, File, Manifest, parse_manifest
from adapters.ledger.root import MAX_ROOT, ROOT_NAME, parse_root
from adapters.signer.bundle import MAX_BUNDLE, Policy, Verified, check, check_record
from adapters.signer.keyless import MAX_SIGSTORE, SIGSTORE_NAME, open_trusted
from adapters.signer.keys import Keyring, TrustedKey, parse_public
from headway.client import Client
from headway.errors import HeadwayError
from headway.resources import Artifact

CHUNK = 1 << 20


@dataclass(frozen=True)
class Proof:
    """What the signature says, and how many files were hashed (None: none were there)."""

    verified: Verified
    files: int | None

    def as_dict(self) -> dict[str, Any]:
        definition = self.verified.statement["predicate"]["buildDefinition"]
        outside = definition["externalParameters"]
        source = outside.get("source") or {}
        return {
            "digest": f"sha256:{self.verified.digest}",
            "key_hint": self.verified.key_hint,
            "site_id": outside.get("site"),
            "build_id": self.verified.build_id,
            "repository": source.get("uri"),
            "ref": source.get("ref"),
            "commit_sha": _commit(definition),
            "builder": self.verified.statement["predicate"]["runDetails"]["builder"]["id"],
            "log_index": self.verified.log_index,
            "logged_at": self.verified.at.isoformat() if self.verified.log_index is not None else None,
            "files_checked": self.files,
        }


def fetch_artifact(client: Client, artifact: Artifact, folder: Path, *, with_files: bool) -> Proof:
    """Raises artifact.signature_invalid or roll.verify_failed; then nothing of it is left in the folder."""
    manifest = client.artifacts.document(artifact, "manifest")
    bundle = client.artifacts.document(artifact, "bundle")
    root = client.artifacts.document(artifact, "trusted_root") if "trusted_root" in artifact.links else None
    keyless = "sigstore" in artifact.links
    named = SIGSTORE_NAME if keyless else "key.pub"
    pinned = client.artifacts.document(artifact, "sigstore" if keyless else "public_key")
    digest = artifact.digest.removeprefix("sha256:")
    parsed = parse_manifest(manifest, digest=digest)
    if keyless:
        verified = open_trusted(pinned).check(bundle, digest, Policy(artifact.site_id))
    else:
        log = parse_root(root) if root else None
        verified = check(bundle, digest, _ring(pinned), Policy(artifact.site_id), ledger=log)
    folder.mkdir(parents=True, exist_ok=True)
    if with_files:
        _fetch_files(client, artifact, parsed, folder / "files")
    for name, body in (("manifest.json", manifest), ("bundle.json", bundle), (named, pinned)):
        (folder / name).write_bytes(body)
    if root is not None:
        (folder / ROOT_NAME).write_bytes(root)
    return Proof(verified, len(parsed.entries) if with_files else None)


def verify_served(
    client: Client,
    artifact: Artifact,
    *,
    key: Path | None = None,
    root: Path | None = None,
    sigstore: Path | None = None,
) -> Proof:
    """What a server shows of an artifact, against what is pinned here, or what it serves."""
    manifest, bundle = (client.artifacts.document(artifact, name) for name in ("manifest", "bundle"))
    if sigstore is not None or (key is None and "sigstore" in artifact.links):
        whose = read_file(sigstore, MAX_SIGSTORE) if sigstore else client.artifacts.document(artifact, "sigstore")
        parse_manifest(manifest, digest=artifact.digest.removeprefix("sha256:"))
        policy = Policy(artifact.site_id)
        return Proof(open_trusted(whose).check(bundle, artifact.digest.removeprefix("sha256:"), policy), None)
    pem = read_file(key, 1 << 16) if key else client.artifacts.document(artifact, "public_key")
    trusted = read_file(root, MAX_ROOT) if root else client.ledger.trusted_root()
    digest = artifact.digest.removeprefix("sha256:")
    parse_manifest(manifest, digest=digest)
    return Proof(check(bundle, digest, _ring(pem), Policy(artifact.site_id), ledger=parse_root(trusted)), None)


def verify_record(
    path: Path, *, key: Path | None = None, root: Path | None = None, site_id: str | None = None
) -> dict[str, Any]:
    """A release's record, with `key.pub` and `trusted_root.json` beside it where no others are given."""
    for option, given, name in (("--key", key, "key.pub"), ("--trusted-root", root, ROOT_NAME)):
        if given is None and not (path.parent / name).exists():
            message = f"{path.name} is taken for a release's record, and no {name} is beside it: give {option}."
            raise HeadwayError("request.invalid_parameter", message, param="target")
    pem = read_file(key or path.parent / "key.pub", 1 << 16)
    log = parse_root(read_file(root or path.parent / ROOT_NAME, MAX_ROOT), name=root.name if root else ROOT_NAME)
    verified = check_record(read_file(path, MAX_BUNDLE), _ring(pem), ledger=log)
    if site_id is not None and verified.statement["predicate"].get("site") != site_id:
        raise HeadwayError("artifact.signature_invalid", "It is the record of another site.")
    return {
        "record": verified.statement["predicateType"],
        "digest": f"sha256:{verified.digest}",
        "key_hint": verified.key_hint,
        "log_index": verified.log_index,
        "logged_at": verified.at.isoformat(),
        **verified.statement["predicate"],
    }


def verify_folder(
    folder: Path,
    *,
    key: Path | None = None,
    site_id: str | None = None,
    root: Path | None = None,
    sigstore: Path | None = None,
) -> Proof:
    """Where a trust root is given, or lies there, the bundle has to carry an entry of its ledger.

    With `sigstore` (or, where no key is given, a folder that has its document) the bundle has to be keyless.
    Raises artifact.signature_invalid or roll.verify_failed with the first thing that is wrong."""
    manifest = read_file(folder / "manifest.json", MAX_BYTES)
    bundle = read_file(folder / "bundle.json", MAX_BUNDLE)
    digest = hashlib.sha256(manifest).hexdigest()
    policy, whose = Policy(site_id or _site_of(bundle)), sigstore or folder / SIGSTORE_NAME
    if sigstore or (key is None and whose.exists()):
        verified = open_trusted(read_file(whose, MAX_SIGSTORE), name=whose.name).check(bundle, digest, policy)
    else:
        ring = _ring(read_file(key or folder / "key.pub", 1 << 16))
        trusted = root or folder / ROOT_NAME
        log = parse_root(read_file(trusted, MAX_ROOT), name=trusted.name) if root or trusted.exists() else None
        verified = check(bundle, digest, ring, policy, ledger=log)
    parsed = parse_manifest(manifest, digest=digest)
    files = folder / "files"
    return Proof(verified, _check_files(parsed, files) if files.is_dir() else None)


def _commit(definition: dict[str, Any]) -> str | None:
    for one in definition.get("resolvedDependencies") or []:
        if "gitCommit" in one.get("digest", {}):
            return str(one["digest"]["gitCommit"])
    return None


def _ring(pem: bytes) -> Keyring:
    return Keyring([TrustedKey(parse_public(pem, name="key.pub"))])


def _site_of(bundle: bytes) -> str:
    """The site that the statement names, where the caller expects none: shown, and believed only once verified."""
    import base64

    try:
        statement = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
        return str(statement["predicate"]["buildDefinition"]["externalParameters"]["site"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def read_file(path: Path, limit: int) -> bytes:
    """Raises artifact.signature_invalid where it cannot be read, or is larger than `limit` bytes."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise HeadwayError("artifact.signature_invalid", f"{path.name} cannot be read: {error.strerror}.") from error
    if len(raw) > limit:
        raise HeadwayError("artifact.signature_invalid", f"{path.name} is larger than {limit} bytes.")
    return raw


def _fetch_files(client: Client, artifact: Artifact, manifest: Manifest, target: Path) -> None:
    """All or nothing: unpacked aside, and put in place when every file has its hash."""
    import zstandard

    if target.exists():
        raise HeadwayError("request.invalid_parameter", f"{target} is there already: choose another folder.")
    link = str(artifact.links.get("download", ""))
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        with client.transport.download(link) as chunks:
            reader = zstandard.ZstdDecompressor().stream_reader(cast(IO[bytes], _Chunks(chunks)), read_size=CHUNK)
            unpack(reader, manifest, aside)
        for one in manifest.links:
            place = aside / one.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(one.target)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def unpack(stream: Any, manifest: Manifest, folder: Path) -> None:
    """Only paths that the verified manifest names are ever written."""
    import zstandard

    wanted = {one.path: one for one in manifest.files}
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
            for member in archive:
                if not member.isreg():
                    continue
                one = wanted.pop(member.name, None)
                body = archive.extractfile(member)
                if one is None or body is None:
                    raise HeadwayError(
                        "roll.verify_failed", "The archive holds a file that the manifest does not name."
                    )
                if member.size != one.size:
                    raise HeadwayError("roll.verify_failed", f"{one.path} is not what the manifest says.")
                _write(folder / one.path, body, one)
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise HeadwayError("roll.verify_failed", "The archive ended early or cannot be read: fetch again.") from error
    if wanted:
        raise HeadwayError("roll.verify_failed", f"The archive lacks {len(wanted)} files of the manifest.")


def _write(place: Path, body: IO[bytes], one: File) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    seen = hashlib.sha256()
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, int(one.mode, 8)), "wb") as file:
        while chunk := body.read(CHUNK):
            seen.update(chunk)
            file.write(chunk)
    if seen.hexdigest() != one.sha256:
        raise HeadwayError("roll.verify_failed", f"{one.path} is not what the manifest says.")


def _check_files(manifest: Manifest, folder: Path) -> int:
    found = {
        str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    for entry in manifest.entries:
        path = found.pop(entry.path, None)
        if path is None:
            raise HeadwayError("roll.verify_failed", f"files/{entry.path} is missing.")
        if isinstance(entry, File):
            right = path.is_file() and not path.is_symlink() and _sha256(path) == entry.sha256
        else:
            right = path.is_symlink() and str(path.readlink()) == entry.target
        if not right:
            raise HeadwayError("roll.verify_failed", f"files/{entry.path} is not what the manifest says.")
    if found:
        raise HeadwayError("roll.verify_failed", f"files/ holds {len(found)} files that the manifest does not name.")
    return len(manifest.entries)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Chunks:
    """An iterator of chunks as something that can be read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken
