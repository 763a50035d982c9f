"""Commands: in a copy of a sandbox, on a builder; in an environment, on its host."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headway.broker.builds import SnapshotSource
from headway.broker.wire import Wire


class ExecSpec(Wire):
    """A command in a copy of a sandbox's tree; `cwd` is relative to it, `timeout` in seconds."""

    job_id: str
    sandbox_id: str
    attempt: int
    command: str
    cwd: str
    env: dict[str, str]
    timeout: int
    snapshot: SnapshotSource


class ExecFile(Wire):
    """A file that the command made or changed: `size` bytes at `offset` of the output's pack."""

    path: str
    mode: Literal["644", "755"]
    size: int = Field(ge=0)
    sha256: str
    offset: int = Field(ge=0)


class ExecOutput(Wire):
    """What a command has done to the tree, and what it said: `stdout` and `stderr` are cut at a limit."""

    attempt: int
    exit_code: int
    duration_ms: int
    limit: str | None
    stdout: str
    stderr: str
    pack: str | None
    pack_size: int = 0
    files: list[ExecFile] = Field(default=[])
    links: list[tuple[str, str]] = Field(default=[])
    removed: list[str] = Field(default=[])


class CommandSpec(Wire):
    """A one-off command with the placed release `seq`; `timeout` in seconds.

    `given`: how many bytes it finds on its standard input; None: nothing is to be fetched.
    """

    job_id: str
    env_id: str
    seq: int
    command: str
    timeout: int
    given: int | None = None


class WantedInput(Wire):
    """From which byte of a command's input on. Who asks for its end has all of it: it is forgotten."""

    start: int = Field(ge=0)


class InputPart(Wire):
    """Base64, empty at the end."""

    data: str
