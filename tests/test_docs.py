"""The documents say what the code says: tables, links, limits, and what must never stand in a tracked file."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from adapters.artifact.folder import Folder
from adapters.plan.config import BUILD_KEYS, parse_config
from adapters.plan.detect import detect
from adapters.plan.run_table import KEYS as RUN_KEYS
from headway.cli.main import COMMANDS, cli
from headway.errors import CODES
from headway.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LOCKS = ("requirements.lock", "requirements-dev.lock")
# Hosts of package indexes (spelled in parts: this file is tracked too), and folders of one machine.
REGISTRY = re.compile("py" r"pi\.org|pythonhosted" r"\.org|npm" r"js\.(org|com)|yarn" r"pkg\.com")
MACHINE = re.compile(r"(?<![\w.$}>/-])/(work|root|home/(?!build\b|app\b)[a-z]+|Users/[A-Za-z]+)(/|\b)")

# What a hostile build looks for is named where it is shown that it finds nothing.
LOOK_AROUND = ("tests/adapters/test_sandbox.py", "tests/runtime/test_walls.py")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    out = []
    for path in tracked():
        raw = path.read_bytes()
        if b"\0" not in raw:
            out.append((str(path.relative_to(ROOT)), raw.decode()))
    return out


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["errors", "settings", "cli", "api", "miosa"])
def test_tables_are_as_the_code_says(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text()
    assert generator().rendered(text) == text, "run `make docs`"


def test_every_error_code_has_an_anchor() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    assert [code for code in CODES if f'<a id="{code}"></a>' not in text] == []


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_variable_that_the_code_names_is_documented() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    rooms = ("headway/", "api/", "adapters/", "activities/", "store/", "temporal/", "workflows/")
    named = {
        variable
        for name, source in texts()
        if name.startswith(rooms) and name.endswith(".py")
        for variable in re.findall(r"\bHEADWAY_[A-Z0-9_]*[A-Z0-9]\b", source)
    }
    assert sorted(variable for variable in named if f"`{variable}`" not in text) == []


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    commands = [" ".join(words) for words, _ in generator().walk(cli, ("headway",))]
    assert len(commands) >= len(COMMANDS)
    assert [command for command in commands if f"### `{command}`" not in text] == []


def calls_in(text: str) -> Iterator[list[str]]:
    """The words behind `headway` (or `mf`) of each line of a document's shell blocks."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:^|\s|\(|bin/)(?:headway|mf) ([a-z].*)", line):
                yield shlex.split(re.split(r" +[#|<>&] ?|\)\"", found[1])[0].replace("[", "").replace("]", ""))


def test_commands_in_the_documents_are_ones() -> None:
    faults, seen = [], 0
    for document in documents():
        for words in calls_in(document.read_text()):
            seen += 1
            try:
                parse(cli, words)
            except click.UsageError as error:
                if "does not exist" not in error.message:
                    faults.append(f"{document.relative_to(ROOT)}: headway {' '.join(words)}: {error.format_message()}")
    assert faults == []
    assert seen > 80


def parse(command: click.Command, words: list[str]) -> None:
    """As far as a call can be judged without being made. Raises click.UsageError."""
    if isinstance(command, click.Group):
        below = command.get_command(click.Context(command), words[0]) if words else None
        if below is None:
            raise click.UsageError(f"No such command {words[:1]}")
        parse(below, words[1:])
    else:
        command.make_context("headway", [*words]).close()


def documented_settings() -> list[str]:
    blocks = (ROOT / "docs" / "headway-toml.md").read_text().split("```toml\n")[1:]
    return [block.partition("```")[0] for block in blocks]


def test_the_documented_headway_toml_is_one() -> None:
    site, app = (parse_config(block.encode()) for block in documented_settings())
    assert site.output == "dist"
    assert site.static.redirects[0].to == "/news/:splat"
    assert app.run.processes == {"worker": "python3 -m shop.worker"}
    assert app.run.given["volumes"] == ("media",)


@pytest.mark.parametrize(("heading", "keys"), [("[build]", BUILD_KEYS), ("[run]", RUN_KEYS)])
def test_every_key_of_headway_toml_is_documented(heading: str, keys: frozenset[str]) -> None:
    text = (ROOT / "docs" / "headway-toml.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == keys


@pytest.mark.parametrize("name", ["plain", "rules", "npm", "wsgi", "node"])
def test_an_example_has_a_plan(name: str) -> None:
    with Folder(ROOT / "examples" / name) as folder:
        plan = detect(folder)
    assert plan.profile == ("dynamic" if name in ("wsgi", "node") else "static")
    assert plan.command == {"npm": "npm run build"}.get(name)
    assert bool(plan.static) == (name == "rules")


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_readme_names_every_room() -> None:
    text = (ROOT / "README.md").read_text()
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    assert sorted(name for name in folders if not name.startswith(".") and f"{name}/" not in text) == []


def test_links_resolve() -> None:
    broken = []
    for document in documents():
        for target in LINK.findall(CODE.sub("", document.read_text())):
            if target.startswith(("https://", "http://", "mailto:", "#")):
                continue
            file, _, _ = target.partition("#")
            if not (document.parent / file).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


def test_decisions_name_what_holds_them() -> None:
    faults = []
    for page in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        held = page.read_text().partition("Held by")[2]
        named = re.findall(r"`((?:tests|\.ci)/[\w./-]+)`", held)
        if not held or not (named or "contract" in held):
            faults.append(f"{page.name} names nothing")
        faults += [f"{page.name}: {name}" for name in named if not (ROOT / name).exists()]
    assert faults == []


def test_decisions_are_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text()
    assert [page.name for page in sorted(folder.glob("0*.md")) if f"({page.name})" not in listed] == []


def test_backups_have_what_apps_have_written() -> None:
    backup = (ROOT / "docs" / "operations.md").read_text().partition("## Back up")[2].partition("\n## ")[0]
    assert "DIR/host/volumes/" in backup
    assert '/ "volumes" / ref.env_id' in (ROOT / "adapters" / "hosting" / "services.py").read_text()


def test_failure_table_names_tests_that_exist() -> None:
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("## What dies")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(rows) >= 8
    missing = []
    for row in rows:
        named = re.findall(r"`(tests/[\w./]+)(?:::(\w+))?`", row)
        assert named, row
        for file, function in named:
            path = ROOT / file
            if not path.is_file() or (function and f"def {function}(" not in path.read_text()):
                missing.append(f"{file}::{function}")
    assert missing == []


def test_no_registry_and_no_machine_in_tracked_files() -> None:
    found = []
    for name, text in texts():
        if name in LOOK_AROUND:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if REGISTRY.search(line) or MACHINE.search(line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    assert found == []


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_by_hash_and_name_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    requirements = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert len(requirements) > 40
    for block in requirements:
        assert re.match(r"[a-z0-9_.-]+(\[[a-z0-9,-]+\])?==\S+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]
    assert "://" not in text
    assert "index-url" not in text


def test_runtime_lock_is_a_part_of_the_development_lock() -> None:
    pins = [set(re.findall(r"^([a-z0-9_.-]+==[^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS]
    assert pins[0] <= pins[1]
