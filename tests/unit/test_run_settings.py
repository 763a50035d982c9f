"""How an app runs, as the manifest carries it: exact in both directions, strict in one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from adapters.artifact.manifest import File, make_manifest, parse_manifest
from adapters.artifact.run import HealthCheck, RunSettings
from headway.errors import HeadwayError

ENTRY = File("app.py", "644", 1, hashlib.sha256(b"a").hexdigest())
FULL = RunSettings(
    command="exec python3 app.py",
    port=8080,
    folder="srv",
    health=HealthCheck("/ready?deep=1", 200, 299, 3, 250, 20),
    instances=2,
    release_command="python3 migrate.py",
    stop_grace=30,
    egress=("db.example:5432", "*.example", "unix:/run/db.sock"),
    env={"B": "ü", "A": ""},
    processes={"worker": "python3 work.py"},
    volumes=("data", "srv/up loads"),
    memory=64 << 20,
    cpu_millis=250,
)


def document(**changes: Any) -> bytes:
    """A good dynamic manifest with some keys replaced, in canonical form."""
    good = json.loads(make_manifest([ENTRY], run=FULL).raw)
    return rfc8785.dumps({**good, **changes})


def with_run(**changes: Any) -> bytes:
    return document(run={**FULL.as_dict(), **changes})


def refusal(raw: bytes) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        parse_manifest(raw)
    assert caught.value.code == "roll.verify_failed"
    return caught.value


@pytest.mark.parametrize("run", [FULL, RunSettings("./serve")])
def test_settings_travel_in_the_manifest(run: RunSettings) -> None:
    manifest = make_manifest([ENTRY], run=run)
    shown = json.loads(manifest.raw)
    assert (shown["kind"], shown["port"], shown["health_path"]) == ("dynamic", run.port, run.health.path)
    assert shown["run"]["command"] == run.command
    assert manifest.raw == rfc8785.dumps(shown)
    assert parse_manifest(manifest.raw, digest=manifest.digest) == manifest


def test_every_setting_changes_the_digest() -> None:
    digests = {make_manifest([ENTRY], run=run).digest for run in (FULL, RunSettings("./serve"), RunSettings("./other"))}
    assert len(digests | {make_manifest([ENTRY]).digest}) == 4


TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True).filter(lambda n: n not in ("PORT", "HOME", "ENV"))


@seed(7)
@settings(max_examples=60, deadline=None, database=None)
@given(st.dictionaries(NAMES, TEXTS, max_size=5), TEXTS.map(str.strip).filter(bool), st.integers(1, 65535))
def test_any_settings_are_canonical_and_come_back(env: dict[str, str], command: str, port: int) -> None:
    manifest = make_manifest([ENTRY], run=RunSettings(command, port, env=env))
    assert manifest.raw == rfc8785.dumps(json.loads(manifest.raw))
    assert parse_manifest(manifest.raw) == manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ""},
        {"command": None},
        {"command": "a\0b"},
        {"command": "x" * 40_000},
        {"port": 0},
        {"port": True},
        {"folder": "/srv"},
        {"folder": "../x"},
        {"folder": "a//b"},
        {"health": {}},
        {"health": {**FULL.as_dict()["health"], "path": "ready"}},
        {"health": {**FULL.as_dict()["health"], "path": "/a b"}},
        {"health": {**FULL.as_dict()["health"], "low": 300}},
        {"health": {**FULL.as_dict()["health"], "passes": 0}},
        {"health": {**FULL.as_dict()["health"], "extra": 1}},
        {"instances": 0},
        {"instances": 1.5},
        {"release_command": ""},
        {"stop_grace": -1},
        {"egress": "db.example"},
        {"egress": ["http://x/"]},
        {"egress": ["unix:relative"]},
        {"env": {"A B": "x"}},
        {"env": {"PORT": "1"}},
        {"env": {"LD_PRELOAD": "x.so"}},
        {"env": {"A": 1}},
        {"processes": {"web": "x"}},
        {"processes": {"Worker": "x"}},
        {"volumes": ["/data"]},
        {"volumes": ["b", "a"]},
        {"volumes": ["a", "a/b"]},
        {"volumes": [".git"]},
        {"memory": 1},
        {"cpu_millis": 0},
        {"extra": 1},
    ],
)
def test_untrusted_settings_are_read_strictly(changes: dict[str, Any]) -> None:
    assert f"run.{next(iter(changes))}" in refusal(with_run(**changes)).message or "extra" in changes


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "static"},
        {"run": None},
        {"run": "python3 app.py"},
        {"run": []},
        {"port": 8081},
        {"port": None},
        {"health_path": "/"},
        {"static": {"spa": True}},
        {"kind": "static", "run": None},
    ],
)
def test_kind_and_settings_agree(changes: dict[str, Any]) -> None:
    refusal(document(**changes))


def test_a_missing_setting_is_refused() -> None:
    run = FULL.as_dict()
    del run["memory"]
    refusal(document(run=run))
