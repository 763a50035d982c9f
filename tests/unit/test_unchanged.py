"""What a builder remembers of a commit, and when it counts no more."""

from __future__ import annotations

from activities.producing.unchanged import Asked, Memory, Seen
from adapters.plan.plan import Plan
from adapters.source.git import Checkout

KEY = ("site_1", "auto", "null")


def seen(commit: str, programs: dict[str, str | None]) -> Seen:
    plan = Plan("static", "headway.toml", "make", ("dist",))
    return Seen(Checkout(commit, "a" * 64, 1, 1, 1), plan, programs)


def test_it_counts_while_the_programs_are_the_same() -> None:
    programs: dict[str, str | None] = {"node": "20.1.0", "yarn": None}
    asked = Asked(programs.get)
    assert (asked("node"), asked("yarn")) == ("20.1.0", None)
    memory = Memory()
    memory.keep(KEY, seen("c" * 40, dict(asked.told)))
    found = memory.find(KEY, programs.get)
    assert found is not None
    assert found.checkout.commit_sha == "c" * 40
    assert memory.find(("site_1", "static", "null"), programs.get) is None
    assert memory.find(KEY, {**programs, "node": "20.2.0"}.get) is None
    assert memory.find(KEY, {**programs, "yarn": "4.0.0"}.get) is None
    assert memory.find(KEY, None) is None


def test_the_last_commit_and_the_last_sites_are_remembered() -> None:
    memory = Memory(most=2)
    for number in range(3):
        memory.keep((f"site_{number}", "auto", "null"), seen(str(number) * 40, {}))
    memory.keep(("site_1", "auto", "null"), seen("9" * 40, {}))
    memory.keep(("site_3", "auto", "null"), seen("3" * 40, {}))
    kept = [memory.find((f"site_{number}", "auto", "null"), None) for number in range(4)]
    assert [one.checkout.commit_sha[0] if one else None for one in kept] == [None, "9", None, "3"]
