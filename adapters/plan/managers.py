"""Node's package managers: which one a repository uses, and its words for a clean install and for a small tree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from adapters.artifact.folder import Folder
from adapters.plan.part import MAX_LOCK, Tools, is_folder, read_text

# In the order in which they count where nothing says whose is meant.
_LOCKS: Final = {
    "npm": ("npm-shrinkwrap.json", "package-lock.json"),
    "pnpm": ("pnpm-lock.yaml",),
    "yarn": ("yarn.lock",),
    "bun": ("bun.lock", "bun.lockb"),
}
_PINNED = re.compile(r"(npm|pnpm|yarn|bun)@(\d+(?:\.\d+){0,2})")
_LOCK_VERSION = re.compile(r"^lockfileVersion:\s*['\"]?(\d+)", re.MULTILINE)
_PLUG_N_PLAY = re.compile(r"""^nodeLinker:\s*["']?pnp["']?\s*(?:#.*)?$""", re.MULTILINE)
# Which major version of pnpm writes which lock file.
_PNPM: Final = {"5": "7", "6": "8", "9": "9"}


@dataclass(frozen=True)
class Manager:
    """`call` runs it; `install` gets everything, `install_for_run` what runs, `prune` leaves what runs.

    `written` are lock files that an install without a lock leaves behind; `program` runs a package's own program.
    """

    name: str
    call: str
    install: str
    install_for_run: str
    prune: str
    lock: str | None
    written: tuple[str, ...] = ()
    program: str = "npx"


def find_manager(root: Folder, package: dict[str, Any], tools: Tools | None, *, serves: bool) -> Manager:
    """By lock file (of several that of `packageManager`), then by `packageManager`, else npm. `serves`: the tree will
    run as an app, with its libraries.
    """
    pinned = _PINNED.match(str(package.get("packageManager", "")))
    asked, version = (pinned[1], pinned[2]) if pinned else (None, None)
    found = {name: next((lock for lock in locks if root.has(lock)), None) for name, locks in _LOCKS.items()}
    name = next((name for name in (asked, *_LOCKS) if name and found[name]), asked or "npm")
    if name == "pnpm":
        return _pnpm(root, version if asked == name else None, tools)
    if name == "yarn":
        return _yarn(root, version if asked == name else None, tools, serves=serves)
    if name == "bun":
        return _bun(found[name], version if asked == name else None, tools)
    lock = found["npm"]
    install = "npm ci" if lock else "npm install"
    return Manager(
        name="npm",
        call="npm",
        install=install,
        install_for_run=f"{install} --omit=dev",
        prune="npm prune --omit=dev",
        lock=lock,
        written=("package-lock.json",),
    )


def _pnpm(root: Folder, version: str | None, tools: Tools | None) -> Manager:
    lock = "pnpm-lock.yaml" if root.has("pnpm-lock.yaml") else None
    match = _LOCK_VERSION.search(read_text(root, lock, MAX_LOCK) or "") if lock else None
    call = _call("pnpm", "pnpm", version or _PNPM.get(match[1] if match else "", "9"), version, tools)
    install = f"{call} install --frozen-lockfile" if lock else f"{call} install"
    return Manager(
        name="pnpm",
        call=call,
        install=install,
        install_for_run=f"{install} --prod",
        prune=f"{call} prune --prod --ignore-scripts",
        lock=lock,
        written=("pnpm-lock.yaml",),
    )


def _yarn(root: Folder, version: str | None, tools: Tools | None, *, serves: bool) -> Manager:
    lock = "yarn.lock" if root.has("yarn.lock") else None
    text = (read_text(root, lock, MAX_LOCK) or "") if lock else ""
    if "__metadata:" in text or (version or "1").split(".")[0] != "1":
        return _berry(root, _call("yarn", "@yarnpkg/cli-dist", version or "4", version or "4", tools), lock, serves)
    call = _call("yarn", "yarn", version or "1.22.22", version, tools)
    install = f"{call} install --non-interactive" + (" --frozen-lockfile" if lock else "")
    return Manager(
        name="yarn",
        call=call,
        install=_redirected(call, install, lock),
        install_for_run=_redirected(call, f"{install} --production", lock),
        prune=_redirected(call, f"{install} --production --ignore-scripts --prefer-offline", lock),
        lock=lock,
        written=("yarn.lock",),
    )


def _berry(root: Folder, call: str, lock: str | None, serves: bool) -> Manager:
    """Yarn 2 and later: Plug'n'Play where the repository asks for it, to build a site; else, and to run an app,
    `node_modules`: without them the libraries would lie in a cache outside of the tree.
    """
    if is_folder(root, ".yarn/cache"):
        # What the repository brings along is used, and nothing is fetched.
        call = f'YARN_ENABLE_GLOBAL_CACHE=false YARN_CACHE_FOLDER="$PWD/.yarn/cache" {call}'
    modules = f"YARN_NODE_LINKER=node-modules {call}"
    plays = not serves and _PLUG_N_PLAY.search(read_text(root, ".yarnrc.yml") or "") is not None
    used = call if plays else modules
    focus = f"{modules} workspaces focus --production"
    install = f"{used} install --immutable" if lock else f"{used} install"
    return Manager("yarn", used, install, focus, focus, lock, ("yarn.lock",), f"{call} run" if plays else "npx")


def _bun(lock: str | None, version: str | None, tools: Tools | None) -> Manager:
    call = _call("bun", "bun", version or "1", version, tools)
    install = f"{call} install" + (" --frozen-lockfile" if lock else "")
    return Manager(
        name="bun",
        call=call,
        install=install,
        install_for_run=f"{install} --production",
        prune=f"rm -rf node_modules && {install} --production",
        lock=lock,
        written=_LOCKS["bun"],
    )


def _redirected(call: str, install: str, lock: str | None) -> str:
    """Classic Yarn's lock file names each package's address at Yarn's own registry, and Yarn asks there for ever,
    whatever registry it is set up with. So while it installs those addresses are at the builder's registry; afterwards
    the file is what it was.
    """
    if lock is None:
        return install
    ask = "env -u npm_config_registry -u YARN_REGISTRY yarn config get registry"
    if call != "yarn":
        ask = f"{call.replace('npx --yes', 'npx --yes --package')} -c '{ask}'"
    steps = (
        f'own="$({ask})"',
        'to="${YARN_REGISTRY:-$own}"',
        'cp yarn.lock "$TMPDIR/yarn.lock"',
        'sed -i "s|resolved \\"${own%/}/|resolved \\"${to%/}/|" yarn.lock',
        f'{{ {install}; code=$?; cp "$TMPDIR/yarn.lock" yarn.lock; [ $code = 0 ]; }}',
    )
    return " && ".join(steps)


def _call(program: str, package: str, version: str, wanted: str | None, tools: Tools | None) -> str:
    """The builder's own program where it is there and no other version is asked for, else the one from the registry."""
    own = tools(program) if tools is not None else None
    if own is not None and (wanted is None or own == wanted or own.startswith(f"{wanted}.")):
        return program
    return f"npx --yes {package}@{version}"
