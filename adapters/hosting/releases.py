"""Placed releases: `env/<env_id>/r/<seq>`, a link to a tree and the marker files that Caddy's configuration looks for.

| marker | meaning |
|---|---|
| `@<seq>`, `@<seq>+` | its own number, by which Caddy pins it for a request; `+`: one of the next three is there |
| `@<seq>+<env_id>`, `service` | dial `sock.0` … `sock.7` beside it, found by the environment's id |
| `rules` | ask the rules socket; the file is the rules |
| `spa` | unknown paths get index.html |
| `not_found.html` | link to the page for 404 |
| `@<seq>-` | suspended: a page that says so, and nothing else of the release is there |
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Final

from adapters.artifact.manifest import Manifest
from adapters.hosting.durable import sync_folder, write_file
from adapters.hosting.layout import HostFolders
from adapters.hosting.switch import ReleaseSwitch
from adapters.router.rules import rules_document
from headway.errors import HeadwayError

SEALED: Final = "config.sealed"
_TREES: Final = "../../../../trees"


def place_release(folders: HostFolders, env_id: str, seq: int, manifest: Manifest) -> None:
    """Make the release ready to be switched to. Its tree exists. Idempotent.

    Raises roll.stale where a later step was applied already, or another artifact is live under this number.
    """
    env = folders.environment(env_id)
    switch = ReleaseSwitch(env)
    if switch.last_step().seq > seq:
        raise HeadwayError("roll.stale", f"A later rollout was applied: release {seq} comes too late.")
    release = switch.release(seq)
    if digest_of(release) == manifest.digest:
        return
    release.parent.mkdir(parents=True, exist_ok=True)
    temporary = folders.tmp / f"release-{secrets.token_hex(8)}"
    try:
        _build(temporary, env_id, seq, manifest)
        with switch.spared(-1):
            # Another try of the same may have been here, and what it has put beside the markers serves by now.
            if digest_of(release) == manifest.digest:
                return
            if switch.live().seq == seq:
                raise HeadwayError("roll.stale", f"Release {seq} is live with another artifact.")
            if release.exists():
                os.rename(release, folders.tmp / f"trash-{secrets.token_hex(8)}")
            os.rename(temporary, release)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(release.parent)


def place_suspended(folders: HostFolders, env_id: str, seq: int) -> None:
    """A release that serves nothing but the page of a suspended environment. Idempotent; raises roll.stale."""
    switch = ReleaseSwitch(folders.environment(env_id))
    if switch.last_step().seq > seq:
        raise HeadwayError("roll.stale", f"A later rollout was applied: release {seq} comes too late.")
    release = switch.release(seq)
    if is_suspended(release):
        return
    release.parent.mkdir(parents=True, exist_ok=True)
    temporary = folders.tmp / f"release-{secrets.token_hex(8)}"
    temporary.mkdir()
    (temporary / f"@{seq}-").touch()
    sync_folder(temporary)
    os.rename(temporary, release)
    sync_folder(release.parent)


def is_suspended(release: Path) -> bool:
    return (release / f"@{release.name}-").exists()


def lacks(release: Path, env_id: str) -> str:
    """What of a placed release is gone, so that it cannot be served or it is not known how; empty: nothing."""
    number = release.name
    if digest_of(release) is None:
        return "the link to the tree" if release.is_dir() else "all"
    serves = (release / f"@{number}+{env_id}").exists()
    if not serves and not any((release / f"@{number}{mark}").exists() for mark in ("", "+")):
        return "the marker"
    return _lacks_to_start(release) if serves else ""


def is_configured(release: Path, config_version: int) -> bool:
    """Whether the configuration is there that a release's instances are started with."""
    return config_version == 0 or (release / SEALED).exists()


def _lacks_to_start(release: Path) -> str:
    """What goes on without is started without at its next start: an app that has lost its secrets, say."""
    try:
        plan = json.loads((release / "instances.json").read_bytes())
        return "" if is_configured(release.with_name(str(plan["origin"])), plan["config_version"]) else SEALED
    except FileNotFoundError:
        return "instances.json"
    except (ValueError, KeyError, TypeError):
        return ""


def digest_of(release: Path) -> str | None:
    """The artifact that a release leads to; None also where its link has become something else."""
    try:
        return Path(os.readlink(release / "root")).parent.name
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
            return None
        raise


