"""An audit by several threads: in their slices nothing is skipped, and the first thing that is wrong is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from adapters.ledger import promises
from adapters.ledger.audit import audit
from adapters.ledger.entry import Logged
from adapters.ledger.promises import checked
from adapters.signer.keys import create_key
from headway.errors import HeadwayError
from tests.unit.test_ledger_entry import Ledger

COUNT, SLICE = 23, 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(create_key(tmp_path_factory.mktemp("keys")), COUNT)


@pytest.fixture
def ledger(whole: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(promises, "SLICE", SLICE)
    return whole


def unsigned(entry: Logged) -> Logged:
    return replace(entry, at=entry.at + 1)


def test_threads_find_what_one_finds(ledger: Ledger) -> None:
    """Each slice damaged at another place, some twice, some not."""
    bad = {number for number in range(COUNT) if number % 5 in (0, 3)} - {8, 9, 10, 11}
    entries = [unsigned(one) if one.index in bad else one for one in ledger.logged]
    by_two = list(checked(iter(entries), ledger.key.log, 2))
    assert [one for some, _ in by_two for one in some] == entries
    assert by_two == list(checked(iter(entries), ledger.key.log, 1))
    first = [min((number % SLICE for number in bad if number // SLICE == at), default=None) for at in range(6)]
    assert [fault and fault[0] for _, fault in by_two] == first


def test_a_good_ledger_holds_and_nothing_behind_its_head_is_read(ledger: Ledger) -> None:
    read: list[int] = []

    def entries() -> Iterator[Logged]:
        for one in ledger.logged:
            read.append(one.index)
            yield one

    found = audit(entries(), ledger.key.log, ledger.head(19), [ledger.head(4), ledger.head(7)], threads=2)
    assert (found.size, found.root, read[-1]) == (19, ledger.head(19).root, 18)


@pytest.mark.parametrize("number", range(COUNT))
def test_a_damaged_entry_at_each_place(ledger: Ledger, number: int) -> None:
    before, one, after = ledger.logged[:number], ledger.logged[number], ledger.logged[number + 1 :]
    others = ledger.logged[(number + 1) % COUNT]
    swapped = replace(others, index=number)
    for changed in (unsigned(one), replace(one, body=one.body + b" "), swapped, replace(one, promise=others.promise)):
        with pytest.raises(HeadwayError, match=f"entry {number}: the ledger did not sign"):
            audit([*before, changed, *after], ledger.key.log, ledger.head(), threads=1)
    with pytest.raises(HeadwayError, match=f"entry {number} is missing|it ends at {number}"):
        audit([*before, *after], ledger.key.log, ledger.head(), threads=1)
