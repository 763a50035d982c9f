from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from adapters.artifact.layout import Layout, Location, make_layout, parse_layout, plan_reuse
from adapters.artifact.manifest import Entry, File, Link, Manifest, make_manifest, parse_manifest
from adapters.artifact.rules import HeaderRule, Redirect, StaticRules
from headway.errors import HeadwayError

A = hashlib.sha256(b"a").hexdigest()
B = hashlib.sha256(b"b").hexdigest()


def file(path: str, sha: str = A, size: int = 1) -> File:
    return File(path, "644", size, sha)


def refused(work: Any, *args: Any, **kwargs: Any) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        work(*args, **kwargs)
    return caught.value


def document(**changes: Any) -> bytes:
    """A good manifest with some keys replaced, in canonical form."""
    return rfc8785.dumps({**json.loads(make_manifest([file("a.html"), file("b.html", B)]).raw), **changes})


def test_the_digest_depends_on_the_tree_and_not_on_the_order_of_the_scan() -> None:
    one = make_manifest([file("b"), file("a", B), Link("c", "a")])
    other = make_manifest([Link("c", "a"), file("a", B), file("b")])
    assert one.digest == other.digest == hashlib.sha256(one.raw).hexdigest()
    assert one.digest != make_manifest([file("b"), file("a"), Link("c", "a")]).digest


def test_the_digests_of_static_artifacts_are_frozen() -> None:
    """Artifacts that were signed keep their names: these digests are those of the first release."""
    plain = make_manifest([File("index.html", "644", 12, "a" * 64)], entrypoint="index.html")
    assert plain.digest == "8781fe820a49f4284407347cb9ca3b7dae0bf606aa059303a621ac7524e56e1c"
    rules = StaticRules("404.html", True, (HeaderRule("/a/*", {"X-A": "1"}),), (Redirect("/old/*", "/new", 308),))
    entries = [File("index.html", "644", 12, "a" * 64), File("bin/x", "755", 0, "b" * 64), Link("l", "index.html")]
    ruled = make_manifest(entries, static=rules, entrypoint="index.html")
    assert ruled.digest == "67a9987eba1ab93961b1c84727251456ef5fca98e19c977dc477d8490e52c952"
    assert (ruled.run, ruled.port, ruled.health_path) == (None, None, None)


def test_paths_are_sorted_by_their_bytes() -> None:
    names = ["a-b", "a/b", "a.b", "\N{FULLWIDTH LATIN SMALL LETTER A}", "\N{GRINNING FACE}", "Z"]
    paths = [one.path for one in make_manifest([file(name) for name in names]).entries]
    assert paths == sorted(names, key=str.encode)


def test_rules_travel_and_an_empty_table_is_null() -> None:
    rules = StaticRules("404.html", True, (HeaderRule("/a/*", {"X-A": "1"}),), (Redirect("/old/*", "/new", 308),))
    manifest = make_manifest([file("index.html")], static=rules, entrypoint="index.html")
    assert parse_manifest(manifest.raw, digest=manifest.digest) == manifest
    assert json.loads(make_manifest([file("a")]).raw)["static"] is None


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1, max_size=8)
PATHS = st.lists(NAMES.filter(lambda n: n not in (".", "..", ".git")), min_size=1, max_size=4).map("/".join)


@seed(7)
@settings(max_examples=150, deadline=None, database=None)
@given(st.dictionaries(PATHS, st.sampled_from([A, B]), max_size=12))
def test_round_trip_is_exact_and_canonical_by_rfc_8785(tree: dict[str, str]) -> None:
    entries: list[Entry] = [file(path, sha) for path, sha in tree.items()]
    if any(b.startswith(a + "/") for a in tree for b in tree):
        assert refused(make_manifest, entries).code == "build.output_invalid"
        return
    manifest = make_manifest(entries)
    assert manifest.raw == rfc8785.dumps(json.loads(manifest.raw))
    assert parse_manifest(manifest.raw) == manifest


@pytest.mark.parametrize(
    "path",
    [
        *("/a", "a//b", "../a", "a/..", "a/./b", "", "a\nb", "a\x00", ".git/config", "x/.git", "a.headway-etag"),
        "n" * 243,
        "/".join(["d" * 200] * 6),
    ],
)
def test_paths_that_could_do_harm_are_refused(path: str) -> None:
    assert refused(make_manifest, [file(path)]).code == "build.output_invalid"
    entry = {"path": path, "mode": "644", "size": 1, "sha256": A}
    assert refused(parse_manifest, document(files=[entry])).code == "roll.verify_failed"


@pytest.mark.parametrize(
    ("links", "fault"),
    [
        ({"l": "/etc/passwd"}, "absolute"),
        ({"l": "../x"}, "leaves"),
        ({"d/l": "../../x"}, "leaves"),
        ({"x/y/s": "../../t", "l": "x/y/s/../../.."}, "leaves"),
        ({"a": "b", "b": "a"}, "circle"),
        ({"l": "a\nb"}, "target"),
        ({"l": ""}, "target"),
    ],
)
def test_links_are_followed_as_a_kernel_would(links: dict[str, str], fault: str) -> None:
    assert fault in refused(make_manifest, [Link(path, target) for path, target in links.items()]).message


