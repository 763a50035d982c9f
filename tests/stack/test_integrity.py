"""Rot on the whole stack: bytes are flipped behind everybody's back, and put right from whoever has them whole."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from adapters.objects import ObjectStore
from bench.stack import HEADWAY, Stack
from headway.supervisor.folder import Folder, read_json, s3_credentials
from tests.stack.conftest import NewPlace
from tests.stack.sites import Place
from tests.stack.test_tampering import Made

pytestmark = pytest.mark.slow
PAGE = "<h1>no rot in here</h1>\n"
SHA = hashlib.sha256(PAGE.encode()).hexdigest()


@pytest.fixture(scope="module")
def place(new_place: NewPlace) -> Place:
    made = new_place({"index.html": PAGE})
    made.push()
    return made


@pytest.fixture(scope="module")
def made(stack: Stack, place: Place) -> Made:
    endpoint = read_json(stack.data / "endpoints.json")["s3"]
    objects = ObjectStore(endpoint, "us-east-1", "headway", *s3_credentials(Folder(stack.data)))
    [row] = place.get(place.site.production, "artifacts")
    return Made(objects, place.site.id, row["id"], row["digest"].removeprefix("sha256:"), PAGE)


def headway(stack: Stack, *words: str) -> Any:
    argv = [*HEADWAY, *words, "--json", "--api-url", stack.api, "--token", stack.key]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def scrub(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = headway(stack, "integrity", "scrub", "--all", "--wait")["result"]
    return found


def test_pack_manifest_and_documents_are_mended(stack: Stack, place: Place, made: Made) -> None:
    assert scrub(stack)["damaged"] == 0
    pack = made.pack
    whole = {key: made.objects.get(key, 1 << 20) for key in (pack, made.name("manifest"), made.name("layout"))}
    made.flip(pack)
    made.flip(made.name("manifest"))
    done = scrub(stack)
    assert (done["damaged"], done["mended"], done["lost"]) == (2, 2, 0)
    made.objects.delete([pack, made.name("layout"), made.name("bundle")])
    done = scrub(stack)
    assert (done["damaged"], done["mended"], done["lost"]) == (3, 3, 0)
    assert {key: made.objects.get(key, 1 << 20) for key in whole} == whole
    rows = headway(stack, "integrity", "findings")
    assert {row["mended_by"] for row in rows} == {"local", "rows"}
    assert headway(stack, "integrity", "report")["totals"]["open"] == 0
    # A host takes what was made anew: the artifact is rolled onto another environment.
    place.roll(made.id, place.site.staging)


def test_the_ledger_has_how_it_ended(stack: Stack, place: Place) -> None:
    deadline = time.monotonic() + 60
    while True:
        rows = place.caller.get("/v1/integrity/findings")
        if rows and all(row["log_index"] is not None for row in rows):
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.2)


def test_both_copies_bad_is_said_and_nothing_changed(stack: Stack, place: Place, made: Made) -> None:
    pack = made.pack
    right = made.objects.get(pack, 1 << 20)
    [file] = Path(stack.data / "host" / "store").glob(f"*/{SHA}-644")
    changed = right.replace(b"no rot", b"a  rot")
    made.write(pack, changed)
    spoil(file, b"<h1>NO rot in here</h1>\n")
    try:
        done = scrub(stack)
        assert (done["damaged"], done["mended"], done["lost"]) == (1, 0, 1)
        row = headway(stack, "integrity", "findings")[0]
        assert (row["state"], row["mended_by"]) == ("lost", None)
        assert SHA in row["tried"][0]["why"]
        assert made.objects.get(pack, 1 << 20) == changed
        assert file.read_bytes() == b"<h1>NO rot in here</h1>\n"
    finally:
        spoil(file, PAGE.encode())
    assert scrub(stack)["mended"] == 1
    assert made.objects.get(pack, 1 << 20) == right


def spoil(file: Path, data: bytes) -> None:
    """Other bytes under an unbroken seal."""
    file.chmod(0o600)
    file.write_bytes(data)
    file.chmod(0o444)
    os.utime(file, ns=(0, 0))
