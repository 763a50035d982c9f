"""Every story, for the worker and for replays."""

from __future__ import annotations

from workflows.build import Build
from workflows.deliver import Deliver
from workflows.domains import Attach, Detach
from workflows.exec import Exec
from workflows.lifecycle import Repair, Restart, Resume, Scale, Suspend
from workflows.poll import Poll
from workflows.promote import Promote
from workflows.protect import Protect
from workflows.provision import Provision
from workflows.push import Push
from workflows.reconcile import Reconcile
from workflows.report import Report
from workflows.retention import Retention
from workflows.retire import Retire
from workflows.roll import Roll
from workflows.rollback import Rollback
from workflows.run import Run
from workflows.scrub import Scrub
from workflows.stop import Stop

ALL = (
    Attach,
    Build,
    Deliver,
    Detach,
    Exec,
    Poll,
    Promote,
    Protect,
    Provision,
    Push,
    Reconcile,
    Repair,
    Report,
    Restart,
    Resume,
    Retention,
    Retire,
    Roll,
    Rollback,
    Run,
    Scale,
    Scrub,
    Stop,
    Suspend,
)