def test_links_that_stay_inside_are_kept() -> None:
    links: list[Entry] = [
        Link("l", "d/f"),
        Link("d/up", "../l"),
        Link("s", "d"),
        Link("via", "s/f"),
        Link("no", "gone"),
    ]
    assert len(make_manifest([file("d/f"), *links]).entries) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "shell"},
        {"version": 2},
        {"version": 1.5},
        {"extra": 1},
        {"port": 0},
        {"port": True},
        {"entrypoint": 5},
        {"files": {}},
        {"files": [{"path": "a", "mode": "777", "size": 1, "sha256": A}]},
        {"files": [{"path": "a", "mode": "644", "size": -1, "sha256": A}]},
        {"files": [{"path": "a", "mode": "644", "size": 1.5, "sha256": A}]},
        {"files": [{"path": "a", "mode": "644", "size": True, "sha256": A}]},
        {"files": [{"path": "a", "mode": "644", "size": 1, "sha256": A.upper()}]},
        {"files": [{"path": "a", "mode": "644", "size": 1, "sha256": A, "uid": 0}]},
        {"files": [{"path": "a", "link": "b"}, {"path": "a", "link": "b"}]},
        {"files": [{"path": "b", "link": "x"}, {"path": "a", "link": "x"}]},
        {"files": [{"path": "a", "link": "x"}, {"path": "a/b", "link": "x"}]},
        {"static": {"headers": [{"for": "/", "values": {"Content-Length": "1"}}]}},
        {"static": {"spa": "yes"}},
    ],
)
def test_a_manifest_is_read_strictly(changes: dict[str, Any]) -> None:
    assert refused(parse_manifest, document(**changes)).code == "roll.verify_failed"


def test_only_the_canonical_bytes_are_accepted() -> None:
    good = document()
    assert parse_manifest(good).raw == good
    for bad in (good + b"\n", json.dumps(json.loads(good)).encode(), b"\xff", b"[]", b'{"a":' * 50_000, b"null"):
        assert refused(parse_manifest, bad).code == "roll.verify_failed"
    assert refused(parse_manifest, good, digest=B).code == "roll.verify_failed"
    odd = document(entrypoint="x").replace(b'"entrypoint":"x"', b'"entrypoint":"\\ud800"')
    assert refused(parse_manifest, odd).code == "roll.verify_failed"


def test_one_content_cannot_have_two_sizes() -> None:
    assert refused(make_manifest, [file("a", A, 1), file("b", A, 2)]).code == "build.output_invalid"


def test_layout_round_trip() -> None:
    layout = make_layout({A: 1, B: 2}, {A: Location(B, 5, 1), B: Location(A, 0, 2), "c": Location("p", 0, 1)})
    assert parse_layout(layout.raw) == layout
    assert layout.packs == sorted([A, B])
    assert refused(make_layout, {A: 2}, {A: Location(B, 0, 1)}).code == "internal.error"


@pytest.mark.parametrize(
    "bad",
    [
        b"{}",
        b'{"contents":{},"packs":[],"version":1,"x":1}',
        b'{"contents":{},"packs":["p"],"version":1}',
        b'{"contents":{"%s":[0,0,1]},"packs":[],"version":1}' % A.encode(),
        b'{"contents":{"x":[0,0,1]},"packs":["%s"],"version":1}' % A.encode(),
        b'{"contents":{"%s":[0,-1,1]},"packs":["%s"],"version":1}' % (A.encode(), A.encode()),
    ],
)
def test_a_layout_is_read_strictly(bad: bytes) -> None:
    assert refused(parse_layout, bad).code == "roll.verify_failed"


def test_an_unchanged_artifact_misses_nothing() -> None:
    held = {A: Location(B, 0, 1)}
    assert plan_reuse({A: 1}, held).missing == []
    assert plan_reuse({A: 1, B: 2}, held).missing == [B]


@seed(7)
@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 100)), max_size=80), st.integers(0, 3))
def test_reuse_never_needs_more_than_the_limit(held: list[tuple[int, int]], fresh: int) -> None:
    where = {f"c{i}": Location(f"p{pack}", 0, size) for i, (pack, size) in enumerate(held)}
    wanted = {name: one.size for name, one in where.items()} | {f"new{i}": 1 for i in range(fresh)}
    reuse = plan_reuse(wanted, where, limit=16)
    missing = set(reuse.missing)
    assert {where[name].pack for name in wanted if name not in missing} <= set(reuse.kept)
    assert all(f"new{i}" in missing for i in range(fresh))
    assert len(reuse.kept) + bool(missing) <= 16


def test_reuse_gives_up_the_packs_that_give_least() -> None:
    held = {f"c{i}": Location(f"p{i:02}", 0, (100 - i) << 20) for i in range(20)}
    reuse = plan_reuse({name: one.size for name, one in held.items()}, held)
    assert reuse.missing == [f"c{i}" for i in range(15, 20)]
    assert Layout(held).packs == [f"p{i:02}" for i in range(20)]


def test_reuse_makes_room_for_the_next_commits_where_that_costs_little() -> None:
    def kept(sizes: list[int]) -> int:
        held = {f"c{i:02}": Location(f"p{i:02}", 0, size) for i, size in enumerate(sizes)}
        reuse = plan_reuse({**{name: one.size for name, one in held.items()}, "new": 1}, held)
        assert reuse.kept == [f"p{i:02}" for i in range(len(reuse.kept))]
        return len(reuse.kept)

    assert kept([1 << 30] + [10 << 10] * 15) == 8
    assert kept([1 << 30] + [200 << 10] * 15) == 14  # one has to go, another is small enough to go with it
    assert kept([1 << 30] + [300 << 10] * 15) == 15
    assert kept([1 << 30] + [10 << 10] * 14) == 15  # nothing has to go


def test_empty_manifest_is_possible_for_the_format() -> None:
    assert parse_manifest(Manifest(entries=()).raw).contents == {}


def test_contents_are_counted_once_however_often_they_are_asked_for() -> None:
    """Whoever looks each of 10,000 contents up must not count 10,000 for each."""
    made = make_manifest([file("a"), file("b", B), file("c")])
    assert made.contents == {A: 1, B: 1}
    assert made.contents is made.contents
