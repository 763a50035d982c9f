"""What a request says over detection: the one place where a build's overrides change its plan."""

from __future__ import annotations

from dataclasses import replace

from adapters.artifact.run import HealthCheck, RunSettings
from adapters.plan.detect import REQUEST, Said
from adapters.plan.plan import OUTPUTS, Plan
from headway.broker import BuildOverrides
from headway.errors import HeadwayError


def said_of(said: BuildOverrides | None) -> Said:
    """What detection need not find."""
    if said is None:
        return Said()
    publishes = any(one is not None for one in (said.build_command, said.output, said.entrypoint))
    return Said(said.run_command if said.kind != "static" else None, publishes)


def overridden(plan: Plan, said: BuildOverrides | None) -> Plan:
    """The plan with what the request says. Raises build.config_invalid for a service without a command."""
    if said is None:
        return plan
    serves = said.kind == "dynamic" or (said.kind == "auto" and (plan.run is not None or bool(said.run_command)))
    return _service(plan, said) if serves else _files(plan, said)


def _files(plan: Plan, said: BuildOverrides) -> Plan:
    command, outputs, source = plan.command, plan.outputs, plan.source
    if plan.run is not None and said.output is None:
        outputs = OUTPUTS if command else ("",)
    if said.build_command is not None:
        command, source = said.build_command.strip() or None, "request"
        if outputs == ("",) and command is not None:
            # The tree itself is the contract's default: a command may as well change pages in place.
            outputs = (*OUTPUTS, "")
        if command is None and outputs == OUTPUTS:
            outputs = ("",)
    if said.output is not None:
        outputs, source = (said.output,), "request"
    return replace(plan, profile="static", run=None, command=command, outputs=outputs, source=source)


def _service(plan: Plan, said: BuildOverrides) -> Plan:
    """What the request names wins over what the tree says; a publish is healthy by 2xx alone (miosa contract)."""
    known = plan.run or RunSettings(command="")
    run = replace(
        known,
        command=(known.command if plan.source == REQUEST else said.run_command or known.command).strip(),
        port=said.port or known.port,
        health=HealthCheck(
            path=said.health_check_path or known.health.path,
            low=200,
            high=299,
            passes=known.health.passes,
            interval_ms=known.health.interval_ms,
            timeout=known.health.timeout,
        ),
    )
    if not run.command:
        message = "A dynamic publish needs a run command: none was given, and none was found in the tree."
        raise HeadwayError("build.config_invalid", message, param="run_command")
    command = plan.command if said.build_command is None else said.build_command.strip() or None
    outputs = (said.output,) if said.output is not None else (plan.outputs if plan.run is not None else ("",))
    source = plan.source if (said.run_command, said.build_command, said.output) == (None, None, None) else "request"
    return replace(plan, profile="dynamic", run=run, command=command, outputs=outputs, source=source)
