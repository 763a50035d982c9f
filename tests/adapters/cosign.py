"""Stock cosign, from Debian's own packages unpacked into a folder: nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ("trixie", "sid")  # cosign 2.5 and 3.1


def cosign_of(suite: str, folder: Path) -> Path:
    """The program of a suite; skips with the reason where it cannot be had."""
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        pytest.skip("no apt-get and dpkg-deb on PATH: cosign is not run")
    try:
        return _unpacked(apt, dpkg, suite, folder, f"deb [signed-by={KEYRING}] {_mirror(apt)} {suite} main\n")
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        said = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"cosign of {suite} cannot be had: {said.strip().splitlines()[-1:]}")


def _mirror(apt: str) -> str:
    """Where this machine gets Debian from."""
    form = "$(SITE)|$(LABEL)|$(COMPONENT)"
    for line in _run([apt, "indextargets", "--format", form, "Created-By: Packages"]).splitlines():
        site, label, component = line.split("|")
        if label == "Debian" and component == "main":
            return site
    raise ValueError("this machine has no Debian mirror (run apt-get update?)")


def _unpacked(apt: str, dpkg: str, suite: str, folder: Path, source: str) -> Path:
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(source)
    (folder / "status").touch()
    places = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in places.items() for word in ("-o", f"{name}={value}")]
    _run([apt, *options, "update"])
    _run([apt, *options, "download", "cosign"], cwd=folder)
    [package] = folder.glob("cosign_*.deb")
    _run([dpkg, "-x", str(package), str(folder / "root")])
    program = folder / "root" / "usr" / "bin" / "cosign"
    _run([str(program), "version"])
    return program


def _run(argv: list[str], cwd: Path | None = None) -> str:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=150, check=True).stdout
