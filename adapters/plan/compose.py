"""From what was seen to a plan: the steps of the languages that are needed, in an order that always works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.artifact.folder import Folder
from adapters.artifact.run import RunSettings, parse_run
from adapters.plan.config import FILE, Config
from adapters.plan.foreign import telling
from adapters.plan.part import Part, Start, Tools, as_exec
from adapters.plan.plan import OUTPUTS, Plan
from headway.errors import HeadwayError

LEFT_OUT: Final = ("headway.toml",)


@dataclass(frozen=True)
class Wanted:
    """How an app runs: `told` where headway.toml or a Procfile say so."""

    start: Start
    told: bool
    release: str | None
    processes: Mapping[str, str]


def static_plan(config: Config, parts: Sequence[Part], root: Folder, tools: Tools | None, *, meant: bool) -> Plan:
    """Raises build.detect_failed where there is nothing to build or publish.

    `meant`: somebody has said what the site is; else the source of a program is not taken for one.
    """
    maker = next((part for part in parts if part.static), None)
    if config.command is not None:
        used = [part for part in parts if part.install] if config.command else []
        source, command = FILE, config.command or None
    elif maker is not None:
        used, source, command = [maker], maker.source, maker.build
    else:
        used, source, command = [], FILE if config.output is not None else "tree", None
    outputs = _outputs(config, maker if config.command is None else None, command)
    if outputs == ("",) and command is None:
        _require_files(root, parts, meant=meant)
    steps = [part for part in used if not _installs(part, command)]
    install = _joined(part.install for part in steps) if config.install is None else config.install or None
    return Plan(
        profile="static",
        source=source,
        command=_with_setup(_setup([part for part in used if part.libraries]), command),
        outputs=outputs,
        root=config.root,
        env=config.env,
        timeout=config.timeout,
        watch=config.watch,
        secrets=config.secrets,
        cache=config.cache,
        lock=_lock(used),
        static=config.static,
        install=install if command else None,
        framework=maker.framework if maker and config.command is None else None,
        toolchain=_versions(used, tools),
    )


def dynamic_plan(config: Config, parts: Sequence[Part], wanted: Wanted, tools: Tools | None) -> Plan:
    """The tree itself with its libraries, or the folder that headway.toml names, and how it runs."""
    used = [part for part in parts if wanted.told or part.start is wanted.start or (part.build and not part.static)]
    used += [part for part in parts if part not in used and part.static and part.path == ("node_modules/.bin",)]
    release = config.run.given.get("release_command") or wanted.release
    commands = (wanted.start.command, release or "", *wanted.processes.values())
    used = [part.whole() if any(map(part.whole_for, commands)) else part for part in used]
    running = [part for part in used if wanted.told or part.start is wanted.start]
    builds = [part.build for part in used if part.build and not _is_site(part)]
    command = config.command or None if config.command is not None else _joined(builds)
    whole = config.output is None
    setup = _setup(running) if whole else ""
    found = RunSettings(
        command=_started(setup, wanted.start.command),
        release_command=_with_setup(setup, release),
        processes={name: _started(setup, text) for name, text in wanted.processes.items()},
        env=_environment(running) if whole else {},
    )
    given = {name: value for name, value in config.run.given.items() if name != "release_command"}
    return Plan(
        profile="dynamic",
        source=wanted.start.source,
        command=_with_setup(_setup([part for part in running if part.libraries]), command),
        outputs=("",) if config.output is None else (config.output,),
        root=config.root,
        env=config.env,
        timeout=config.timeout,
        watch=config.watch,
        secrets=config.secrets,
        cache=config.cache,
        lock=_lock(used),
        run=parse_run(config.run.over(found, given).as_dict(), _too_much),
        install=_install(config, used, command),
        tidy=_tidy(config, used, running, command),
        framework=wanted.start.framework,
        toolchain=_versions(used, tools),
        left_out=tuple(sorted({*LEFT_OUT, *(path for part in used for path in part.left_out)})),
    )


def _too_much(key: str, why: str) -> HeadwayError:
    """What a manifest cannot carry: found here and not when it is signed."""
    return HeadwayError("build.config_invalid", f"{FILE}: with what was detected, {key} {why}.", param=key, file=FILE)


def _is_site(part: Part) -> bool:
    """A part whose build makes a site beside the app (documentation, mostly), not the app."""
    return part.static and bool(part.libraries)


def _install(config: Config, used: Iterable[Part], command: str | None) -> str | None:
    if config.install is not None:
        return config.install or None
    steps = [part for part in used if not _installs(part, command)]
    return _joined(part.install if command and part.prune else part.install_for_run for part in steps)


def _tidy(config: Config, used: Iterable[Part], running: Sequence[Part], command: str | None) -> str | None:
    steps: list[str | None] = []
    for part in used:
        if part not in running:
            steps.append(part.clear)
        else:
            steps.append(part.prune if command and config.install is None else None)
            steps.append(part.tidy)
    return _joined(steps)


def _installs(part: Part, command: str | None) -> bool:
    return bool(command and part.installs and part.installs.search(command))


def _outputs(config: Config, maker: Part | None, command: str | None) -> tuple[str, ...]:
    if config.output is not None:
        return (config.output,)
    if command is None:
        return ("",)
    return tuple(dict.fromkeys([*(maker.outputs if maker else ()), *OUTPUTS]))


def _require_files(root: Folder, parts: Sequence[Part], *, meant: bool) -> None:
    """Something to publish; and where there is only the source of a program, it is not what was meant."""
    hidden = {FILE, ".git", ".gitignore", ".gitattributes", ".gitmodules"}
    looked = f"{FILE}, package.json with a build script, mkdocs.yml, conf.py of Sphinx, pelicanconf.py"
    if not any(name not in hidden for name in root.names()):
        message = f"There is nothing to build or publish. Looked for: {looked}, and files to publish."
        raise HeadwayError("build.detect_failed", message)
    program = next((part for part in parts if part.libraries or part.start), None)
    if program is not None and not meant and not root.has("index.html"):
        servers = "a [run] command, a Procfile, a WSGI or ASGI object"
        message = f"{program.source} is of a program, and neither a site nor a server was found in it."
        raise HeadwayError("build.detect_failed", f"{message} Looked for: {looked}, an index.html, {servers}.")
    if not meant and (told := telling(root)) is not None:
        as_it_is = 'If the files are to be published as they are, say so: [build] output = "."'
        raise HeadwayError("build.detect_failed", f"{told} {as_it_is}.")


def _setup(parts: Iterable[Part]) -> str:
    """Shell that lets a command of the tree's root find the tree's own programs and libraries."""
    path: list[str] = []
    libraries: list[str] = []
    for part in parts:
        if part.install or part.install_for_run:
            path += part.path
            libraries += part.libraries
    words = [f'PATH="{_absolute(path)}:$PATH"'] if path else []
    words += [f'PYTHONPATH="{_absolute(libraries)}"'] if libraries else []
    return "export " + " ".join(words) if words else ""


def _environment(parts: Iterable[Part]) -> dict[str, str]:
    """The same for programs that are started in the root without a shell."""
    env: dict[str, str] = {}
    for part in parts:
        env |= part.env
        if part.libraries and part.install_for_run:
            env["PYTHONPATH"] = ":".join(part.libraries)
    return env


def _absolute(paths: Iterable[str]) -> str:
    return ":".join(f"$PWD/{path}" for path in paths)


def _with_setup(setup: str, command: str | None) -> str | None:
    if not command:
        return None
    return f"{setup}; {command}" if setup else command


def _started(setup: str, command: str) -> str:
    """A command that stays: signals are to reach the app itself."""
    words = as_exec(command)
    return f"{setup}; {words}" if setup else words


def _joined(steps: Iterable[str | None]) -> str | None:
    return " && ".join(step for step in steps if step) or None


def _lock(parts: Iterable[Part]) -> str | None:
    return next((part.lock for part in parts if part.lock), None)


def _versions(parts: Iterable[Part], tools: Tools | None) -> dict[str, str]:
    """Raises build.detect_failed where a program is missing."""
    found: dict[str, str] = {}
    for part in parts if tools is not None else ():
        for name in (*part.needs, *part.uses):
            version = tools(name) if tools is not None else None
            if version is not None:
                found[name] = version
            elif name in part.needs:
                message = f"{part.source} needs `{name}`, and builds find none on this machine."
                raise HeadwayError("build.detect_failed", message)
    return found
