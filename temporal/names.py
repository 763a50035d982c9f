"""Names that histories and other processes rely on: queues, workflow ids, search attributes."""

from __future__ import annotations

from typing import Final, Literal

CONTROL: Final = "control"
BUILDERS: Final = "builders"
SIGNING: Final = "signing"
# What waits for other people's servers: a receiver that never answers holds back nothing of the platform's own.
OUTSIDE: Final = "control/outside"
OUTSIDERS: Final = frozenset({"webhook.deliver", "forge.report", "domain.verify"})


# What may take long has a queue of its own on a host, so that a way back, a switch or a fence never waits behind it.
Lane = Literal["starts", "bakes", "commands", "asides"]
LANE_OF: Final[dict[str, Lane]] = {
    "host.bake": "bakes",
    "host.run": "commands",
    "host.certify": "asides",
    "host.mend": "asides",
}


def host_queue(host_id: str, lane: Lane | None = None) -> str:
    """The queue of one serving machine, or one of those beside it."""
    return f"host/{host_id}/{lane}" if lane else f"host/{host_id}"


def placing_queue(host_id: str, kind: str) -> str:
    """Where a rollout of that kind is placed: what starts something new may wait long for it to be healthy."""
    return host_queue(host_id, None if kind in ("rollback", "suspend") else "starts")


def delivery_workflow(delivery_id: str) -> str:
    """One event on its way to one webhook."""
    return f"delivery/{delivery_id}"


def report_workflow(report_id: str) -> str:
    """What a forge should show of one subject."""
    return f"report/{report_id}"


RECONCILE_WORKFLOW: Final = "reconcile"
RETENTION_WORKFLOW: Final = "retention"
RETENTION_SCHEDULE: Final = "retention"
POLL_WORKFLOW: Final = "poll"
SCRUB_WORKFLOW: Final = "scrub"
SCRUB_SCHEDULE: Final = "scrub"
# In place of a job's id: only what hosts have lost contents of is read.
SUSPECTS: Final = "suspects"

# workflow types, as an operator reads them in the Temporal UI
BUILD: Final = "Build"
ROLL: Final = "Roll"
PROMOTE: Final = "Promote"
ROLLBACK: Final = "Rollback"
STOP: Final = "Stop"
PUSH: Final = "Push"
PROVISION: Final = "Provision"
PROTECT: Final = "Protect"
RETIRE: Final = "Retire"
RECONCILE: Final = "Reconcile"
POLL: Final = "Poll"
EXEC: Final = "Exec"
DELIVER: Final = "Deliver"
REPORT: Final = "Report"
RUN: Final = "Run"
ATTACH: Final = "Attach"
DETACH: Final = "Detach"
RETENTION: Final = "Retention"
SCRUB: Final = "Scrub"
RESTART: Final = "Restart"
SCALE: Final = "Scale"
SUSPEND: Final = "Suspend"
RESUME: Final = "Resume"
REPAIR: Final = "Repair"

# Your turn may have come: a rollout that waits looks at the rows again. Losing it only delays.
TURN: Final = "turn"
# What a forge should show has changed: whoever waits for his next try makes it now. Losing it only delays.
NEWS: Final = "news"

SITE_ATTRIBUTE: Final = "HeadwaySite"
ENVIRONMENT_ATTRIBUTE: Final = "HeadwayEnvironment"
JOB_TYPE_ATTRIBUTE: Final = "HeadwayJobType"
COMMIT_ATTRIBUTE: Final = "HeadwayCommit"
DIGEST_ATTRIBUTE: Final = "HeadwayDigest"
