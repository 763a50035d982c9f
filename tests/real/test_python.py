"""One real Python build: a package from the index renders the pages."""

from __future__ import annotations

import pytest

from bench.client import Caller, Watch
from bench.stack import Stack
from tests.real.conftest import Commit

pytestmark = pytest.mark.slow

CONFIG = """[build]
command = "python3 -m venv .tools && .tools/bin/pip install -q mistune==3.1.3 && .tools/bin/python build.py"
output = "site"
"""
BUILD = """import pathlib

import mistune

site = pathlib.Path("site")
site.mkdir()
for page in sorted(pathlib.Path("pages").glob("*.md")):
    (site / page.with_suffix(".html").name).write_text(mistune.html(page.read_text()))
"""


def test_pages_rendered_by_a_package_from_the_index_are_served(stack: Stack, caller: Caller, commit: Commit) -> None:
    files = {"headway.toml": CONFIG, "build.py": BUILD, "pages/index.md": "# Weir log\n\n*Seven* herons.\n"}
    site = caller.new_site("weir-log", commit("weir-log", files))
    caller.finish(caller.push(site, site.production))
    with Watch(stack, site.production_host) as watch:
        page = watch.page()
    assert "<h1>Weir log</h1>" in page
    assert "<em>Seven</em>" in page
