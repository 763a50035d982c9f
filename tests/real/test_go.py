"""A program of Go without dependencies: built, kept as one file, served, and replaced under load."""

from __future__ import annotations

import shutil

import pytest

from bench.client import Caller
from bench.load import Load
from bench.stack import Stack
from tests.real.conftest import Commit
from tests.stack.sites import visit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("go") is None, reason="no go on PATH")]

MAIN = """package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "EDITION of the herons") })
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
"""
# A library is compiled with the first build, which may take minutes where others build beside it.
PATIENCE = 1500


@pytest.mark.parametrize("main", ["main.go", "cmd/herons/main.go"])
def test_go(stack: Stack, caller: Caller, commit: Commit, main: str) -> None:
    name = f"app-go-{len(main)}"
    files = {"go.mod": "module example.org/herons\n\ngo 1.19\n", main: MAIN.replace("EDITION", "first")}
    site = caller.new_site(name, commit(name, files), runtime="auto")
    base = f"/v1/sites/{site.id}/environments/{site.production}/builds"
    first = caller.finish(caller.push(site, site.production), PATIENCE)
    plan = caller.get(f"{base}/{first['resource']['build_id']}/plan")
    assert plan["toolchain"]["go"]
    assert visit(stack, site.production_host).text == "first of the herons"
    commit(name, {main: MAIN.replace("EDITION", "second")})
    with Load(stack.sites_port, site.production_host, ("of the herons",), rate=50) as load:
        second = caller.finish(caller.push(site, site.production), PATIENCE)
    assert set(load.result["counts"]) == {"ok"}, load.result  # type: ignore[call-overload]
    assert visit(stack, site.production_host).text == "second of the herons"
    # What Go compiles is kept: the second build finds it.
    assert caller.get(f"{base}/{second['resource']['build_id']}")["cache"]["hit"]
