"""Go and Rust, where builds find their toolchain: one program, built from what the lock file says."""

from __future__ import annotations

import re
from typing import Final

from adapters.artifact.folder import Folder
from adapters.plan.part import MAX_LOCK, Part, Start, is_folder, read_source, read_text, read_toml, table

PROGRAM: Final = ".headway/bin/app"
_MAIN = re.compile(r"^package main\b", re.MULTILINE)


def go_part(root: Folder) -> Part | None:
    """A module with one main package: at the root, or the only one below cmd/."""
    if not root.has("go.mod"):
        return None
    package = _main_package(root)
    if package is None:
        return None
    build = f"CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' -o {PROGRAM} {package}"
    return Part(
        source="go.mod",
        needs=("go",),
        install="go mod download",
        install_for_run="go mod download",
        build=build,
        lock="go.sum" if root.has("go.sum") else None,
        start=Start(f"./{PROGRAM}", "go.mod", "Go"),
        framework="Go",
    )


def rust_part(root: Folder) -> Part | None:
    """A package with one program, its own name."""
    cargo = read_toml(root, "Cargo.toml")
    name = table(cargo, "package").get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or read_text(root, "src/main.rs") is None:
        return None
    locked = " --locked" if root.has("Cargo.lock") else ""
    flags = 'RUSTFLAGS="--remap-path-prefix=$PWD=. --remap-path-prefix=$HOME=."'
    build = f"{flags} cargo build --release{locked} && mkdir -p .headway/bin && cp target/release/{name} {PROGRAM}"
    return Part(
        source="Cargo.toml",
        needs=("cargo",),
        install=f"cargo fetch{locked}",
        install_for_run=f"cargo fetch{locked}",
        build=build,
        lock="Cargo.lock" if locked else None,
        left_out=("target",),
        start=Start(f"./{PROGRAM}", "Cargo.toml", "Rust"),
        framework="Rust",
    )


def _main_package(root: Folder) -> str | None:
    if _has_main(root, ""):
        return "."
    if not is_folder(root, "cmd"):
        return None
    inner = root.folder("cmd")
    names = inner.names() if inner is not None else []
    if inner is not None:
        inner.close()
    found = [name for name in names if re.fullmatch(r"[\w-]+", name) and _has_main(root, f"cmd/{name}")]
    return f"./cmd/{found[0]}" if len(found) == 1 else None


def _has_main(root: Folder, path: str) -> bool:
    if path and not is_folder(root, path):
        return False
    inner = root.folder(path)
    if inner is None:
        return False
    with inner:
        files = [name for name in inner.names() if name.endswith(".go") and not name.endswith("_test.go")]
        return any(_MAIN.search(read_source(inner, name, MAX_LOCK)) for name in files[:100])
