"""The command group. A command's module is imported only when that command runs, so that `--help` is quick."""

from __future__ import annotations

import errno
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from headway import __version__
from headway.errors import HeadwayError

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Of files and folders that the caller has named.
NO_PLACE: Final = (
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
)
# name: (module:attribute, one line of help). The order is the order of `headway --help`.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("headway.cli.up:up", "Start the whole platform and watch over it."),
    "down": ("headway.cli.down:down", "Stop what `up` started, in order."),
    "doctor": ("headway.cli.doctor:doctor", "Check every component and say what to do."),
    "api": ("headway.cli.roles:api", "Run the API and the broker."),
    "worker": ("headway.cli.roles:worker", "Run one worker: control, builder, signing or host."),
    "rules": ("headway.cli.roles:rules", "Run the server of sites with headers, redirects and the like."),
    "apps": ("headway.cli.apps:apps", "The running services of this machine: list, stop."),
    "migrate": ("headway.cli.roles:migrate", "Bring the database to this version's schema."),
    "web-config": ("headway.cli.roles:web_config", "Write the web server's configuration, for Caddy as a service."),
    "make-secrets": ("headway.cli.make_secrets:make_secrets", "Make the secrets of docker-compose.yml, as files."),
    "demo": ("headway.cli.demo:demo", "The whole way of a site on this machine, then all stopped."),
    "login": ("headway.cli.login:login", "Keep a server and a key in the profile."),
    "whoami": ("headway.cli.login:whoami", "Show whose key this is and what it may do."),
    "sites": ("headway.cli.sites:sites", "Sites: list, create, get, delete."),
    "env": ("headway.cli.environments:env", "Environments: list, create, get, delete, url, renew and more."),
    "routes": ("headway.cli.routes:routes", "Branch routes of a site: get, set."),
    "build": ("headway.cli.builds:build", "Build a git ref into a signed artifact."),
    "builds": ("headway.cli.builds:builds", "Builds: list, get, plan, log."),
    "plan": ("headway.cli.plan:plan", "What a build of a folder would run, and why; nothing runs."),
    "caches": ("headway.cli.caches:caches", "Caches of a site's builds: list, drop."),
    "deploy": ("headway.cli.deploy:deploy", "Put a build, an artifact or a ref onto an environment."),
    "promote": ("headway.cli.deploy:promote", "Put what runs on one environment onto another."),
    "rollback": ("headway.cli.deploy:rollback", "Put an earlier release back."),
    "releases": ("headway.cli.deploy:releases", "Releases: list."),
    "deployments": ("headway.cli.deploy:deployments", "Deployments: list."),
    "policy": ("headway.cli.policy:policy", "Policies: get, set, versions."),
    "logs": ("headway.cli.logs:logs", "Print what the apps of an environment print."),
    "metrics": ("headway.cli.requests:metrics", "Requests of an environment by minute."),
    "request-logs": ("headway.cli.requests:request_logs", "The last requests of an environment."),
    "run": ("headway.cli.run:run", "Run a command once, with what an environment serves."),
    "variables": ("headway.cli.configuration:variables", "Variables: set, list, get, unset, versions."),
    "secrets": ("headway.cli.configuration:secrets", "Secrets: set, list, unset, revoke, versions, rekey."),
    "why": ("headway.cli.why:why", "Say why something is live, from the commit to the switch."),
    "verify": ("headway.cli.verify:verify", "Check an artifact or a release's record, offline."),
    "export": ("headway.cli.export:export", "A site's history in one file that proves itself."),
    "audit": ("headway.cli.audit:audit", "The audit log: list, export, verify."),
    "ledger": ("headway.cli.ledger:ledger", "The ledger: checkpoint, audit."),
    "signing-keys": ("headway.cli.signing_keys:signing_keys", "Signing keys: list, rotate, revoke."),
    "artifacts": ("headway.cli.artifacts:artifacts", "Artifacts: list, get, keep, fetch, verify."),
    "retention": ("headway.cli.retention:retention", "Collection of what nothing needs: run, report."),
    "integrity": ("headway.cli.integrity:integrity", "Damage in the object store: scrub, report, findings."),
    "jobs": ("headway.cli.jobs:jobs", "Jobs: list, get, watch, cancel."),
    "keys": ("headway.cli.keys:keys", "API keys: create, list, get, roll, revoke."),
    "hosts": ("headway.cli.hosts:hosts", "Hosts: list, get, join, labels, accept, remove."),
    "builders": ("headway.cli.builders:builders", "Builders elsewhere: list, get, builds, add, remove."),
    "webhooks": ("headway.cli.webhooks:webhooks", "Webhooks: create, list, test, deliveries, replay …"),
    "notifications": (
        "headway.cli.notifications:notifications",
        "Events for people: create, list, test, deliveries …",
    ),
    "domains": ("headway.cli.domains:domains", "Domains: attach, list, get, verify, update, detach."),
    "hooks": ("headway.cli.hooks:hooks", "Hooks that a forge calls: create, list, delete, calls."),
    "repository": ("headway.cli.repository:repository", "A site's remote: credentials, polling, branches."),
    "forge": ("headway.cli.forge:forge", "Reports to a forge: set, get, delete, reports, retry."),
    "teams": ("headway.cli.teams:teams", "Teams: list, create, get."),
    "members": ("headway.cli.teams:members", "Members of a team: list, add, set-role, remove."),
    "projects": ("headway.cli.teams:projects", "Projects: list, create, get."),
}


class LazyGroup(click.Group):
    """A group whose commands are the lines of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headway")
def cli() -> None:
    """Headway: from a git ref to a live URL, durably, on your own machines."""


def run(arguments: Sequence[str], *, program: str = "headway") -> None:
    """Run the group and exit. An expected failure that no command has rendered is one sentence and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal of before UTF-8 has no `…`, and an argument that is no UTF-8 may come back in a message.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        result: Any = cli.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HeadwayError as error:
        click.echo(f"{program}: {error.message}", err=True)
        sys.exit(1)
    except ValueError as error:
        if (wrong := _wrong_setting(error)) is None:
            raise
        click.echo(f"{program}: {wrong}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno in NO_ROOM:
            click.echo(f"{program}: {error.filename or 'A file'} cannot be written: {error.strerror}.", err=True)
        elif error.errno in NO_PLACE and error.filename is not None:
            click.echo(f"{program}: {error.filename}: {error.strerror}.", err=True)
        else:
            raise
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def _wrong_setting(error: ValueError) -> str | None:
    """What a role says of the environment that it cannot be set up by; never the value, which may be a secret."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError) or error.title != "Settings":
        return None
    first = error.errors()[0]
    return f"The setting {first['loc'][0]} is wrong: {first['msg']}."
