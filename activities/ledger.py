"""The signing worker's hand on the ledger: the tree's arithmetic, the ledger's key and the rows, in one transaction."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from adapters.ledger import tree
from adapters.ledger.entry import Entry, Logged, entry_of, item, promise
from adapters.ledger.keyring import KeyRecord, KeyringDocument, Sign, read_keyring, sign_keyring
from adapters.ledger.note import Checkpoint, Log, LogKey, open_note
from adapters.ledger.proofs import ProofError
from adapters.ledger.root import ROOT_NAME, TrustedLog, make_root
from adapters.signer.keys import LEDGER, create_key, load_key, write_aside
from headway.errors import HeadwayError
from store import ledger as rows
from store.models_ledger import LedgerEntry, LedgerHead
from store.session import Store

# 2026, in Unix seconds: what is counted from there fits into a column of 32 bits for as long as from 1970.
EPOCH: Final = 1_767_225_600
Json = dict[str, Any]
Then = Callable[[Session, int], None]
# Size, root and note of the newest checkpoint.
Head = tuple[int, bytes, str]


@dataclass(frozen=True)
class About:
    """What an entry is about: `subject` is entered once, whoever tries again gets what stands."""

    subject: str
    kind: str
    site_id: str | None = None


@dataclass(frozen=True)
class Step:
    """One entry, ready to be written where the ledger's head is still `on`. `proof` is the way to its root."""

    about: About
    on: Head
    at: int
    body: bytes
    envelope: bytes
    promise: bytes
    grown: tree.Growth
    note: str
    proof: tuple[bytes, ...]

    @property
    def index(self) -> int:
        return self.on[0]

    @property
    def head(self) -> Checkpoint:
        return Checkpoint(self.grown.size, self.grown.root)


