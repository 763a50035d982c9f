"""Who watches a tree by looking does not go over all processes of the machine at each look."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from adapters.runtime.driver import Bounds
from adapters.sandbox import watch
from adapters.sandbox.watch import TreeWatch, below, descendants

# A child of its first thread, one of another, and one of a child.
TREE = """
import subprocess, threading, time
sleep = lambda: subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
sleep(); thread = threading.Thread(target=lambda: (sleep(), print("there", flush=True), time.sleep(60))); thread.start()
"""


@pytest.fixture
def first() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", TREE], stdout=subprocess.PIPE, process_group=0) as tree:
        assert tree.stdout is not None
        tree.stdout.readline()
        until = time.monotonic() + 10
        while len(descendants(tree.pid)) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        yield tree.pid
        os.killpg(tree.pid, 9)


def test_the_kernels_lists_lead_to_the_same_tree(first: int) -> None:
    assert sorted(below(first) or []) == sorted(descendants(first))
    assert len(descendants(first)) == 5


def test_most_looks_go_down_from_the_first(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    over_all = list[int]()

    def looked(pid: int) -> list[int]:
        over_all.append(pid)
        return descendants(pid)

    monkeypatch.setattr(watch, "descendants", looked)
    limits = Bounds(memory=1 << 40, pids=6)
    seldom = TreeWatch(first, limits, whole=20)
    assert {seldom.exceeded() for _ in range(40)} == {"too_many_processes"}
    assert len(over_all) == 2
    assert TreeWatch(first, limits).exceeded() == TreeWatch(first, limits).exceeded() == "too_many_processes"
    assert len(over_all) == 4
