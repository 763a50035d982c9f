"""What every command that talks to the API has in common: its options, its client, its errors."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headway.cli.output import error_document, exit_code, print_error, print_json, say
from headway.cli.profile import Target, find_target
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.client import Client
    from headway.resources import Environment, Job, Site

F = TypeVar("F", bound=Callable[..., Any])
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Session:
    """One run of one command. The client is made when it is first asked for."""

    def __init__(self, target: Target, *, as_json: bool, version: str | None, key: str | None, program: str) -> None:
        self.target = target
        self.as_json = as_json
        self.key = key
        self.program = program
        self._version = version
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            from headway.client import Client

            if self.target.token is None:
                raise HeadwayError(
                    "auth.missing",
                    f"There is no API key for {self.target.api_url}: set HEADWAY_TOKEN, or run `{self.program} login`.",
                )
            self._client = Client(self.target.api_url, self.target.token, version=self._version)
        return self._client

    def site(self, name: str) -> Site:
        return self.client.sites.find(name)

    def place(self, site: str, env: str) -> tuple[Site, Environment]:
        found = self.site(site)
        return found, self.client.environments.find(found.id, env)

    def owner(self, site: str, env: str | None) -> tuple[str, str | None]:
        """The ids of what a site, or one of its environments, holds for itself."""
        if env is None:
            return self.site(site).id, None
        where, found = self.place(site, env)
        return where.id, found.id

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def started(self, job: Job, *, wait: bool, timeout: float | None) -> int:
        """Show a job that a command started, or follow it; the command's exit code."""
        from headway.cli.waiting import follow, show_started

        if wait:
            return follow(self, job.id, timeout=timeout)
        show_started(self, job)
        return 0


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or a number with ms, s, m or h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        unit = next((one for one in _UNITS if text.endswith(one) and text.removesuffix(one)[-1:].isdigit()), "")
        try:
            seconds = float(text.removesuffix(unit)) * _UNITS.get(unit, 1.0)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < 1e7:
            self.fail(f"{text!r} is no duration: write 90, 90s, 5m or 1h.", param, ctx)
        return seconds


def connected(*, starts: bool = False, writes: bool = False) -> Callable[[F], Callable[..., None]]:
    """Give a command its Session, the options that go with it, and the exit code of what it raises or returns.

    `writes` adds --idempotency-key; `starts` adds --wait and --timeout too.
    """

    def decorate(function: F) -> Callable[..., None]:
        @functools.wraps(function)
        def run(
            *args: Any,
            as_json: bool,
            api_url: str | None,
            token: str | None,
            forge_version: str | None,
            **kwargs: Any,
        ) -> None:
            context = click.get_current_context()
            program = context.find_root().info_name or "headway"
            key = kwargs.pop("idempotency_key", None)
            if token:
                say(f"{program}: --token is seen by everybody on this machine: prefer HEADWAY_TOKEN.")
            session: Session | None = None
            try:
                _check_ids(kwargs)
                target = find_target(os.environ, api_url=api_url, token=token)
                session = Session(target, as_json=as_json, version=forge_version, key=key, program=program)
                code = function(session, *args, **kwargs)
            except HeadwayError as error:
                print_error(program, error)
                if as_json:
                    print_json(error_document(error))
                code = exit_code(error)
            except ValueError as error:
                if not _is_odd_answer(error):
                    raise
                odd = HeadwayError("internal.error", "The server's answer is not what this version expects.")
                print_error(program, odd)
                if as_json:
                    print_json(error_document(odd))
                code = exit_code(odd)
            finally:
                if session is not None:
                    session.close()
            context.exit(code or 0)

        for option in reversed(_options(starts=starts, writes=writes)):
            run = option(run)
        return run

    return decorate


def _check_ids(given: dict[str, Any]) -> None:
    """An id is one word: `x/y`, `../y` or `x?y` would be asked for as something else, and deleted as that.

    Raises request.invalid_parameter.
    """
    for name, value in given.items():
        if name.endswith("_id") and isinstance(value, str) and not _ID.fullmatch(value):
            raise HeadwayError("request.invalid_parameter", f"{value[:80]!r} is no id.", param=name)


def _is_odd_answer(error: ValueError) -> bool:
    from pydantic import ValidationError

    return isinstance(error, ValidationError)


def _options(*, starts: bool, writes: bool) -> list[Callable[..., Any]]:
    options = [
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option("--api-url", metavar="URL", help="The server (else HEADWAY_API_URL, or the profile's)."),
        click.option("--token", metavar="KEY", help="An API key. Others can see it: prefer HEADWAY_TOKEN."),
        click.option("--forge-version", metavar="DATE", help="Pin the API to a date."),
    ]
    if starts:
        options = [
            click.option(
                "--wait", is_flag=True, help="Follow the job; exit with 1 if it failed, with 3 if it is held."
            ),
            click.option("--timeout", type=Duration(), help="With --wait: stop waiting after this time (exit 124)."),
            *options,
        ]
    if starts or writes:
        options.append(click.option("--idempotency-key", metavar="TEXT", help="The same key never does it twice."))
    return options


site_option = click.option("--site", required=True, metavar="SLUG|ID", help="The site.")
env_option = click.option("--env", required=True, metavar="SLUG|ID", help="The environment.")
limit_option = click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N, the newest.")
