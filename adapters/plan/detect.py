"""From a source tree to a plan: what headway.toml says, then a Procfile, then what the languages' own files say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from adapters.artifact.folder import Folder
from adapters.artifact.paths import escaped
from adapters.plan import procfile
from adapters.plan.compose import Wanted, dynamic_plan, static_plan
from adapters.plan.config import FILE, MAX_BYTES, Config, parse_config
from adapters.plan.foreign import unread_dependencies
from adapters.plan.native import go_part, rust_part
from adapters.plan.node import PACKAGE, node_part
from adapters.plan.part import Part, Start, Tools
from adapters.plan.plan import Plan
from adapters.plan.python import python_part
from headway.errors import HeadwayError

REQUEST: Final = "request"
PROFILES: Final = ("auto", "static", "dynamic")
LOOKED: Final = (
    f"a [run] command in {FILE}, a web line in {procfile.FILE}, a start script or a known server in {PACKAGE}, "
    "a WSGI or ASGI object in a Python file, a main package of Go or Rust"
)
_PYTHON: Final = re.compile(r"\b(?:python|gunicorn|uvicorn|hypercorn|waitress|daphne|granian|flask|celery|streamlit)")


@dataclass(frozen=True)
class Said:
    """What a request says beside the tree: how the app starts; `publishes`: what is made, or published, of it."""

    start: str | None = None
    publishes: bool = False


@dataclass(frozen=True)
class Tree:
    """What was seen. `start` is what starts the app, `told` whether somebody wrote it down as such."""

    root: Folder
    config: Config
    parts: tuple[Part, ...]
    start: Start | None
    told: bool
    release: str | None
    processes: Mapping[str, str]
    said: Said


def detect(folder: Folder, profile: str = "auto", tools: Tools | None = None, said: Said | None = None) -> Plan:
    """The plan of a checked-out tree; `profile` is the site's assertion, or `auto`. Equal trees give equal plans.

    `tools` tells the versions of what builds find; None: nothing is known, and nothing is missed. What is `said` is not
    missed in the tree.
    Raises build.config_invalid or build.detect_failed, which names what was looked for.
    """
    if profile not in PROFILES:
        raise HeadwayError("build.detect_failed", f"The profile {profile!r} is not one of {', '.join(PROFILES)}.")
    try:
        raw = folder.read(FILE, MAX_BYTES)
    except HeadwayError as error:
        raise HeadwayError("build.config_invalid", error.message, file=FILE) from error
    config = Config() if raw is None else parse_config(raw)
    with _root(folder, config) as root:
        return replace(_decide(_look(root, config, tools, said or Said()), profile, tools), routes=config.routes)


def _root(folder: Folder, config: Config) -> Folder:
    try:
        root = folder.folder(config.root)
    except HeadwayError as error:
        raise HeadwayError("build.config_invalid", error.message, param="build.root", file=FILE) from error
    if root is None:
        message = f"{FILE}: build.root names {escaped(config.root)}, which is not in the repository."
        raise HeadwayError("build.config_invalid", message, param="build.root", file=FILE)
    return root


def _look(root: Folder, config: Config, tools: Tools | None, said: Said) -> Tree:
    found = (node_part(root, tools), python_part(root, tools), go_part(root), rust_part(root))
    parts = tuple(part for part in found if part is not None)
    lines = procfile.read_procfile(root)
    web = lines.web if lines else None
    named = ((said.start, REQUEST), (config.run.command, FILE), (web, procfile.FILE))
    told = next((Start(command, source) for command, source in named if command), None)
    return Tree(
        root=root,
        config=config,
        parts=parts,
        start=told or next((part.start for part in parts if part.start), None),
        told=told is not None,
        release=lines.release if lines else None,
        processes={**(lines.processes if lines else {}), **config.run.processes},
        said=said,
    )


def _decide(tree: Tree, profile: str, tools: Tools | None) -> Plan:
    config = tree.config
    if profile == "static":
        _require_static(tree)
        meant = config.output is not None or bool(config.static) or tree.said.publishes
        return static_plan(config, tree.parts, tree.root, tools, meant=meant)
    # A folder to publish, or rules for static files, say what is meant better than a library does.
    publishes = config.output is not None or bool(config.static)
    if profile == "dynamic" or config.run or tree.told or (tree.start is not None and not publishes):
        if config.static and not tree.said.start:
            message = f"{FILE}: static is for static sites, and this is an app ({_why(tree, profile)})."
            raise HeadwayError("build.config_invalid", message, param="static", file=FILE)
        if tree.start is None:
            raise _nothing_starts(tree, profile)
        _require_libraries(tree, tree.start)
        wanted = Wanted(tree.start, tree.told, tree.release, tree.processes)
        return dynamic_plan(config, tree.parts, wanted, tools)
    wants = next((part.wants for part in tree.parts if part.wants), None)
    publishes = publishes or tree.said.publishes
    if wants and not publishes and config.command is None and not any(part.static for part in tree.parts):
        raise HeadwayError("build.detect_failed", wants)
    return static_plan(config, tree.parts, tree.root, tools, meant=publishes)


def _require_static(tree: Tree) -> None:
    """A site that is said to be static is not given an app; nor is an app's source published by mistake."""
    config = tree.config
    if config.run:
        message = f"{FILE} has settings for an app, and the site is said to be static: set its profile to auto."
        raise HeadwayError("build.config_invalid", message, param="run", file=FILE)
    makes = config.output is not None or config.command or any(part.static for part in tree.parts)
    seen = tree.start.source if tree.start else next((part.source for part in tree.parts if part.wants), None)
    if seen and not makes:
        message = f"The site is said to be static, and {seen} is of an app; nothing says which folder to publish."
        raise HeadwayError("build.detect_failed", message)


def _require_libraries(tree: Tree, start: Start) -> None:
    """An app of Python whose dependencies stand where they are not read would start without any."""
    config = tree.config
    asked = config.install is not None or config.command or any(part.install_for_run for part in tree.parts)
    if (
        asked
        or tree.said.start
        or _PYTHON.search(start.command) is None
        or (unread := unread_dependencies(tree.root)) is None
    ):
        return
    message = f'{start.source} starts an app of Python. {unread} If it needs none, say so: [build] install = "".'
    raise HeadwayError("build.detect_failed", message)


def _why(tree: Tree, profile: str) -> str:
    if profile == "dynamic":
        return "the site is said to be dynamic"
    return f"{tree.start.source} says how it starts" if tree.start else "it has a [run] table"


def _nothing_starts(tree: Tree, profile: str) -> HeadwayError:
    wants = next((part.wants for part in tree.parts if part.wants), None)
    message = wants or f"Nothing says how this app starts ({_why(tree, profile)}). Looked for: {LOOKED}."
    return HeadwayError("build.detect_failed", message)
