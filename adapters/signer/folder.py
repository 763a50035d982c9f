"""The folder of signing keys: `<name>.pem`, `<name>.pub`, and `keyring.json`, which says what became of each.

Only the signing worker's machine has it. `rotate` and `revoke` change files and nothing else; the signing worker sees
the change, signs with what is current, and publishes the signed keyring.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from adapters.ledger.keyring import EVER, KEYRING_NAME, KeyRecord, record_of
from adapters.ledger.proofs import ProofError
from adapters.signer.keys import (
    SIGNING,
    Keyring,
    SigningKey,
    create_key,
    keep_key,
    load_key,
    parse_public,
    ring_of,
    write_aside,
)
from headway.errors import HeadwayError

# The file that names a key which stays in its service, in place of the private half.
REMOTE: Final = "uri"
# What was signed with a key as it was retired may still be on its way into the ledger.
OVERLAP: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Kept:
    """A key of the folder: its files are `name` with `.pem` and `.pub`."""

    name: str
    record: KeyRecord


class KeyFolder:
    """Made with its first key on the first use. `password` opens encrypted files, and encrypts new ones."""

    def __init__(self, folder: Path, password: bytes | None = None) -> None:
        self._folder = folder
        self._password = password
        self._seen: tuple[tuple[int, int], tuple[Kept, ...]] | None = None
        self._loaded: dict[str, SigningKey] = {}

    def kept(self) -> tuple[Kept, ...]:
        """Oldest first. Raises internal.error where `keyring.json` is damaged."""
        path = self._folder / KEYRING_NAME
        try:
            found = path.stat()
        except FileNotFoundError:
            first = self._load(SIGNING) if (self._folder / f"{SIGNING}.pem").exists() else self._create()
            return (Kept(SIGNING, KeyRecord(first.pem.decode())),)
        stamp = (found.st_mtime_ns, found.st_ino)
        if self._seen is None or self._seen[0] != stamp:
            self._seen = (stamp, _read(path))
        return self._seen[1]

    def current(self) -> SigningKey:
        """What signs now. Raises internal.error where every key has ended."""
        standing = [one for one in self.kept() if one.record.state == "current"]
        if not standing:
            raise HeadwayError("internal.error", "Every signing key has ended: run `headway signing-keys rotate`.")
        return self._load(standing[-1].name)

    def records(self) -> tuple[KeyRecord, ...]:
        return tuple(one.record for one in self.kept())

    def ring(self) -> Keyring:
        return ring_of(self.records())

    def at_hand(self) -> list[SigningKey]:
        """Every key whose private half can be opened, revoked ones too: they vouch for their successors."""
        found = []
        for one in self.kept():
            try:
                found.append(self._load(one.name))
            except HeadwayError:
                continue
        return found

    def rotate(self, now: datetime, *, take: bytes | None = None, remote: str | None = None) -> Kept:
        """Retire what is current and begin with a new key, with that of the key file `take`, or with one that stays
        in its service, by the URI `remote`.
        """
        with self._changing() as standing:
            taken = {one.name for one in standing}
            number = next(n for n in range(2, 10_000) if f"{SIGNING}-{n}" not in taken and not self._exists(n))
            name = f"{SIGNING}-{number}"
            if remote is not None:
                made = self._take(name, remote)
            else:
                made = keep_key(self._folder, name, take, self._password) if take else self._create(name)
            if any(one.record.hint == made.hint for one in standing):
                for suffix in ("pem", "pub", REMOTE):
                    (self._folder / f"{name}.{suffix}").unlink(missing_ok=True)
                raise HeadwayError("request.invalid_parameter", "That key is in the keyring already.")
            fresh = Kept(name, KeyRecord(made.pem.decode(), not_before=utc(now)))
            self._write([*(_retired(one, now) for one in standing), fresh])
            return fresh

    def revoke(self, hint: str, now: datetime, *, since: datetime | None = None, reason: str | None = None) -> Kept:
        """End a key: all of its work, or what the ledger took in from `since` on. A new key begins if none is left."""
        with self._changing() as standing:
            found = [one for one in standing if one.record.hint == hint or one.name == hint]
            if len(found) != 1:
                raise HeadwayError("request.invalid_parameter", "There is no signing key of that hint or name.")
            # A key that had been retired was not valid any longer.
            end = min(found[0].record.not_after or now, now)
            ended = replace(found[0].record, revoked_from=since or EVER, not_after=end, reason=reason)
            done = Kept(found[0].name, ended)
            self._write([done if one is found[0] else one for one in standing])
        if not any(one.record.state == "current" for one in self.kept()):
            self.rotate(now)
        return done

    def _exists(self, number: int) -> bool:
        return any((self._folder / f"{SIGNING}-{number}.{suffix}").exists() for suffix in ("pem", REMOTE))

    def _create(self, name: str = SIGNING) -> SigningKey:
        return create_key(self._folder, name, self._password)

    def _load(self, name: str) -> SigningKey:
        if name not in self._loaded:
            self._loaded[name] = self._open(name)
        return self._loaded[name]

    def _open(self, name: str) -> SigningKey:
        remote = self._folder / f"{name}.{REMOTE}"
        if not remote.exists():
            return load_key(self._folder / f"{name}.pem", self._password)
        from adapters.signer.remote import load_remote

        public = parse_public((self._folder / f"{name}.pub").read_bytes(), name=f"{name}.pub")
        return load_remote(remote.read_text().strip(), public)

    def _take(self, name: str, uri: str) -> SigningKey:
        from adapters.signer.remote import take_remote

        made = take_remote(uri)
        write_aside(self._folder / f"{name}.pub", made.pem, 0o644)
        write_aside(self._folder / f"{name}.{REMOTE}", uri.encode(), 0o600)
        return made

    @contextmanager
    def _changing(self) -> Iterator[tuple[Kept, ...]]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.kept()

    def _write(self, keys: Sequence[Kept]) -> None:
        document = {"keys": [{"name": one.name, **one.record.as_dict()} for one in keys]}
        write_aside(self._folder / KEYRING_NAME, json.dumps(document, indent=1).encode(), 0o644)


def _retired(one: Kept, now: datetime) -> Kept:
    if one.record.state != "current":
        return one
    return Kept(one.name, replace(one.record, not_after=now + OVERLAP))


def _read(path: Path) -> tuple[Kept, ...]:
    try:
        found = tuple(Kept(str(one["name"]), record_of(one)) for one in json.loads(path.read_bytes())["keys"])
        if not found or any(not one.record.hint or "/" in one.name for one in found):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, ProofError):
        raise HeadwayError("internal.error", f"{path.name} is damaged: restore it from a backup.") from None
    return found


def utc(moment: datetime) -> datetime:
    """Aware, in whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0)
