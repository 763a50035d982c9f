"""From a source tree to a plan: headway.toml first, then package.json with a build script, else the tree itself."""

from __future__ import annotations

import json
from typing import Any, Final

from adapters.artifact.folder import Folder
from adapters.artifact.paths import escaped
from adapters.plan.config import FILE, MAX_BYTES, Config, parse_config
from adapters.plan.plan import OUTPUTS, Plan
from headway.errors import HeadwayError

PACKAGE: Final = "package.json"
MAX_PACKAGE: Final = 4 << 20
NPM_LOCKS: Final = ("npm-shrinkwrap.json", "package-lock.json")
PROFILES: Final = ("auto", "static")


def detect(folder: Folder, profile: str = "auto") -> Plan:
    """The plan of a checked-out tree; `profile` is the site's assertion, or `auto`. Equal trees give equal plans.

    Raises build.config_invalid or build.detect_failed, which names what was looked for.
    """
    if profile not in PROFILES:
        raise HeadwayError("build.detect_failed", f"The profile {profile!r} is not one of {', '.join(PROFILES)}.")
    try:
        raw = folder.read(FILE, MAX_BYTES)
    except HeadwayError as error:
        raise HeadwayError("build.config_invalid", error.message, file=FILE) from error
    config = Config() if raw is None else parse_config(raw)
    root = _root(folder, config)
    with root:
        return _decide(root, config)


def _decide(root: Folder, config: Config) -> Plan:
    lock = next((name for name in NPM_LOCKS if root.has(name)), None)
    if config.command is not None:
        source, command = FILE, config.command or None
    else:
        build = _npm_build(root, lock)
        source, command = (PACKAGE, build) if build else (FILE if config.output is not None else "tree", None)
    if config.output is not None:
        outputs: tuple[str, ...] = (config.output,)
    else:
        outputs = OUTPUTS if command else ("",)
    if outputs == ("",) and command is None and not _anything(root):
        looked = f"{FILE}, {PACKAGE} with a build script, and files to publish"
        raise HeadwayError("build.detect_failed", f"There is nothing to build or publish. Looked for: {looked}.")
    return Plan(
        profile="static",
        source=source,
        command=command,
        outputs=outputs,
        root=config.root,
        env=config.env,
        timeout=config.timeout,
        lock=lock if command else None,
        static=config.static,
        run=config.run,
    )


def _root(folder: Folder, config: Config) -> Folder:
    try:
        root = folder.folder(config.root)
    except HeadwayError as error:
        raise HeadwayError("build.config_invalid", error.message, param="build.root", file=FILE) from error
    if root is None:
        message = f"{FILE}: build.root names {escaped(config.root)}, which is not in the repository."
        raise HeadwayError("build.config_invalid", message, param="build.root", file=FILE)
    return root


def _npm_build(root: Folder, lock: str | None) -> str | None:
    try:
        raw = root.read(PACKAGE, MAX_PACKAGE)
    except HeadwayError as error:
        raise HeadwayError("build.detect_failed", error.message) from error
    if raw is None:
        return None
    try:
        package: Any = json.loads(raw)
    except (ValueError, RecursionError):
        raise HeadwayError("build.detect_failed", f"{PACKAGE} is not JSON.") from None
    scripts = package.get("scripts") if isinstance(package, dict) else None
    script = scripts.get("build") if isinstance(scripts, dict) else None
    if not isinstance(script, str) or not script.strip():
        return None
    return f"npm {'ci' if lock else 'install'} && npm run build"


def _anything(root: Folder) -> bool:
    hidden = {FILE, ".git", ".gitignore", ".gitattributes", ".gitmodules"}
    return any(name not in hidden for name in root.names())
