"""Makers of static sites in Python: MkDocs, Sphinx, Pelican."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from adapters.artifact.folder import Folder
from adapters.plan.part import read_text

SPHINX: Final = ("docs", "doc", "docs/source", "doc/source", "source", "")
REQUIREMENTS: Final = (
    *("docs/requirements.txt", "doc/requirements.txt", "requirements/docs.txt", "requirements-docs.txt"),
    *("docs-requirements.txt", "requirements-doc.txt", "docs/requirements-docs.txt"),
)
_CONF = re.compile(r"^(?:extensions|html_theme|project|master_doc|root_doc)\s*(?::[^=\n]+)?=", re.MULTILINE)
# Within a line: a look from each of a file's empty lines to its end would take the square of them.
_MATERIAL = re.compile(r"^[ \t]+name:[ \t]*['\"]?material\b|^theme:[ \t]*['\"]?material\b", re.MULTILINE)
_THEME = re.compile(r"^html_theme\s*=\s*['\"](\w+)['\"]", re.MULTILINE)
_THEMES: Final = {"furo": "furo", "sphinx_rtd_theme": "sphinx-rtd-theme", "pydata_sphinx_theme": "pydata-sphinx-theme"}


@dataclass(frozen=True)
class Site:
    """`packages` are needed at least; `requirements` is the file that names what the documentation needs."""

    name: str
    source: str
    build: str
    outputs: tuple[str, ...]
    packages: tuple[str, ...]
    requirements: str | None


def find_site(root: Folder) -> Site | None:
    for name in ("mkdocs.yml", "mkdocs.yaml"):
        if (text := read_text(root, name)) is not None:
            packages = ("mkdocs", "mkdocs-material") if _MATERIAL.search(text) else ("mkdocs",)
            build = f"python3 -m mkdocs build --config-file {name} --site-dir site"
            return Site("MkDocs", name, build, ("site",), packages, _requirements(root))
    if root.has("pelicanconf.py"):
        settings = "publishconf.py" if root.has("publishconf.py") else "pelicanconf.py"
        build = f"python3 -m pelican content -o output -s {settings}"
        return Site("Pelican", settings, build, ("output",), ("pelican[markdown]",), _requirements(root))
    return _sphinx(root)


def _requirements(root: Folder) -> str | None:
    return next((path for path in REQUIREMENTS if read_text(root, path) is not None), None)


def _sphinx(root: Folder) -> Site | None:
    for folder in SPHINX:
        file = f"{folder}/conf.py" if folder else "conf.py"
        text = read_text(root, file) or ""
        if _CONF.search(text) is None:
            continue
        theme = _THEME.search(text)
        package = _THEMES.get(theme[1]) if theme else None
        build = f'python3 -m sphinx -b html -q -d "$TMPDIR/doctrees" {folder or "."} .headway/html'
        packages = ("sphinx", package) if package else ("sphinx",)
        return Site("Sphinx", file, build, (".headway/html",), packages, _requirements(root))
    return None
