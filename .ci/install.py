"""Make the checkout runnable: `.venv` from the hashed lock, the rooms importable, `headway` and `mf` beside them.

A quick no-op while the lock, the interpreter and the checkout's place are what they were. Old syntax on purpose: an old
Python must be able to read this file, to say that it is too old.
"""

import fcntl
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
LOCK = os.path.join(ROOT, "requirements-dev.lock")
STAMP = os.path.join(VENV, "headway-install.stamp")
OLDEST = (3, 11)
TRIES = 3
PIP_FLAGS = ["-qq", "--retries", "8", "--no-deps", "--only-binary", ":all:", "--no-compile", "--require-hashes"]
# Settings of pip under which packages come from elsewhere than uv would ask.
PIPS_OWN = ("index-url", "no-index", "proxy", "client-cert", "trusted-host")
SELDOM = r"/(pip|setuptools|mypy|mypyc|pygments|docker|testcontainers|graphql|[a-z0-9_]+-stubs|mypy_boto3_s3|tests?)/"

# `sh` first: a kernel's limit on the length of a first line, and spaces in a path, do not matter then.
SCRIPT = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys

from headway.__main__ import main

sys.exit(main())
"""


def say(text):
    sys.stdout.write(f"install: {text}\n")
    sys.stdout.flush()


def stop(text):
    sys.stderr.write(f"install: {text}\n")
    raise SystemExit(1)


def interpreter():
    """This Python, or a newer one on PATH when this one is too old."""
    if sys.version_info[:2] >= OLDEST:
        return sys.executable
    for name in ("python3.13", "python3.12", "python3.11"):
        path = shutil.which(name)
        if path and subprocess.call([path, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return path
    return stop(
        f"Headway needs Python 3.11 or newer, and python3 is {sys.version_info[0]}.{sys.version_info[1]}: "
        "install python3.11, or name one with `make install PYTHON=/path/to/python3.11`."
    )


def check_venv(python):
    probe = [python, "-c", "import venv, ensurepip"]
    if subprocess.call(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
        stop(f"{python} cannot make a virtual environment: install its venv module (Debian: python3-venv).")


def fingerprint(python):
    with open(LOCK, "rb") as lock:
        locked = hashlib.sha256(lock.read()).hexdigest()
    version = subprocess.check_output([python, "-c", "import sys; print(sys.version)"]).decode()
    return f"{locked}\n{ROOT}\n{version}"


def installed(wanted):
    try:
        with open(STAMP) as stamp:
            return stamp.read() == wanted
    except OSError:
        return False


def retried(argv):
    """Run a download; a passing fault of the network gets another try."""
    for attempt in range(1, TRIES + 1):
        if subprocess.call(argv, stdin=subprocess.DEVNULL) == 0:
            return
        if attempt < TRIES:
            say(f"that did not work; once more in {5 * attempt} s")
            time.sleep(5 * attempt)
    stop("the packages could not be installed: see the last lines above (network, or a hash that differs).")


def side_by_side(pip):
    """The lock by its own uv, which fetches and unpacks many at once; whether that was done.

    Not where pip goes by an index or a proxy of its own: uv would not know of it.
    """
    settings = subprocess.check_output([*pip, "config", "list"]).decode()
    if any(f".{name}=" in settings for name in PIPS_OWN):
        return False
    with open(LOCK) as lock:
        pinned = lock.read().partition("\nuv==")[2].split("\n")
    lines = ["uv==" + pinned[0], *itertools.takewhile(lambda line: line.startswith(" "), pinned[1:])]
    wanted = os.path.join(VENV, "uv.lock.txt")
    with open(wanted, "w") as alone:
        alone.write("\n".join(lines) + "\n")
    if subprocess.call([*pip, "install", *PIP_FLAGS, "--requirement", wanted], stdin=subprocess.DEVNULL) != 0:
        return False
    uv = [os.path.join(VENV, "bin", "uv"), "pip", "install", "--quiet", "--python", pip[0]]
    flags = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirements", LOCK]
    return subprocess.call([*uv, *flags], stdin=subprocess.DEVNULL, env={"UV_HTTP_TIMEOUT": "180", **os.environ}) == 0


def make_venv(python):
    say(f"virtual environment in .venv ({python})")
    subprocess.check_call([python, "-m", "venv", "--clear", VENV], stdin=subprocess.DEVNULL)
    say("packages from requirements-dev.lock, each checked by its hash (a minute or less)")
    pip = [os.path.join(VENV, "bin", "python"), "-m", "pip", "--disable-pip-version-check"]
    if not side_by_side(pip):
        retried([*pip, "install", *PIP_FLAGS, "--requirement", LOCK])
    # pip would compile on one processor, and all of it; where bytecode is not written by itself, each start pays.
    compiling = [pip[0], "-m", "compileall", "-q", "-j", "0", "-x", SELDOM, os.path.join(VENV, "lib")]
    subprocess.call(compiling, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def link_checkout():
    """The rooms by a path file, the commands by two small scripts: an editable install cannot map `headway/_app`."""
    python = os.path.join(VENV, "bin", "python")
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    with open(os.path.join(site.decode().strip(), "headway-checkout.pth"), "w") as path_file:
        path_file.write(ROOT + "\n")
    for name in ("headway", "mf"):
        target = os.path.join(VENV, "bin", name)
        with open(target, "w") as script:
            script.write(SCRIPT.format(python=python))
        os.chmod(target, 0o755)  # noqa: S103 - a command for everybody


def main():
    python = interpreter()
    wanted = fingerprint(python)
    if installed(wanted):
        return
    check_venv(python)
    # Two at once in one checkout: the second waits, and finds the work done.
    with open(os.path.join(ROOT, ".install.lock"), "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not installed(wanted):
            install(python, wanted)


def install(python, wanted):
    started = time.time()
    make_venv(python)
    link_checkout()
    with open(STAMP, "w") as stamp:
        stamp.write(wanted)
    say(f"done in {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
