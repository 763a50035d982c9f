"""What a publish request says over detection: services and files, and back."""

from __future__ import annotations

import pytest

from activities.producing.overrides import overridden, said_of
from adapters.artifact.run import HealthCheck, RunSettings
from adapters.plan.plan import OUTPUTS, Plan
from headway.broker import BuildOverrides
from headway.errors import HeadwayError
from tests.unit.plans.test_plans import plan as planned
from tests.unit.plans.trees import FLASK, Tree

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


@pytest.mark.parametrize(
    "tree",
    [
        {"app.py": FLASK, "requirements.txt": "flask\n"},
        {"main.py": "serve()", "requirements.txt": "python-fasthtml\n"},
        {"composer.json": "{}", "index.php": "x"},
    ],
)
def test_what_a_request_says_is_not_missed_in_the_tree(tree: Tree) -> None:
    said = BuildOverrides(run_command="python3 main.py", port=8000)
    plan = overridden(planned(tree, said=said_of(said)), said)
    assert plan.run is not None
    assert (plan.profile, plan.source, plan.run.port) == ("dynamic", "request", 8000)
    assert plan.run.command.endswith("exec python3 main.py")
    assert ("requirements.txt" in (plan.install or "")) == ("requirements.txt" in tree)
    said = BuildOverrides(kind="static", build_command="make", output="out")
    plan = overridden(planned(tree, said=said_of(said)), said)
    assert (plan.profile, plan.command, plan.outputs) == ("static", "make", ("out",))
    for said in (BuildOverrides(), BuildOverrides(kind="static")):
        with pytest.raises(HeadwayError, match=r"\[run\]"):
            planned(tree, said=said_of(said))


def test_a_requests_command_finds_the_programs_that_were_installed() -> None:
    said = BuildOverrides(run_command="gunicorn --bind 0.0.0.0:8000 app:app")
    plan = overridden(planned({"app.py": FLASK, "requirements.txt": "gunicorn\n"}, said=said_of(said)), said)
    assert plan.run is not None
    assert plan.run.command.startswith('export PATH="$PWD/.headway/site-packages/bin:$PATH"')
    assert plan.run.command.endswith("; exec gunicorn --bind 0.0.0.0:8000 app:app")
