"""Node: the package manager by lock file, the framework by dependency, the server by start script."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from adapters.artifact.folder import Folder
from adapters.artifact.paths import path_fault
from adapters.plan.managers import find_manager
from adapters.plan.part import Part, Start, Tools, as_exec, read_json, read_text, table
from headway.errors import HeadwayError

PACKAGE: Final = "package.json"
# Of node_modules: what package managers write for themselves, with addresses, times and folders of the builder.
LEFT_OUT: Final = (
    *(f"node_modules/{name}" for name in (".cache", ".package-lock.json", ".modules.yaml", ".yarn-integrity")),
    *(f"node_modules/{name}" for name in (".yarn-state.yml", ".pnpm-workspace-state.json", ".pnpm/lock.yaml")),
    *("node_modules/.pnpm-workspace-state-v1.json", ".next/cache", ".next/trace", ".turbo", ".parcel-cache"),
    *(".yarn/cache", ".yarn/install-state.gz", ".pnpm-store", ".npm", ".nyc_output", "coverage"),
)


@dataclass(frozen=True)
class Framework:
    """A maker of static sites: known by `package`, it writes to one of `outputs`; `cli` where no script says how."""

    name: str
    package: str
    outputs: tuple[str, ...]
    cli: str | None = None


FRAMEWORKS: Final = (
    Framework("Docusaurus", "@docusaurus/core", ("build",), "docusaurus build"),
    Framework("VitePress", "vitepress", (".vitepress/dist", "docs/.vitepress/dist", "src/.vitepress/dist")),
    Framework("Eleventy", "@11ty/eleventy", ("_site",), "eleventy"),
    Framework("Gatsby", "gatsby", ("public",), "gatsby build"),
    Framework("Create React App", "react-scripts", ("build",), "react-scripts build"),
    Framework("Vue CLI", "@vue/cli-service", ("dist",), "vue-cli-service build"),
    Framework("Astro", "astro", ("dist",), "astro build"),
    Framework("SvelteKit", "@sveltejs/kit", ("build",), "vite build"),
    Framework("Next", "next", ("out",), "next build"),
    Framework("Nuxt", "nuxt", (".output/public", "dist"), "nuxt generate"),
    Framework("Vite", "vite", ("dist",), "vite build"),
    Framework("Parcel", "parcel", ("dist",)),
    Framework("Angular", "@angular/core", ("dist",), "ng build"),
)
INSTALLED: Final = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "workspaces")
HOOKS: Final = ("preinstall", "install", "postinstall", "prepare")
SCRIPTS: Final = ("build", "docs:build")
# What is started of what was built; the plain one is the developer's then.
STARTS: Final = ("start:prod", "start:production", "start")
# Programs that are not called as the packages that bring them.
OWNERS: Final = {"nest": "@nestjs/cli", "dotenv": "dotenv-cli", "tsc": "typescript"}
SERVERS: Final = (
    *("express", "fastify", "koa", "@hapi/hapi", "restify", "@nestjs/core", "@hono/node-server", "polka", "h3"),
    *("@remix-run/serve", "@react-router/serve", "apollo-server", "@apollo/server", "socket.io", "ws", "micro"),
)
# A start script of these serves; `vite`, `react-scripts`, `docusaurus` … start a tool for whoever writes the site.
RUNNERS: Final = frozenset(
    ("node", "tsx", "ts-node", "next", "nuxt", "nest", "remix-serve", "react-router-serve", "fastify", "micro", "bun")
)
TOOLS: Final = frozenset(
    (
        *("vite", "react-scripts", "webpack", "webpack-dev-server", "parcel", "serve", "http-server", "live-server"),
        *("eleventy", "docusaurus", "astro", "gatsby", "ng", "vue-cli-service", "vitepress", "browser-sync", "npx"),
    )
)
INSTALLS: Final = re.compile(
    r"\b(?:npm (?:ci|i|install)\b|(?:pnpm|bun) (?:i|install)\b|yarn(?: install\b| *(?:$|[&;|])))"
)
_BUILDS: Final = re.compile(r"(?:npm run|pnpm(?: run)?|yarn(?: run)?|bun run) build")
_RUN: Final = re.compile(r"\b(?:npm|pnpm|yarn|bun)(?: run)? ([\w:.-]+)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=\S*")
_EXPORT = re.compile(r"""\boutput\s*:\s*["']export["']""")


@dataclass(frozen=True)
class Package:
    scripts: dict[str, str] = field(default_factory=dict)
    needed: frozenset[str] = frozenset()
    all: frozenset[str] = frozenset()
    main: str | None = None
    installs: bool = True


def node_part(root: Folder, tools: Tools | None) -> Part | None:
    """None where there is no package.json. Raises build.detect_failed."""
    raw = read_json(root, PACKAGE)
    if raw is None:
        return None
    package = _package(raw)
    framework = next((one for one in FRAMEWORKS if one.package in package.all), None)
    start = _start(root, package, framework)
    manager = find_manager(root, raw, tools, serves=start is not None)
    wants = _wants_bun(package, start, tools)
    script = next((name for name in SCRIPTS if name in package.scripts), None)
    build = f"{manager.call} run {script}" if script else None
    if build is None and framework is not None and framework.cli is not None:
        build = f"{manager.program} {framework.cli}"
    return Part(
        source=PACKAGE,
        needs=("node",),
        uses=(manager.name,) if manager.call == manager.name else (),
        installs=INSTALLS,
        install=manager.install if package.installs else None,
        install_for_run=manager.install_for_run if package.installs else None,
        build=build,
        prune=manager.prune if package.installs else None,
        clear="rm -rf node_modules" if package.installs else None,
        lock=manager.lock,
        path=("node_modules/.bin",),
        env={"NODE_ENV": "production"},
        left_out=LEFT_OUT if manager.lock else (*LEFT_OUT, *manager.written),
        start=start if wants is None else None,
        static=build is not None and wants is None,
        wants=wants,
        framework=framework.name if framework else None,
        outputs=_outputs(root, framework),
        whole_for=partial(_calls_tools, package),
    )


def _outputs(root: Folder, framework: Framework | None) -> tuple[str, ...]:
    if framework is None:
        return ()
    return (*_angular(root), *framework.outputs) if framework.name == "Angular" else framework.outputs


def _angular(root: Folder) -> Iterator[str]:
    """Where `ng build` puts the pages of the first project that is an application, newer versions' place first."""
    for name, project in table(read_json(root, "angular.json"), "projects").items():
        if not isinstance(project, dict) or project.get("projectType", "application") != "application":
            continue
        options = table(project, "architect", "build", "options") or table(project, "targets", "build", "options")
        given = options.get("outputPath", f"dist/{name}")
        base, inner = (
            (given.get("base"), given.get("browser", "browser")) if isinstance(given, dict) else (given, "browser")
        )
        yield from (path for parts in ((base, inner), (base,)) if (path := _plain(*parts)) is not None)
        return


def _plain(*named: object) -> str | None:
    """A path below the root, of these one below the other; None where it is none."""
    parts = [part for path in named for part in str(path).split("/") if part not in ("", ".")]
    told = all(isinstance(path, str) for path in named)
    return "/".join(parts) if told and parts and ".." not in parts and not path_fault("/".join(parts)) else None


def _package(raw: dict[str, Any]) -> Package:
    scripts = {name: text.strip() for name, text in table(raw, "scripts").items() if isinstance(text, str)}
    needed = frozenset(table(raw, "dependencies"))
    main = raw.get("main")
    return Package(
        scripts={name: text for name, text in scripts.items() if text},
        needed=needed,
        all=needed | frozenset(table(raw, "devDependencies")),
        main=main if isinstance(main, str) else None,
        installs=any(raw.get(key) for key in INSTALLED) or any(hook in scripts for hook in HOOKS),
    )


def _start(root: Folder, package: Package, framework: Framework | None) -> Start | None:
    """The server: a framework's own, else what the start script runs, else the file that npm would run."""
    name = framework.name if framework else None
    if name == "Next":
        return None if _next_exports(root) else Start(package.scripts.get("start", "next start"), PACKAGE, name)
    if name == "SvelteKit":
        return _sveltekit(package)
    if name == "Astro":
        server = "HOST=${HOST:-0.0.0.0} node ./dist/server/entry.mjs"
        return Start(server, PACKAGE, name) if "@astrojs/node" in package.all else None
    if name == "Nuxt":
        generates = re.search(r"\bnux[ti] generate\b", package.scripts.get("build", ""))
        return None if generates else Start("node .output/server/index.mjs", PACKAGE, name)
    library = next((one for one in SERVERS if one in package.needed), None)
    called = next((one for one in STARTS if one in package.scripts), None)
    if called is not None:
        program = _program(package.scripts[called])
        serves = library is not None or not (framework or "build" in package.scripts or _has(root, "index.html"))
        if program in RUNNERS or (serves and program not in TOOLS):
            return Start(_with_hooks(package, called), PACKAGE, library)
        return None
    if library is None and (framework is not None or "build" in package.scripts):
        return None
    files = ["server.js"] if library is None else [package.main or "", "server.js", "index.js", "app.js"]
    file = next((one for one in files if one and _has(root, one)), None)
    return Start(f"node {shlex.quote(file)}", PACKAGE, library) if file else None


def _wants_bun(package: Package, start: Start | None, tools: Tools | None) -> str | None:
    """It runs apps as well, and comes along with no library."""
    if start is None or tools is None or start.command.split()[:1] != ["bun"]:
        return None
    if "bun" in package.needed or tools("bun") is not None:
        return None
    return (
        f"{PACKAGE} starts its app by `bun`, and there is none on this machine: start it by node, or install bun there."
    )


def _sveltekit(package: Package) -> Start | None:
    if "@sveltejs/adapter-static" in package.all:
        return None
    if "@sveltejs/adapter-node" in package.all:
        return Start("HOST=${HOST:-0.0.0.0} node build", PACKAGE, "SvelteKit")
    message = "SvelteKit needs @sveltejs/adapter-static or @sveltejs/adapter-node in package.json; neither is there."
    raise HeadwayError("build.detect_failed", message)


def _next_exports(root: Folder) -> bool:
    names = (f"next.config.{ending}" for ending in ("js", "mjs", "cjs", "ts"))
    return any(_EXPORT.search(text) for name in names if (text := read_text(root, name)) is not None)


def _program(script: str) -> str:
    words = [word for word in script.split() if not _ASSIGNMENT.fullmatch(word) and word != "cross-env"]
    return words[0].removeprefix("./node_modules/.bin/") if words else ""


def _calls_tools(package: Package, command: str) -> bool:
    """Whether it runs something that stands among what only developers need: `nest start`, `node --import tsx`."""
    only = package.all - package.needed
    called = " ".join(package.scripts.get(name, "") for name in _RUN.findall(command))
    words = re.split(r"[\s=]+", f"{command} {called}")
    plain = (word.removeprefix("./").removeprefix("node_modules/.bin/") for word in words)
    return any(OWNERS.get(word, "/".join(word.split("/")[: 1 + word.startswith("@")])) in only for word in plain)


def _with_hooks(package: Package, called: str) -> str:
    """The start script as npm would run it, without npm."""
    start = package.scripts[called].removeprefix("cross-env ").strip()
    before = package.scripts.get(f"pre{called}")
    if before is None or ("build" in package.scripts and _BUILDS.fullmatch(before)):
        return start  # what it would build is built already, and what it needs for that is gone
    return f"{before} && {as_exec(start)}"


def _has(root: Folder, path: str) -> bool:
    above, _, name = path.removeprefix("./").rpartition("/")
    try:
        folder = root.folder(above)
    except HeadwayError:
        return False
    if folder is None:
        return False
    with folder:
        return folder.has(name)