class Ledger:
    """Appends and checks. `key` signs checkpoints and times, and is not the key that signs statements."""

    def __init__(self, store: Store, key: LogKey, start: datetime) -> None:
        self._store = store
        self._key = key
        # What this process has entered last: nobody has to read back what it knows.
        self._last: Step | None = None
        self.trusted = TrustedLog(key.log, start)

    @classmethod
    def open(cls, store: Store, folder: Path, host: str, password: bytes | None = None) -> Ledger:
        """The ledger of this database, begun on the first call. Raises ledger.inconsistent where the key is another."""
        with store.read() as session:
            begun = rows.head(session, 0) is not None
        signing = load_key(folder / f"{LEDGER}.pem", password) if begun else create_key(folder, LEDGER, password)

        def begin(session: Session) -> LedgerHead:
            rows.lock(session)
            found = rows.head(session, 0)
            if found is None:
                key = LogKey(Log(signing.public, host), signing.raw)
                empty = Checkpoint(0, tree.EMPTY_ROOT)
                found = LedgerHead(size=0, root=empty.root, note=empty.note(key))
                session.add(found)
            return found

        first = store.in_write(begin)
        key = LogKey(Log(signing.public, first.note.partition(" - ")[0]), signing.raw)
        _verify(first, key.log)
        return cls(store, key, first.created_at.replace(microsecond=0))

    def about(self, about: About, then: Then | None = None) -> Appending:
        """A writer for one entry; `then` runs in the same transaction, with its index."""
        return Appending(self, about, then)

    def check(self, items: Sequence[Json], entry: Entry) -> datetime:
        return self.trusted.check(items, entry)

    def append(self, entry: Entry, about: About, then: Then | None = None) -> tuple[Entry, Json]:
        """Enter it, unless its subject stands. Hashing and signing come first: the write only has to be in time.

        Who has entered the last one knows all that is needed, and reads nothing before; if it is wrong, it reads.
        """
        step, looked = self._foreseen(entry, about), False
        while step is None or not self._takes(step, then, looked=looked):
            with self._store.read() as session:
                step = None if rows.is_entered(session, about.subject) else self._step(session, entry, about)
            if step is None:
                return self._stood(about.subject, then)
            looked = True
        self._last = step
        logged = Logged(step.index, step.at, step.body, step.promise)
        return entry, item(logged, self._key.log, step.note, step.head, step.proof)

    def _takes(self, step: Step, then: Then | None, *, looked: bool) -> bool:
        """False where the ledger is another by now, or, where nobody has looked, its subject stands."""
        try:
            return self._store.in_write(lambda session: _take(session, step, then))
        except IntegrityError:
            if looked:
                raise
            return False

    def _stood(self, subject: str, then: Then | None) -> tuple[Entry, Json]:
        def work(session: Session) -> tuple[Entry, Json]:
            standing = rows.entry_about(session, subject)
            assert standing is not None  # noqa: S101
            if then is not None:
                then(session, standing.index)
            return entry_of(standing.body, standing.envelope), self._item(session, standing)

        return self._store.in_write(work)

    def publish(self, folder: Path) -> None:
        """Let hosts and outsiders have the trust root: from now on they demand an entry of every bundle."""
        document = make_root(self.trusted.log, self.trusted.start)
        self.publish_document("trusted_root", document, folder / ROOT_NAME)

    def publish_document(self, name: str, document: bytes, path: Path) -> None:
        """Keep a version of it where the API finds it, and leave it for hosts that join."""
        self._store.in_write(lambda session: rows.publish(session, name, document))
        write_aside(path, document, 0o644)

    def publish_keyring(self, keys: Sequence[KeyRecord], signers: Sequence[tuple[str, Sign]]) -> None:
        """The next version of the keyring, signed by the ledger and by every signing key at hand."""

        def work(session: Session) -> None:
            rows.lock(session)
            standing = rows.document(session, rows.KEYRING)
            # Hosts take nothing that is not newer than what they have; a database that was restored does not know what
            # that is, and the clock does.
            version = max(standing.version + 1 if standing else 1, int(time.time()) - EPOCH)
            document = KeyringDocument(version, tuple(keys))
            own = (base64.b64encode(self._key.log.id).decode(), self._key.sign)
            rows.publish_version(session, rows.KEYRING, document.version, sign_keyring(document, [own, *signers]))

        self._store.in_write(work)

    def announced(self) -> tuple[KeyRecord, ...]:
        """The keys of the newest keyring that was published."""
        with self._store.read() as session:
            standing = rows.document(session, rows.KEYRING)
        return read_keyring(standing.body).keys if standing else ()

    def _step(self, session: Session, entry: Entry, about: About) -> Step:
        """The next entry on what the ledger is now. Raises ledger.inconsistent where its rows do not hold."""
        head = size, root, note = rows.newest(session)
        _verify(LedgerHead(size=size, root=root, note=note), self._key.log)
        peaks = tree.peaks_of(lambda wanted: rows.nodes(session, wanted), size)
        before = rows.entry(session, size - 1).at if size else 0
        if tree.fold(peaks) != root:
            raise HeadwayError("ledger.inconsistent", f"The ledger's nodes do not make its root at {size}.")
        return self._made(entry, about, head, peaks, before)

    def _foreseen(self, entry: Entry, about: About) -> Step | None:
        """The next entry on what this process has entered last."""
        last = self._last
        if last is None:
            return None
        return self._made(entry, about, (last.head.size, last.head.root, last.note), last.grown.peaks, last.at)

    def _made(self, entry: Entry, about: About, on: Head, peaks: Sequence[bytes], before: int) -> Step:
        size = on[0]
        body, at = entry.body(), max(int(time.time()), before)
        grown = tree.grow(size, peaks, [tree.leaf_hash(body)])
        made = Checkpoint(grown.size, grown.root).note(self._key)
        signed = promise(body, size, at, self._key)
        return Step(about, on, at, body, entry.envelope(), signed, grown, made, tuple(reversed(peaks)))

    def _item(self, session: Session, standing: LedgerEntry) -> Json:
        head = rows.open_head(session)
        proof = tree.inclusion_proof(lambda wanted: rows.nodes(session, wanted), standing.index, head.size)
        logged = Logged(standing.index, standing.at, standing.body, standing.promise)
        return item(logged, self._key.log, head.note, Checkpoint(head.size, head.root), proof)


@dataclass(frozen=True)
class Appending:
    """What `attest` is given to enter what it has signed."""

    ledger: Ledger
    about: About
    then: Then | None = None

    def append(self, entry: Entry) -> tuple[Entry, Json]:
        return self.ledger.append(entry, self.about, self.then)


def _take(session: Session, step: Step, then: Then | None) -> bool:
    """Write a step; False where another writer was quicker."""
    rows.lock(session)
    if rows.newest(session) != step.on:
        return False
    made = {
        "index": step.index,
        "subject": step.about.subject,
        "kind": step.about.kind,
        "site_id": step.about.site_id,
        "body": step.body,
        "envelope": step.envelope,
        "promise": step.promise,
        "at": step.at,
    }
    rows.append(session, made, step.grown.nodes, (step.head.size, step.head.root, step.note))
    if then is not None:
        then(session, step.index)
    return True


def _verify(head: LedgerHead, log: Log) -> None:
    try:
        if open_note(head.note, log) != Checkpoint(head.size, head.root):
            raise ProofError("the row is not what was signed")
    except ProofError as error:
        message = f"The ledger's checkpoint at {head.size} does not fit its key and row: {error}."
        raise HeadwayError("ledger.inconsistent", message) from None
