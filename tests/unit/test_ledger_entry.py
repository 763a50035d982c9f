"""Every way in which an entry, a checkpoint or a whole ledger can be wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.ledger import tree
from adapters.ledger.audit import audit
from adapters.ledger.entry import Entry, Logged, check_item, item, promise
from adapters.ledger.note import Checkpoint, Log, LogKey, open_note
from adapters.ledger.proofs import ProofError
from adapters.ledger.root import TrustedLog, make_root, parse_root
from adapters.signer.keys import SigningKey, create_key
from headway.errors import HeadwayError

HOST = "ledger.example.test"
START = datetime(2026, 7, 1, tzinfo=UTC)
AT = int(START.timestamp()) + 1000
SIZE = 7
Change = Callable[[dict[str, Any]], object]


class Ledger:
    """A ledger in memory, by the functions that the real one is made of."""

    def __init__(self, key: SigningKey, count: int = SIZE, host: str = HOST, name: str = "statement") -> None:
        self.key = LogKey(Log(key.public, host), key.raw)
        self.entries = [Entry(f"{name} {number}".encode(), b"signature", b"pem") for number in range(count)]
        self.logged = [self.log(number, AT + number) for number in range(count)]

    def log(self, number: int, at: int) -> Logged:
        body = self.entries[number].body()
        return Logged(number, at, body, promise(body, number, at, self.key))

    @property
    def grown(self) -> tree.Growth:
        return tree.grow(0, (), [tree.leaf_hash(one.body) for one in self.logged])

    def head(self, size: int | None = None) -> Checkpoint:
        some = self.logged[:size]
        return Checkpoint(len(some), tree.grow(0, (), [tree.leaf_hash(one.body) for one in some]).root)

    def item(self, number: int) -> dict[str, Any]:
        grown, head = self.grown, self.head()
        proof = tree.inclusion_proof(lambda wanted: {one: grown.nodes[one] for one in wanted}, number, head.size)
        return item(self.logged[number], self.key.log, head.note(self.key), head, proof)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[SigningKey, SigningKey]:
    """The ledger's key and a thief's."""
    first, second = (create_key(tmp_path_factory.mktemp("k")) for _ in range(2))
    return first, second


@pytest.fixture(scope="module")
def ledger(keys: tuple[SigningKey, SigningKey]) -> Ledger:
    return Ledger(keys[0])


def test_every_entry_verifies_and_gives_the_ledgers_time(ledger: Ledger) -> None:
    for number, entry in enumerate(ledger.entries):
        at = check_item(json.loads(json.dumps(ledger.item(number))), entry, ledger.key.log)
        assert at == datetime.fromtimestamp(AT + number, UTC)


def proof(document: dict[str, Any]) -> dict[str, Any]:
    return dict(document["inclusionProof"])


def in_proof(**values: Any) -> Change:
    return lambda d: d["inclusionProof"].update(values)


def in_note(old: str, new: str) -> Change:
    return lambda d: d["inclusionProof"]["checkpoint"].update(
        envelope=d["inclusionProof"]["checkpoint"]["envelope"].replace(old, new)
    )


def flip(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


TAMPERINGS: list[tuple[Change, str]] = [
    (lambda d: d.clear(), "malformed"),
    (lambda d: d.update(kindVersion={"kind": "hashedrekord", "version": "0.0.1"}), "another kind"),
    (lambda d: d.update(logId={"keyId": base64.b64encode(b"x" * 32).decode()}), "another ledger"),
    (lambda d: d.update(logIndex="4"), "for another entry"),
    (lambda d: d.update(logIndex=3), "malformed"),
    (lambda d: d.update(logIndex="٣"), "malformed|another"),
    (lambda d: d.update(canonicalizedBody="****"), "base64"),
    (lambda d: d.update(canonicalizedBody=base64.b64encode(b"{}").decode()), "malformed"),
    (lambda d: d.update(canonicalizedBody=base64.b64encode(b"[" * 90_000).decode()), "malformed"),
    (lambda d: d.update(canonicalizedBody=base64.b64encode(b" " + base64.b64decode(d["canonicalizedBody"])).decode()),
     "another statement"),
    (lambda d: d.update(integratedTime=str(AT - 86400)), "did not sign the entry's time"),
    (lambda d: d.update(inclusionPromise={"signedEntryTimestamp": flip(d["inclusionPromise"]["signedEntryTimestamp"])}),
     "did not sign"),
    (lambda d: d.pop("inclusionPromise"), "malformed"),
    (lambda d: d.pop("inclusionProof"), "malformed"),
    (in_proof(checkpoint={"envelope": 7}), "malformed"),
    (in_note("\n7\n", "\n8\n"), "signature"),
    (in_note(HOST, "evil.test"), "another ledger"),
    (in_proof(treeSize="8"), "another tree"),
    (in_proof(rootHash=base64.b64encode(b"0" * 32).decode()), "another tree"),
    (lambda d: in_proof(hashes=proof(d)["hashes"][:-1])(d), "too short"),
    (lambda d: in_proof(hashes=[*proof(d)["hashes"], proof(d)["hashes"][0]])(d), "too long"),
    (lambda d: in_proof(hashes=[flip(one) for one in proof(d)["hashes"]])(d), "not in the ledger"),
    (lambda d: in_proof(hashes=proof(d)["hashes"] * 30)(d), "malformed"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "why"), TAMPERINGS)
def test_a_changed_entry_is_refused(ledger: Ledger, change: Change, why: str) -> None:
    given = json.loads(json.dumps(ledger.item(3)))
    change(given)
    with pytest.raises(ProofError, match=why):
        check_item(given, ledger.entries[3], ledger.key.log)


@pytest.mark.parametrize(
    "other", [{"payload": b"another"}, {"signature": b"another"}, {"public_pem": b"another"}], ids=["1", "2", "3"]
)
def test_an_entry_binds_statement_signature_and_key(ledger: Ledger, other: dict[str, bytes]) -> None:
    with pytest.raises(ProofError, match="another statement"):
        check_item(ledger.item(3), replace(ledger.entries[3], **other), ledger.key.log)


def test_a_thief_of_the_signing_key_alone_cannot_enter_anything(
    ledger: Ledger, keys: tuple[SigningKey, SigningKey]
) -> None:
    theirs = Ledger(keys[1])
    trusted = TrustedLog(ledger.key.log, START)
    for items, why in (([], "no entry"), ([theirs.item(3)], "another ledger"), ([ledger.item(3)] * 2, "more than one")):
        with pytest.raises(HeadwayError, match=why) as caught:
            trusted.check(items, theirs.entries[3])
        assert caught.value.code == "artifact.signature_invalid"
    posing = {**theirs.item(3), "logId": ledger.item(3)["logId"]}
    with pytest.raises(HeadwayError, match="ledger"):
        trusted.check([posing], theirs.entries[3])


def test_nothing_is_older_than_the_ledger(ledger: Ledger) -> None:
    with pytest.raises(HeadwayError, match="older than the ledger"):
        TrustedLog(ledger.key.log, START + timedelta(days=1)).check([ledger.item(0)], ledger.entries[0])


# checkpoints


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace("\n7\n", "\n07\n"),
        lambda note: note.replace("\n7\n", "\n-7\n"),
        lambda note: note.replace("\n7\n", "\n7\nextension\n"),
        lambda note: note.replace("— ", "- "),
        lambda note: note[:-1],
        lambda note: note.split("\n\n")[0] + "\n\n",
        lambda note: note[:0],
        lambda note: note + "x" * 5000,
    ],
)
def test_a_changed_checkpoint_is_refused(ledger: Ledger, change: Callable[[str], str]) -> None:
    note = ledger.head().note(ledger.key)
    assert open_note(note, ledger.key.log) == ledger.head()
    with pytest.raises(ProofError):
        open_note(change(note), ledger.key.log)


def test_a_checkpoint_may_carry_signatures_of_others(ledger: Ledger) -> None:
    note = ledger.head().note(ledger.key)
    text, own = note.split("\n\n")
    assert open_note(f"{text}\n\n— witness.test AAAAAAAA\n{own}", ledger.key.log) == ledger.head()


# the trust root


def test_the_trust_root_says_who_and_since_when(ledger: Ledger) -> None:
    assert parse_root(make_root(ledger.key.log, START)) == TrustedLog(ledger.key.log, START)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(tlogs=[]),
        lambda d: d.update(mediaType="x"),
        lambda d: d["tlogs"][0].update(logId={"keyId": "AAAA"}),
        lambda d: d["tlogs"][0]["publicKey"].update(rawBytes="AAAA"),
        lambda d: d["tlogs"][0]["publicKey"].update(validFor={"start": "2026-07-01T00:00:00"}),
        lambda d: d["tlogs"][0].update(baseUrl="https://Bad Host"),
        lambda d: d["tlogs"][0].update(baseUrl=None),
    ],
)
def test_another_trust_root_is_refused(ledger: Ledger, change: Change) -> None:
    document = json.loads(make_root(ledger.key.log, START))
    change(document)
    with pytest.raises(HeadwayError, match="not the trust root"):
        parse_root(json.dumps(document).encode())


# the whole ledger


def refused(ledger: Ledger, logged: list[Logged], head: Checkpoint, *older: Checkpoint) -> str:
    with pytest.raises(HeadwayError) as caught:
        audit(logged, ledger.key.log, head, older)
    assert caught.value.code == "ledger.inconsistent"
    return caught.value.message


def test_a_whole_ledger_holds(ledger: Ledger) -> None:
    found = audit(ledger.logged, ledger.key.log, ledger.head(), [ledger.head(size) for size in (0, 3, 3, SIZE)])
    assert (found.size, found.root, found.first_at, found.last_at) == (SIZE, ledger.head().root, AT, AT + SIZE - 1)
    assert audit([], ledger.key.log, ledger.head(0)).size == 0


def test_a_cut_tail_shows_by_a_checkpoint_from_outside(ledger: Ledger) -> None:
    cut = ledger.logged[:5]
    assert audit(cut, ledger.key.log, ledger.head(5)).size == 5
    assert "its end is gone" in refused(ledger, cut, ledger.head(5), ledger.head())
    assert "it ends at 5" in refused(ledger, cut, ledger.head())


def test_a_rewritten_leaf_shows(ledger: Ledger, keys: tuple[SigningKey, SigningKey]) -> None:
    body = ledger.logged[2].body.replace(b"dsse", b"DSSE")
    assert "entry 2" in refused(
        ledger, [*ledger.logged[:2], replace(ledger.logged[2], body=body), *ledger.logged[3:]], ledger.head()
    )
    theirs = replace(ledger.logged[2], body=body, promise=promise(body, 2, ledger.logged[2].at, ledger.key))
    changed = [*ledger.logged[:2], theirs, *ledger.logged[3:]]
    assert "its own checkpoint" in refused(ledger, changed, ledger.head())


def test_a_forked_head_shows(ledger: Ledger, keys: tuple[SigningKey, SigningKey]) -> None:
    fork = Ledger(keys[0], name="another history")
    audit(fork.logged, ledger.key.log, fork.head())
    assert "a checkpoint from outside" in refused(ledger, fork.logged, fork.head(), ledger.head(4))
    assert "rewritten" in refused(ledger, ledger.logged, fork.head())


def test_a_back_dated_entry_shows(ledger: Ledger, keys: tuple[SigningKey, SigningKey]) -> None:
    back = replace(ledger.logged[3], at=AT - 5)
    assert "time" in refused(ledger, [*ledger.logged[:3], back, *ledger.logged[4:]], ledger.head())
    by_the_thief_of_both = ledger.log(3, AT - 5)
    changed = [*ledger.logged[:3], by_the_thief_of_both, *ledger.logged[4:]]
    assert "dated before" in refused(ledger, changed, ledger.head())


def test_a_missing_entry_shows(ledger: Ledger) -> None:
    assert "entry 2 is missing" in refused(ledger, [*ledger.logged[:2], *ledger.logged[3:]], ledger.head())
