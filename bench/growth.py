"""`python -m bench.growth`: how proofs grow with the ledger, as figures and as docs/ledger-growth.svg.

In processor time, so that a busy machine matters less. Needs no stack, and some minutes for a million entries.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from adapters.ledger import proofs, tree
from adapters.ledger.note import Log, LogKey
from adapters.signer.keys import create_key
from bench.ledger import HOST, appends, fill
from store import ledger as rows
from store.migrations import upgrade
from store.session import Store

SIZES: Final = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
TRIES: Final = 50
PICTURE: Final = Path(__file__).parents[1] / "docs" / "ledger-growth.svg"
Row = dict[str, Any]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="hwb-") as folder:
        found = measure(Path(folder), tuple(map(int, sys.argv[1:])) or SIZES)
    PICTURE.write_text(picture(found))
    return 0


def measure(folder: Path, sizes: Sequence[int]) -> list[Row]:
    """Per size: hashes at most, and milliseconds of the processor for making and checking a proof, and an append."""
    from activities.ledger import Ledger

    upgrade(f"sqlite:///{folder}/ledger.db")
    store = Store.open(f"sqlite:///{folder}/ledger.db")
    ledger, signing = Ledger.open(store, folder / "keys", HOST), create_key(folder / "keys", "ledger")
    key, chance = LogKey(Log(signing.public, HOST), signing.raw), random.Random(7)  # noqa: S311
    found: list[Row] = []
    for size in sizes:
        fill(store, key, size)
        found.append({"entries": size, **_proofs(store, size, chance)})
        began = time.process_time()
        appends(ledger, size)
        found[-1]["append_ms"] = round((time.process_time() - began) / 200 * 1e3, 3)
        print(json.dumps(found[-1]), flush=True)
    store.close()
    return found


def _proofs(store: Store, size: int, chance: random.Random) -> Row:
    with store.read() as session:
        nodes: tree.Nodes = lambda wanted: rows.nodes(session, wanted)  # noqa: E731
        at = [chance.randrange(size) for _ in range(TRIES)]
        inclusion, made = _timed(lambda index: tree.inclusion_proof(nodes, index, size), at)
        consistency, _ = _timed(lambda index: tree.consistency_proof(nodes, index + 1, size), at)
        root, leaves = tree.root_of(nodes, size), [nodes([(0, index)])[0, index] for index in at]
    cases = list(zip(at, leaves, inclusion, strict=True))
    roots, checked = _timed(lambda one: proofs.root_from_inclusion(one[0], size, one[1], one[2]), cases)
    assert set(roots) == {root}
    longest = {"inclusion_hashes": max(map(len, inclusion)), "consistency_hashes": max(map(len, consistency))}
    return {**longest, "make_ms": round(made, 3), "check_ms": round(checked, 4)}


def _timed(work: Callable[[Any], Any], cases: Sequence[Any]) -> tuple[list[Any], float]:
    began = time.process_time()
    found = [work(one) for one in cases]
    return found, (time.process_time() - began) / len(cases) * 1e3


def picture(found: Sequence[Row]) -> str:
    """Two panels over the logarithm of the size: a straight line is logarithmic growth."""
    left = _panel(60, found, "hashes in a proof", ("inclusion_hashes", "consistency_hashes"))
    right = _panel(500, found, "milliseconds of one processor", ("make_ms", "check_ms", "append_ms"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 330" font-family="Helvetica, Arial, sans-serif"'
        ' font-size="12" role="img" aria-labelledby="t">\n<title id="t">Proofs grow with the logarithm of the ledger'
        f'</title>\n<rect width="900" height="330" fill="#fbfaf7"/>\n{left}{right}</svg>\n'
    )


COLOURS: Final = ("#33658a", "#b5563c", "#4f7f52")


def _panel(x: int, found: Sequence[Row], title: str, names: Sequence[str]) -> str:
    most = max(row[name] for row in found for name in names) * 1.1
    widest = math.log10(found[-1]["entries"])

    def place(row: Row, name: str) -> str:
        return f"{x + 340 * math.log10(row['entries']) / widest:.1f},{270 - 220 * row[name] / most:.1f}"

    parts = [f'<text x="{x}" y="26" font-weight="bold">{title}</text>']
    parts.append(f'<path d="M{x} 50 V270 H{x + 340}" fill="none" stroke="#2f4858"/>')
    for share in (0.25, 0.5, 0.75, 1):
        parts.append(f'<text x="{x - 6}" y="{274 - 220 * share:.0f}" text-anchor="end">{most * share:.3g}</text>')
    for row in found:
        at = x + 340 * math.log10(row["entries"]) / widest
        parts.append(f'<text x="{at:.0f}" y="288" text-anchor="middle">{row["entries"]:,}</text>')
    for number, name in enumerate(names):
        points = [place(row, name) for row in found]
        colour = COLOURS[number]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for one in points:
            across, down = one.split(",")
            parts.append(f'<circle cx="{across}" cy="{down}" r="3" fill="{colour}"/>')
        said = name.replace("_ms", " (a proof)" if name != "append_ms" else "").replace("_", " ")
        parts.append(f'<text x="{x + 120 * number}" y="312" fill="{colour}">{said}</text>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
