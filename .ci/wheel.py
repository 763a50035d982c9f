"""`build`: the wheel, into dist/. `check`: the wheel, installed alone outside the checkout, doing the real thing.

The check installs the runtime lock and the wheel, compares the wheel's files with git's, starts the platform from it
(migrations included), deploys a site, stops it, and reads what every process of it had loaded: no module twice.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.client import Caller, Watch  # noqa: E402
from bench.stack import Stack  # noqa: E402

ROOMS = ("activities", "adapters", "api", "store", "temporal", "web", "workflows")
LEFT_OUT = ("ruff.toml",)

# Put into the environment under test: each Python process writes at its end which file every module came from.
WITNESS = """
import atexit, json, os, sys

@atexit.register
def _tell():
    loaded = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    with open(os.path.join(%r, f"{os.getpid()}.json"), "w") as out:
        json.dump({"argv": sys.argv, "modules": loaded}, out)
"""


def run(*argv: str | Path, cwd: Path = ROOT, quiet: bool = False) -> None:
    """`quiet`: what it printed is shown only if it failed."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=quiet, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout or ''}{done.stderr or ''}wheel: exit {done.returncode}: {' '.join(words)}")


def tracked() -> list[str]:
    """The checkout's files as git would have them, new ones included."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    ).stdout
    return [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def build(target: Path) -> Path:
    """The wheel of the checkout. Built from a copy, so that nothing stale is swept in and nothing is left behind."""
    with tempfile.TemporaryDirectory() as folder:
        for name in tracked():
            copy = Path(folder, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, folder, quiet=True)
    return max(target.glob("headway-*.whl"), key=lambda wheel: wheel.stat().st_mtime)


def check_contents(wheel: Path) -> None:
    """Every tracked file of `headway/` and the rooms is in the wheel, and the wheel puts nothing else on the path."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for name in tracked():
        room = name.split("/")[0]
        if "/" in name and Path(name).name not in LEFT_OUT and room in (*ROOMS, "headway"):
            expected.add(name if room == "headway" else f"headway/_app/{name}")
    missing = sorted(expected - inside)
    if missing:
        raise SystemExit(f"wheel-check: not in the wheel: {', '.join(missing)}")
    others = sorted(name for name in inside if not name.startswith(("headway/", "headway-")))
    if others:
        raise SystemExit(f"wheel-check: the wheel clobbers: {', '.join(others)}")


def install(wheel: Path, env: Path) -> Path:
    """A fresh environment with the runtime lock and the wheel; returns its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", env)
    python = env / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "-qq"]
    flags = ["--no-deps", "--only-binary", ":all:"]
    locked = [*flags, "--require-hashes", "--requirement", str(ROOT / "requirements.lock")]
    # uv has them from `make install`; where that was done by pip (.ci/install.py), pip has them.
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", str(python)]
    held = subprocess.run([*uv, "--offline", *locked], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if held.returncode != 0:
        run(*pip, *locked, "--no-compile", "--retries", "8")
    run(*pip, *flags, "--no-compile", "--no-index", wheel)
    return python


def watch_modules(python: Path, seen: Path) -> None:
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    site = Path(found.stdout.strip())
    seen.mkdir()
    seen.chmod(0o1777)  # roles may run under users of their own
    (site / "headway_witness.py").write_text(WITNESS % str(seen))
    (site / "headway_witness.pth").write_text("import headway_witness\n")


def deploy_one(python: Path, folder: Path) -> None:
    """`up`, a site from examples/plain, one deploy seen from outside, `down`."""
    stack = Stack.start(folder, command=[str(python.with_name("headway"))], cwd=folder)
    try:
        source = stack.repos / "plain"
        shutil.copytree(ROOT / "examples" / "plain", source)
        settings = ["-c", "user.name=Check", "-c", "user.email=check@example.test"]
        for step in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"]):
            run("git", "-C", source, *settings, *step)
        caller = Caller(stack)
        site = caller.new_site("wheel-check", source.as_uri())
        caller.finish(caller.push(site, site.production))
        with Watch(stack, site.production_host) as watch:
            watch.until("Tide table")
    finally:
        stack.stop()


def check_modules(seen: Path, env: Path) -> None:
    """No process loaded a file under two names, or a room from anywhere but the wheel."""
    faults, processes = [], 0
    for told in seen.glob("*.json"):
        record = json.loads(told.read_text())
        names: dict[str, list[str]] = {}
        for name, file in record["modules"].items():
            # `__main__` may be run by name and imported by it: that one is Python's own double.
            if file and name not in ("__main__", "__mp_main__", "headway.__main__"):
                names.setdefault(os.path.realpath(file), []).append(name)
        ours = {file: known for file, known in names.items() if "/headway/" in file}
        processes += bool(ours)
        faults += [f"{' and '.join(known)} are one file" for known in ours.values() if len(known) > 1]
        faults += [
            f"{known[0]} came from {file}"
            for file, known in names.items()
            if known[0].split(".")[0] in ROOMS and not file.startswith(str(env))
        ]
    if faults:
        raise SystemExit("wheel-check: " + "; ".join(sorted(set(faults))))
    if processes < 3:
        raise SystemExit(f"wheel-check: only {processes} processes of the stack told what they had loaded")
    print(f"wheel-check: {processes} processes, no module loaded twice")


def check() -> None:
    # A short path: unix sockets below it have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hww-") as folder:
        here = Path(folder)
        here.chmod(0o755)
        wheel = build(here)
        check_contents(wheel)
        python = install(wheel, here / "env")
        watch_modules(python, here / "seen")
        deploy_one(python, here)
        check_modules(here / "seen", (here / "env").resolve())
    print(f"wheel-check: {wheel.name} was installed alone and deployed a site")


def main() -> None:
    if importlib.util.find_spec("build") is None:
        raise SystemExit("wheel: run it by `make wheel`")
    match sys.argv[1:]:
        case ["build"]:
            (ROOT / "dist").mkdir(exist_ok=True)
            print(build(ROOT / "dist").relative_to(ROOT))
        case ["check"]:
            check()
        case _:
            raise SystemExit("usage: wheel.py build|check")


if __name__ == "__main__":
    main()
