"""The audit log's chain: what is changed, left out, moved or added shows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.auditing import BEGINNING, check_chain, leaf_of, link
from headway.cli.audit import _head, _lines
from headway.errors import HeadwayError

Json = dict[str, Any]


def chain(count: int, hidden: tuple[int, ...] = ()) -> list[Json]:
    made: list[Json] = []
    head = BEGINNING
    for seq in range(1, count + 1):
        row = {"id": f"aud_{seq}", "action": "deploy", "actor": {"label": "Zoë"}}
        leaf = leaf_of(row)
        head = link(head, leaf)
        made.append({"seq": seq, "leaf": leaf, "chain": head, "row": None if seq in hidden else row})
    return made


def anchors(links: list[Json], *seqs: int) -> dict[int, str]:
    return {seq: links[seq - 1]["chain"] for seq in seqs}


def test_a_whole_chain_and_one_of_which_rows_are_hidden() -> None:
    links = chain(9, hidden=(2, 5))
    found = check_chain(links, anchors(links, 3, 9))
    assert (found.links, found.rows, found.anchors, found.last_anchored) == (9, 7, 2, 9)
    assert found.chain == links[-1]["chain"]
    assert check_chain([], {}).chain == BEGINNING


def rewritten(links: list[Json]) -> None:
    links[3]["row"]["actor"] = {"label": "somebody else"}


def rechained(links: list[Json]) -> None:
    """Whoever has the database can make a chain that follows: only an anchor shows it."""
    rewritten(links)
    head = links[2]["chain"]
    for one in links[3:]:
        one["leaf"] = leaf_of(one["row"])
        one["chain"] = head = link(head, one["leaf"])


def left_out(links: list[Json]) -> None:
    del links[3]


def renumbered(links: list[Json]) -> None:
    del links[3]
    for seq, one in enumerate(links, 1):
        one["seq"] = seq


def moved(links: list[Json]) -> None:
    links[3], links[4] = {**links[4], "seq": 4}, {**links[3], "seq": 5}


def cut(links: list[Json]) -> None:
    del links[-1]


def no_leaf(links: list[Json]) -> None:
    links[3].update(leaf="zz", row=None)


def no_text(links: list[Json]) -> None:
    links[3]["row"]["actor"] = {"label": "\ud800"}


def deep(links: list[Json]) -> None:
    row: Any = links[3]["row"]
    for _ in range(5000):
        row["actor"] = row = {}


@pytest.mark.parametrize("change", [rewritten, rechained, left_out, renumbered, moved, cut, no_leaf, no_text, deep])
def test_what_was_changed_shows(change: Callable[[list[Json]], None]) -> None:
    links = chain(9)
    kept = anchors(links, 9)
    bad = [copy.deepcopy(one) for one in links]
    change(bad)
    with pytest.raises(HeadwayError) as refused:
        check_chain(bad, kept)
    assert refused.value.code == "ledger.inconsistent"


def test_lines_that_are_nested_too_deeply_are_told(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"link": ' + "[" * 5000 + "]" * 5000 + "}\n")
    with pytest.raises(HeadwayError) as refused:
        list(_lines(file, "link"))
    assert refused.value.code == "ledger.inconsistent"
    with pytest.raises(HeadwayError) as refused:
        _head(file)
    assert refused.value.code == "request.invalid_parameter"
