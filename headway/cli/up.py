"""`headway up`: check everything first, write the plan, then become (or start) its supervisor."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headway import __version__
from headway._launch import python_path
from headway.errors import HeadwayError
from headway.supervisor import binaries, identity, isolation, ports, tenure
from headway.supervisor.accounts import make_database
from headway.supervisor.components import Options, broker_socket, embedded, rules_socket
from headway.supervisor.folder import Folder, open_folder, read_json, read_record, write_json
from headway.supervisor.plan import Plan
from headway.supervisor.twin import command, end_stray

if TYPE_CHECKING:
    from adapters.router.caddy import Tls

DEFAULT_FOLDER = Path("~/.local/share/headway")
# Settings that `up` decides itself, or that no role needs.
_DECIDED = {"data_dir", "api_host", "api_port", "sites_port", "temporal_ui", "broker_socket", "broker_token_file"}
_DECIDED |= {"broker_address", "broker_root_file"}
_DECIDED |= {"local_repos", "allow_unsandboxed_builds", "temporal_bin", "weed_bin", "caddy_bin"}


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="HEADWAY_DATA_DIR", default=DEFAULT_FOLDER)
@click.option("--port", type=int, default=None, help="First port of the block of 16 (0: find a free one).")
@click.option(
    "--local-repos",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder below which file:// repositories are allowed; may be repeated.",
)
@click.option("--detach", is_flag=True, help="Return when everything is healthy.")
@click.option("--allow-unsandboxed-builds", is_flag=True, help="Build without a sandbox: only for code you trust.")
@click.option("--one-uid", is_flag=True, help="As root: all roles under one uid, not under one each.")
def up(
    data_dir: Path,
    port: int | None,
    local_repos: tuple[Path, ...],
    detach: bool,
    allow_unsandboxed_builds: bool,
    one_uid: bool,
) -> None:
    """Start the whole platform and watch over it until Ctrl-C, or in the background with --detach.

    Ports, credentials and all data stay in the data folder (default ~/.local/share/headway): the next `up` goes on
    from there. The first API key is in DATA/admin.key, the addresses are in DATA/endpoints.json.
    """
    tools = {tool.name: binaries.find(tool) for tool in binaries.ALL}
    # What can be refused without the folder is refused before one is made.
    if port:
        ports.Block(port)
    repositories, settings = tuple(_repository_folder(path) for path in local_repos), _settings()
    folder = open_folder(data_dir)
    _refuse_second(folder)
    unsandboxed = _sandbox(allow_unsandboxed_builds)
    walls = isolation.between_roles(folder, tuple(tools.values()), repositories, settings, wanted=not one_uid)

    def prepare() -> Options:
        """Decide the ports and check them: before anything is touched, and again with the lock in hand."""
        options = Options(
            folder=folder,
            block=_block(folder, port),
            **tools,
            local_repos=repositories,
            allow_unsandboxed_builds=unsandboxed,
            external_database=bool(os.environ.get("DATABASE_URL")),
            settings=settings,
            accounts=walls.accounts,
            retention_days=int(settings.get("HEADWAY_JOB_RETENTION_DAYS", "30")),
        )
        _require_ports(folder, embedded(options))
        return replace(options, web_config=hashlib.sha256(_web_server(options)).hexdigest()[:32])

    prepare()
    lock = tenure.take(folder)
    end_stray(folder)
    try:
        options = prepare()
        _write(options)
    except (HeadwayError, OSError):
        _hand_back(folder, lock)
        raise
    first = options.block.first
    click.echo(f"Headway {__version__} on {folder.root}, ports {first} to {first + ports.SIZE - 1}")
    if walls.accounts is None:
        click.echo(f"  All roles run as uid {os.geteuid()}: {walls.what}.")
    elif walls.accounts.root:
        click.echo(f"  Root, and not behind a wall: {', '.join(walls.accounts.root)}. {walls.what}.")
    _detached(folder, lock) if detach else _become(folder, lock)


def _write(options: Options) -> None:
    """Everything that the supervisor and its components read."""
    folder = options.folder
    # By a name in a folder of ours: the web server's own may hold a link by now, and this is root.
    aside = folder.path("run", f".caddy.json.{os.getpid()}")
    aside.write_bytes(_web_server(options))
    aside.replace(folder.path("caddy", "caddy.json"))
    if options.accounts is not None and not options.external_database:
        make_database(folder)
    _link(folder.path("run", "broker.sock"), broker_socket(folder))
    write_json(folder.stack, {"version": 1, "port": options.block.first}, durable=True)
    embedded(options).write(folder)
    folder.endpoints.unlink(missing_ok=True)
    tenure.want(folder, tenure.UP)


def _link(path: Path, target: Path) -> None:
    """The broker's old address, for what is set up with it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.symlink_to(target.relative_to(path.parent))
    aside.replace(path)


def _hand_back(folder: Folder, lock: int) -> None:
    """What ran before goes on under the plan that it had, with a supervisor."""
    if tenure.wanted(folder) == tenure.UP and folder.plan.exists():
        _spawn(folder, lock, None)
    os.close(lock)


def _refuse_second(folder: Folder) -> None:
    """Before anything is looked at that a running stack explains, such as its busy ports."""
    if (record := tenure.current(folder)) and record.get("mode") == tenure.FOREGROUND:
        raise tenure.taken(folder, record)


def _sandbox(allowed: bool) -> bool:
    """Whether builds run without a sandbox. Refuses where they would have to and nobody allowed it."""
    from adapters.sandbox import capabilities

    missing = next((item for item in capabilities() if item.required and not item.ok), None)
    if missing is None:
        return allowed
    obstacle = f"Builds cannot be sandboxed here ({missing.name}: {missing.what.splitlines()[-1]}). {missing.fix}"
    if not allowed:
        raise HeadwayError(
            "build.unsandboxed", f"{obstacle} Or start with --allow-unsandboxed-builds, if you trust what you build."
        )
    click.echo(f"Warning: builds run without a sandbox. {obstacle}")
    return True


