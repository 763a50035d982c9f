"""What a request says over detection: the one place where a build's overrides change its plan.

`command` and `output` are static's; `run_command`, `port`, `health_check_path` are for the builder of dynamic
artifacts to read.
"""

from __future__ import annotations

from dataclasses import replace

from adapters.plan.plan import OUTPUTS, Plan
from headway.broker import BuildOverrides
from headway.errors import HeadwayError


def overridden(plan: Plan, said: BuildOverrides | None) -> Plan:
    """The plan with what the request says. Raises build.config_invalid for what this builder does not make."""
    if said is None:
        return plan
    if said.kind == "dynamic":
        raise HeadwayError("build.config_invalid", "This builder makes static artifacts only.", param="kind")
    command, outputs, source = plan.command, plan.outputs, plan.source
    if said.build_command is not None:
        command, source = said.build_command.strip() or None, "request"
        if outputs == ("",) and command is not None:
            outputs = OUTPUTS
        if command is None and outputs == OUTPUTS:
            outputs = ("",)
    if said.output is not None:
        outputs, source = (said.output,), "request"
    return replace(plan, command=command, outputs=outputs, source=source)
