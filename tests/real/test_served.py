"""Apps that are not ours through the whole stack: built, judged, served, replaced without a lost request, put back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.real.conftest import Commit
from tests.real.test_node_apps import PACKAGE, SERVER, files
from tests.real.test_python_apps import DATASETTE
from tests.stack.sites import Place

pytestmark = pytest.mark.slow


def place_of(stack: Stack, caller: Caller, commit: Commit, name: str, given: dict[str, str]) -> Place:
    address = commit(name, given)
    site = caller.new_site(name, address, runtime="auto")
    return Place(stack, caller, site, Path(url2pathname(urlsplit(address).path)))


@contextmanager
def visited(place: Place, path: str) -> Iterator[list[str]]:
    """Somebody visits all the time; what went wrong."""
    faults: list[str] = []
    over = threading.Event()

    def visit() -> None:
        while not over.wait(0.01):
            try:
                page = place.page(path)
            except OSError as error:
                faults.append(repr(error))
            else:
                if page.status != 200:
                    faults.append(f"{page.status} {page.text[:80]}")

    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    try:
        yield faults
    finally:
        over.set()
        visitor.join(60)


def walk(place: Place, commit: Commit, name: str, path: str, changed: dict[str, str], seen: list[object]) -> None:
    """Deploy, replace under load, roll back: `seen` is what `path` answers as JSON before and after."""
    place.push()
    assert json.loads(place.page(path).text) == seen[0]
    commit(name, changed)
    with visited(place, path) as faults:
        place.push()
        assert json.loads(place.page(path).text) == seen[1]
        place.caller.finish(place.start_rollback(place.site.production))
        assert json.loads(place.page(path).text) == seen[0]
    assert faults == []


def test_datasette_is_replaced_and_put_back_under_load(stack: Stack, caller: Caller, commit: Commit) -> None:
    place = place_of(stack, caller, commit, "served-datasette", DATASETTE)
    more = DATASETTE["headway.toml"].replace("('weir', 7)", "('weir', 8)")
    path = "/herons/seen.json?_shape=array&_col=birds"
    walk(place, commit, "served-datasette", path, {"headway.toml": more}, [rows(7), rows(8)])


def rows(birds: int) -> list[dict[str, int]]:
    return [{"rowid": 1, "birds": birds}]


def test_express_is_replaced_and_put_back_under_load(stack: Stack, caller: Caller, commit: Commit, npm: str) -> None:
    place = place_of(stack, caller, commit, "served-express", files(npm, PACKAGE))
    more = SERVER.replace("herons: 7", "herons: 8")
    seen: list[object] = [{"built": "production", "herons": birds} for birds in (7, 8)]
    walk(place, commit, "served-express", "/", {"server.js": more}, seen)