def _block(folder: Folder, port: int | None) -> ports.Block:
    saved = read_json(folder.stack).get("port") if folder.stack.exists() else None
    if port == 0:
        return ports.Block(saved) if isinstance(saved, int) and _usable(folder, saved) else ports.find_free_block()
    if port is not None:
        return ports.Block(port)
    return ports.Block(saved if isinstance(saved, int) else ports.DEFAULT)


def _usable(folder: Folder, first: int) -> bool:
    """Whether a block that was found earlier still serves: addresses that were given out stay true."""
    taken = {number for number in range(first, first + ports.SIZE) if not ports.is_free(number)}
    own: set[int] = set()
    for path in folder.path("run").glob("*.json"):
        record = read_record(path)
        if isinstance(record.get("ports"), dict) and identity.alive(record):
            own |= set(record["ports"].values())
    return taken <= own


def _repository_folder(path: Path) -> str:
    if not path.is_dir():
        raise HeadwayError("stack.folder_invalid", f"--local-repos {path} is not a folder.")
    return str(path.resolve())


def _settings() -> dict[str, str]:
    """The caller's settings for the roles, checked once here, where a mistake can still be told.

    Secret ones are left out: these are written into the plan, and given to every role.
    """
    from pydantic import SecretStr, ValidationError

    from headway.settings import Settings

    try:
        Settings()
    except ValidationError as error:
        first = error.errors()[0]
        raise HeadwayError("stack.start_failed", f"The setting {first['loc'][0]} is wrong: {first['msg']}.") from None
    plain = (
        name for name, info in Settings.model_fields.items() if not info.alias and info.annotation is not SecretStr
    )
    names = (f"HEADWAY_{name.upper()}" for name in plain)
    decided = {f"HEADWAY_{name.upper()}" for name in _DECIDED}
    return {name: os.environ[name] for name in names if name in os.environ and name not in decided}


def _require_ports(folder: Folder, plan: Plan) -> None:
    """Every port of every component that does not run already must be free, before anything starts."""
    wanted: dict[str, int] = {}
    sockets: list[str] = []
    for component in plan.components:
        if not identity.alive(read_record(folder.record(component.name))):
            wanted |= {f"{component.name} ({use})": number for use, number in component.ports.items()}
            sockets += component.leftovers
    suggestion = "start with --port N for another block of ports (--port 0 finds a free one)"
    ports.require_free(wanted, suggestion=suggestion)
    ports.require_replaceable(sockets, suggestion=suggestion)


def _web_server(options: Options) -> bytes:
    from adapters.router.caddy import rendered

    folder = options.folder
    return rendered(
        routes=folder.path("host", "routes"),
        listen=options.block.address("sites"),
        rules_socket=rules_socket(folder),
        plain_socket=folder.own("caddy", "plain.sock"),
        state=folder.path("caddy"),
        logged=options.settings.get("HEADWAY_ACCESS_LOG", "services"),
        tls=_tls(options),
    )


def _tls(options: Options) -> Tls | None:
    """Certificates on demand, where the caller's settings name a port for them."""
    from adapters.router.caddy import Tls

    given = options.settings.get
    port = given("HEADWAY_SITES_TLS_PORT", "0")
    if port == "0":
        return None
    root = given("HEADWAY_ACME_ROOT", "")
    return Tls(
        listen=f"127.0.0.1:{port}",
        ask=given("HEADWAY_TLS_ASK_URL", "") or options.block.origin("api") + "/tls/ask",
        directory=given("HEADWAY_ACME_DIRECTORY", ""),
        email=given("HEADWAY_ACME_EMAIL", ""),
        root=Path(root) if root else None,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": python_path()}


def _become(folder: Folder, lock: int) -> None:
    """The supervisor keeps this process's pid and terminal, and none of what was imported to get here."""
    sys.stdout.flush()
    os.set_inheritable(lock, True)
    argv = command(folder, tenure.FOREGROUND, str(lock), "1")
    os.execve(argv[0], argv, _environment())  # noqa: S606 - no shell is the point


def _spawn(folder: Folder, lock: int, progress: int | None) -> subprocess.Popen[bytes]:
    """A supervisor in a session of its own; it says what it does to the descriptor `progress`."""
    argv = command(folder, tenure.DETACHED, str(lock), *([] if progress is None else [str(progress)]))
    with folder.log(tenure.SUPERVISOR).open("ab") as log:
        return subprocess.Popen(
            argv,
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,) if progress is None else (lock, progress),
            start_new_session=True,
        )


def _detached(folder: Folder, lock: int) -> None:
    """Start the supervisor and show what it says until all is healthy."""
    receiver, sender = os.pipe()
    supervisor = _spawn(folder, lock, sender)
    os.close(sender)
    os.close(lock)
    try:
        with os.fdopen(receiver, "r", errors="replace") as lines:
            for line in lines:
                click.echo(line.rstrip("\n"), err=line.startswith("headway: "))
    except KeyboardInterrupt:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
        sys.exit(130)
    record = read_record(folder.record(tenure.SUPERVISOR))
    state = record.get("state") if record.get("pid") == supervisor.pid else ""
    if state not in ("healthy", "degraded"):
        sys.exit(supervisor.wait() or 1)
    # It goes on without us; a Popen that is dropped would warn about it.
    supervisor.returncode = 0
    sys.exit(0 if state == "healthy" else 1)
