"""The audit log as a chain of hashes: what a row's leaf is, how links follow each other, and the check of an export.

A link is `{"seq", "leaf", "chain"}`, with the row itself for those who may see it. The ledger binds the chain at some
of its links: what lies before such a link cannot be changed unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headway.errors import HeadwayError

Json = dict[str, Any]
# What the chain begins with, before its first link.
BEGINNING: Final = hashlib.sha256(b"headway audit log v1").hexdigest()


def leaf_of(row: Mapping[str, Any]) -> str:
    """The hex SHA-256 of a row in canonical form: sorted names, no spaces, UTF-8."""
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(b"\x00" + text.encode()).hexdigest()


def link(previous: str, leaf: str) -> str:
    return hashlib.sha256(b"\x01" + bytes.fromhex(previous) + bytes.fromhex(leaf)).hexdigest()


@dataclass(frozen=True)
class Checked:
    """How many links and rows were checked, the last link's hash, and how many anchors of the ledger it met."""

    links: int
    rows: int
    chain: str
    anchors: int
    last_anchored: int | None

    def as_dict(self) -> Json:
        return {
            "links": self.links,
            "rows": self.rows,
            "chain": self.chain,
            "anchors": self.anchors,
            "last_anchored": self.last_anchored,
        }


def check_chain(links: Iterable[Mapping[str, Any]], anchors: Mapping[int, str]) -> Checked:
    """Whether each link follows the one before, each row is what its leaf says, and each anchor is met.

    `anchors` are the chain's hashes by sequence number, as the ledger has them. Raises ledger.inconsistent.
    """
    previous, rows, met, last, seq = BEGINNING, 0, 0, None, 0
    for seq, one in enumerate(links, 1):
        if one.get("seq") != seq:
            raise _broken(seq, "it is missing, or out of order")
        if one.get("row") is not None:
            rows += 1
            if not _is_leaf(one["row"], one.get("leaf")):
                raise _broken(seq, "its row is not what was chained")
        previous = _following(previous, one, seq)
        if seq in anchors:
            if anchors[seq] != previous:
                raise _broken(seq, "the ledger holds another hash of it")
            met, last = met + 1, seq
    beyond = [number for number in anchors if number > seq]
    if beyond:
        raise _broken(min(beyond), "the ledger knows of it, and it is missing")
    return Checked(seq, rows, previous, met, last)


def _is_leaf(row: Mapping[str, Any], leaf: object) -> bool:
    try:
        return leaf_of(row) == leaf
    except (ValueError, RecursionError):  # text that is none, a depth that nothing here has
        return False


def _following(previous: str, one: Mapping[str, Any], seq: int) -> str:
    try:
        made = link(previous, str(one["leaf"]))
    except (KeyError, ValueError):
        raise _broken(seq, "it has no leaf") from None
    if made != one.get("chain"):
        raise _broken(seq, "it does not follow the one before")
    return made


def _broken(seq: int, why: str) -> HeadwayError:
    return HeadwayError("ledger.inconsistent", f"Link {seq} of the audit log does not hold: {why}.")
