"""A one-off command on its host: only who asks for it ends it, and what it was given goes when it is over."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities.running import Commands
from adapters.hosting.turns import Turns
from headway.broker import CommandSpec, Heard, InputPart
from headway.errors import HeadwayError
from temporal.messages import CommandOrder

JOB = "job_01TESTTESTTESTTESTTESTTEST"
GIVEN = b"rows of a database"


class Broker:
    def begin_command(self, job_id: str) -> CommandSpec:
        return CommandSpec(job_id=job_id, env_id="env_1", seq=1, command="restore", timeout=60, given=len(GIVEN))

    def command_input(self, _job_id: str, start: int) -> InputPart:
        return InputPart(data=base64.b64encode(GIVEN[start:]).decode())

    def append(self, *_args: Any, **_named: Any) -> Heard:
        return Heard(cancel=False)


class Services:
    """Runs a command as the drivers do: until it has ended, or somebody wants its end."""

    def __init__(self, inputs: Path, during: Callable[[], None]) -> None:
        self.folders = SimpleNamespace(inputs=inputs)
        self._during = during
        self.killed = False

    def knows_command(self, *_ref: Any) -> bool:
        return False

    def run_command(self, *args: Any) -> int:
        canceled, hear, given = args[5:8]
        assert given.read_bytes() == GIVEN
        self._during()
        hear(lambda _after: [])
        self.killed = canceled()
        if self.killed:
            raise HeadwayError("job.canceled", "The command was canceled while it ran.")
        return 0


@dataclasses.dataclass
class Host:
    services: Services
    commands: Commands
    left: Callable[[], list[Path]]


def host(folder: Path, during: Callable[[], None] = lambda: None) -> Host:
    services = Services(folder / "inputs", during)
    commands = Commands("local", Broker(), services, Turns())  # type: ignore[arg-type]
    return Host(services, commands, lambda: list(services.folders.inputs.iterdir()))


def run(host: Host, environment: ActivityEnvironment) -> Any:
    return environment.run(host.commands.run_command, CommandOrder(JOB, ("local",), 60))


@pytest.mark.parametrize("why", ["worker_shutdown", "timed_out", "not_found", "paused", "reset"])
def test_a_worker_that_goes_leaves_the_command_and_its_input_to_the_next(tmp_path: Path, why: str) -> None:
    environment = ActivityEnvironment()
    over = ActivityCancellationDetails(**{why: True})
    made = host(tmp_path, lambda: environment.cancel(cancellation_details=over))
    with pytest.raises(ApplicationError) as caught:
        run(made, environment)
    assert (made.services.killed, caught.value.non_retryable) == (False, False)
    assert [path.read_bytes() for path in made.left()] == [GIVEN]
    assert run(host(tmp_path), ActivityEnvironment()).exit_code == 0
    assert made.left() == []


def test_a_canceled_command_is_ended_and_nobody_keeps_what_it_was_given(tmp_path: Path) -> None:
    environment = ActivityEnvironment()
    made = host(tmp_path, environment.cancel)
    with pytest.raises(ApplicationError) as caught:
        run(made, environment)
    assert (caught.value.type, made.services.killed, made.left()) == ("job.canceled", True, [])


def test_one_that_is_canceled_on_its_way_leaves_nothing(tmp_path: Path) -> None:
    environment, made = ActivityEnvironment(), host(tmp_path)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / JOB).write_bytes(GIVEN[:3])
    environment.cancel()
    with pytest.raises(CancelledError):
        run(made, environment)
    assert made.left() == []


@pytest.mark.parametrize(("code", "attempt"), [("release.none", 1), ("runtime.unavailable", 1), ("roll.disk_floor", 2)])
def test_what_a_command_was_given_goes_with_its_failure(tmp_path: Path, code: str, attempt: int) -> None:
    def fail() -> None:
        raise HeadwayError(code, "It did not run.")

    environment, made = ActivityEnvironment(), host(tmp_path, fail)
    environment.info = dataclasses.replace(environment.info, attempt=attempt)
    with pytest.raises(ApplicationError) as caught:
        run(made, environment)
    assert (caught.value.type, caught.value.non_retryable, made.left()) == (code, True, [])


class Runs(Services):
    """A command that goes on, whoever asked for it."""

    def __init__(self, inputs: Path) -> None:
        super().__init__(inputs, lambda: None)
        self.going: dict[str, str] = {JOB: "ref"}

    def running_commands(self) -> dict[str, str]:
        return dict(self.going)

    def end_command(self, ref: str) -> None:
        self.going = {job: one for job, one in self.going.items() if one != ref}


class Says(Broker):
    def __init__(self, code: str) -> None:
        self.code = code

    def begin_command(self, job_id: str) -> CommandSpec:
        if self.code:
            raise HeadwayError(self.code, "No.")
        return super().begin_command(job_id)


@pytest.mark.parametrize(
    ("code", "goes_on"),
    [("", True), ("service.unavailable", True), ("job.canceled", False), ("attempt.stale", False)],
)
def test_a_command_ends_with_its_job_though_no_worker_was_there_to_hear_of_it(
    tmp_path: Path, code: str, *, goes_on: bool
) -> None:
    (tmp_path / JOB).write_bytes(GIVEN)
    services = Runs(tmp_path)
    Commands("local", Says(code), services, Turns()).end_unwanted()  # type: ignore[arg-type]
    assert (JOB in services.going, (tmp_path / JOB).exists()) == (goes_on, goes_on)


def test_what_a_worker_is_at_it_ends_itself(tmp_path: Path) -> None:
    services = Runs(tmp_path / "inputs")
    broker = Says("")
    commands = Commands("local", broker, services, Turns())  # type: ignore[arg-type]

    def during() -> None:
        broker.code = "job.canceled"
        commands.end_unwanted()

    services._during = during
    run(Host(services, commands, list), ActivityEnvironment())
    assert services.going
    commands.end_unwanted()
    assert not services.going
