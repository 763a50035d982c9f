"""Writes the tables of the documents from the code they describe; `make docs` runs it, tests/test_docs.py compares.

A document says where a table goes: `<!-- errors -->` … `<!-- end -->`.
"""

from __future__ import annotations

import html
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).resolve().parent
# Described once, above the table.
SHARED = {"--wait", "--timeout", "--json", "--api-url", "--token", "--forge-version", "--idempotency-key"}
BLOCK = re.compile(r"(<!-- (?P<name>[a-z]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def errors() -> str:
    """One heading a group, one row a code; the anchor is what an error's `doc_url` names."""
    from headway.errors import CODES

    groups: dict[str, list[str]] = {}
    for code, row in CODES.items():
        again = "yes" if row.retryable else ""
        line = f'| <a id="{code}"></a>`{code}` | {row.status} | `{row.type}` | {again} | {row.help} |'
        groups.setdefault(code.split(".")[0], []).append(line)
    head = ("| code | HTTP | type | retry | what to do |", "|---|---|---|---|---|")
    return "\n\n".join("\n".join((f"### {name}", "", *head, *lines)) for name, lines in groups.items()) + "\n"


def settings() -> str:
    from headway.settings import Settings

    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = field.alias or f"HEADWAY_{name.upper()}"
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, "", [], PydanticUndefined) else str(default).replace(str(Path.home()), "~")
        shown = shown.lower() if isinstance(default, bool) else shown
        about = html.escape(field.description or "", quote=False)
        lines.append(f"| `{variable}` | {f'`{shown}`' if shown else ''} | {about} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and options, in the order of `headway --help`."""
    from headway.cli.main import cli

    return "\n".join(_described(words, command) for words, command in walk(cli, ("headway",)))


def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below `command` that can be run, with the words that name it."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command, info_name=words[-1])
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None and not below.hidden:
            yield from walk(below, (*words, name))


def _described(words: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(words))
    usage = " ".join((" ".join(words), *command.collect_usage_pieces(context)))
    about = inspect.cleandoc(command.help or command.short_help or "").split("\n\n")[0].replace("\n", " ")
    lines = [f"### `{' '.join(words)}`", "", about, "", "```", usage, "```", ""]
    for parameter in command.params:
        if SHARED.intersection(parameter.opts):
            continue
        record = parameter.get_help_record(context)
        if record:
            lines.append(f"* `{record[0]}` {' '.join(record[1].split())}".rstrip())
    return "\n".join(lines).rstrip() + "\n"


def routes() -> str:
    """Every operation of the OpenAPI document that does something."""
    from api.app import create_app
    from api.document import openapi_of

    # Nothing of it is opened: only its routes are read.
    app = create_app(cast(Any, SimpleNamespace(auth=None, limiter=None, docs_url="", git=None, store=None)))
    lines = ["| method | path | what it does |", "|---|---|---|"]
    for path, operations in openapi_of(app, "")["paths"].items():
        for method, operation in operations.items():
            if operation.get("summary", "").startswith("Not on this platform"):
                continue
            lines.append(f"| {method.upper()} | `{path}` | {operation.get('summary', '')} |")
    return "\n".join(lines) + "\n"


def miosa() -> str:
    """The same of the MIOSA dialect."""
    from api.miosa.app import create_miosa
    from api.miosa.document import openapi_of

    app = create_miosa(cast(Any, SimpleNamespace(auth=None, limiter=None, store=None)))
    lines = ["| method | path | what it does |", "|---|---|---|"]
    for path, operations in openapi_of(app, "")["paths"].items():
        for method, operation in operations.items():
            if operation.get("summary", "") != "Not on this platform":
                lines.append(f"| {method.upper()} | `{path}` | {operation.get('summary', '')} |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "errors": errors,
    "settings": settings,
    "commands": commands,
    "routes": routes,
    "miosa": miosa,
}


def rendered(text: str) -> str:
    """The document with its tables as the code has them now."""
    return BLOCK.sub(lambda found: found[1] + TABLES[found["name"]]() + found[4], text)


def main() -> None:
    for document in sorted(DOCS.glob("*.md")):
        old = document.read_text()
        new = rendered(old)
        if new != old:
            document.write_text(new)
            sys.stdout.write(f"{document.name}: written\n")


if __name__ == "__main__":
    main()
