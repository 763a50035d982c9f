"""An image from nothing but this machine's files: busybox for `sh`, and the system's Python with what it links to."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import httpx
import pytest

NAME = "headway-test-python:1"
SKIPPED = re.compile(r"(^|/)(__pycache__|test|tests|idlelib|tkinter|ensurepip|lib2to3|dist-packages|config-[^/]*)($|/)")


def make(socket: Path) -> str:
    """Import it into the engine, unless it is there; the image's name."""
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine/v1.40", timeout=120
    ) as http:
        if http.get(f"/images/{NAME}/json").status_code == 404:
            name, _, tag = NAME.partition(":")
            answer = http.post(f"/images/create?fromSrc=-&repo={name}&tag={tag}", content=_tree())
            assert answer.status_code == 200, answer.text
    return NAME


def _tree() -> bytes:
    busybox, python = shutil.which("busybox", path="/usr/bin:/bin"), Path("/usr/bin/python3").resolve()
    if busybox is None or b"not a dynamic" not in _ldd(Path(busybox)) or not python.is_file():
        pytest.skip("no static busybox, or no system Python, to make an image of")
    library = Path("/usr/lib", python.name)
    needed = {python, *_links(python)}
    for module in (library / "lib-dynload").glob("*.so"):
        needed |= _links(module)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("tmp", "workspace", "run", "home/app", "proc", "dev", "sys", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(busybox, "bin/busybox")
        for tool in ("sh", "sleep", "cat", "ls"):
            link = tarfile.TarInfo(f"bin/{tool}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(python)
        tar.addfile(link)
        for path in sorted(needed):
            tar.add(path.resolve(), str(path).lstrip("/"))
        tar.add(library, str(library).lstrip("/"), filter=lambda entry: None if SKIPPED.search(entry.name) else entry)
    return out.getvalue()


def _links(program: Path) -> set[Path]:
    return {Path(found.decode()) for found in re.findall(rb"(/\S+\.so[^\s]*)", _ldd(program))}


def _ldd(program: Path) -> bytes:
    done = subprocess.run(["ldd", program], capture_output=True, check=False)
    return done.stdout + done.stderr