def prune_releases(folders: HostFolders, env_id: str, keep: int) -> list[int]:
    """Forget all but the last `keep` artifacts of an environment; the sequence numbers that went.

    Kept besides: what is live, what was live before (warm), and what was placed for a step that is still to come.
    """
    switch = ReleaseSwitch(folders.environment(env_id))
    gone = []
    for seq in _superfluous(switch, keep):
        with contextlib.suppress(HeadwayError), switch.spared(seq):
            last = switch.last_step()
            if seq in (last.live, last.previous) or seq > last.seq:
                continue
            os.rename(switch.release(seq), folders.tmp / f"trash-{secrets.token_hex(8)}")
            gone.append(seq)
    _sweep_debris(switch.env)
    return gone


def used_digests(folders: HostFolders) -> set[str]:
    """The artifacts that any release of any environment leads to."""
    found = set()
    for env in folders.environments.iterdir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found |= {digest_of(release) for release in (env / "r").iterdir()}
    return {digest for digest in found if digest}


def placed_digests(folders: HostFolders, env_id: str) -> set[str]:
    """The artifacts that releases of an environment lead to."""
    with contextlib.suppress(FileNotFoundError):
        return {digest for one in (folders.environment(env_id) / "r").iterdir() if (digest := digest_of(one))}
    return set()


def remove_environment(folders: HostFolders, env_id: str) -> None:
    """Take the releases away. What refuses late steps (fence and lock) stays: a few bytes."""
    env = folders.environment(env_id)
    with contextlib.suppress(FileNotFoundError):
        os.rename(env / "r", folders.tmp / f"trash-{secrets.token_hex(8)}")


def empty_tmp(folders: HostFolders, older: float) -> None:
    """Delete what was renamed out of the way, and what a killed process left more than `older` seconds ago."""
    horizon = time.time() - older
    for path in folders.tmp.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if not path.name.startswith("trash-") and os.lstat(path).st_ctime > horizon:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _build(folder: Path, env_id: str, seq: int, manifest: Manifest) -> None:
    folder.mkdir()
    (folder / "root").symlink_to(f"{_TREES}/{manifest.digest}/root")
    markers = {"service": b""} if manifest.kind == "dynamic" else _static_markers(manifest)
    for name, content in markers.items():
        write_file(folder / name, content)
    page = manifest.static.not_found or "404.html"
    if manifest.kind == "static" and any(entry.path == page for entry in manifest.entries):
        (folder / "not_found.html").symlink_to(f"root/{page}")
    serves = manifest.kind == "dynamic"
    (folder / f"@{seq}{'+' if markers else ''}{env_id if serves else ''}").touch()
    sync_folder(folder)


def _static_markers(manifest: Manifest) -> dict[str, bytes]:
    markers = {}
    if manifest.static.spa and any(entry.path == "index.html" for entry in manifest.entries):
        markers["spa"] = b""
    rules = rules_document(manifest.static)
    if rules is not None:
        markers["rules"] = json.dumps(rules).encode()
    return markers


def _origins(env: Path) -> set[int]:
    """Releases whose instances serve others, too: their configuration lies in their folders."""
    found = set()
    for plan in env.glob("r/*/instances.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            origin = int(json.loads(plan.read_bytes())["origin"])
            if str(origin) != plan.parent.name:
                found.add(origin)
    return found


def _superfluous(switch: ReleaseSwitch, keep: int) -> list[int]:
    try:
        placed = sorted(
            (int(path.name) for path in (switch.env / "r").iterdir() if path.name.isdecimal()), reverse=True
        )
    except FileNotFoundError:
        return []
    kept: set[str] = set()
    superfluous = []
    for seq in placed:
        digest = digest_of(switch.release(seq))
        if digest is None or digest in kept or len(kept) >= keep:
            superfluous.append(seq)
        else:
            kept.add(digest)
    used = _origins(switch.env) if superfluous else set()
    return [seq for seq in superfluous if seq not in used]


def _sweep_debris(env: Path) -> None:
    """Temporary names of steps that were killed half-way. The lock says that nobody is at one."""
    switch = ReleaseSwitch(env, patience=0.2)
    with contextlib.suppress(HeadwayError), switch.spared(-1):
        for path in env.glob(".*"):
            path.unlink(missing_ok=True)
