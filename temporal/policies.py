"""Timeouts and retries by the kind of work. One place, one reason for each unusual number."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from temporalio.common import RetryPolicy

Policy = dict[str, Any]

_QUICK = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=5)
)
_PATIENT = RetryPolicy(initial_interval=timedelta(milliseconds=300), maximum_interval=timedelta(seconds=10))

# A row must be written in the end, however long the database is away: no limit but each try's own.
RECORD: Final[Policy] = {"start_to_close_timeout": timedelta(seconds=20), "retry_policy": _QUICK}

# A question to another room of ours.
CALL: Final[Policy] = {
    "start_to_close_timeout": timedelta(seconds=20),
    "schedule_to_close_timeout": timedelta(minutes=10),
    "retry_policy": _QUICK,
}

# A build beats every second; a builder that is killed is noticed within its heartbeat timeout.
# Eight tries: an outage is waited out; what kills the builder each time (a stranger's code) does not do it for ever.
BUILD: Final[Policy] = {
    "start_to_close_timeout": timedelta(hours=2),
    "heartbeat_timeout": timedelta(seconds=5),
    "schedule_to_start_timeout": timedelta(hours=6),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10), maximum_attempts=8
    ),
}

# A command works on a copy and counts with its end, so that another try harms nothing.
EXEC: Final[Policy] = {
    "start_to_close_timeout": timedelta(minutes=20),
    "heartbeat_timeout": timedelta(seconds=5),
    "schedule_to_start_timeout": timedelta(minutes=10),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=5), maximum_attempts=4
    ),
}

# A signature of one's own is there at once, Sigstore's may take its time: it beats meanwhile.
SIGN: Final[Policy] = {
    "start_to_close_timeout": timedelta(seconds=30),
    "heartbeat_timeout": timedelta(seconds=5),
    "schedule_to_close_timeout": timedelta(minutes=30),
    "retry_policy": _PATIENT,
}

# Placing moves bytes and waits for health: it beats, and starts again from what is already there.
PLACE: Final[Policy] = {
    "start_to_close_timeout": timedelta(minutes=30),
    "heartbeat_timeout": timedelta(seconds=5),
    "schedule_to_close_timeout": timedelta(hours=1),
    "retry_policy": _PATIENT,
}

# A rollout that its host takes up by itself, once: what comes of no host in time, or breaks off, asks for its turn.
TAKE: Final[Policy] = {
    "start_to_close_timeout": timedelta(minutes=30),
    "heartbeat_timeout": timedelta(seconds=5),
    "schedule_to_start_timeout": timedelta(seconds=2),
    "retry_policy": RetryPolicy(maximum_attempts=1),
}

# A bake lasts as long as its environment says (an hour at most); a host that is away for long has not proven anything.
BAKE: Final[Policy] = {
    "start_to_close_timeout": timedelta(minutes=70),
    "heartbeat_timeout": timedelta(seconds=5),
    "schedule_to_close_timeout": timedelta(minutes=90),
    "retry_policy": _PATIENT,
}

# A try has its own bound; what happened is in the row, and a try that is lost is made again.
SEND: Final[Policy] = {"start_to_close_timeout": timedelta(seconds=45), "retry_policy": _PATIENT}

# A report asks a forge several times, each within its own bound; what has arrived is looked for before another try.
REPORT: Final[Policy] = {"start_to_close_timeout": timedelta(seconds=75), "retry_policy": _PATIENT}

# A command is run once: a worker that comes back joins the run, and a host that does not come back ends the job.
# It may wait a quarter of an hour for its turn on the host, then run for one.
COMMAND: Final[Policy] = {
    "start_to_close_timeout": timedelta(minutes=80),
    "heartbeat_timeout": timedelta(seconds=5),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=300), maximum_interval=timedelta(seconds=5)),
}

# The first handshake makes the web server ask an authority, which may take its time or refuse.
CERTIFY: Final[Policy] = {
    "start_to_close_timeout": timedelta(seconds=90),
    "schedule_to_close_timeout": timedelta(minutes=5),
    "retry_policy": RetryPolicy(initial_interval=timedelta(seconds=2), maximum_attempts=3),
}

# What a host that may be away is asked on behalf of many: whoever asks comes again.
ASK: Final[Policy] = {
    "start_to_close_timeout": timedelta(seconds=10),
    "schedule_to_close_timeout": timedelta(seconds=10),
    "retry_policy": _QUICK,
}

# After the point of no return there is no giving up: the host comes back, or an operator ends the run.
SWITCH: Final[Policy] = {
    "start_to_close_timeout": timedelta(seconds=10),
    "retry_policy": _QUICK,
}

# Of several hosts one that does not come to its end is put back, or catches up: nobody waits for it.
SWITCH_ONE: Final[Policy] = {
    "start_to_close_timeout": timedelta(seconds=10),
    "schedule_to_close_timeout": timedelta(seconds=60),
    "retry_policy": _QUICK,
}

# A look at a remote is made again at the next poll, later each time it fails: builds do not wait for it in the queue.
LOOK: Final[Policy] = {
    "start_to_close_timeout": timedelta(seconds=100),
    "schedule_to_start_timeout": timedelta(seconds=60),
    "retry_policy": RetryPolicy(maximum_attempts=1),
}

# Many rows and objects one after the other, each in a transaction of its own: another try goes on where this one was.
SWEEP: Final[Policy] = {
    "start_to_close_timeout": timedelta(minutes=30),
    "schedule_to_close_timeout": timedelta(hours=3),
    "retry_policy": _PATIENT,
}

# A host that has what was lost may be away, and others may have it too: whoever scrubs comes again.
LEND: Final[Policy] = {
    "schedule_to_start_timeout": timedelta(seconds=20),
    "start_to_close_timeout": timedelta(minutes=30),
    "heartbeat_timeout": timedelta(seconds=5),
    "retry_policy": RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3),
}
