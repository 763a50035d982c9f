"""Giving a release tree back what differs from its manifest: edited, replaced, missing or added files."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from adapters.artifact.manifest import File, Link, Manifest
from adapters.artifact.paths import ETAG_SUFFIX
from adapters.hosting.durable import sync_folder
from adapters.hosting.store import Content, ContentStore
from adapters.hosting.trees import link_content, parents


def repair_tree(root: Path, manifest: Manifest, store: ContentStore) -> list[str]:
    """The paths that were put right. The store holds every content; each file is replaced in one step.

    A file is right where it is the store's own (one inode, so that no byte is read): scrub the store first.
    """
    if root.is_symlink() or not root.is_dir():
        root.unlink(missing_ok=True)
        root.mkdir()
    changed = _remove_strangers(root, manifest)
    for parent in parents(manifest):
        (root / parent).mkdir(exist_ok=True)
    for entry in manifest.entries:
        path = root / entry.path
        if isinstance(entry, Link):
            changed += _repair_link(path, entry)
            continue
        changed += _repair_file(path, store.name(Content(entry.sha256, entry.size, entry.mode)))
        if manifest.kind == "static":
            changed += _repair_file(Path(f"{path}{ETAG_SUFFIX}"), store.etag(entry.sha256))
    return sorted(os.path.relpath(path, root) for path in changed)


def _remove_strangers(root: Path, manifest: Manifest) -> list[Path]:
    folders = set(parents(manifest))
    names = {entry.path for entry in manifest.entries}
    if manifest.kind == "static":
        names |= {entry.path + ETAG_SUFFIX for entry in manifest.entries if isinstance(entry, File)}
    gone = []
    for inner, below, files in os.walk(root):
        here = os.path.relpath(inner, root)
        prefix = "" if here == "." else here + "/"
        for name in [*below, *files]:
            path = Path(inner, name)
            is_folder = path.is_dir() and not path.is_symlink()
            if prefix + name not in (folders if is_folder else names):
                shutil.rmtree(path) if is_folder else path.unlink()
                gone.append(path)
        below[:] = [name for name in below if prefix + name in folders]
    return gone


def _repair_link(path: Path, entry: Link) -> list[Path]:
    if path.is_symlink() and os.readlink(path) == entry.target:
        return []
    temporary = path.with_name(f".{secrets.token_hex(6)}")
    os.symlink(entry.target, temporary)
    return _replace(temporary, path)


def _repair_file(path: Path, kept: str) -> list[Path]:
    try:
        if os.path.samestat(os.lstat(path), os.lstat(kept)):
            return []
    except FileNotFoundError:
        pass
    temporary = path.with_name(f".{secrets.token_hex(6)}")
    link_content(kept, str(temporary))
    return _replace(temporary, path)


def _replace(temporary: Path, path: Path) -> list[Path]:
    os.rename(temporary, path)
    sync_folder(path.parent)
    return [path]
