"""What a publish request says over detection: services and files, and back."""

from __future__ import annotations

import pytest

from activities.producing.overrides import overridden
from adapters.artifact.run import HealthCheck, RunSettings
from adapters.plan.plan import OUTPUTS, Plan
from headway.broker import BuildOverrides
from headway.errors import HeadwayError

FILES = Plan(profile="static", source="tree", command=None, outputs=("",))
APP = Plan(
    profile="dynamic",
    source="package.json",
    command="npm run build",
    outputs=("",),
    run=RunSettings(command="node server.js", port=3000, health=HealthCheck(path="/ready", passes=2)),
)


def test_nothing_said_changes_nothing() -> None:
    assert overridden(APP, None) is APP


def test_a_run_command_makes_a_service_of_any_tree() -> None:
    plan = overridden(FILES, BuildOverrides(run_command="python3 app.py", port=9000, health_check_path="/up"))
    assert (plan.profile, plan.source, plan.outputs) == ("dynamic", "request", ("",))
    assert plan.run is not None
    assert (plan.run.command, plan.run.port) == ("python3 app.py", 9000)
    # A publish is healthy by 2xx alone.
    assert (plan.run.health.path, plan.run.health.low, plan.run.health.high) == ("/up", 200, 299)


def test_what_is_not_said_stays_as_it_was_detected() -> None:
    plan = overridden(APP, BuildOverrides(kind="dynamic"))
    assert plan.run is not None
    assert (plan.run.command, plan.run.port, plan.run.health.path) == ("node server.js", 3000, "/ready")
    assert (plan.run.health.passes, plan.command, plan.source) == (2, "npm run build", "package.json")


def test_a_command_may_change_a_tree_in_place() -> None:
    plan = overridden(FILES, BuildOverrides(build_command="make"))
    assert (plan.command, plan.outputs) == ("make", (*OUTPUTS, ""))


def test_a_service_without_a_command_is_refused_by_its_parameter() -> None:
    with pytest.raises(HeadwayError) as caught:
        overridden(FILES, BuildOverrides(kind="dynamic"))
    assert (caught.value.code, caught.value.param) == ("build.config_invalid", "run_command")


def test_static_publishes_files_of_what_could_run() -> None:
    plan = overridden(APP, BuildOverrides(kind="static"))
    assert (plan.profile, plan.run, plan.outputs) == ("static", None, OUTPUTS)
    assert overridden(APP, BuildOverrides(kind="static", output="site")).outputs == ("site",)
