"""A presentation made of two published packages: reveal.js, bundled by Vite."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

PACKAGE = {
    "name": "deck",
    "version": "1.0.0",
    "private": True,
    "type": "module",
    "scripts": {"build": "vite build"},
    "dependencies": {"reveal.js": "^6.0.0"},
    "devDependencies": {"vite": "^8.0.0"},
}
PAGE = """<!doctype html>
<html lang="en">
  <head><meta charset="utf-8"><title>Deck</title></head>
  <body>
    <div class="reveal"><div class="slides">
      <section><h1>First slide</h1></section>
      <section><h1>Second slide</h1></section>
    </div></div>
    <script type="module" src="/main.js"></script>
  </body>
</html>
"""
SCRIPT = """import Reveal from "reveal.js";
import "reveal.js/reveal.css";

new Reveal({ embedded: false }).initialize();
"""


def files(npm: str) -> dict[str, str]:
    """The repository: sources, and a lock file that npm resolves from the registry of this machine."""
    manifest = json.dumps(PACKAGE, indent=2)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "package.json").write_text(manifest)
        subprocess.run(
            [npm, "install", "--package-lock-only", "--no-audit", "--no-fund"],
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        lock = Path(folder, "package-lock.json").read_text()
    return {
        "package.json": manifest,
        "package-lock.json": lock,
        "index.html": PAGE,
        "main.js": SCRIPT,
        ".gitignore": "node_modules/\ndist/\n",
    }
