"""`python -m headway.supervisor MODE DATA_DIR [LOCK_FD [PROGRESS_FD]]`; MODE is foreground, detached or twin.

`headway up` becomes or starts it with the lock in hand; a standby (twin) waits for the lock itself.
"""

from __future__ import annotations

import fcntl
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    os.umask(0o077)
    if arguments[0] == "twin":
        _wait(arguments[1])
    # Imported only now: a standby that waits, mostly for ever, stays as small as an interpreter can be.
    import ctypes
    from pathlib import Path

    from headway.errors import HeadwayError
    from headway.supervisor import tenure
    from headway.supervisor.folder import Folder
    from headway.supervisor.plan import Plan
    from headway.supervisor.progress import Progress
    from headway.supervisor.supervise import Supervisor
    from headway.supervisor.twin import TWIN, Twin

    mode, folder = arguments[0], Folder(Path(arguments[1]))
    resumed, caller = False, None
    if mode == TWIN:
        resumed = tenure.succeed(folder)
    else:
        # The lock comes from `up`; components must not inherit it.
        os.set_inheritable(int(arguments[2]), False)
        if len(arguments) > 3:
            caller = int(arguments[3])
            os.set_inheritable(caller, False)
        tenure.register(folder, mode, successions=[])
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    progress = Progress(folder.log(tenure.SUPERVISOR), caller, detached=mode != tenure.FOREGROUND)
    try:
        plan = Plan.read(folder)
        supervisor = Supervisor(folder, plan, progress, Twin(folder, dict(os.environ)), resumed=resumed)
        outcome = supervisor.run()
    except HeadwayError as error:
        progress.complain(f"headway: {error.message}")
        return 1
    if outcome == "failed":
        progress.complain(f"headway: {supervisor.failure}")
    return 1 if outcome == "failed" else 0


def _wait(data_dir: str) -> None:
    """Until the supervisor's lock is ours; it is held until this process ends."""
    lock = os.open(f"{data_dir}/run/supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
